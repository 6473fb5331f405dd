"""Which objects of the truth a prediction has found, and which of its objects are there."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.decisions.regions import Regions, overlaps, shared

OVERLAP = 0.1  # of the smaller of two objects that they must share to be the same
IOU = 0.5  # the stricter rule beside it


class Same(NamedTuple):
    """Which objects have a counterpart.

    Attributes:
        truth: bool (n,), the objects of the truth that are found.
        predicted: bool (m,), the predicted ones that are there; the others are false alarms.
    """

    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]


def same(truth: Regions, predicted: Regions, overlap: float = OVERLAP, iou: float = IOU) -> tuple[Same, Same]:
    """What has a counterpart by `matches`, and by `matches_iou`; in memory that grows with the objects alone."""
    i, j, pixels = shared(truth, predicted)
    first, second = truth.areas[i], predicted.areas[j]
    rules = pixels >= overlap * np.minimum(first, second), pixels >= iou * (first + second - pixels)
    found = []
    for rule in rules:
        one = Same(np.zeros(len(truth), np.bool_), np.zeros(len(predicted), np.bool_))
        one.truth[i[rule]], one.predicted[j[rule]] = True, True
        found.append(one)
    return found[0], found[1]


def matches(truth: Regions, predicted: Regions, overlap: float = OVERLAP) -> NDArray[np.bool_]:
    """Whether each object of the truth and each predicted one are the same, bool (n, m).

    They are where they share at least ``overlap`` of the pixels of the smaller one. An object of the truth is found
    if any predicted one is the same, and a predicted one is true if any of the truth is: two predictions over one
    defect are both true, and find one defect; one prediction over two defects finds both.
    """
    pixels = overlaps(truth, predicted)
    smaller = np.minimum(truth.areas[:, None], predicted.areas[None])
    return (pixels > 0) & (pixels >= overlap * smaller)


def matches_iou(truth: Regions, predicted: Regions, iou: float = IOU) -> NDArray[np.bool_]:
    """As `matches`, where the intersection is at least ``iou`` of the union."""
    pixels = overlaps(truth, predicted)
    union = truth.areas[:, None] + predicted.areas[None] - pixels
    return pixels >= iou * union


def pairs(truth: Regions, predicted: Regions, overlap: float = OVERLAP) -> NDArray[np.int64]:
    """The pairs that are the same by `matches`, int64 (p, 2): index in the truth, index in the prediction."""
    i, j, pixels = shared(truth, predicted)
    kept = pixels >= overlap * np.minimum(truth.areas[i], predicted.areas[j])
    return np.stack([i[kept], j[kept]], 1)
