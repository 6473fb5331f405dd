"""The pooling and unpooling of exported networks: operators that every runtime on a device has.

ONNX's MaxUnpool and ScatterND are what these lack (TensorRT, LiteRT and ExecuTorch have no unpooling, OpenVINO's
scatter is slow). So the encoder hands the decoder three masks a window instead of indices, float zeros and ones:
whether the maximum is in the lower row, and whether it is on the right of the upper and of the lower row. Slices with
a step of two, maxima and differences make them; products and a pixel shuffle put the values back. The result equals
that of `segnet.networks.pooling`, ties included: the upper row and the left column win, which is the first maximum in
row-major order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Masks = tuple[Tensor, Tensor, Tensor]


def pool(x: Tensor) -> tuple[Tensor, Masks]:
    """Pool 2×2 windows; an odd last row or column is left out.

    Args:
        x: (N, C, H, W) float, finite; H and W of at least 2.

    Returns:
        maxima (N, C, H // 2, W // 2), and masks of the same shape and dtype.
    """
    upper, lower = x[..., :-1:2, :], x[..., 1::2, :]
    a, b = upper[..., :-1:2], upper[..., 1::2]
    c, d = lower[..., :-1:2], lower[..., 1::2]
    above, below = torch.maximum(a, b), torch.maximum(c, d)
    return torch.maximum(above, below), (_less(above, below), _less(a, b), _less(c, d))


def _less(x: Tensor, y: Tensor) -> Tensor:
    """1 where x < y, else 0. A comparison gives booleans, which runtimes compute apart from the rest or not at all."""
    return (y - x).clamp(0.0, 1.0).ceil()


def unpool(x: Tensor, masks: Masks, size: tuple[int, int]) -> Tensor:
    """Put every value of ``x`` (N, C, h, w) back where its window's maximum was; zero elsewhere: (N, C, *size)."""
    bottom, upper_right, lower_right = masks
    below = x * bottom
    above = x - below
    b, d = above * upper_right, below * lower_right
    windows = torch.stack([above - b, b, below - d, d], 2).flatten(1, 2)
    values = F.pixel_shuffle(windows, 2)
    odd = (0, size[1] % 2, 0, size[0] % 2)  # of a dynamic size a torch.SymInt, known when the program runs
    return values if all(type(side) is int and side == 0 for side in odd) else F.pad(values, odd)
