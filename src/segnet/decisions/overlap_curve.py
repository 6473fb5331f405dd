"""AUPRO: how much of a defect is covered, on average over defects, against the share of good pixels taken for one."""

import numpy as np
from numpy.typing import NDArray

from segnet.decisions.regions import Regions

LIMIT = 0.3  # of the false-positive rate, up to which the area is taken
BLOCKS = 20  # of images, which the interval draws anew
_SHIFT = 17  # bits of a float32 that are left away: bins are 1.6 % of a probability wide
_HALF = int(np.float32(0.5).view(np.uint32)) >> _SHIFT
BINS = 2 * _HALF + 1


class OverlapCurve:
    """Per-region overlap (Bergmann et al., IJCV 2021, section 5.2; anomalib's AUPRO) over any number of images.

    Regions count alike whatever their size; good pixels are all others, of all images. Probabilities lie in bins, whose
    width is a share of the probability, or of what it lacks to 1, and the curve is straight within a bin: the area
    differs from that of sorted probabilities by at most `bound`. The memory does not grow with the images.
    """

    def __init__(self) -> None:
        self.good = np.zeros((BLOCKS, BINS), np.int64)
        self.covered = np.zeros((BLOCKS, BINS))
        self.regions = np.zeros(BLOCKS, np.int64)
        self.images = 0

    def add(self, histograms: tuple[NDArray[np.int64], NDArray[np.float64], int]) -> None:
        """Add what `histograms` gave of an image."""
        block = self.images % BLOCKS
        self.good[block] += histograms[0]
        self.covered[block] += histograms[1]
        self.regions[block] += histograms[2]
        self.images += 1

    def area(self) -> float:
        """Area up to `LIMIT`, as a share of the greatest possible; nan without a region or without good pixels."""
        return float(self._areas(np.ones((1, BLOCKS)))[0])

    def bound(self) -> float:
        """How far `area` is at most from that of sorted probabilities."""
        good, covered = self.good.sum(0), self.covered.sum(0)
        return float((good / good.sum() * (covered / self.regions.sum())).sum() / 2 / LIMIT)

    def drawn(self, resamples: int, seed: int) -> NDArray[np.float64]:
        """Areas (resamples,) where blocks of images are drawn anew; of few images a block is an image."""
        blocks = min(self.images, BLOCKS)
        drawn = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), resamples)
        draws = np.pad(drawn, ((0, 0), (0, BLOCKS - blocks))).astype(np.float64)
        return np.concatenate([self._areas(part) for part in np.array_split(draws, -(-resamples // 50))])

    def _areas(self, draws: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of draws (R, blocks)."""
        used = np.flatnonzero(self.good.any(0) | self.covered.any(0))[::-1]  # thresholds fall
        good, covered = ((draws @ part[:, used]).cumsum(1) for part in (self.good, self.covered))
        regions = draws @ self.regions
        found = np.full(len(draws), np.nan)
        for i, count in enumerate(regions):
            if count and len(used) and good[i, -1]:
                x = np.concatenate([[0.0], good[i] / good[i, -1]])
                y = np.concatenate([[0.0], covered[i] / count])
                found[i] = _up_to(x, y)
        return found


def histograms(
    probabilities: NDArray[np.float32], truth: Regions, known: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """What `OverlapCurve.add` takes: good pixels by bin (`BINS`,), shares of regions by bin, number of regions.

    Args:
        probabilities: (H, W) of the defect, in 0..1.
        truth: regions of the defect.
        known: (H, W), False where a pixel is ignored.
    """
    places = bins(probabilities)
    inside, owners = truth.pixels
    of_defects = places.ravel()[inside]
    good = np.bincount(places[known], minlength=BINS) - np.bincount(of_defects, minlength=BINS)
    return good, np.bincount(of_defects, 1 / truth.areas[owners], BINS).astype(np.float64), len(truth)


def bins(probabilities: NDArray[np.float32]) -> NDArray[np.int32]:
    """The bin of each probability: the order of bins is that of probabilities."""
    upper = probabilities > 0.5
    small = np.where(upper, 1 - probabilities, probabilities)  # exact above a half (Sterbenz)
    place = (small.view(np.int32) >> _SHIFT).astype(np.int32)
    return np.where(upper, 2 * _HALF - place, place)


def _up_to(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Area below a curve from 0 to `LIMIT`, as a share of it."""
    inside = x <= LIMIT
    x, y = np.append(x[inside], LIMIT), np.append(y[inside], np.interp(LIMIT, x, y))
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / LIMIT)
