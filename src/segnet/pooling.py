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
    if torch.is_grad_enabled() and x.requires_grad:
        unpooled: Tensor = _MaxUnpool.apply(x, code, size)  # type: ignore[no-untyped-call]
        return unpooled
    return _scatter(x, code, size)


def _pool(x: Tensor) -> tuple[Tensor, Tensor]:
    maxima, index = F.max_pool2d(x, 2, return_indices=True)
    height, width = maxima.shape[-2:]
    rows = torch.arange(height, device=x.device) * (2 * x.shape[-1])
    columns = torch.arange(width, device=x.device) * 2
    # Distance from the window's upper left corner: 0, 1, W or W + 1.
    offset = index - (rows[:, None] + columns)
    low = offset > 1
    right = torch.where(low, offset - x.shape[-1], offset)
    return maxima, (right + 2 * low).to(torch.uint8)


def _windows(x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four (N, C, height, width) strided views on the corners 0, 1, 2, 3 of every window."""
    x = x[..., : 2 * height, : 2 * width]
    return x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]


def _scatter(x: Tensor, code: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = x.shape[-2:]
    rows = [
        torch.stack((x * (code == row), x * (code == row + 1)), dim=-1).flatten(-2) for row in (0, 2)
    ]
    out = torch.stack(rows, dim=-2).flatten(-3, -2)
    out = F.pad(out, (0, size[1] - 2 * width, 0, size[0] - 2 * height))
    return out.contiguous(memory_format=torch.channels_last)


def _gather(x: Tensor, code: Tensor) -> Tensor:
    corners = _windows(x, *code.shape[-2:])
    return torch.stack([corner * (code == k) for k, corner in enumerate(corners)]).sum(0)


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
        return _scatter(grad, *ctx.saved_tensors, ctx.size)


class _MaxUnpool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, code: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(code)
        return _scatter(x, code, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _gather(grad, *ctx.saved_tensors), None, None
