"""Online hard example mining: a cross-entropy of the hardest pixels alone.

Sources: Shrivastava, Gupta and Girshick, "Training Region-based Object Detectors with Online Hard Example Mining", CVPR
2016, section 4; for pixels as in Yu et al., "BiSeNet", ECCV 2018, whose authors keep a sixteenth at least.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from segnet.data.masks import IGNORE_INDEX
from segnet.settings import BelowOne, NotNegative, Positive, Share
from segnet.training.losses import CrossEntropy


class HardPixels(CrossEntropy):
    """Cross-entropy over the batch's pixels to whose true class the network gives the least probability.

    All pixels with a probability of at most ``threshold`` count, and where these are too few, the hardest ``share`` of
    those that are not ignored. Pixels as hard as the last of them count too. Class weights and smoothed labels change
    what a pixel costs, not which pixels count.

    Args:
        num_classes: as of `CrossEntropy`, like ``weight`` and ``label_smoothing``.
        weight: one factor per class.
        label_smoothing: in [0, 1).
        threshold: probability of the true class; 0 leaves it to ``share`` alone, with 1 every pixel counts.
        share: of the pixels that are not ignored, at least one.
    """

    def __init__(
        self,
        num_classes: Positive,
        weight: Sequence[NotNegative] | None = None,
        label_smoothing: BelowOne = 0.0,
        threshold: Share = 0.7,
        share: Share = 0.0625,
    ) -> None:
        super().__init__(num_classes, weight, label_smoothing)
        self.threshold, self.share = threshold, share

    def pixels(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """What each pixel loses, and what it counts in the mean: (N, H, W) both, zero where it is not hard."""
        lost, counted = super().pixels(logits, target)
        hard = self.hard(logits.detach().float(), target)
        return lost * hard, counted * hard

    def hard(self, logits: Tensor, target: Tensor) -> Tensor:
        """Whether each pixel counts, bool (N, H, W); a GPU is not waited for."""
        both = F.pad(logits, (0, 0, 0, 0, 1, 0)) if self.num_classes == 1 else logits  # a sigmoid is a softmax with 0
        known = target != IGNORE_INDEX
        right = (-F.cross_entropy(both, target, ignore_index=IGNORE_INDEX, reduction="none")).exp()
        ranked = right.masked_fill(~known, 2.0).flatten().sort().values  # the ignored ones last
        last = (known.sum().double() * self.share).ceil().long().clamp(min=1) - 1
        return known & (right <= ranked.gather(0, last[None]).clamp(min=self.threshold))
