"""What each image is taken for by the network of a cross-validation that has not seen it: masks and a table."""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from segnet.data.masks import Encoding
from segnet.data.pairs import Pair
from segnet.deployment.measures import grey
from segnet.errors import UserError
from segnet.files import csv_file
from segnet.reports import tested
from segnet.reports.evaluation import image_iou
from segnet.training.module import SegmentationModule
from segnet.visualization.overlays import save

FOLDER = "out_of_fold"


class Judged(NamedTuple):
    """An image by its path relative to the data's root, its fold, and its confusion matrix at its own size."""

    image: str
    fold: int
    confusion: NDArray[np.int64]


def check_names(images: Iterable[str]) -> None:
    """Refuse images of which one's mask would replace another's, on any file system.

    Raises:
        UserError: naming two.
    """
    owners: dict[str, str] = {}
    for image in images:
        name = Path(image).with_suffix(".png").as_posix()
        other = owners.setdefault(unicodedata.normalize("NFC", name).casefold(), image)
        if other != image:
            raise UserError(f"folds: {other} and {image} would both become {FOLDER}/masks/{name}; rename one of them")


def predict(
    folder: Path,
    fold: int,
    module: SegmentationModule,
    device: torch.device,
    pairs: dict[str, Pair],
    encoding: Encoding,
) -> list[Judged]:
    """Predict a fold's own images as ``predict.py`` does by default, and write what is found.

    ``masks/<image>.png`` holds class indices (0 and 1 of a binary task), ``confidence/<image>.png`` the probability of
    the class decided for (of a binary task the defect's) as 0..255; both have the image's own size.

    Args:
        folder: the run's.
        fold: which one.
        module: that was trained without these images.
        device: that predicts.
        pairs: by the path relative to the data's root.
        encoding: of the masks.
    """
    size = max(len(module.classes), 2)
    found = []
    for image, (mask, prediction) in zip(
        pairs, tested.predicted(module, device, pairs.values(), encoding), strict=True
    ):
        name, guess = Path(image).with_suffix(".png"), prediction.mask()
        for kind, content in (("masks", guess), ("confidence", grey(prediction.confidence()))):
            path = folder / FOLDER / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path, content)
        found.append(Judged(image, fold, tested.confusion(mask, guess, size)))
    return found


def write_table(path: Path, judged: Sequence[Judged], classes: Sequence[str], confusions: bool = False) -> None:
    """A row an image in the order of names: fold, IoU; with ``confusions`` what `segnet.runs.comparison` reads."""
    size = max(len(classes), 2)
    pairs = [f"{i}>{j}" for i in range(size) for j in range(size)]
    with csv_file(path) as write:
        write(["file", "iou", *pairs] if confusions else ["image", "fold", "iou"])
        for image, fold, confusion in sorted(judged, key=lambda one: one.image):
            iou = image_iou(torch.from_numpy(confusion), classes)
            told = "" if np.isnan(iou) else f"{iou:.6f}"
            write([image, told, *confusion.ravel().tolist()] if confusions else [image, fold, told])
