"""The operating point at another threshold, and the rates that its record knows there."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from segnet.decisions.operating_point import OperatingPoint

POINTS = 200  # of a curve at most
RATES = ("escape", "overkill")


def at(point: OperatingPoint, threshold: float) -> OperatingPoint:
    """The point of one kind of defect with another threshold, in [0, 1).

    Its lower threshold stays where it is, or below the threshold; where the two are equal, they stay so.
    """
    (low,) = point.low
    low = threshold if point.low == point.thresholds else min(low, threshold)
    return replace(point, thresholds=(threshold,), low=(low,))


def rates(point: OperatingPoint, threshold: float) -> dict[str, list[float]] | None:
    """Escape and overkill rate at a threshold, each with its interval, from the record's curve.

    ``record["curve"]`` holds ``threshold``, a rising list of at most `POINTS` probabilities, and ``escape`` and
    ``overkill``, for each of them [rate, low, high] of the images that calibrate.py has chosen on. Where it leaves none
    out, the rates are the same up to the next threshold.

    Returns:
        ``threshold`` with [the last one that is not above], and both rates; None where the record has no such curve.
    """
    curve = point.record.get("curve")
    if not isinstance(curve, Mapping):
        return None
    places: Any = curve.get("threshold")
    rows: list[Any] = [curve.get(name) for name in RATES]
    if not _numbers(places) or not all(isinstance(row, list) and len(row) == len(places) for row in rows):
        return None
    place = max(bisect_right(places, threshold) - 1, 0)
    found = {name: row[place] for name, row in zip(RATES, rows, strict=True)}
    if not all(_numbers(rate) and len(rate) == 3 for rate in found.values()):
        return None
    return {"threshold": [places[place]], **found}


def _numbers(values: Any) -> bool:
    """Whether it is a list of numbers, not empty and not too long."""
    return (
        isinstance(values, list)
        and 0 < len(values) <= POINTS
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    )
