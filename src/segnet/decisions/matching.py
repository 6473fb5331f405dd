"""Which objects of the truth a prediction has found, and which of its objects are there.

An object of the truth and a predicted one are the same where they share at least `OVERLAP` of the pixels of the smaller
one, or by the stricter rule where their intersection is at least `IOU` of their union. An object of the truth is found
if any predicted one is the same, and a predicted one is true if any of the truth is: two predictions over one defect
are both true, and find one defect; one prediction over two defects finds both.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.decisions.regions import Regions, regions, shared

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


def same(truth: Regions, predicted: Regions) -> tuple[Same, Same]:
    """What has a counterpart by the rule, and by the stricter one; memory grows with objects, not with their pairs."""
    i, j, pixels = shared(truth, predicted)
    first, second = truth.areas[i], predicted.areas[j]
    rules = pixels >= OVERLAP * np.minimum(first, second), pixels >= IOU * (first + second - pixels)
    found = []
    for rule in rules:
        one = Same(np.zeros(len(truth), np.bool_), np.zeros(len(predicted), np.bool_))
        one.truth[i[rule]], one.predicted[j[rule]] = True, True
        found.append(one)
    return found[0], found[1]


def counted(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 (2, 2): of two masks (H, W) of class indices the objects of each, and those which the other has too."""
    found = np.zeros((2, 2), np.int64)
    for kind in range(1, int(max(truth.max(), predicted.max())) + 1):
        one, other = regions(truth == kind), regions(predicted == kind)
        rule, _ = same(one, other)
        found += [[len(one), rule.truth.sum()], [len(other), rule.predicted.sum()]]
    return found


def pairs(truth: Regions, predicted: Regions) -> NDArray[np.int64]:
    """The pairs that are the same, int64 (p, 2): index in the truth, index in the prediction."""
    i, j, pixels = shared(truth, predicted)
    kept = pixels >= OVERLAP * np.minimum(truth.areas[i], predicted.areas[j])
    return np.stack([i[kept], j[kept]], 1)
