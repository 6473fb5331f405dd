"""How well the boundary of a mask is met: boundary IoU, and precision and recall of the contour within a tolerance."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from segnet.decisions.regions import box

WIDTH = 0.02  # of boundary IoU: share of the image's diagonal
TOLERANCE = 2.0  # of boundary F: pixels
Mask = NDArray[np.bool_]


def count(truth: Mask, predicted: Mask, width: float = WIDTH, tolerance: float = TOLERANCE) -> NDArray[np.int64]:
    """What boundary IoU and boundary F of several images are summed from, int64 (6,).

    The boundary of a mask is its pixels within a distance (chessboard) of its end, which the image's border is too:
    Cheng et al., "Boundary IoU", CVPR 2021, and its authors' program. Its contour is the boundary of one pixel; a pixel
    of a contour is met where the other one comes within ``tolerance`` (Euclidean).

    Args:
        truth: (H, W); ignored pixels are False in both masks.
        predicted: (H, W).
        width: of the boundary, as a share of the diagonal (H, W); at least one pixel.
        tolerance: in pixels.

    Returns:
        Pixels of the boundaries' intersection and union; of the contour of the truth that are met, and all; of the
        contour of the prediction that are met, and all.
    """
    height, width_ = truth.shape
    distance = max(1, round(width * math.hypot(height, width_)))
    _, _, part = box(truth | predicted)  # there is nothing elsewhere
    masks = [np.pad(mask[part].astype(np.uint8), 1) for mask in (truth, predicted)]
    first, second = (_boundary(mask, distance) for mask in masks)
    contours = [_boundary(mask, 1) for mask in masks]
    near = [_near(one, other, tolerance) for one, other in (contours, contours[::-1])]
    sizes = [int(contour.sum()) for contour in contours]
    return np.array([(first & second).sum(), (first | second).sum(), near[0], sizes[0], near[1], sizes[1]], np.int64)


def iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Boundary IoU (…) of sums (…, 6) of `count`; nan where there is no boundary."""
    return ratio(counts[..., 0], counts[..., 1])


def f_score(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Boundary F (…) of sums (…, 6): the harmonic mean of both shares that are met; nan where there is no contour."""
    recall, precision = ratio(counts[..., 2], counts[..., 3]), ratio(counts[..., 4], counts[..., 5])
    one_is_empty = (counts[..., 3] > 0) != (counts[..., 5] > 0)
    found = ratio(2 * precision * recall, precision + recall)
    neither_met = (precision == 0) & (recall == 0)
    zero = one_is_empty | neither_met
    return np.asarray(np.where(zero, 0.0, found), np.float64)


def ratio(part: NDArray[np.generic], whole: NDArray[np.generic]) -> NDArray[np.float64]:
    """``part / whole``, nan where the whole is 0."""
    one, other = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    found = np.full(np.broadcast(one, other).shape, np.nan)
    np.divide(one, other, out=found, where=other > 0)
    return found


def _boundary(mask: NDArray[np.uint8], distance: int) -> Mask:
    """Of a mask with a border of zeros."""
    return np.asarray(mask > cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=distance), np.bool_)


def _near(contour: Mask, other: Mask, tolerance: float) -> int:
    """How many pixels of a contour come so near the other one."""
    reach = np.arange(-int(tolerance), int(tolerance) + 1)
    disk = (reach[:, None] ** 2 + reach**2 <= tolerance**2).astype(np.uint8)
    return int((contour & (cv2.dilate(other.view(np.uint8), disk) > 0)).sum())
