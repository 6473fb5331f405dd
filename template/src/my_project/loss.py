"""A loss of one's own."""

import torch.nn.functional as F
from torch import Tensor, nn

from segnet.data import IGNORE_INDEX


class Focused(nn.Module):
    """Binary cross-entropy in which a pixel weighs as much as it is wrong: the error to a power.

    Args:
        power: 0 is the cross-entropy itself.
    """

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Mean over the counted pixels of logits (N, 1, H, W) and masks (N, H, W), which hold class indices."""
        counted = (mask != IGNORE_INDEX).to(logits.dtype)
        truth = (mask == 1).to(logits.dtype)
        error = (logits[:, 0].sigmoid() - truth).abs()
        loss = F.binary_cross_entropy_with_logits(logits[:, 0], truth, reduction="none")
        return (error**self.power * loss * counted).sum() / counted.sum().clamp(min=1)
