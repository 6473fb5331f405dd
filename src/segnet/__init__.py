"""SegNet on PyTorch Lightning, configured with Hydra, reviewed in TensorBoard."""

__version__ = "0.1.0"
