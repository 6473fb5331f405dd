"""Muon (Jordan et al., 2024): momentum whose matrices are made orthogonal before they step.

torch has it for matrices only; timm's takes convolutions too, and AdamW for what is no matrix.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from timm.optim import muon as timm_muon
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

# timm iterates in bfloat16: 17 times as long on a CPU without units for it, and other roundings on one with them.
iterate = partial(timm_muon.zeropower_via_newtonschulz, dtype=torch.float32)
# timm takes one matrix after the other: 650 small kernels for SegNet's, instead of under 200.
one_by_one = timm_muon.muon


def muon(params: Iterable[nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    """Muon of timm, which flattens a convolution (O, I, K, K) to (O, I·K·K); all matrices step together, in float32.

    Args:
        params: of the network.
        options: see `timm.optim.Muon`; with ``conv_mode=batched`` or ``scale_eps`` its own step, one by one.
    """
    timm_muon.zeropower_via_newtonschulz = iterate
    timm_muon.muon = _step
    return timm_muon.Muon(params, **options)


def _step(params: list[Tensor], grads: list[Tensor], momentum_bufs: list[Tensor], **options: Any) -> None:
    if options["conv_mode"] != "flatten" or options["scale_eps"]:
        one_by_one(params, grads, momentum_bufs, **options)
        return
    torch._foreach_mul_(params, 1 - options["lr"] * options["weight_decay"])
    torch._foreach_lerp_(momentum_bufs, grads, 1 - options["momentum"])
    moving = torch._foreach_lerp(grads, momentum_bufs, options["momentum"]) if options["nesterov"] else momentum_bufs
    # Channels last, as they lie in memory: the order of columns makes no difference to the iteration.
    turned = [update.movedim(1, -1) for update in moving]
    steps = orthogonal(
        [update.flatten(1) for update in turned],
        pad=params[0].is_cuda,
        steps=options["ns_steps"],
        coefficients=timm_muon.resolve_ns_coefficients(options["ns_coefficients"], timm_muon._COEFFICIENTS),
        eps=options["eps"],
        safety_factor=options["safety_factor"],
    )
    for param, update, step in zip(params, turned, steps, strict=True):
        rule = options["adjust_lr_fn"]
        scale = timm_muon.get_lr_scale(step.shape, rule) if rule else 1.0
        param.add_(step.reshape(update.shape).movedim(-1, 1), alpha=-options["lr"] * scale)


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
    for members in alike.values():
        batch = iterate(pad_sequence([matrices[i].mT for i in members], batch_first=True).mT, **options)
        for i, result in zip(members, batch, strict=True):
            found[i] = result[:, : matrices[i].shape[1]]
    return found
