"""2×2 max pooling that remembers where each maximum was, and the unpooling that puts values back there.

The pair equals ``F.max_pool2d(x, 2, return_indices=True)`` and ``F.max_unpool2d`` in outputs and gradients,
ties included (the first maximum in row-major order wins). It differs in what it stores: one ``uint8`` code per
window instead of one ``int64`` index, an eighth of the bytes, and it needs no kernel without a deterministic
form, so it runs under ``torch.use_deterministic_algorithms(True)``, which stock ``max_unpool2d`` does not.

Code of a window: ``0 1 / 2 3``, that is ``2 * row + column`` of its maximum.

Source: Badrinarayanan, Kendall, Cipolla, "SegNet", IEEE TPAMI 2017, section 3.1 (2 bits per 2×2 window).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def max_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pool 2×2 windows; an odd last row or column is left out, as in torch.

    Args:
        x: (N, C, H, W) float, any memory format.

    Returns:
        maxima (N, C, H // 2, W // 2), dtype of ``x``; codes of the same shape, uint8 in 0..3.
    """
    if torch.compiler.is_exporting():  # an exported program gets the standard operators
        return F.max_pool2d(x, 2, return_indices=True)
    if torch.is_grad_enabled() and x.requires_grad:
        pooled: tuple[Tensor, Tensor] = _MaxPool.apply(x)  # type: ignore[no-untyped-call]
        return pooled
    return _pool(x)


def max_unpool(x: Tensor, code: Tensor, size: tuple[int, int]) -> Tensor:
    """Put every value of ``x`` back at the place its code names; zero elsewhere.

    Args:
        x: (N, C, h, w) float.
        code: (N, C, h, w) uint8, from `max_pool`.
        size: (H, W) of the map that was pooled, so that odd sizes come back whole.

    Returns:
        (N, C, H, W), dtype of ``x``.
    """
    if torch.compiler.is_exporting():
        return F.max_unpool2d(x, code, (2, 2), output_size=size)
    if torch.is_grad_enabled() and x.requires_grad:
        unpooled: Tensor = _MaxUnpool.apply(x, code, size)  # type: ignore[no-untyped-call]
        return unpooled
    return _scatter(x, code, size)


# The kernels below work on the bits of NHWC rows: integer masks instead of comparisons and selections, which
# torch's CPU kernels run several times slower. Every window has exactly one place, so no bit is ever mixed.
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Stock maxima; their int64 indices, narrowed to codes, are forgotten at once."""
    maxima, index = F.max_pool2d(x, 2, return_indices=True)
    index = index.permute(0, 2, 3, 1)
    height, width = index.shape[1:3]
    row = torch.arange(height, device=x.device)[:, None, None] * (2 * x.shape[-1])
    corner = row + torch.arange(width, device=x.device)[:, None] * 2
    # Distance from the window's upper left corner: 0, 1, W or W + 1. The low 16 bits are enough to tell.
    offset = index.reshape(-1).view(torch.int16)[::4].view(index.shape) - corner.to(torch.int16)
    low = (offset >> 1).clamp_(max=1)
    return maxima, (offset - low.mul_(x.shape[-1] - 2)).to(torch.uint8).permute(0, 3, 1, 2)


def _masks(code: Tensor, bits: torch.dtype) -> tuple[Tensor, Tensor]:
    """All-ones masks (N, h, w, C) of the windows whose maximum is on the right, and below."""
    code = code.permute(0, 2, 3, 1).to(bits)
    return (code & 1).neg_(), (code >> 1).neg_()


def _windows(rows: Tensor, h: int, w: int) -> Tensor:
    """View (N, H, W, C) as (N, h, 2, w, 2, C), an odd last row or column left out."""
    n, _, _, c = rows.shape
    windows = rows[:, : 2 * h, : 2 * w]
    s = windows.stride()
    return windows.as_strided((n, h, 2, w, 2, c), (s[0], 2 * s[1], s[1], 2 * s[2], s[2], s[3]))


def _scatter(x: Tensor, code: Tensor, size: tuple[int, int]) -> Tensor:
    rows = x.permute(0, 2, 3, 1).contiguous().view(_BITS[x.element_size()])
    n, h, w, c = rows.shape
    right, below = _masks(code, rows.dtype)
    odd = size != (2 * h, 2 * w)
    out = rows.new_zeros(n, *size, c) if odd else rows.new_empty(n, *size, c)
    windows = _windows(out, h, w)
    for column, values in enumerate((rows & ~right, rows & right)):
        lower = torch.bitwise_and(values, below, out=windows[:, :, 1, :, column])
        torch.bitwise_xor(values, lower, out=windows[:, :, 0, :, column])
    return out.view(x.dtype).permute(0, 3, 1, 2)


def _gather(x: Tensor, code: Tensor) -> Tensor:
    rows = x.permute(0, 2, 3, 1).contiguous().view(_BITS[x.element_size()])
    h, w = code.shape[-2:]
    right, below = _masks(code, rows.dtype)
    left_column, right_column = _windows(rows, h, w).unbind(4)
    upper, lower = _select(left_column, right_column, right[:, :, None]).unbind(2)
    return _select(upper, lower, below).view(x.dtype).permute(0, 3, 1, 2)


def _select(zero: Tensor, one: Tensor, mask: Tensor) -> Tensor:
    """``one`` where the mask is all ones, ``zero`` where it is all zeros."""
    return (zero ^ one).bitwise_and_(mask).bitwise_xor_(zero)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        maxima, code = _pool(x)
        ctx.save_for_backward(code)
        ctx.mark_non_differentiable(code)
        ctx.size = x.shape[-2:]
        return maxima, code

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Tensor:  # type: ignore[override]
        return _scatter(grad, ctx.saved_tensors[0], ctx.size)


class _MaxUnpool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, code: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(code)
        return _scatter(x, code, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _gather(grad, ctx.saved_tensors[0]), None, None
