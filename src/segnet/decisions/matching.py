"""Which objects of the truth a prediction has found, and which of its objects are there."""

import numpy as np
from numpy.typing import NDArray

from segnet.decisions.regions import Regions, overlaps

OVERLAP = 0.1  # of the smaller of two objects that they must share to be the same
IOU = 0.5  # the stricter rule beside it


def matches(truth: Regions, predicted: Regions, overlap: float = OVERLAP) -> NDArray[np.bool_]:
    """Whether each object of the truth and each predicted one are the same, bool (n, m).

    They are where they share at least ``overlap`` of the pixels of the smaller one. An object of the truth is found
    if any predicted one is the same, and a predicted one is true if any of the truth is: two predictions over one
    defect are both true, and find one defect; one prediction over two defects finds both.
    """
    shared = overlaps(truth, predicted)
    smaller = np.minimum(truth.areas[:, None], predicted.areas[None])
    return (shared > 0) & (shared >= overlap * smaller)


def matches_iou(truth: Regions, predicted: Regions, iou: float = IOU) -> NDArray[np.bool_]:
    """As `matches`, where the intersection is at least ``iou`` of the union."""
    shared = overlaps(truth, predicted)
    union = truth.areas[:, None] + predicted.areas[None] - shared
    return shared >= iou * union
