"""Rates with the intervals that so few images allow, and how well a score tells good images from defective ones."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

CONFIDENCE = 0.95


def exact_interval(hits: float, count: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of Clopper and Pearson (Biometrika 1934) of a rate; (nan, nan) of no trials.

    ``hits`` and ``count`` need not be integers, see `clustered_interval`.
    """
    if count <= 0:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low = 0.0 if hits <= 0 else float(special.betaincinv(hits, count - hits + 1, tail))
    high = 1.0 if hits >= count else float(special.betaincinv(hits + 1, count - hits, 1 - tail))
    return low, high


def clustered_interval(
    hits: Sequence[int] | NDArray[np.int64], counts: Sequence[int] | NDArray[np.int64], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The interval of a rate of objects, of which those in one image are alike (Korn and Graubard, 1998).

    That of Clopper and Pearson for as many independent objects as would have the variance of the ratio over images,
    at most as many as there are; where all or none are hits, one for each image.

    Args:
        hits: of each image.
        counts: of each image; images without objects are left out.
        confidence: of the interval.
    """
    h, n = np.asarray(hits, np.float64), np.asarray(counts, np.float64)
    h, n = h[n > 0], n[n > 0]
    images, total = len(n), n.sum()
    if images == 0:
        return math.nan, math.nan
    rate = h.sum() / total
    effective = float(images)
    if images > 1 and 0 < rate < 1:
        variance = images / (images - 1) * ((h - rate * n) ** 2).sum() / total**2
        effective = min(total, rate * (1 - rate) / variance) if variance > 0 else total
    return exact_interval(rate * effective, effective, confidence)


def enough(rate: float, confidence: float = CONFIDENCE) -> int:
    """How many images without a miss show that the rate of misses is at most ``rate``: the interval's end is there."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log1p(-rate))


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Chance that a positive has a greater score than a negative, ties count half; nan without either.

    Args:
        scores: (N,).
        positive: (N,).
    """
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return math.nan
    order = np.sort(scores[~positive])
    below, upto = (np.searchsorted(order, scores[positive], side) for side in ("left", "right"))
    return float((below + upto).sum() / (2 * ones * zeros))


def average_precision(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Sum over the distinct scores, falling, of precision times gain in recall; nan without a positive."""
    if not positive.any():
        return math.nan
    values, place = np.unique(-scores, return_inverse=True)
    found = np.bincount(place, positive, len(values)).cumsum()
    taken = np.bincount(place, minlength=len(values)).cumsum()
    gain = np.diff(found / positive.sum(), prepend=0)
    return float((found / taken * gain).sum())
