"""2×2 max pooling that remembers where each maximum was, and the unpooling that puts values back there.

The pair equals ``F.max_pool2d(x, 2, return_indices=True)`` and ``F.max_unpool2d`` in outputs and gradients,
ties included (the first maximum in row-major order wins). It differs in what it stores: one ``uint8`` code per
window instead of one ``int64`` index, an eighth of the bytes, and it needs no kernel without a deterministic
form, so it runs under ``torch.use_deterministic_algorithms(True)``, which stock ``max_unpool2d`` does not.

Code of a window: ``0 1 / 2 3``, that is ``2 * row + column`` of its maximum.

Source: Badrinarayanan, Kendall, Cipolla, "SegNet", IEEE TPAMI 2017, section 3.1 (2 bits per 2×2 window).
"""

import os
import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from shutil import which
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.networks import portable


def kernels_for(x: Tensor) -> ModuleType | None:
    """`segnet.networks.kernels` for what is on a GPU; None on a CPU, without Triton, and in a compiler."""
    if not (x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1") or torch.compiler.is_compiling():
        return None
    return _kernels()


@cache
def _kernels() -> ModuleType | None:
    if find_spec("triton") is None:
        return None
    if torch.cuda.is_available() and not any(map(which, ("cc", "gcc", "clang", os.environ.get("CC", "")))):
        warnings.warn("Triton needs a C compiler and finds none: slower operators of torch are used", stacklevel=2)
        return None
    return import_module("segnet.networks.kernels")


def max_pool(x: Tensor, folded: bool = False) -> tuple[Tensor, Any]:
    """Pool 2×2 windows; an odd last row or column is left out, as in torch.

    Args:
        x: (N, C, H, W) float, any memory format; folded (N, 4 C, H // 2, W // 2), see `segnet.networks.folding`.
        folded: which of the two.

    Returns:
        maxima (N, C, H // 2, W // 2), dtype of ``x``; codes of the same shape, uint8 in 0..3 (in a compiled program
        torch's int64 indices, in an exported one the masks of `segnet.networks.portable`).
    """
    if torch.compiler.is_exporting():
        return portable.pool(x)
    if torch.compiler.is_compiling():
        return F.max_pool2d(x, 2, return_indices=True)
    if torch.is_grad_enabled() and x.requires_grad:
        pooled: tuple[Tensor, Tensor] = _MaxPool.apply(x, folded)  # type: ignore[no-untyped-call]
        return pooled
    return _pool(x, folded)


def max_unpool(x: Tensor, code: Any, size: tuple[int, int], folded: bool = False) -> Tensor:
    """Put every value of ``x`` back at the position that its code names; zero elsewhere.

    Args:
        x: (N, C, h, w) float.
        code: (N, C, h, w), from `max_pool`.
        size: (H, W) of the map that was pooled, so that odd sizes come back whole.
        folded: fold the result.

    Returns:
        (N, C, H, W), or folded (N, 4 C, h, w); dtype of ``x``.
    """
    if torch.compiler.is_exporting():
        return portable.unpool(x, code, size)
    if torch.compiler.is_compiling():  # torch's unpooling has no deterministic kernel
        flat = x.new_zeros(*x.shape[:2], size[0] * size[1])
        return flat.scatter(2, code.flatten(2), x.flatten(2)).view(*x.shape[:2], *size)
    if torch.is_grad_enabled() and x.requires_grad:
        unpooled: Tensor = _MaxUnpool.apply(x, code, size, folded)  # type: ignore[no-untyped-call]
        return unpooled
    return _scatter(x, code, size, folded)


def _rows(x: Tensor, like: Tensor) -> tuple[Tensor, bool]:
    """The memory of ``x`` as (N, H, W, C), or as (N·C, H, W, 1) where ``like`` is NCHW; whether it is the former."""
    last = like.is_contiguous(memory_format=torch.channels_last)
    if last:
        return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1), True
    return x.contiguous().view(-1, *x.shape[2:], 1), False


def _shaped(rows: Tensor, channels: int, last: bool) -> Tensor:
    """Undo `_rows`."""
    return rows.permute(0, 3, 1, 2) if last else rows.view(-1, channels, *rows.shape[1:3])


def _pool(x: Tensor, folded: bool) -> tuple[Tensor, Tensor]:
    if (kernels := kernels_for(x)) is None:
        return _pool_stock(x)
    x = x.contiguous(memory_format=torch.channels_last) if folded else x
    rows, last = _rows(x, x)
    maxima, code = kernels.pool(rows, folded)
    channels = x.shape[1] // 4 if folded else x.shape[1]
    return _shaped(maxima, channels, last), _shaped(code, channels, last)


def _scatter(x: Tensor, code: Tensor, size: tuple[int, int], folded: bool) -> Tensor:
    if (kernels := kernels_for(x)) is None:
        return _scatter_bits(x, code, size)
    codes, last = _rows(code, code)
    rows, _ = _rows(x, code)
    n, h, w, c = rows.shape
    odd = not folded and size != (2 * h, 2 * w)
    shape = (n, h, w, 4 * c) if folded else (n, *size, c)
    out = rows.new_zeros(shape) if odd else rows.new_empty(shape)
    kernels.scatter(rows, codes, out, folded)
    return _shaped(out, x.shape[1], last)


def _gather(x: Tensor, code: Tensor, folded: bool) -> Tensor:
    if (kernels := kernels_for(x)) is None:
        return _gather_bits(x, code)
    codes, last = _rows(code, code)
    rows, _ = _rows(x, code)
    return _shaped(kernels.gather(rows, codes, folded), code.shape[1], last)


# On a CPU: the bits of NHWC rows: integer masks instead of comparisons and selections, which
# torch's CPU kernels run several times slower. Every window has exactly one place, so no bit is ever mixed.
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _pool_stock(x: Tensor) -> tuple[Tensor, Tensor]:
    """Stock maxima; their int64 indices, narrowed to codes, are forgotten at once."""
    maxima, index = F.max_pool2d(x, 2, return_indices=True)
    index = index.permute(0, 2, 3, 1)
    height, width = index.shape[1:3]
    row = torch.arange(height, device=x.device)[:, None, None] * (2 * x.shape[-1])
    corner = row + torch.arange(width, device=x.device)[:, None] * 2
    # Distance from the window's upper left corner: 0, 1, W or W + 1.
    if x.shape[-1] < 2**15 - 1:  # the low 16 bits are enough to tell
        offset = index.reshape(-1).view(torch.int16)[::4].view(index.shape) - corner.to(torch.int16)
    else:
        offset = index - corner
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


def _scatter_bits(x: Tensor, code: Tensor, size: tuple[int, int]) -> Tensor:
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


def _gather_bits(x: Tensor, code: Tensor) -> Tensor:
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
    def forward(ctx: Any, x: Tensor, folded: bool) -> tuple[Tensor, Tensor]:
        maxima, code = _pool(x, folded)
        ctx.save_for_backward(code)
        ctx.mark_non_differentiable(code)
        ctx.size, ctx.folded = (x.shape[-2], x.shape[-1]), folded
        return maxima, code

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None]:  # type: ignore[override]
        return _scatter(grad, ctx.saved_tensors[0], ctx.size, ctx.folded), None


class _MaxUnpool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, code: Tensor, size: tuple[int, int], folded: bool) -> Tensor:
        ctx.save_for_backward(code)
        ctx.folded = folded
        return _scatter(x, code, size, folded)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return _gather(grad, ctx.saved_tensors[0], ctx.folded), None, None, None
