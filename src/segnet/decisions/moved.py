"""The operating point at other thresholds, and the rates that its record knows there."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnet.decisions.operating_point import OperatingPoint
from segnet.decisions.rates import exact_interval

POINTS = 200  # of a curve at most
VALUES = 8_000  # of scores at most: images (or parts) times kinds of defects
RATES = ("escape", "overkill")
TRUTHS = ("defective", "good")  # of which each rate is one


def at(point: OperatingPoint, thresholds: Sequence[float]) -> OperatingPoint:
    """The point with other thresholds, one for each kind of defect, in [0, 1).

    The lower thresholds of a point that is `plain` are the thresholds. All others stay where they are, or come down to
    the threshold.
    """
    lows = thresholds if plain(point) else map(min, point.low, thresholds)
    return replace(point, thresholds=tuple(thresholds), low=tuple(lows))


def plain(point: OperatingPoint) -> bool:
    """Whether it has thresholds and nothing else: no hysteresis, no smallest area, no filled holes."""
    return point.low == point.thresholds and max(point.min_area) == 1 and not point.fill_holes


def rates(point: OperatingPoint, thresholds: Sequence[float]) -> dict[str, list[float]] | None:
    """Escape and overkill rate at thresholds, each with its interval, of the images that calibrate.py has chosen on.

    For one kind of defect ``record["curve"]`` holds ``threshold``, a rising list of at most `POINTS` probabilities, and
    ``escape`` and ``overkill``, for each of them [rate, low, high]. Where it leaves none out, the rates are the same up
    to the next threshold.

    For several kinds ``record["scores"]`` holds ``defective`` and ``good``, of each kind a list with the score
    (float32) of each such image, or part: it is called defective by this kind if the score is above the threshold.
    Scores are those of regions above ``low``, so below it the rates are those at ``low``, unless the point is `plain`.

    Returns:
        ``threshold`` with those that were counted at, and both rates; None where the record has neither.
    """
    if len(point.thresholds) > 1:
        counted = thresholds if plain(point) else [*map(max, point.low, thresholds)]
        return _of_scores(point.record.get("scores"), counted)
    curve = point.record.get("curve")
    if not isinstance(curve, Mapping):
        return None
    places: Any = curve.get("threshold")
    rows: list[Any] = [curve.get(name) for name in RATES]
    if not _numbers(places, POINTS) or not all(isinstance(row, list) and len(row) == len(places) for row in rows):
        return None
    place = max(bisect_right(places, thresholds[0]) - 1, 0)
    found = {name: row[place] for name, row in zip(RATES, rows, strict=True)}
    if not all(_numbers(rate, 3) and len(rate) == 3 for rate in found.values()):
        return None
    return {"threshold": [places[place]], **found}


def stored(scores: NDArray[np.float64], defective: NDArray[np.bool_]) -> dict[str, list[list[float]]] | None:
    """``record["scores"]``; None for one kind of defect, which has a curve, and for more than `VALUES`.

    Args:
        scores: (n, kinds) of images, or parts, see `curves.scores`.
        defective: (n,).
    """
    if scores.shape[1] == 1 or scores.size > VALUES:
        return None
    groups = zip(TRUTHS, (scores[defective], scores[~defective]), strict=True)
    # 9 digits give the same float32 again.
    return {name: [[float(f"{value:.9g}") for value in kind] for kind in group.T] for name, group in groups}


def _of_scores(scores: Any, thresholds: Sequence[float]) -> dict[str, list[float]] | None:
    if not isinstance(scores, Mapping):
        return None
    found: dict[str, list[float]] = {"threshold": list(thresholds)}
    for name, truth in zip(RATES, TRUTHS, strict=True):
        group: Any = scores.get(truth)
        if not isinstance(group, list) or len(group) != len(thresholds):
            return None
        if not all(_numbers(kind, VALUES) and len(kind) == len(group[0]) for kind in group):
            return None
        above = np.array(group, np.float32).astype(np.float64) > np.array(thresholds)[:, None]
        called, count = int(above.any(0).sum()), len(group[0])
        wrong = called if name == "overkill" else count - called
        found[name] = [wrong / count, *exact_interval(wrong, count)]
    return found


def _numbers(values: Any, most: int) -> bool:
    """Whether it is a list of numbers, not empty and not too long."""
    return (
        isinstance(values, list)
        and 0 < len(values) <= most
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    )
