"""Segmentation metrics from counts over a whole split.

`Counts` gathers a confusion matrix and, for a binary task, a histogram of probabilities; `scores` derives every
figure from them. Averages over images (torchmetrics' `MeanIoU`) would weigh a pixel by the image it is in, and
`JaccardIndex` reports a class that does not occur as 0; here it is NaN and left out of the mean.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from segnet.data.masks import IGNORE_INDEX

STRIP = 2**20  # pixels of a large image that are counted at a time
BINS = 512  # of the probability; average precision is exact up to ties within a bin


class Counts(Metric):
    """Sums over every batch and process; `IGNORE_INDEX` pixels count nowhere.

    ``compute`` gives the confusion matrix int64 (K, K), rows truth, columns prediction (K = 2 for a binary
    task), and the histogram int64 (2, BINS) of confidences: of the positive class's probability by truth, or of the
    probability of the class decided for by whether it was right (empty without ``calibration``).
    """

    full_state_update = False
    confusion: Tensor
    histogram: Tensor

    def __init__(self, num_classes: int, calibration: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.size = max(num_classes, 2)
        bins = BINS if num_classes == 1 or calibration else 0
        zeros = torch.zeros(self.size, self.size, dtype=torch.int64)
        self.add_state("confusion", zeros, dist_reduce_fx="sum")
        self.add_state("histogram", torch.zeros(2, bins, dtype=torch.int64), dist_reduce_fx="sum")

    def count(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Confusion matrix and histogram of one batch, for `update`; changes nothing and does not wait for a GPU.

        Args:
            logits: (N, C, H, W) float.
            target: (N, H, W) integer class indices.
        """
        predicted = (logits[:, 0] > 0).long() if self.num_classes == 1 else logits.argmax(1)
        if not self.histogram.numel():
            return self._counted(predicted, None, target)
        confidence = logits[:, 0].float().sigmoid() if self.num_classes == 1 else logits.float().softmax(1).amax(1)
        return self._counted(predicted, confidence, target)

    def count_probabilities(self, probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """As `count`, of probabilities (C, H, W) and the mask (H, W) of one image; in strips, as it may be large."""
        rows = max(1, STRIP // target.shape[-1])
        total = torch.zeros_like(self.confusion), torch.zeros_like(self.histogram)
        for part, truth in zip(torch.split(probabilities, rows, 1), torch.split(target, rows), strict=True):
            binary = self.num_classes == 1
            predicted = (part[0] > 0.5).long() if binary else part.argmax(0)
            found = self._counted(predicted, part[0] if binary else part.amax(0), truth)
            total = total[0] + found[0], total[1] + found[1]
        return total

    def _counted(self, predicted: Tensor, confidence: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
        """Of decisions and confidences of the target's shape; without confidences no histogram."""
        known = target != IGNORE_INDEX
        target = target.long()
        confusion = frequencies(target * self.size + predicted, known, self.size**2).view_as(self.confusion)
        if confidence is None or not self.histogram.numel():
            return confusion, torch.zeros_like(self.histogram)
        row = target if self.num_classes == 1 else (predicted == target).long()
        bins = (confidence * BINS).long().clamp(0, BINS - 1)  # also where it is NaN
        return confusion, frequencies(row * BINS + bins, known, 2 * BINS).view_as(self.histogram)

    def update(self, confusion: Tensor, histogram: Tensor) -> None:
        """Add what `count` found."""
        self.confusion += confusion
        self.histogram += histogram

    def compute(self) -> tuple[Tensor, Tensor]:
        """Confusion matrix and histogram, summed over processes."""
        return self.confusion.clone(), self.histogram.clone()


class MeanLoss(Metric):
    """Mean over images, of every batch and process.

    Lightning's own mean is wrong where processes have unequal shares, and torchmetrics' ``MeanMetric`` either leaves
    NaN out or forgets its weights (1.9, ``nan_strategy="disable"``).
    """

    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, images: int) -> None:
        """Mean loss of a batch, and how many images that has."""
        self.total += loss * images
        self.images += images

    def compute(self) -> Tensor:
        """The mean, a scalar."""
        return self.total / self.images


def frequencies(values: Tensor, known: Tensor, bins: int) -> Tensor:
    """How often each of 0..bins-1 occurs where ``known``."""
    values = torch.where(known, values, bins).flatten()
    if values.is_cuda:  # there ``bincount`` waits for the device, and a deterministic ``scatter_add_`` sorts all pixels
        return torch.histc(values.int(), bins + 1, 0, bins + 1)[:bins].long()
    return torch.bincount(values, minlength=bins + 1)[:bins]


def scores(confusion: Tensor, histogram: Tensor, classes: Sequence[str]) -> dict[str, Tensor]:
    """Every metric in 0..1 by name; NaN where a class occurs neither in truth nor in prediction.

    A binary task reports the defect class; several classes report means over those that occur, and
    ``iou/<class>`` beside them.
    """
    matrix = confusion.double()
    hit = matrix.diagonal()
    truth, predicted = matrix.sum(1), matrix.sum(0)
    iou = hit / (truth + predicted - hit)
    dice = 2 * hit / (truth + predicted)
    precision, recall = hit / predicted, hit / truth
    binary = len(classes) == 1
    pick = (lambda v: v[1]) if binary else torch.nanmean
    out = {
        "iou": pick(iou),
        "dice": pick(dice),
        "precision": pick(precision),
        "recall": pick(recall),
        "accuracy": hit.sum() / matrix.sum(),
        "class_accuracy": torch.nanmean(recall),
    }
    out |= {f"iou/{name}": value for name, value in zip(classes, iou[1:] if binary else iou, strict=True)}
    if binary:
        out["average_precision"] = average_precision(histogram)
    return {name: value.float() for name, value in out.items()}


def unseen(confusion: Tensor, name: str, classes: Sequence[str]) -> str | None:
    """The class that a metric is about, if no pixel shows it: the metric is NaN or zero, and compares nothing.

    Args:
        confusion: from `Counts`.
        name: of the metric, without the split's prefix.
        classes: class names.
    """
    truth = confusion.sum(1)
    if name == "loss":
        return None
    if not truth.any():
        return "any class"
    if len(classes) == 1:
        return None if truth[1] or name in ("accuracy", "class_accuracy") else classes[0]
    one = name.removeprefix("iou/")
    return one if one in classes and not truth[classes.index(one)] else None


def average_precision(histogram: Tensor) -> Tensor:
    """Sum over thresholds of precision times gain in recall, from counts (2, bins) of negatives, positives."""
    negatives, positives = histogram.flip(1).cumsum(1).double()
    precision = positives / (positives + negatives).clamp(min=1)
    recall = positives / positives[-1]
    gain = torch.diff(recall, prepend=recall.new_zeros(1))
    area: Tensor = (precision * gain).sum()
    return area


def rates(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """True and false positives, true and false negatives, precision and recall (6, N) above N thresholds.

    Args:
        counts: (2, N), how many negatives and positives lie between each threshold and the next.
    """
    fp, tp = counts[:, ::-1].cumsum(1)[:, ::-1].astype(np.float64)
    precision, recall = tp / np.maximum(tp + fp, 1), tp / max(tp[0], 1)
    return np.stack([tp, fp, fp[0] - fp, tp[0] - tp, precision, recall])


def calibration(histogram: Tensor, bins: int = 16) -> Tensor:
    """Reliability of confidences (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2).

    Args:
        histogram: int64 (2, BINS) from `Counts`.
        bins: a divisor of `BINS`.

    Returns:
        (3, bins): pixels, mean confidence, and how often it came true; NaN in empty bins.
    """
    fine = histogram.double().view(2, bins, BINS // bins)
    centres = (torch.arange(BINS, device=histogram.device, dtype=torch.float64).view(bins, -1) + 0.5) / BINS
    pixels = fine.sum((0, 2))
    return torch.stack([pixels, (fine.sum(0) * centres).sum(1) / pixels, fine[1].sum(1) / pixels])


def calibration_error(histogram: Tensor) -> Tensor:
    """Expected calibration error in 0..1: mean distance of confidence and frequency over pixels (Guo et al., eq. 5)."""
    pixels, confidence, frequency = calibration(histogram)
    error: Tensor = (pixels * (confidence - frequency).abs()).nansum() / pixels.sum()
    return error


def names(classes: Sequence[str]) -> list[str]:
    """Names of all metrics, loss included, without the split's prefix."""
    size = max(len(classes), 2)
    zeros = torch.zeros(size, size), torch.zeros(2, BINS)
    return ["loss", *scores(*zeros, classes)]
