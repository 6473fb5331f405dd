"""Triton kernels of batch norm with ReLU, in two passes each way.

They see activations as rows of channels, folded or not (see `segnet.networks.kernels`). Sums are taken in a fixed order,
without atomics, so that a rerun has the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # elements a program, of a flat tensor
CHANNELS = 32  # channels a program sums over: 64 bytes of a row in bfloat16
PARTS = 528  # programs that share out the rows of a sum: four for each multiprocessor of an H100


def normalize(
    y: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, momentum: float, eps: float
) -> tuple[Tensor, Tensor]:
    """ReLU of the batch norm of ``y``, any shape with rows of C channels in memory; updates ``mean`` and ``var``.

    Returns:
        activations like ``y``, and what `normalize_backward` needs: float32 (4, C) scale, shift, mean, 1/deviation.
    """
    channels = len(weight)
    rows, parts, each, tall, wide, grid = _division(y, channels)
    partial = torch.empty(parts, 2, channels, dtype=torch.float32, device=y.device)
    coefficients = torch.empty(4, channels, dtype=torch.float32, device=y.device)
    z = torch.empty_like(y)
    _sums[grid](y, partial, rows, channels, each, TALL=tall, WIDE=wide, num_warps=8)
    _statistics[(triton.cdiv(channels, 16),)](
        y, partial, weight, bias, mean, var, coefficients, rows, channels, parts, momentum, eps, TALL=256, WIDE=16
    )
    blocks = (triton.cdiv(y.numel(), 2 * BLOCK),)
    _scale[blocks](y, coefficients, z, y.numel(), channels, BLOCK=2 * BLOCK, num_warps=8)
    return z, coefficients


def normalize_backward(y: Tensor, gradient: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``y``, weight and bias."""
    channels = coefficients.shape[1]
    rows, parts, each, tall, wide, grid = _division(y, channels)
    partial = torch.empty(parts, 2, channels, dtype=torch.float32, device=y.device)
    sums = torch.empty(2, channels, dtype=torch.float32, device=y.device)
    result = torch.empty_like(y)
    _gradient_sums[grid](y, gradient, coefficients, partial, rows, channels, each, TALL=tall, WIDE=wide, num_warps=8)
    _totals[(triton.cdiv(channels, 16),)](partial, sums, channels, parts, TALL=256, WIDE=16)
    blocks = (triton.cdiv(y.numel(), 2 * BLOCK),)
    _gradient[blocks](y, gradient, coefficients, sums, result, y.numel(), channels, rows, BLOCK=2 * BLOCK, num_warps=8)
    return result, sums[1], sums[0]


def normalize_fixed(y: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """ReLU of the batch norm of ``y`` with running statistics (evaluation)."""
    z = torch.empty_like(y)
    blocks = (triton.cdiv(y.numel(), BLOCK),)
    _scale_fixed[blocks](y, weight, bias, mean, var, z, y.numel(), len(weight), eps, BLOCK=BLOCK)
    return z


def _division(y, channels):
    """How the rows are shared out: their number, parts, rows of a part, tile of a program, grid."""
    rows = y.numel() // channels
    wide = min(CHANNELS, max(16, triton.next_power_of_2(channels)))
    tall = 4096 // wide
    each = triton.cdiv(triton.cdiv(rows, min(PARTS, triton.cdiv(rows, tall))), tall) * tall
    parts = triton.cdiv(rows, each)
    return rows, parts, each, tall, wide, (parts, triton.cdiv(channels, wide))


@triton.jit
def _tile(rows, C, start, TALL: tl.constexpr, WIDE: tl.constexpr):
    """Places of a tile of rows and channels, and which of them exist."""
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    r = start + tl.arange(0, TALL)
    return r[:, None] * C + c[None, :], (r < rows)[:, None] & (c < C)[None, :]


@triton.jit
def _sums(y, partial, rows, C, each, TALL: tl.constexpr, WIDE: tl.constexpr):
    """Sum of y - y[0] and of its square over a part of the rows; the shift keeps the variance from cancelling."""
    part = tl.program_id(0)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    shift = tl.load(y + c, c < C, other=0.0).to(tl.float32)
    first = tl.zeros([TALL, WIDE], tl.float32)
    second = tl.zeros([TALL, WIDE], tl.float32)
    for offset in range(0, each, TALL):
        at, valid = _tile(rows, C, part.to(tl.int64) * each + offset, TALL, WIDE)
        value = tl.load(y + at, valid, other=0.0).to(tl.float32)
        value = tl.where(valid, value - shift[None, :], 0.0)
        first += value
        second += value * value
    tl.store(partial + 2 * part * C + c, tl.sum(first, 0), c < C)
    tl.store(partial + (2 * part + 1) * C + c, tl.sum(second, 0), c < C)


@triton.jit
def _total(partial, c, C, parts, TALL: tl.constexpr, WIDE: tl.constexpr):
    """The two sums over all parts, in their order."""
    first = tl.zeros([TALL, WIDE], tl.float32)
    second = tl.zeros([TALL, WIDE], tl.float32)
    for offset in range(0, parts, TALL):
        part = offset + tl.arange(0, TALL)
        valid = (part < parts)[:, None] & (c < C)[None, :]
        at = part[:, None] * (2 * C) + c[None, :]
        first += tl.load(partial + at, valid, other=0.0)
        second += tl.load(partial + C + at, valid, other=0.0)
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit
def _statistics(
    y, partial, weight, bias, mean, var, coefficients, rows, C, parts, momentum, eps, TALL: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    valid = c < C
    first, second = _total(partial, c, C, parts, TALL, WIDE)
    first = first / rows
    variance = tl.maximum(second / rows - first * first, 0.0)
    average = tl.load(y + c, valid, other=0.0).to(tl.float32) + first
    inverse = 1.0 / tl.sqrt_rn(variance + eps)
    scale = tl.load(weight + c, valid, other=0.0) * inverse
    tl.store(coefficients + c, scale, valid)
    tl.store(coefficients + C + c, tl.load(bias + c, valid, other=0.0) - average * scale, valid)
    tl.store(coefficients + 2 * C + c, average, valid)
    tl.store(coefficients + 3 * C + c, inverse, valid)
    old = tl.load(mean + c, valid, other=0.0)
    tl.store(mean + c, old + momentum * (average - old), valid)
    old = tl.load(var + c, valid, other=0.0)
    tl.store(var + c, old + momentum * (variance * (rows / (rows - 1.0)) - old), valid)


@triton.jit
def _flat(total, C, BLOCK: tl.constexpr):
    """Places of a block of a flat tensor, their channels, and which of them exist."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    inside = tl.arange(0, BLOCK)
    return start + inside, ((start % C).to(tl.int32) + inside) % C, start + inside < total


@triton.jit
def _scale(y, coefficients, z, total, C, BLOCK: tl.constexpr):
    at, c, valid = _flat(total, C, BLOCK)
    value = tl.load(y + at, valid).to(tl.float32)
    value = value * tl.load(coefficients + c) + tl.load(coefficients + C + c)
    tl.store(z + at, tl.where(value < 0.0, 0.0, value).to(z.dtype.element_ty), valid)  # NaN stays, as in torch


@triton.jit
def _scale_fixed(y, weight, bias, mean, var, z, total, C, eps, BLOCK: tl.constexpr):
    at, c, valid = _flat(total, C, BLOCK)
    scale = tl.load(weight + c) / tl.sqrt_rn(tl.load(var + c) + eps)
    value = (tl.load(y + at, valid).to(tl.float32) - tl.load(mean + c)) * scale + tl.load(bias + c)
    tl.store(z + at, tl.where(value < 0.0, 0.0, value).to(z.dtype.element_ty), valid)


@triton.jit
def _gradient_sums(y, gradient, coefficients, partial, rows, C, each, TALL: tl.constexpr, WIDE: tl.constexpr):
    """Sums over a part of the rows: of the gradient before the ReLU, and of that times the normalised value."""
    part = tl.program_id(0)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    scale = tl.load(coefficients + c, c < C, other=0.0)
    shift = tl.load(coefficients + C + c, c < C, other=0.0)
    average = tl.load(coefficients + 2 * C + c, c < C, other=0.0)
    inverse = tl.load(coefficients + 3 * C + c, c < C, other=0.0)
    first = tl.zeros([TALL, WIDE], tl.float32)
    second = tl.zeros([TALL, WIDE], tl.float32)
    for offset in range(0, each, TALL):
        at, valid = _tile(rows, C, part.to(tl.int64) * each + offset, TALL, WIDE)
        value = tl.load(y + at, valid, other=0.0).to(tl.float32)
        above = tl.load(gradient + at, valid, other=0.0).to(tl.float32)
        above = tl.where(value * scale[None, :] + shift[None, :] > 0.0, above, 0.0)
        first += above
        second += above * (value - average[None, :]) * inverse[None, :]
    tl.store(partial + 2 * part * C + c, tl.sum(first, 0), c < C)
    tl.store(partial + (2 * part + 1) * C + c, tl.sum(second, 0), c < C)


@triton.jit
def _totals(partial, sums, C, parts, TALL: tl.constexpr, WIDE: tl.constexpr):
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    first, second = _total(partial, c, C, parts, TALL, WIDE)
    tl.store(sums + c, first, c < C)
    tl.store(sums + C + c, second, c < C)


@triton.jit
def _gradient(y, gradient, coefficients, sums, result, total, C, rows, BLOCK: tl.constexpr):
    at, c, valid = _flat(total, C, BLOCK)
    value = tl.load(y + at, valid).to(tl.float32)
    above = tl.load(gradient + at, valid).to(tl.float32)
    scale = tl.load(coefficients + c)
    above = tl.where(value * scale + tl.load(coefficients + C + c) > 0.0, above, 0.0)
    normal = (value - tl.load(coefficients + 2 * C + c)) * tl.load(coefficients + 3 * C + c)
    below = scale * (above - (tl.load(sums + c) + normal * tl.load(sums + C + c)) / rows)
    tl.store(result + at, below.to(result.dtype.element_ty), valid)
