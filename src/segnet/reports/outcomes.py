"""What masks decide: images and parts called good or defective, defects found, with the intervals of their rates."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from segnet.data.masks import IGNORE_INDEX
from segnet.decisions import matching, rates
from segnet.decisions.regions import regions
from segnet.decisions.sweeps import Verdicts
from segnet.training.metrics import Counts, calibration_error

RATES = ("escape_rate", "overkill_rate", "object_recall", "object_precision")


@dataclass
class Outcomes:
    """Counts over the images of a split.

    Attributes:
        classes: how many the network has.
        called: of each image, whether its mask shows a defect.
        objects: of each image: defects of the truth, those found, objects shown, those that are true.
    """

    classes: int
    called: list[bool] = field(default_factory=list)
    objects: list[tuple[int, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._counts = Counts(self.classes, calibration=True)
        self._histogram = torch.zeros_like(self._counts.histogram)

    def add(self, probabilities: NDArray[np.float32], truth: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
        """Of one image.

        Args:
            probabilities: (C, H, W).
            truth: class indices (H, W).
            mask: class indices (H, W), as ``predict.py`` writes them.
        """
        shown = np.where(truth == IGNORE_INDEX, 0, mask)
        total = np.zeros(4, np.int64)
        for kind in range(1, max(self.classes, 2)):
            first, second = regions(truth == kind), regions(shown == kind)
            loose, _ = matching.same(first, second)
            total += [len(first), loose.truth.sum(), len(second), loose.predicted.sum()]
        self.called.append(bool(shown.any()))
        self.objects.append((int(total[0]), int(total[1]), int(total[2]), int(total[3])))
        found = self._counts.count_probabilities(torch.from_numpy(probabilities), torch.from_numpy(truth))
        self._histogram += found[1]

    def figures(self, verdicts: Verdicts) -> dict[str, float]:
        """Each rate with ``_low`` and ``_high`` (95 %), and the calibration error; nan where undefined."""
        wrong = self.wrong(verdicts)
        found: dict[str, float] = {}
        for name, group in (("escape_rate", verdicts.defective), ("overkill_rate", ~verdicts.defective)):
            hits, count = int(wrong[group].sum()), int(group.sum())
            _rate(found, name, hits, count, rates.exact_interval(hits, count))
        columns = np.array(self.objects, np.int64).reshape(-1, 4).T
        for name, of, hit in (("object_recall", *columns[:2]), ("object_precision", *columns[2:])):
            _rate(found, name, int(hit.sum()), int(of.sum()), rates.clustered_interval(hit, of))
        found["calibration_error_own_size"] = calibration_error(self._histogram).item()
        return found

    def wrong(self, verdicts: Verdicts) -> NDArray[np.bool_]:
        """Whether each image, or part, is taken for what it is not."""
        called = np.zeros(len(verdicts.defective), bool)
        np.logical_or.at(called, verdicts.part, np.array(self.called, bool))
        wrong: NDArray[np.bool_] = called != verdicts.defective
        return wrong


def _rate(found: dict[str, float], name: str, hits: int, count: int, interval: tuple[float, float]) -> None:
    low, high = interval
    found |= {name: hits / count if count else math.nan, f"{name}_low": low, f"{name}_high": high}
