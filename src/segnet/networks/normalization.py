"""Batch norm followed by ReLU as one step, which on a GPU moves five eighths of the bytes that torch's two move.

Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithm 1 and the gradients of section 3.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from segnet.networks.pooling import kernels_for


def norm_relu(x: Tensor, norm: nn.BatchNorm2d, relu: nn.ReLU) -> Tensor:
    """``relu(norm(x))``, running statistics included; by these very modules on a CPU and where the kernels do not fit.

    Args:
        x: (N, C, H, W) float, or a folded map (N, 4 C, H/2, W/2) of C channels (see `segnet.networks.folding`).
        norm: batch norm of C channels.
        relu: what follows it.
    """
    kernels, folded = kernels_for(x), x.shape[1] != norm.num_features
    rows = x.numel() // norm.num_features
    if kernels is None or not _plain(norm) or rows < 2:
        return as_pixels(lambda y: relu(norm(y)), x, folded)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    x = x.contiguous(memory_format=torch.channels_last)
    if norm.training:
        assert norm.momentum is not None
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        out: Tensor = _NormReLU.apply(  # type: ignore[no-untyped-call]
            x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps
        )
        return out
    if torch.is_grad_enabled() and (x.requires_grad or norm.weight.requires_grad):
        return as_pixels(lambda y: relu(norm(y)), x, folded)
    fixed: Tensor = kernels.normalize_fixed(x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
    return fixed


def as_pixels(layer: Callable[[Tensor], Tensor], x: Tensor, folded: bool) -> Tensor:
    """Apply a layer that treats all pixels alike, such as batch norm or dropout, to a map that may be folded."""
    if not folded:
        return layer(x)
    n, c, h, w = x.shape
    pixels = layer(x.permute(0, 2, 3, 1).reshape(n, h, 4 * w, c // 4).permute(0, 3, 1, 2))
    return pixels.permute(0, 2, 3, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)


def _plain(norm: nn.BatchNorm2d) -> bool:
    """What the kernels know: torch's own class with its usual settings, in float32."""
    usual = type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats and norm.momentum is not None
    return usual and norm.weight.dtype == torch.float32


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, momentum: float, eps: float
    ) -> Tensor:
        kernels = kernels_for(x)
        assert kernels is not None
        out, coefficients = kernels.normalize(x, weight, bias, mean, var, momentum, eps)
        ctx.save_for_backward(x, coefficients)
        result: Tensor = out
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, coefficients = ctx.saved_tensors
        kernels = kernels_for(x)
        assert kernels is not None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return *kernels.normalize_backward(x, gradient, coefficients), None, None, None, None
