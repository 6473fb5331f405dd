"""Rates with the intervals that so few images allow, and how well a score tells good images from defective ones."""

import math
from collections.abc import Callable, Sequence

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


def counted_interval(counts: Sequence[int] | NDArray[np.int64], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a mean number an image, such as of false alarms: Garwood's of Poisson (Biometrika 1936).

    It is as much wider as the counts vary more than Poisson's would; (nan, nan) of no images.
    """
    n = np.asarray(counts, np.float64)
    if not len(n):
        return math.nan, math.nan
    total, spread = n.sum(), 1.0
    if len(n) > 1 and total:
        spread = max(1.0, float(n.var(ddof=1) / n.mean()))
    hits, tail = total / spread, (1 - confidence) / 2
    low = float(special.gammaincinv(hits, tail)) if hits else 0.0
    high = float(special.gammaincinv(hits + 1, 1 - tail))
    return low * spread / len(n), high * spread / len(n)


def auroc_interval(area: float, positives: int, negatives: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of an AUROC: Newcombe's method 5 (Statistics in Medicine 2006), which is no point at 1.

    An end is the area whose variance by Hanley and McNeil, at equal numbers, reaches to what was measured.
    """
    if math.isnan(area):
        return math.nan, math.nan
    z = -float(special.ndtri((1 - confidence) / 2))
    half = (positives + negatives) / 2 - 1

    def reach(a: float) -> float:
        spread = a * (1 - a) * (1 + half * (1 - a) / (2 - a) + half * a / (1 + a)) / (positives * negatives)
        return z * math.sqrt(spread)

    return _solve(lambda a: a + reach(a) - area, 0.0, area), _solve(lambda a: a - reach(a) - area, area, 1.0)


def average_precision_interval(precision: float, positives: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """That of a rate of so many positives (Boyd, Eng and Page, ECML 2013, section 3.2; there with a normal one)."""
    return exact_interval(precision * positives, positives, confidence) if positives else (math.nan, math.nan)


def paired_interval(first: int, second: int, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of the difference of two rates over the same images: Tango's score interval (1998).

    Args:
        first: images that are hits of the first rate alone.
        second: of the second alone.
        count: all images, those that are hits of both or neither too.
        confidence: of the interval.
    """
    if count <= 0:
        return math.nan, math.nan
    z = -float(special.ndtri((1 - confidence) / 2))

    def distance(d: float) -> float:
        b = -first - second + (2 * count - first + second) * d
        q = (math.sqrt(max(b * b + 8 * count * second * d * (1 - d), 0.0)) - b) / (4 * count)
        spread = count * (2 * q + d * (1 - d))
        gap = first - second - count * d
        return gap / math.sqrt(spread) if spread > 1e-12 else math.copysign(math.inf, gap) if gap else 0.0

    middle = (first - second) / count
    return _solve(lambda d: z - distance(d), -1.0, middle), _solve(lambda d: -z - distance(d), middle, 1.0)


def _solve(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is 0, or the end that is nearest to it."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


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
