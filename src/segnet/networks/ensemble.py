"""Several networks as one: what they predict is the mean of their probabilities."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.errors import UserError


class Ensemble(nn.Module):
    """Logits of the mean probability of networks that map (N, 3, H, W) to logits (N, num_classes, H, W).

    The mean is taken of logarithms of probabilities, in float32 whatever the networks compute in, so it is finite
    wherever their logits are, and the sigmoid (of one class) or the softmax (of several) of the result is the mean of
    theirs. Source: Lakshminarayanan et al., "Deep Ensembles", NeurIPS 2017, section 2.4.

    Args:
        nets: the networks, of the same classes; at least one.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        if not nets:
            raise UserError("model.net.nets=[]: an ensemble needs at least one network")
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) float to (N, num_classes, H, W) float32 logits, of several classes log-probabilities."""
        logits = torch.stack([net(x).float() for net in self.nets])
        if logits.shape[2] == 1:
            return _log_mean(F.logsigmoid(logits)) - _log_mean(F.logsigmoid(-logits))
        return _log_mean(F.log_softmax(logits, 2))


def _log_mean(logarithms: Tensor) -> Tensor:
    """Logarithm (…) of the mean over the first dimension of what (K, …) are logarithms of."""
    return logarithms.logsumexp(0) - math.log(len(logarithms))
