"""The network as the exporters see it: resizing, normalisation, network, resizing back, probabilities; no branch."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.deployment.form import Form
from segnet.training.module import SegmentationModule

Resize = Callable[[Tensor, tuple[int, int]], Tensor]


class Portable(nn.Module):
    """`SegmentationModule.forward` with the probabilities, for the exporters.

    Args:
        module: the trained module; its parts are shared, not copied.
        form: what the file takes and gives. Of one size the weights of resizing are constants.
        resize: of images of any size: `segnet.data.images.resize_exact` or `resize_by_products`.
    """

    mean: Tensor
    std: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, module: SegmentationModule, form: Form, resize: Resize) -> None:
        super().__init__()
        self.net, self.size, self.form, self.resize = module.net, module.image_size, form, resize
        self.binary = len(module.classes) == 1
        self.register_buffer("mean", module.mean)
        self.register_buffer("std", module.std)
        self.example = form.example(*module.image_size)
        self.whole = form.outside or form.size == self.size  # nothing is resized
        if form.size and not self.whole:
            for name, side, out in zip(("rows", "columns"), form.size, self.size, strict=True):
                self.register_buffer(name, triangle(side, out))

    def forward(self, images: Tensor) -> Tensor:
        """Images as the form says to float32 probabilities of their size."""
        x = images if self.form.layout == "nchw" else images.permute(0, 3, 1, 2)
        size = (x.shape[-2], x.shape[-1])
        if not self.form.outside:
            x = (self._resized(x) / 255 - self.mean) / self.std
        logits = self.net(x)
        if not self.whole:
            logits = F.interpolate(logits, size, mode="bilinear")
        p: Tensor = logits.sigmoid() if self.binary else logits.softmax(1)
        return p if self.form.layout == "nchw" else p.permute(0, 2, 3, 1)

    def _resized(self, images: Tensor) -> Tensor:
        if self.whole:
            return images.float()
        if self.form.size:
            return self.rows @ (images.float() @ self.columns.mT)
        return self.resize(images, self.size)


def resize_by_products(images: Tensor, size: tuple[int, int]) -> Tensor:
    """`data.images.resize_exact` as two matrix products: ONNX Runtime's antialiased Resize rounds its weights."""
    rows, columns = (triangle(side, out) for side, out in zip(images.shape[-2:], size, strict=True))
    return rows @ images.float() @ columns.mT


def triangle(size: int, out: int) -> Tensor:
    """Weights float32 (out, size) of bilinear resizing with antialiasing along one side."""
    scale = size / out
    centres = (torch.arange(out, dtype=torch.float64) + 0.5) * scale - 0.5
    distance = (torch.arange(size, dtype=torch.float64) - centres[:, None]).abs()
    support: float = torch.sym_max(scale, 1.0)  # type: ignore[assignment]
    weights = (1 - distance / support).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).float()
