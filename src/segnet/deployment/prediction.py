"""What is known of one predicted image, and what is decided from it."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segnet.decisions import OperatingPoint


@dataclass(frozen=True)
class Prediction:
    """What is known of one image.

    Attributes:
        probabilities: float32 (C, H, W), the mean over samples where there are several; after the temperature of an
            operating point.
        variance: float32 (H, W) of the probabilities over Monte-Carlo samples, mean over classes; None without.
        point: the operating point that decides; None for the most probable class (binary: above 0.5).
    """

    probabilities: Tensor
    variance: Tensor | None = None
    point: OperatingPoint | None = None

    def decided(self) -> tuple[NDArray[np.uint8], float]:
        """`mask`, and a score.

        With an operating point it is `OperatingPoint.score`; without, the highest probability of a defect (binary), or
        the mean of the chosen classes' probabilities.
        """
        if self.point is not None:
            return self.point.decided(self.probabilities.numpy())
        if len(self.probabilities) == 1:
            return (self.probabilities[0] > 0.5).byte().numpy(), float(self.probabilities.max())
        best, chosen = self.probabilities.max(0)
        return chosen.byte().numpy(), float(best.mean())

    def mask(self) -> NDArray[np.uint8]:
        """Class indices (H, W); 0 and 1 for a binary task."""
        return self.decided()[0]

    def confidence(self) -> Tensor:
        """Probability (H, W) of the class decided for; of a binary task the defect's."""
        if len(self.probabilities) == 1:
            return self.probabilities[0]
        if self.point is None:
            return self.probabilities.amax(0)
        return self.probabilities.gather(0, torch.from_numpy(self.mask())[None].long())[0]

    def entropy(self) -> Tensor:
        """Entropy (H, W) of the mean probabilities in 0..1, as a share of the greatest possible one."""
        p = self.probabilities
        p = torch.cat([1 - p, p]) if len(p) == 1 else p
        return torch.xlogy(p, p).sum(0) / -math.log(len(p))
