"""What predict.py says of its files: tables, lists of good and defective ones, and COCO's JSON, as the results come."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from segnet.annotations import outlines, runs
from segnet.decisions import predicted_objects
from segnet.decisions.operating_point import VERDICTS, verdict
from segnet.deployment.measures import Row
from segnet.files import atomic_write, cells

Segmentation = Literal["rle", "polygon"]
LISTED = 10_000  # objects of an image, the largest ones; noise can have any number
OBJECTS = ["file", "class", "area", "left", "top", "width", "height", "x", "y"]
OBJECTS += ["mean_probability", "greatest_probability"]


@dataclass(frozen=True)
class Result:
    """What is said of one file.

    Attributes:
        row: of predictions.csv, up to its verdict; the first cell is the file.
        verdict: ``good`` or ``defective``.
        count: of objects; of a video the most in one frame.
        image: its entry in COCO's JSON; None of a video, whose frames are no files that another program could open.
        rows: of objects.csv, at most `LISTED`.
        annotations: of COCO's JSON, likewise, each without its opening brace and its id.
    """

    row: Row
    verdict: str
    count: int
    image: str | None = None
    rows: Sequence[Row] = ()
    annotations: Sequence[str] = ()


def of_image(
    row: Row, mask: NDArray[np.uint8], probabilities: NDArray[np.float32], names: Sequence[str], number: int, name: str,
    segmentation: Segmentation,
) -> Result:  # fmt: skip
    """The result of an image.

    Args:
        row: as in `Result`.
        mask: (H, W) class indices.
        probabilities: (C, H, W) that it comes from.
        names: of the classes.
        number: the image's id.
        name: of its file in COCO's JSON.
        segmentation: run lengths, or polygons along the edges of the pixels. Both are exact.
    """
    found = predicted_objects(mask, probabilities)
    kept = found.largest(LISTED)
    height, width = mask.shape
    image = json.dumps({"id": number, "file_name": name, "width": width, "height": height})
    titles = [names[0] if len(names) == 1 else names[index] for index in kept.classes]
    columns = zip(titles, kept.regions.areas, kept.boxes, kept.centroids, kept.mean, kept.greatest, strict=True)
    rows = [
        [row[0], title, int(area), *box.tolist(), *(f"{c:.2f}" for c in centre), f"{mean:.6f}", f"{greatest:.6f}"]
        for title, area, box, centre, mean, greatest in columns
    ]
    form: Any = None
    if len(kept) and segmentation == "rle":
        counts = runs.encode(kept.regions.labels, len(kept), kept.corner, kept.size)
        form = [{"size": [height, width], "counts": runs.pack(single)} for single in counts]
    elif len(kept):
        form = [[ring] for ring in outlines.rings(kept.regions.labels, kept.regions.boxes, kept.corner)]
    annotations = [
        json.dumps(
            {
                "image_id": number, "category_id": int(kept.classes[i]), "segmentation": form[i],
                "area": int(kept.regions.areas[i]), "bbox": kept.boxes[i].tolist(), "iscrowd": 0,
                "score": round(float(kept.greatest[i]), 6),
            }
        )[1:]
        for i in range(len(kept))
    ]  # fmt: skip
    return Result(row, verdict(mask), len(found), image, rows, annotations)


def file_names(files: Sequence[Path]) -> dict[Path, str]:
    """The files relative to the folder that holds them all, as programs that import COCO look for them."""
    root = os.path.commonpath([file.parent for file in files])
    return {file: file.relative_to(root).as_posix() for file in files}


@dataclass
class Results:
    """predictions.csv, objects.csv, good.txt and defective.txt, a file's lines whole and at once; objects.json.

    The JSON is written at the end of the block, after an error or Ctrl-C too, for the same images as predictions.csv:
    its parts wait in nameless files of the folder, so memory does not grow with their number.

    Args:
        folder: of all of them.
        titles: of predictions.csv, up to its verdict.
        names: of the classes.

    Attributes:
        counts: of files, by verdict.
        objects: of all images.
        shortened: images with more than `LISTED` objects.
        unlisted: files whose name has a line break, so that no list can hold it.
    """

    folder: Path
    titles: Sequence[str]
    names: Sequence[str]
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))
    objects: int = 0
    shortened: int = 0
    unlisted: int = 0

    def __enter__(self) -> Self:
        self._files = ExitStack()
        opened = partial(open, mode="w", newline="", encoding="utf-8", errors="surrogateescape")
        self._tables = {
            name: self._files.enter_context(opened(self.folder / f"{name}.csv")) for name in ("predictions", "objects")
        }
        self._lists = {name: self._files.enter_context(opened(self.folder / f"{name}.txt")) for name in VERDICTS}
        nameless = partial(TemporaryFile, "w+", dir=self.folder, encoding="ascii")
        self._parts = [self._files.enter_context(nameless()) for _ in range(2)]
        self._annotations = 0
        self._write("predictions", [[*self.titles, "verdict", "objects"]])
        self._write("objects", [OBJECTS])
        return self

    def add(self, result: Result) -> None:
        """Write what is said of the next file."""
        self.counts[result.verdict] += 1
        self.shortened += len(result.rows) < result.count and result.image is not None
        images, annotations = self._parts
        for text in result.annotations:
            annotations.write(",\n" * (self._annotations > 0) + f'{{"id": {self._annotations + 1}, {text}')
            self._annotations += 1
        if result.image is not None:
            self.objects += result.count
            images.write(",\n" * (images.tell() > 0) + result.image)
        self._write("objects", result.rows)
        row = [*result.row, *[""] * (len(self.titles) - len(result.row))]  # a video has no maps
        self._write("predictions", [[*row, result.verdict, result.count]])
        name = str(result.row[0])
        if name.splitlines() == [name]:
            self._lists[result.verdict].write(f"{name}\n")
            self._lists[result.verdict].flush()
        else:
            self.unlisted += 1

    def _write(self, name: str, rows: Sequence[Sequence[Any]]) -> None:
        csv.writer(self._tables[name]).writerows(map(cells, rows))
        self._tables[name].flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._files, atomic_write(self.folder / "objects.json") as part, part.open("w", encoding="ascii") as out:
            kinds = list(enumerate(self.names))[1:] or [(1, self.names[0])]
            about = {
                "info": {"description": "objects predicted by segnet"},
                "licenses": [],
                "categories": [{"id": index, "name": name} for index, name in kinds],
            }
            out.write(json.dumps(about)[:-1])
            for key, file in zip(("images", "annotations"), self._parts, strict=True):
                out.write(f',\n"{key}": [\n')
                out.writelines(_blocks(file))
                out.write("\n]")
            out.write("}\n")

    def told(self) -> list[str]:
        """Lines for people."""
        good, defective = self.counts.values()
        lines = [f"{good} good, {defective} defective; {self.objects} objects in the images"]
        if self.shortened:
            lines.append(
                f"{self.shortened} images have more than {LISTED:,} objects: the largest are in objects.csv and "
                f"objects.json, all in the masks and in predictions.csv"
            )
        if self.unlisted:
            lines.append(
                f"{self.unlisted} files with a line break in their name are in predictions.csv only, in no list"
            )
        return lines


def _blocks(file: IO[str]) -> Iterator[str]:
    file.seek(0)
    while block := file.read(2**20):
        yield block
