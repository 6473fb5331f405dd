"""The images that an operating point is chosen or confirmed on, and what the network says of them, each image once."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from segnet.data import grouping
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.masks import IGNORE_INDEX
from segnet.data.pairs import Pair
from segnet.decisions.operating_point import at_temperature
from segnet.decisions.sweeps import Verdicts
from segnet.decisions.tables import Sample
from segnet.errors import UserError
from segnet.files import cells
from segnet.reports import held_out, tested
from segnet.reports.out_of_fold import FOLDER
from segnet.training.module import SegmentationModule


@dataclass(frozen=True)
class Subset:
    """Some images of a data set.

    Attributes:
        name: of its figures, such as ``val``.
        files: relative to the data's root.
        pairs: of each file.
        verdicts: the parts that they show, and the truth of these.
        defective: bool (images,), whether the image itself shows a defect.
        what: is counted, ``images`` or ``parts``.
    """

    name: str
    files: list[str]
    pairs: list[Pair]
    verdicts: Verdicts
    defective: NDArray[np.bool_]
    what: str

    @property
    def counts(self) -> tuple[int, int]:
        """How many defective and good images, or parts, there are."""
        found = int(self.verdicts.defective.sum())
        return found, len(self.verdicts.defective) - found

    def __str__(self) -> str:
        return f"{self.name}: {self.counts[0]} defective and {self.counts[1]} good {self.what}"


def of_split(data: SegmentationDataModule, split: str, key: str) -> Subset:
    """A split, after ``setup``; reads its masks once.

    Args:
        data: the data.
        split: its name.
        key: what has named it, ``split`` or ``confirm``.

    Raises:
        UserError: it has no image.
    """
    if not data.indices[split]:
        other = "; name another, or write confirm=null" if key == "confirm" else "; name another"
        raise UserError(f"{key}={split}: {data.used(split)}{other}")
    pairs = [data.pairs[i] for i in data.indices[split]]
    return _made(data, split, [pair.image.relative_to(data.root).as_posix() for pair in pairs], pairs)


def of_folds(data: SegmentationDataModule, run: Path, classes: Sequence[str]) -> Subset:
    """The images that a run with folds has predicted out of fold.

    Raises:
        UserError: it is none, of several classes, or its images are not there.
    """
    table = run / FOLDER / "images.csv"
    begin = f"split={FOLDER}"
    if not table.is_file():
        raise UserError(f"{begin}: {table} is not there: ckpt_path must be the checkpoint of a run with folds=5")
    if len(classes) > 1:
        raise UserError(f"{begin}: of several classes only the decided one's probability is kept; write split=val")
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    pairs = {pair.image.relative_to(data.root).as_posix(): pair for pair in data.pairs}
    written = dict(zip(cells(pairs), pairs, strict=True))  # a name such as -1.png has an apostrophe in the table
    names = [written.get(name, name) for name in names]
    stored = held_out.OutOfFold(run / FOLDER)
    if missing := [name for name in names if name not in pairs or not stored.has(name)]:
        raise UserError(
            f"{begin}: {len(missing)} of {len(names)} images are not there as in the run, such as {missing[0]}"
        )
    return _made(data, FOLDER, names, [pairs[name] for name in names])


def _made(data: SegmentationDataModule, name: str, files: list[str], pairs: list[Pair]) -> Subset:
    masks = (pair.indices(data.mask) for pair in pairs)
    defective = [bool(((mask > 0) & (mask != IGNORE_INDEX)).any()) for mask in masks]
    parts = [grouping.part_of(data.parts, file) for file in files]
    what = "images" if data.parts is None else "parts"
    return Subset(name, files, pairs, Verdicts.of(parts, defective), np.array(defective), what)


class Source:
    """What the network says of images: probabilities float32 (C, H, W) at temperature 1, and the mask (H, W).

    Args:
        module: the network; its own operating point does not matter.
        device: that it runs on.
        data: says how masks are encoded.
        run: predictions are those out of fold of this run; None: the network predicts.
    """

    def __init__(
        self, module: SegmentationModule, device: torch.device, data: SegmentationDataModule, run: Path | None
    ) -> None:
        self.module, self.device, self.data, self.run = module, device, data, run

    def __call__(self, subset: Subset, indices: Iterable[int] | None = None) -> Iterator[Sample]:
        """Of the images of a subset, or of some of them."""
        chosen = list(range(len(subset.pairs)) if indices is None else indices)
        if self.run is not None:
            stored = held_out.OutOfFold(self.run / FOLDER)
            for i in chosen:
                yield stored.load(subset.files[i])[1][None], subset.pairs[i].indices(self.data.mask)
            return
        pairs = [subset.pairs[i] for i in chosen]
        for mask, prediction in tested.predicted(self.module, self.device, pairs, self.data.mask):
            yield prediction.probabilities.numpy(), mask


class Kept:
    """Samples on disk, to be gone through again: 4 bytes for each pixel and class, 1 for its mask.

    Args:
        folder: where they lie; whoever made it deletes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def add(self, sample: Sample) -> None:
        """One more."""
        np.save(self.folder / f"{self.count}p.npy", sample[0])
        np.save(self.folder / f"{self.count}m.npy", sample[1])
        self.count += 1

    def at(self, temperature: float) -> Iterator[Sample]:
        """Each in turn, its probabilities at this temperature."""
        for i in range(self.count):
            p, mask = (np.load(self.folder / f"{i}{name}.npy") for name in "pm")
            yield at_temperature(p, temperature), mask
