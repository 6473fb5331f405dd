"""Muon (Jordan et al., 2024): momentum whose matrices are made orthogonal before they step.

torch has it for matrices only; timm's takes convolutions too, and AdamW for what is no matrix.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import muon as timm_muon
from torch import Tensor, nn


def muon(params: Iterable[nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    """Muon of timm, which flattens a convolution (O, I, K, K) to (O, I·K·K); all matrices step together, in float32.

    Args:
        params: of the network.
        options: see `timm.optim.Muon`; ``algo``, ``conv_mode`` and ``scale_eps`` stay at their defaults.
    """
    optimizer: torch.optim.Optimizer = timm_muon.Muon(params, **options)
    for name, only in {"algo": "muon", "conv_mode": "flatten", "scale_eps": False}.items():
        if optimizer.defaults[name] != only:
            raise ValueError(f"{name}={optimizer.defaults[name]}: muon has {only} only; leave it out")
    timm_muon.muon = _step  # in place of timm's, which takes one matrix after the other: some 1,300 small kernels
    return optimizer


def _step(
    params: list[Tensor],
    grads: list[Tensor],
    momentum_bufs: list[Tensor],
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    adjust_lr_fn: str | None,
    ns_steps: int,
    ns_coefficients: Any,
    eps: float,
    safety_factor: float,
    **_: Any,
) -> None:
    torch._foreach_mul_(params, 1 - lr * weight_decay)
    torch._foreach_lerp_(momentum_bufs, grads, 1 - momentum)
    moving = torch._foreach_lerp(grads, momentum_bufs, momentum) if nesterov else momentum_bufs
    # Channels last, as they lie in memory: the order of columns makes no difference to the iteration.
    turned = [update.movedim(1, -1) for update in moving]
    coefficients = timm_muon.resolve_ns_coefficients(ns_coefficients, timm_muon._COEFFICIENTS)
    options = {"steps": ns_steps, "coefficients": coefficients, "eps": eps, "safety_factor": safety_factor}
    matrices = [update.flatten(1) for update in turned]
    for param, update, step in zip(params, turned, orthogonal(matrices, params[0].is_cuda, **options), strict=True):
        scale = timm_muon.get_lr_scale(step.shape, adjust_lr_fn) if adjust_lr_fn else 1.0
        param.add_(step.reshape(update.shape).movedim(-1, 1), alpha=-lr * scale)


def orthogonal(matrices: list[Tensor], pad: bool, **options: Any) -> list[Tensor]:
    """The nearest matrix with orthogonal rows or columns for each of (O, I), about: Muon's Newton-Schulz iteration.

    Args:
        matrices: float, of any sizes.
        pad: iterate over all with the same number of rows at a time, columns of zeros beside the narrower ones, which
            stay zeros: a GPU has time for zeros but not for many kernels. Else over all of the same size.
        options: of timm's ``zeropower_via_newtonschulz``.
    """
    alike = defaultdict(list)
    for i, matrix in enumerate(matrices):
        alike[len(matrix), 0 if pad else matrix.shape[1]].append(i)
    found = list(matrices)
    for (rows, _), members in alike.items():
        batch = matrices[0].new_zeros(len(members), rows, max(matrices[i].shape[1] for i in members))
        for place, i in enumerate(members):
            batch[place, :, : matrices[i].shape[1]] = matrices[i]
        # In bfloat16, timm's default, it takes 17 times as long on a CPU without units for it, and rounds otherwise.
        batch = timm_muon.zeropower_via_newtonschulz(batch, dtype=torch.float32, **options)
        for place, i in enumerate(members):
            found[i] = batch[place, :, : matrices[i].shape[1]]
    return found
