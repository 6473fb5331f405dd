"""Muon (Jordan et al., 2024): momentum whose matrices are made orthogonal before they step.

torch has it for matrices only; timm's takes convolutions too, and AdamW for what is no matrix.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from timm.optim import muon as timm_muon
from torch import nn

# timm iterates in bfloat16: 17 times as long on a CPU without units for it, and other roundings on one with them.
orthogonalise = partial(timm_muon.zeropower_via_newtonschulz, dtype=torch.float32)


def muon(params: Iterable[nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    """Muon of timm, which flattens a convolution (O, I, K, K) to (O, I·K·K), iterating in float32.

    Args:
        params: of the network.
        options: see `timm.optim.Muon`.
    """
    timm_muon.zeropower_via_newtonschulz = orthogonalise
    return timm_muon.Muon(params, **options)
