"""Cross-entropy in which pixels near the boundaries of the mask weigh more.

Source: Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015, equation 2, with a step in place of its Gaussian.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.data.masks import IGNORE_INDEX
from segnet.settings import Above0, BelowOne, NotNegative, Positive
from segnet.training.losses import CrossEntropy


class BoundaryCrossEntropy(CrossEntropy):
    """Cross-entropy in which a pixel counts ``factor`` times where another class is within ``distance`` pixels of it.

    It stays a mean, over the pixels' weights. Neither ignored pixels nor the image's border make a boundary.

    Args:
        num_classes: as of `CrossEntropy`, like ``weight`` and ``label_smoothing``.
        weight: one factor per class.
        label_smoothing: in [0, 1).
        distance: pixels along rows, columns and diagonals alike; 1 is the pixels on both sides of a boundary.
        factor: of the pixels near a boundary; 1 makes it `CrossEntropy`.
    """

    def __init__(
        self,
        num_classes: Positive,
        weight: Sequence[NotNegative] | None = None,
        label_smoothing: BelowOne = 0.0,
        distance: Positive = 2,
        factor: Above0 = 4.0,
    ) -> None:
        super().__init__(num_classes, weight, label_smoothing)
        self.distance, self.factor = distance, factor

    def pixels(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """What each pixel loses, and what it counts in the mean: (N, H, W) both, zero where ignored."""
        lost, counted = super().pixels(logits, target)
        times = 1 + (self.factor - 1) * self.near(target).to(lost.dtype)
        return lost * times, counted * times

    def near(self, target: Tensor) -> Tensor:
        """Whether another class is near each pixel of masks (N, H, W), bool; a GPU is not waited for."""
        known, classes = target != IGNORE_INDEX, target.float()
        least_and_greatest = torch.stack([-classes, classes], 1).masked_fill(~known[:, None], -torch.inf)
        pooled = F.max_pool2d(least_and_greatest, 2 * self.distance + 1, 1, self.distance)
        return known & (pooled[:, 1] != -pooled[:, 0])
