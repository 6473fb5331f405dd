"""What masks decide: images and parts called good or defective, defects found, with the intervals of their rates."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from segnet.data.masks import IGNORE_INDEX
from segnet.decisions import matching
from segnet.decisions.figures import flat, object_rate, unit_rate
from segnet.decisions.sweeps import Verdicts
from segnet.training.metrics import Counts, calibration_error

RATES = ("escape_rate", "overkill_rate", "object_recall", "object_precision")


@dataclass
class Outcomes:
    """Counts over the images of a split.

    Attributes:
        classes: how many the network has.
        called: of each image, whether its mask shows a defect.
        objects: of each image int64 (2, 2): defects of the truth, those found; objects shown, those that are true.
    """

    classes: int
    called: list[bool] = field(default_factory=list)
    objects: list[NDArray[np.int64]] = field(default_factory=list)

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
        known = truth != IGNORE_INDEX
        shown = np.where(known, mask, 0)
        self.called.append(bool(shown.any()))
        self.objects.append(matching.counted(np.where(known, truth, 0), shown))
        found = self._counts.count_probabilities(torch.from_numpy(probabilities), torch.from_numpy(truth))
        self._histogram += found[1]

    def figures(self, verdicts: Verdicts) -> dict[str, float]:
        """Each rate with ``_low`` and ``_high`` (95 %), and the calibration error; nan where undefined."""
        wrong = self.wrong(verdicts)
        units = {"escape_rate": verdicts.defective, "overkill_rate": ~verdicts.defective}
        found = {name: unit_rate(int(wrong[group].sum()), int(group.sum())) for name, group in units.items()}
        for side, name in enumerate(("object_recall", "object_precision")):
            counts = [one[side].tolist() for one in self.objects]
            found[name] = object_rate([hits for _, hits in counts], [count for count, _ in counts])
        return flat(found) | {"calibration_error_own_size": calibration_error(self._histogram).item()}

    def wrong(self, verdicts: Verdicts) -> NDArray[np.bool_]:
        """Whether each image, or part, is taken for what it is not."""
        called = np.zeros(len(verdicts.defective), bool)
        np.logical_or.at(called, verdicts.part, np.array(self.called, bool))
        wrong: NDArray[np.bool_] = called != verdicts.defective
        return wrong
