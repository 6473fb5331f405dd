"""The objects of one image, and what is kept of them and of the image: figures of a split are counted from that."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segnet.decisions import boundaries, overlap_curve
from segnet.decisions.matching import same
from segnet.decisions.regions import Regions, regions

Curves = list[tuple[NDArray[np.int64], NDArray[np.float64], int]]


@dataclass(frozen=True)
class Objects:
    """The regions of the defects of one kind in one mask, and whether the other mask has them.

    Attributes:
        regions: where they are.
        same: bool (n,), whether the other mask has it (`segnet.decisions.matching`): found, or no false alarm.
        same_iou: bool (n,), by the stricter rule.
        covered: float64 (n,), share of its pixels that the other mask shows.
        mean: float64 (n,) probability.
        greatest: float64 (n,) probability.
    """

    regions: Regions
    same: NDArray[np.bool_]
    same_iou: NDArray[np.bool_]
    covered: NDArray[np.float64]
    mean: NDArray[np.float64]
    greatest: NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """What is kept of one image for the figures of its split: a few bytes an object of the truth, counts of others.

    Attributes:
        kinds: uint8 (n,), of each object of the truth the index of its class among the defects.
        areas: int64 (n,) pixels.
        found: bool (n, 2), by the rule of `segnet.decisions.matching` and by the stricter one.
        covered: float64 (K,), sum over these of the share that the prediction covers.
        predicted: int64 (K, 3): predicted objects, those that are there, and those by IoU.
        boundaries: int64 (K, 6), see `boundaries.count`.
        score: the greatest probability of a defect.
        defective: whether the truth shows a defect.
        called: whether the prediction shows one.
    """

    kinds: NDArray[np.uint8]
    areas: NDArray[np.int64]
    found: NDArray[np.bool_]
    covered: NDArray[np.float64]
    predicted: NDArray[np.int64]
    boundaries: NDArray[np.int64]
    score: float
    defective: bool
    called: bool


def compare(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> list[tuple[Objects, Objects]]:
    """The objects of the truth and those predicted, of each kind of defect; those of different kinds never match.

    Args:
        truth: class indices (H, W); ignored pixels are 0, here and in the prediction.
        predicted: class indices (H, W).
        probabilities: (C, H, W).
    """
    found = []
    for kind, single in enumerate(_each(probabilities), 1):
        masks = truth == kind, predicted == kind
        one, other = (regions(mask) for mask in masks)
        loose, strict = same(one, other)
        sides = (one, loose.truth, strict.truth, masks[1]), (other, loose.predicted, strict.predicted, masks[0])
        pair = [Objects(r, a, b, r.mean(mask), r.mean(single), r.greatest(single)) for r, a, b, mask in sides]
        found.append((pair[0], pair[1]))
    return found


def judge(
    objects: list[tuple[Objects, Objects]],
    truth: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    score: float,
    width: float = boundaries.WIDTH,
    tolerance: float = boundaries.TOLERANCE,
) -> Judged:
    """What is kept of an image.

    Args:
        objects: from `compare`.
        truth: class indices (H, W), without ignored pixels.
        predicted: class indices (H, W), likewise.
        score: of the image.
        width: of boundary IoU.
        tolerance: of boundary F.
    """
    first, second = zip(*objects, strict=True)
    ends = [boundaries.count(truth == k, predicted == k, width, tolerance) for k in range(1, len(objects) + 1)]
    return Judged(
        kinds=np.repeat(np.arange(len(first), dtype=np.uint8), [len(part.regions) for part in first]),
        areas=np.concatenate([part.regions.areas for part in first]),
        found=np.concatenate([np.stack([part.same, part.same_iou], 1) for part in first]),
        covered=np.array([part.covered.sum() for part in first], np.float64),
        predicted=np.array([[len(p.regions), p.same.sum(), p.same_iou.sum()] for p in second], np.int64),
        boundaries=np.stack(ends),
        score=score,
        defective=bool(truth.any()),
        called=bool(predicted.any()),
    )


def curves(
    objects: list[tuple[Objects, Objects]], probabilities: NDArray[np.float32], known: NDArray[np.bool_]
) -> Curves:
    """What `OverlapCurve.add` takes, of each kind of defect."""
    sides = zip(_each(probabilities), objects, strict=True)
    return [overlap_curve.histograms(single, one.regions, known) for single, (one, _) in sides]


def score(probabilities: NDArray[np.float32]) -> float:
    """The greatest probability of a defect, (C, H, W); of several classes that of any but the first."""
    return float(max(single.max() for single in _each(probabilities)))


def _each(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities (K, H, W) of each kind of defect."""
    return probabilities if len(probabilities) == 1 else probabilities[1:]
