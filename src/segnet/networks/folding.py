"""Full-resolution layers of few channels, computed on a GPU at half the resolution with four times the channels.

A convolution of 16 channels leaves most of a GPU's matrix units idle: at 480×480 it takes longer than one of 64
channels at 240×240, which does four times the arithmetic. So a map (N, C, H, W) is folded into (N, 4 C, H/2, W/2), the
four pixels of every 2×2 window side by side: channel ``(2 · row + column) · C + c``. A 3×3 convolution of the map is
then a 3×3 convolution of the folded map, whose weights hold each of the nine taps once for each of the four pixels, and
zeros. Pooling takes the greatest of four neighbours in memory. Nothing else changes: same parameters, same function.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.networks.pooling import kernels_for

WIDEST = 16  # channels; measured on an H100: with 32, four times the arithmetic takes what it saves
ALIGNED = 8  # channels of a bfloat16 row that tensor cores load at once


def pays(x: Tensor, layers: Iterable[nn.Module]) -> bool:
    """Whether to fold: on a GPU, in 16 bits, even sides, odd square kernels of few channels.

    Of channels between two layers there must be an even number: `convolve` pads its result, which only the last layer's
    may be.
    """
    if kernels_for(x) is None or x.shape[-2] % 2 or x.shape[-1] % 2:
        return False
    if x.element_size() != 2 and not torch.is_autocast_enabled(x.device.type):
        return False
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    if any(type(conv) is not nn.Conv2d for conv in convs):  # which may compute otherwise
        return False
    return all(_foldable(conv) for conv in convs) and all(4 * conv.out_channels % ALIGNED == 0 for conv in convs[:-1])


def _foldable(conv: nn.Conv2d) -> bool:
    side = conv.kernel_size[0]
    usual = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    same = conv.kernel_size == (side, side) and side % 2 == 1 and conv.padding == (side // 2, side // 2)
    return usual and same and max(conv.in_channels, conv.out_channels) <= WIDEST


def fold(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, 4 C', H/2, W/2) channels-last; C' is C and zeros up to a multiple of two."""
    n, c, height, width = x.shape
    rows = F.pad(x.permute(0, 2, 3, 1), (0, c % 2))
    windows = rows.view(n, height // 2, 2, width // 2, 2, c + c % 2).transpose(2, 3)
    return windows.reshape(n, height // 2, width // 2, -1).permute(0, 3, 1, 2)


def unfold(x: Tensor, channels: int) -> Tensor:
    """(N, at least 4 C, h, w) to (N, C, 2 h, 2 w) channels-last."""
    n, _, h, w = x.shape
    windows = x.permute(0, 2, 3, 1)[..., : 4 * channels].reshape(n, h, w, 2, 2, channels).transpose(2, 3)
    return windows.reshape(n, 2 * h, 2 * w, channels).permute(0, 3, 1, 2)


def convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """The convolution of a folded map, as a folded map; output channels are padded with zeros to a multiple of 8."""
    out = conv.out_channels
    padded = -(-4 * out // ALIGNED) * ALIGNED
    weight: Tensor = _FoldedWeight.apply(conv.weight, x.shape[1] // 4, padded)  # type: ignore[no-untyped-call]
    bias = None if conv.bias is None else F.pad(conv.bias.repeat(4), (0, padded - 4 * out))
    return F.conv2d(x, weight, bias, padding=(weight.shape[-1] // 2, weight.shape[-1] // 2))


class _FoldedWeight(torch.autograd.Function):
    """(O, I, K, K) to (``padded``, 4 ``into``, K', K') channels-last; every weight occurs four times."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, into: int, padded: int) -> Tensor:
        out, _, side, _ = weight.shape
        forth, back = _positions(out, weight.shape[1], side, into, padded, weight.device)
        ctx.back, ctx.size = back, weight.shape
        taps = F.pad(weight.contiguous().flatten(), (0, 1))  # the last one is the zero
        reach = (side // 2 + 1) // 2
        folded = taps.index_select(0, forth).view(padded, 2 * reach + 1, 2 * reach + 1, 4 * into)
        return folded.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        flat = gradient.permute(0, 2, 3, 1).contiguous().flatten()
        return flat.index_select(0, ctx.back).view(*ctx.size, 4).sum(-1), None, None


@cache
def _positions(
    out: int, channels: int, side: int, into: int, padded: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Where each folded weight is among the plain ones (their number where it is zero), and where each plain one went.

    A pixel (a, b) of a window and a tap (i, j) meet row ``a + i - side // 2`` counted from the window's first: pixel
    ``c`` of the window ``r`` windows below, and so for columns.
    """
    centre = side // 2
    reach = (centre + 1) // 2
    wide = 2 * reach + 1
    forth = torch.full((padded, wide, wide, 4 * into), out * channels * side * side)
    back = torch.empty(out, channels, side, side, 4, dtype=torch.int64)
    plain = torch.arange(out * channels * side * side).view(out, channels, side, side)
    where = torch.arange(forth.numel()).view_as(forth)
    for pixel in range(4):
        for i in range(side):
            for j in range(side):
                down, row = divmod(pixel // 2 + i - centre, 2)
                right, column = divmod(pixel % 2 + j - centre, 2)
                outputs = slice(pixel * out, (pixel + 1) * out)
                inputs = slice((2 * row + column) * into, (2 * row + column) * into + channels)
                forth[outputs, down + reach, right + reach, inputs] = plain[:, :, i, j]
                back[:, :, i, j, pixel] = where[outputs, down + reach, right + reach, inputs]
    return forth.flatten().to(device), back.flatten().to(device)
