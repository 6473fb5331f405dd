"""Which objects of the truth a prediction has found, and which of its objects are there.

An object of the truth and a predicted one are the same where they share at least `OVERLAP` of the pixels of the smaller
one, or by the stricter rule where their intersection is at least `IOU` of their union. An object of the truth is found
if any predicted one is the same, and a predicted one is true if any of the truth is: two predictions over one defect
are both true, and find one defect; one prediction over two defects finds both.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.decisions.regions import Regions, shared

OVERLAP = 0.1
IOU = 0.5


class Same(NamedTuple):
    """Which objects have a counterpart.

    Attributes:
        truth: bool (n,), the objects of the truth that are found.
        predicted: bool (m,), the predicted ones that are there; the others are false alarms.
    """

    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]


def same(truth: Regions, predicted: Regions, overlap: float = OVERLAP, iou: float = IOU) -> tuple[Same, Same]:
    """What has a counterpart by the rule, and by the stricter one; memory grows with objects, not with their pairs."""
    i, j, pixels = shared(truth, predicted)
    first, second = truth.areas[i], predicted.areas[j]
    rules = pixels >= overlap * np.minimum(first, second), pixels >= iou * (first + second - pixels)
    found = []
    for rule in rules:
        one = Same(np.zeros(len(truth), np.bool_), np.zeros(len(predicted), np.bool_))
        one.truth[i[rule]], one.predicted[j[rule]] = True, True
        found.append(one)
    return found[0], found[1]


def pairs(truth: Regions, predicted: Regions, overlap: float = OVERLAP) -> NDArray[np.int64]:
    """The pairs that are the same, int64 (p, 2): index in the truth, index in the prediction."""
    i, j, pixels = shared(truth, predicted)
    kept = pixels >= overlap * np.minimum(truth.areas[i], predicted.areas[j])
    return np.stack([i[kept], j[kept]], 1)
