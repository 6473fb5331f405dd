"""Objects found and images judged in a validation, at the size that the network gets: what a monitor may ask for.

The regions above a low probability are found once an image, with their greatest probability and the objects of the
truth that they match. A threshold keeps those that come above it (`segnet.decisions.OperatingPoint`), so sorting
gives the figures at every threshold, exactly.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from segnet.data.dataset import Batch
from segnet.data.masks import IGNORE_INDEX
from segnet.decisions import regions
from segnet.decisions.matching import pairs
from segnet.decisions.operating_point import defect_maps
from segnet.errors import UserError
from segnet.settings import Text
from segnet.training.image_counts import gathered
from segnet.training.segmenter import Segmenter

LOW = 0.1  # the probability above which pixels join to regions
SIZES = 4
BY_SIZE = [f"val/object_recall/size{i + 1}" for i in range(SIZES)]
_FORM = re.compile(r"val/(object_recall@fa|escape@overkill|overkill@escape)(\d+(?:\.\d+)?)")
KNOWN = "val/object_recall@fa0.1, val/escape@overkill0.05, val/overkill@escape0.05 (with any number), " + ", ".join(
    BY_SIZE
)


def is_known(name: str) -> bool:
    """Whether the name is one of these figures. False objects an image are any number, shares are below 1."""
    form = _FORM.fullmatch(name)
    return name in BY_SIZE or (form is not None and (form[1] == "object_recall@fa" or float(form[2]) < 1))


@dataclass(frozen=True)
class Image:
    """What is kept of an image; kinds of defects one after the other.

    Attributes:
        areas: int64 (n,) pixels of the objects of the truth.
        best: float64 (n,), of each the greatest probability among the regions above `LOW` that match it; 0 without.
        found: bool (n,), whether an object of the mask, as it is decided without an operating point, matches it.
        false: float64 (m,), the greatest probability of each region above `LOW` that matches none.
        score: the greatest probability of a defect.
    """

    areas: NDArray[np.int64]
    best: NDArray[np.float64]
    found: NDArray[np.bool_]
    false: NDArray[np.float64]
    score: float

    @property
    def defective(self) -> bool:
        """Whether the truth shows a defect."""
        return len(self.areas) > 0


def look(probabilities: NDArray[np.float32], mask: NDArray[np.uint8]) -> Image:
    """Find the objects of one image.

    Args:
        probabilities: (C, H, W); of several classes the first is no defect.
        mask: (H, W), class indices; ignored pixels belong to no object, neither of truth nor of prediction.
    """
    known = np.where(mask == IGNORE_INDEX, np.float32(0), probabilities)
    maps = defect_maps(known)
    decided = known[0] > 0.5 if len(known) == 1 else known.argmax(0)
    parts = [(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_), np.zeros(0))]
    for kind, single in enumerate(maps, 1):
        shown, above = mask == kind, single > LOW
        if not shown.any() and not above.any():  # most kinds of most images
            continue
        truth, candidates = regions(shown), regions(above)
        greatest, best = candidates.greatest(single), np.zeros(len(truth))
        i, j = pairs(truth, candidates).T
        np.maximum.at(best, i, greatest[j])
        found = np.zeros(len(truth), np.bool_)
        if len(truth):
            found[pairs(truth, regions(decided == kind))[:, 0]] = True
        parts.append((truth.areas, best, found, np.delete(greatest, j)))
    areas, best, found, false = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Image(areas, best, found, false, max(float(single.max()) for single in maps))


def figure(name: str, images: Sequence[Image]) -> float:
    """A figure by its name (see `is_known`); nan where these images do not define it."""
    if name in BY_SIZE:
        return _recall_by_size(images, BY_SIZE.index(name))
    form = _FORM.fullmatch(name)
    assert form is not None
    kind, limit = form[1], float(form[2])
    if kind == "object_recall@fa":
        return _object_recall(images, limit)
    defective, good = ([image.score for image in images if image.defective is wanted] for wanted in (True, False))
    if not defective or not good:
        return math.nan
    if kind == "escape@overkill":
        return 1 - float(np.mean(np.array(defective) > _lowest(good, limit * len(good))))
    # As many of the defective may escape: the least score of those that may not must still come above the threshold.
    least = np.sort(defective)[_whole(limit * len(defective))]
    return 1 - float(np.mean(np.array(good) < least))


def _object_recall(images: Sequence[Image], false_per_image: float) -> float:
    best = np.concatenate([image.best for image in images] or [np.zeros(0)])
    false = np.concatenate([image.false for image in images] or [np.zeros(0)])
    if not len(best):
        return math.nan
    return float(np.mean(best > max(LOW, _lowest(false, false_per_image * len(images)))))


def _recall_by_size(images: Sequence[Image], size: int) -> float:
    """Of the objects of the truth, ordered by area, a quarter; those on its upper edge belong to it."""
    areas, found = (np.concatenate([getattr(image, name) for image in images] or [[]]) for name in ("areas", "found"))
    if not len(areas):
        return math.nan
    edges = np.quantile(areas, np.arange(1, SIZES) / SIZES)
    chosen = found[np.searchsorted(edges, areas) == size]
    return float(chosen.mean()) if len(chosen) else math.nan


def _lowest(scores: Sequence[float] | NDArray[np.float64], allowed: float) -> float:
    """The lowest threshold that at most ``allowed`` of the scores exceed; 0 where all may."""
    count = _whole(allowed)
    return float(np.sort(scores)[-1 - count]) if count < len(scores) else 0.0


def _whole(count: float) -> int:
    return math.floor(count + 1e-9)  # 0.07 · 100 is 7.000000000000001, and 0.29 · 100 is 28.999999999999996


class ObjectMetrics(Callback):
    """Counts objects in every validation and logs the figures; every process counts its own images.

    Args:
        metrics: names, such as ``val/object_recall@fa0.1``, ``val/escape@overkill0.05`` and those of `BY_SIZE`.
    """

    def __init__(self, metrics: Sequence[Text] = tuple(BY_SIZE)) -> None:
        self.metrics = list(dict.fromkeys(metrics))
        for name in self.metrics:
            if not is_known(name):
                raise UserError(f"callbacks.objects.metrics: {name}: no such metric; known are {KNOWN}")
        self.images: list[tuple[int, Image]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier validation."""
        self.images = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the images of a batch."""
        assert isinstance(pl_module, Segmenter)
        found = outputs.get("probabilities")
        found = pl_module.probabilities(outputs["logits"]) if found is None else found
        probabilities = found.cpu().numpy()
        masks = batch["mask"].cpu().numpy()
        for index, single, mask in zip(batch["index"].tolist(), probabilities, masks, strict=True):
            self.images.append((index, look(single, mask)))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the processes' shares together, and log."""
        self.images = gathered(trainer, self.images)
        values = {name: figure(name, self._seen()) for name in self.metrics}
        pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)  # equal in all processes

    def _seen(self) -> list[Image]:
        return [image for _, image in self.images]

    def missing(self, name: str, classes: Sequence[str]) -> str | None:
        """What the images of the last validation lack that a figure needs, as a sentence; None where it is defined."""
        images = self._seen()
        if not images or name not in self.metrics or not math.isnan(figure(name, images)):
            return None
        if not any(image.defective for image in images):
            return f"no pixel of the val split shows {classes[0] if len(classes) == 1 else 'a defect'}"
        if name in BY_SIZE:
            return "no object of the val split has that size"
        return "no image of the val split is good"
