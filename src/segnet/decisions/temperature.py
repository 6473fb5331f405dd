"""Temperature scaling (Guo et al., ICML 2017, section 4.2): what logits are divided by, fitted to a split."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from segnet.data.masks import IGNORE_INDEX

PIXELS = 2**20  # of a split at most that the temperature is fitted to
BOUNDS = (0.1, 10.0)
LEAST = 2.0**-24  # a probability that is 0 in float32 is taken for this one: its logarithm is finite


class Pixels:
    """Logarithms of probabilities, and the truth, of pixels spread evenly over a split: no more than `PIXELS`.

    Of each image the same number, at equal distances in the order of rows; ignored ones are left out.

    Args:
        images: how many the split has.
        least: probability, that a lesser one is taken for.
    """

    def __init__(self, images: int, least: float = LEAST) -> None:
        self.least = np.float32(least)
        self.each = max(1, PIXELS // max(images, 1))
        self._logs: list[NDArray[np.float32]] = []
        self._truth: list[NDArray[np.uint8]] = []

    def add(self, probabilities: NDArray[np.float32], mask: NDArray[np.uint8]) -> None:
        """Take from probabilities (C, H, W), at temperature 1, and a mask (H, W) of class indices."""
        places = np.flatnonzero(mask != IGNORE_INDEX)
        places = places[:: max(1, -(-len(places) // self.each))]
        p = probabilities.reshape(len(probabilities), -1)[:, places]
        p = np.concatenate([1 - p, p]) if len(p) == 1 else p
        self._logs.append(np.log(np.maximum(p, self.least)).astype(np.float32))
        self._truth.append(mask.ravel()[places])

    def fitted(self) -> float:
        """The temperature of the least negative log likelihood; rounded to 4 digits."""
        return fit(np.concatenate(self._logs, 1), np.concatenate(self._truth))


def fit(logs: NDArray[np.float32], truth: NDArray[np.uint8]) -> float:
    """The temperature for which the truth is most likely, within `BOUNDS`; 1 without pixels.

    The negative log likelihood is convex in the inverse temperature, so its least value is found whatever the start.

    Args:
        logs: logits, or logarithms of probabilities, (C, N).
        truth: class indices (N,).
    """
    if not len(truth):
        return 1.0
    low, high = (1 / bound for bound in reversed(BOUNDS))
    found = optimize.minimize_scalar(
        lambda inverse: likelihood(logs, truth, 1 / inverse),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return float(np.clip(round(1 / float(found.x), 4), *BOUNDS))


def likelihood(logs: NDArray[np.float32], truth: Sequence[int] | NDArray[np.uint8], temperature: float) -> float:
    """Mean negative log likelihood of the truth (N,) by logits (C, N) over the temperature."""
    scaled = logs.astype(np.float64) / temperature
    right = np.take_along_axis(scaled, np.asarray(truth, np.int64)[None], 0)[0]
    return float((special.logsumexp(scaled, axis=0) - right).mean())
