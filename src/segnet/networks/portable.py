"""The pooling and unpooling of exported networks: operators that every runtime on a device has.

ONNX's MaxUnpool and ScatterND are what these lack (TensorRT, LiteRT and ExecuTorch have no unpooling, OpenVINO's
scatter is slow). So the encoder hands the decoder three masks a window instead of indices, float zeros and ones:
whether the first, the second and the third value are less than the maximum. Slices with a step of two and differences
make them; products and a pixel shuffle put the values back. The result equals that of `segnet.networks.pooling`, ties
included: the first maximum in row-major order wins.
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
    greatest = F.max_pool2d(x, 2)
    upper, lower = x[..., :-1:2, :], x[..., 1::2, :]
    first, second, third = upper[..., :-1:2], upper[..., 1::2], lower[..., :-1:2]
    return greatest, (_less(first, greatest), _less(second, greatest), _less(third, greatest))


def _less(x: Tensor, y: Tensor) -> Tensor:
    """1 where x < y, else 0. A comparison gives booleans, which runtimes compute apart from the rest or not at all."""
    return (y - x).clamp(0.0, 1.0).ceil()


def unpool(x: Tensor, masks: Masks, size: tuple[int, int]) -> Tensor:
    """Put every value of ``x`` (N, C, h, w) back where its window's maximum was; zero elsewhere: (N, C, *size)."""
    values = []
    for less in masks:
        others = x * less  # not zero where the maximum comes later
        values.append(x - others)
        x = others
    windows = torch.stack([*values, x], 2).flatten(1, 2)
    spread = F.pixel_shuffle(windows, 2)
    odd = (0, size[1] % 2, 0, size[0] % 2)  # of a dynamic size a torch.SymInt, known when the program runs
    return spread if all(type(side) is int and side == 0 for side in odd) else F.pad(spread, odd)
