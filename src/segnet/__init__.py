"""SegNet on PyTorch Lightning, configured with Hydra, reviewed in TensorBoard."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segnet.deployment import Predictor as Predictor
    from segnet.networks import SegNet as SegNet
    from segnet.training import load_module as load_module

__version__ = "0.1.0"
# Where each name lives; it is imported when it is first asked for, since torch comes with it (PEP 562).
_HOMES = {"SegNet": "segnet.networks", "load_module": "segnet.training", "Predictor": "segnet.deployment"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
