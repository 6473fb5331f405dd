"""Masks that are probably wrong, the worst first: every image judged, exchanged masks found, a table and images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segnet.data.images import resize_pair
from segnet.data.masks import IGNORE_INDEX
from segnet.data.segmentation_data import SegmentationData
from segnet.deployment.pipeline import READ_AHEAD, THREADS, ahead, threads
from segnet.errors import UserError
from segnet.files import csv_file
from segnet.reports.held_out import OutOfFold
from segnet.reports.label_errors import ALIKE, Judgement, judge
from segnet.reports.looks import peak_bytes
from segnet.visualization.overlays import grid, palette, panel, save

SURE = 0.5  # score from which a mask is called probably wrong
TOLD = 0.1  # score from which it is in the table
SMALL = 0.25  # of the usual object's area: smaller ones weigh less
THUMB = 32  # pixels at which the masks of different images are compared
COMPARED = 500  # suspects among which exchanged masks are looked for
IMAGES = "label_errors"  # folder of what is drawn
DRAWN = 640  # pixels of the longer side of what is drawn at most


@dataclass(frozen=True)
class Suspect:
    """An image (its index) whose mask may be wrong: kind, score in 0..1, what and where."""

    index: int
    kind: str
    score: float
    detail: str


@dataclass(frozen=True)
class Ranking:
    """Suspects, the worst first; how many images were compared, which ones have no prediction, what failed."""

    suspects: list[Suspect]
    compared: int
    absent: list[str]
    failed: list[str]

    @property
    def wrong(self) -> list[Suspect]:
        """Those that are probably wrong."""
        return [one for one in self.suspects if one.score >= SURE]


def rank(data: SegmentationData, predictions: OutOfFold) -> Ranking:
    """Compare every mask of the data set with its out-of-fold prediction."""
    names = [pair.image.relative_to(data.root).as_posix() for pair in data.pairs]
    known = [predictions.has(name) for name in names]
    there = [i for i, has in enumerate(known) if has]
    judged: dict[int, Judgement] = {}
    failed: list[str] = []
    classes = ["background", *data.classes] if data.num_classes == 1 else data.classes
    background = data.num_classes == 1 or _first_is_background(data)
    with threads(THREADS) as pool:

        def look(i: int) -> Judgement | str:
            try:
                truth, predicted, confidence = _load(data, predictions, i)
                return judge(truth, predicted, confidence, data.num_classes == 1, background, classes)
            except (ValueError, OSError) as error:
                return str(error)

        tasks = ((peak_bytes(data.pairs[i].image), partial(look, i)) for i in there)
        results = ahead(pool, tasks, 2 * THREADS, READ_AHEAD)
        for i, found in zip(there, tqdm(results, "labels", len(there), leave=False, disable=None), strict=True):
            if isinstance(found, str):
                failed.append(found)
            else:
                judged[i] = found
    suspects = sorted(_scored(judged), key=lambda one: -one.score)
    suspects = sorted(_exchanged(data, predictions, suspects, names), key=lambda one: -one.score)
    absent = [name for name, has in zip(names, known, strict=True) if not has]
    return Ranking([one for one in suspects if one.score >= TOLD], len(judged), absent, failed)


def _load(
    data: SegmentationData, predictions: OutOfFold, i: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    pair = data.pairs[i]
    predicted, confidence = predictions.load(pair.image.relative_to(data.root).as_posix())
    truth = pair.indices(data.mask)
    if not truth.shape == predicted.shape == confidence.shape:
        raise UserError(
            f"{pair.image}: its prediction in {predictions.folder} has another size, {predicted.shape[1]}×"
            f"{predicted.shape[0]}; the image has changed since, so make the predictions anew"
        )
    if predicted.max(initial=0) >= max(data.num_classes, 2):
        raise UserError(f"{predictions.folder}: holds class {predicted.max()}, but data.num_classes={data.num_classes}")
    return truth, predicted, confidence


def _first_is_background(data: SegmentationData, looked_at: int = 50) -> bool:
    """Whether the first class has more of the pixels than any other, in images spread over the set."""
    pixels = np.zeros(256, np.int64)
    for i in np.unique(np.linspace(0, len(data.pairs) - 1, looked_at).astype(int)).tolist():
        try:
            pixels += np.bincount(data.pairs[i].indices(data.mask).ravel(), minlength=256)
        except (ValueError, OSError):  # told where every mask is read
            continue
    return int(pixels[:IGNORE_INDEX].argmax()) == 0


def _scored(judged: dict[int, Judgement]) -> list[Suspect]:
    """One suspect an image.

    What the network finds or misses often counts less as evidence, and so do objects far smaller than usual.
    """
    total, right = Counter[str](), Counter[str]()
    for one in judged.values():
        for group, (objects, matched) in one.groups.items():
            total[group] += objects
            right[group] += matched
    areas = [one.area for one in judged.values() if one.area]
    usual = float(np.median(areas)) if areas else 0.0
    out = []
    for index, one in judged.items():
        best, explained = Suspect(index, "", 0.0, ""), False
        for found in one.suspicions:
            score = found.evidence
            if found.group is not None:
                score *= (right[found.group] + 1) / (total[found.group] + 1)
            if found.area is not None:
                score *= min(1.0, found.area / max(SMALL * usual, 1.0))
            # A mask that only has to be moved explains what is missing and spurious in it.
            explains = found.kind == "shifted" or (found.kind == "swapped" and found.area is None)
            if explains and score >= TOLD and not explained:
                best, explained = Suspect(index, found.kind, max(score, best.score), found.detail), True
            elif score > best.score:
                best = Suspect(index, found.kind, score, found.detail) if not explained else replace(best, score=score)
        if best.score > 0:
            out.append(best)
    return out


def _exchanged(
    data: SegmentationData, predictions: OutOfFold, suspects: Sequence[Suspect], names: Sequence[str]
) -> list[Suspect]:
    """The suspects, those marked whose mask fits the prediction of another suspect, and the other way round."""
    chosen = [one for one in suspects if one.score >= SURE / 2][:COMPARED]
    thumbs = []
    for one in chosen:
        truth, predicted, _ = _load(data, predictions, one.index)
        shape = truth.shape
        thumbs.append([_thumb(truth), _thumb(predicted)])
        thumbs[-1].append(np.full(1, shape[0] * 100_000 + shape[1]))
    fits = np.zeros((len(chosen), len(chosen)))
    for a in range(len(chosen)):
        for b in range(len(chosen)):
            if thumbs[a][2] == thumbs[b][2]:
                drawn, seen = thumbs[a][0], thumbs[b][1]
                some = (drawn > 0) | (seen > 0)
                fits[a, b] = ((drawn == seen) & (drawn > 0)).sum() / max(some.sum(), 1)
    own = fits.diagonal().copy()
    mutual = np.minimum(fits, fits.T)
    np.fill_diagonal(mutual, 0)
    out = {one.index: one for one in suspects}
    taken: set[int] = set()
    for flat in np.argsort(-mutual, axis=None).tolist():
        a, b = divmod(flat, len(chosen))
        if mutual[a, b] < ALIKE:
            break
        if a in taken or b in taken or mutual[a, b] < max(own[a], own[b]) + 0.3:
            continue
        taken |= {a, b}
        for one, other in ((chosen[a], chosen[b]), (chosen[b], chosen[a])):
            told = f"its mask fits {names[other.index]}, and the other way round"
            out[one.index] = Suspect(one.index, "swapped", max(one.score, float(mutual[a, b])), told)
    return list(out.values())


def _thumb(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    known = np.where(mask == IGNORE_INDEX, 0, mask).astype(np.uint8)
    return np.asarray(cv2.resize(known, (THUMB, THUMB), interpolation=cv2.INTER_NEAREST), np.uint8)


def write(folder: Path, data: SegmentationData, predictions: OutOfFold, ranking: Ranking, count: int) -> None:
    """``label_errors.csv``, and ``label_errors/`` with an image of each of the first ``count``, and all of these.

    It shows image, mask, prediction and their disagreement.
    """
    names = [data.pairs[one.index].image.relative_to(data.root).as_posix() for one in ranking.suspects]
    with csv_file(folder / "label_errors.csv") as write_row:
        write_row(["rank", "image", "mask", "kind", "score", "detail"])
        for place, (name, one) in enumerate(zip(names, ranking.suspects, strict=True), 1):
            mask = str(data.pairs[one.index].mask or "").removeprefix(f"{data.root}/")
            write_row([place, name, mask, one.kind, f"{one.score:.4f}", one.detail])
    shown = ranking.suspects[:count]
    images = folder / IMAGES
    images.mkdir()
    sheet = []
    for place, one in enumerate(shown, 1):
        save(images / f"{place:03d}_{one.kind}_{one.score:.2f}.png", _drawn(data, predictions, one.index, None))
        sheet.append(_drawn(data, predictions, one.index, (160, 160)))
    if sheet:
        save(folder / "label_errors.jpg", grid(sheet))


def _drawn(data: SegmentationData, predictions: OutOfFold, i: int, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    image, truth = data.pairs[i].load(data.mask, None)
    predicted, _ = predictions.load(data.pairs[i].image.relative_to(data.root).as_posix())
    scale = min(1.0, DRAWN / max(truth.shape))
    to = size or (max(1, round(truth.shape[0] * scale)), max(1, round(truth.shape[1] * scale)))
    small, drawn = resize_pair(image, truth, to)
    seen = resize_pair(image, predicted, to)[1]
    return panel(small, drawn, seen, palette(data.num_classes, data.colors), data.num_classes == 1)


def findings(ranking: Ranking) -> tuple[dict[str, Any], list[str]]:
    """What the report holds of a ranking, and warnings for people."""
    kinds = Counter(one.kind for one in ranking.wrong)
    warnings = list(ranking.failed)
    if ranking.absent:
        warnings.append(
            f"{len(ranking.absent)} of {len(ranking.absent) + ranking.compared + len(ranking.failed)} images have no "
            f"out-of-fold prediction, so their masks are not judged (such as {ranking.absent[0]})"
        )
    if kinds:
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        warnings.append(f"{kinds.total()} masks are probably wrong ({told}): see label_errors.csv and label_errors.jpg")
    return {"compared": ranking.compared, "absent": len(ranking.absent), "wrong": dict(kinds)}, warnings
