"""Triton kernels of the GPU path: pooling with one byte a maximum; those of batch norm are `norm_kernels`'s.

They see activations as rows of channels: channels-last memory (N, H, W, C), or NCHW memory as (N·C, H, W, 1). A folded
map (see `segnet.networks.folding`) is (N, H/2, W/2, 4, C), the four pixels of a window side by side. Triton comes with
PyTorch on Linux; ``TRITON_INTERPRET=1`` runs the kernels on the CPU, which is how the tests check them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from segnet.networks.norm_kernels import normalize, normalize_backward, normalize_fixed

__all__ = ["gather", "normalize", "normalize_backward", "normalize_fixed", "pool", "scatter"]

BLOCK = 1024  # elements a program, of a row of windows

Window = tuple[int, int, int, int, int]  # steps in memory: to the next image, row and column of windows, right, below


def window(shape: tuple[int, ...], folded: bool) -> Window:
    """Where the windows of (N, H, W, C), or of folded (N, h, w, 4 C), lie in memory."""
    _, height, width, channels = shape
    if folded:
        row = width * channels
        return height * row, row, channels, channels // 4, channels // 2
    row = width * channels
    return height * row, 2 * row, 2 * channels, channels, row


def pool(x: Tensor, folded: bool) -> tuple[Tensor, Tensor]:
    """Maxima and uint8 codes (N, h, w, C) of contiguous (N, H, W, C), or of folded (N, h, w, 4 C)."""
    n, height, width, channels = x.shape
    size = (n, height, width, channels // 4) if folded else (n, height // 2, width // 2, channels)
    maxima, code = x.new_empty(size), torch.empty(size, dtype=torch.uint8, device=x.device)
    _pool[_grid(size)](x, maxima, code, *size[1:], *window(tuple(x.shape), folded), BLOCK=BLOCK)
    return maxima, code


def scatter(x: Tensor, code: Tensor, out: Tensor, folded: bool) -> None:
    """Write every window of ``out`` (N, H, W, C): ``x`` (N, h, w, C) where its code says, zero elsewhere."""
    _scatter[_grid(x.shape)](x, code, out, *x.shape[1:], *window(tuple(out.shape), folded), BLOCK=BLOCK)


def gather(x: Tensor, code: Tensor, folded: bool) -> Tensor:
    """What lies in ``x`` (N, H, W, C) where the codes (N, h, w, C) say."""
    out = x.new_empty(code.shape)
    _gather[_grid(code.shape)](x, code, out, *code.shape[1:], *window(tuple(x.shape), folded), BLOCK=BLOCK)
    return out


def _grid(size):
    n, h, w, c = size
    return n * h, triton.cdiv(w * c, BLOCK)


@triton.jit
def _places(h, w, C, image, row, column, BLOCK: tl.constexpr):
    """Of this program's maxima, one line of windows: their places, those of the windows' corners, which exist."""
    line = tl.program_id(0)
    inside = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    corner = (line // h).to(tl.int64) * image + (line % h).to(tl.int64) * row
    return line.to(tl.int64) * (w * C) + inside, corner + inside + (inside // C) * (column - C), inside < w * C


@triton.jit
def _pool(x, maxima, code, h, w, C, image, row, column, right, below, BLOCK: tl.constexpr):
    at, corner, valid = _places(h, w, C, image, row, column, BLOCK)
    wide = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32  # Triton's interpreter orders no bfloat16
    best = tl.load(x + corner, valid)
    place = tl.zeros([BLOCK], tl.uint8)
    for i in tl.static_range(1, 4):
        value = tl.load(x + corner + (i % 2) * right + (i // 2) * below, valid)
        number = value.to(wide)
        better = (number > best.to(wide)) | (number != number)  # as in torch: the first maximum wins, and NaN over all
        best = tl.where(better, value, best)
        place = tl.where(better, i, place).to(tl.uint8)
    tl.store(maxima + at, best, valid)
    tl.store(code + at, place, valid)


@triton.jit
def _scatter(x, code, out, h, w, C, image, row, column, right, below, BLOCK: tl.constexpr):
    at, corner, valid = _places(h, w, C, image, row, column, BLOCK)
    value, place = tl.load(x + at, valid), tl.load(code + at, valid)
    zero = tl.zeros([BLOCK], value.dtype)
    for i in tl.static_range(4):
        tl.store(out + corner + (i % 2) * right + (i // 2) * below, tl.where(place == i, value, zero), valid)


@triton.jit
def _gather(x, code, out, h, w, C, image, row, column, right, below, BLOCK: tl.constexpr):
    at, corner, valid = _places(h, w, C, image, row, column, BLOCK)
    place = tl.load(code + at, valid)
    found = tl.load(x + corner, valid)
    for i in tl.static_range(1, 4):
        found = tl.where(place == i, tl.load(x + corner + (i % 2) * right + (i // 2) * below, valid), found)
    tl.store(out + at, found, valid)
