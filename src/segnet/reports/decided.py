"""Objects and images of a split, decided as ``predict.py`` decides them: the pass over it, and its figures in words."""

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segnet.data import grouping
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.masks import IGNORE_INDEX
from segnet.decisions import boundaries, matching, objects
from segnet.decisions.figures import Figures, Tally, flat
from segnet.decisions.objects import Curves, Judged, Objects
from segnet.decisions.operating_point import VERDICTS
from segnet.deployment.pipeline import READ_AHEAD, THREADS, ahead, threads
from segnet.deployment.prediction import Prediction
from segnet.files import csv_file
from segnet.reports.tested import BATCH, Confusions, confusion, predicted
from segnet.training.module import SegmentationModule

MOST = 1000  # false alarms of an image that objects.csv lists, the largest
COLUMNS = ("class", "area", "left", "top", "width", "height", "x", "y", "mean_probability", "greatest_probability")
Rows = list[list[Any]]


@dataclass(frozen=True)
class Decided:
    """What a pass over images at their own size has found.

    Attributes:
        confusions: of each image, (K, K): its mask file against the mask that ``predict.py`` writes.
        tally: what is kept of each.
        figures: by name.
        described: what they were counted over.
        left_out: false alarms that objects.csv does not list.
    """

    confusions: Confusions
    tally: Tally
    figures: Figures
    described: dict[str, Any]
    left_out: int = 0

    def metrics(self, split: str) -> dict[str, float]:
        """As in results.json: ``test/escape_rate``, with ``_low`` and ``_high`` beside it; nan where undefined."""
        return {f"{split}/{name}": value for name, value in flat(self.figures).items()}

    def columns(self) -> dict[str, list[Any]]:
        """What images.csv says of each image beside its confusion matrix."""
        judged, tally = self.tally.judged, self.tally
        found: dict[str, list[Any]] = {
            "truth": [VERDICTS[one.defective] for one in judged],
            "verdict": [VERDICTS[one.called] for one in judged],
            "score": [f"{one.score:.6f}" for one in judged],
            "objects": [int(one.predicted[:, 0].sum()) for one in judged],
        }
        if tally.parts is not None:
            found["part"] = [grouping.part_of(tally.parts, file) for file in tally.files]
        return found | ({"kind": tally.named()} if tally.kinds is not None else {})


def decide(
    module: SegmentationModule,
    device: torch.device,
    data: SegmentationDataModule,
    indices: Sequence[int],
    table: Path | None = None,
    width: float = boundaries.WIDTH,
    tolerance: float = boundaries.TOLERANCE,
) -> Decided:
    """Predict images as ``predict.py`` does with its defaults, in float32, and compare them with their masks.

    Both have the image's own size. `IGNORE_INDEX` pixels count nowhere: they have no probability of a defect. The
    counting runs in threads beside the network.

    Args:
        module: the network; its operating point decides if it has one.
        device: that predicts.
        data: after ``setup``.
        indices: into ``data.pairs``.
        table: ``objects.csv``: every object of the truth and every false alarm; None: not written.
        width: of boundary IoU, see `boundaries.count`.
        tolerance: of boundary F.
    """
    pairs = [data.pairs[index] for index in indices]
    tally, confusions, left_out = Tally(module.classes, data.kinds, data.parts), Confusions(), 0
    look = partial(_look, classes=max(len(module.classes), 2), defects=tally.defects, width=width, tolerance=tolerance)
    with nullcontext(_nowhere) if table is None else csv_file(table) as write, threads(THREADS) as pool:
        kind = [] if data.kinds is None else ["kind"]
        write(["file", *kind, "object", "found", "found_iou50", "covered", *COLUMNS])
        found = predicted(module, device, pairs, data.mask)
        tasks = ((64 * mask.size, partial(look, mask, prediction)) for mask, prediction in found)
        for pair, (matrix, judged, curves, rows, dropped) in zip(
            pairs, ahead(pool, tasks, 2 * BATCH, READ_AHEAD), strict=True
        ):
            file = pair.image.relative_to(data.root).as_posix()
            confusions.append(matrix)
            tally.add(file, judged, curves)
            left_out += dropped
            begin = [file] if data.kinds is None else [file, grouping.kind_of(data.kinds, file)]
            for row in rows:
                write([*begin, *row])
    described = tally.described() | {
        "overlap": matching.OVERLAP, "iou": matching.IOU, "boundary_width": width, "boundary_tolerance": tolerance,
        "operating_point": None if module.operating_point is None else module.operating_point.stored(),
    }  # fmt: skip
    figures = tally.figures()
    described["counted"] = {n: [f.hits, f.total] for n, f in figures.items() if f.total is not None}
    return Decided(confusions, tally, figures, described, left_out if table is not None else 0)


def _look(
    mask: NDArray[np.uint8],
    prediction: Prediction,
    classes: int,
    defects: Sequence[str],
    width: float,
    tolerance: float,
) -> tuple[NDArray[np.int64], Judged, Curves, Rows, int]:
    """Everything that is kept of an image, and its rows of objects.csv."""
    guess, score = prediction.decided()
    matrix = confusion(mask, guess, classes)
    known = mask != IGNORE_INDEX
    if not known.all():
        # The mask as predict.py writes it, without ignored pixels: as calibrate.py counts it (`Outcomes`).
        if prediction.point is not None:
            score = prediction.point.decided(prediction.probabilities.numpy(), known)[1]
        mask, guess = np.where(known, mask, 0), np.where(known, guess, 0)
        prediction = replace(prediction, probabilities=prediction.probabilities * torch.from_numpy(known))
    probabilities = prediction.probabilities.numpy()
    found = objects.compare(mask, guess, probabilities)
    score = objects.score(probabilities) if prediction.point is None else score
    judged = objects.judge(found, mask, guess, score, width, tolerance)
    rows, dropped = Rows(), 0
    for name, (truth, other) in zip(defects, found, strict=True):
        false = np.flatnonzero(~other.same)
        largest = false[np.argsort(-other.regions.areas[false], kind="stable")[:MOST]]
        dropped += len(false) - len(largest)
        rows += _rows("defect", name, truth, range(len(truth.regions)))
        rows += _rows("false alarm", name, other, largest.tolist())
    return matrix, judged, objects.curves(found, probabilities, known), rows, dropped


def _rows(what: str, name: str, given: Objects, chosen: Sequence[int]) -> Rows:
    rows: Rows = []
    for i in chosen:
        where = given.regions
        x, y = where.centroids[i]
        found = ["", "", ""]
        if what == "defect":
            found = ["yes" if given.same[i] else "no", "yes" if given.same_iou[i] else "no", f"{given.covered[i]:.6f}"]
        rows.append([
            what, *found, name, int(where.areas[i]), *where.boxes[i].tolist(), f"{x:.2f}", f"{y:.2f}",
            f"{given.mean[i]:.6f}", f"{given.greatest[i]:.6f}",
        ])  # fmt: skip
    return rows


def _nowhere(row: Iterable[Any]) -> None:
    """Where rows go that nobody wants."""


def known(metrics: dict[str, float]) -> dict[str, float | None]:
    """As JSON has them: null where they are undefined."""
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}
