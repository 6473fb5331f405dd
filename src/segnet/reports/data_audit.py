"""What may be wrong with a data set: values, classes, sizes, and images that are in two splits."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segnet.data import division
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.images import read_image, read_raw_mask
from segnet.data.listing import counted
from segnet.data.masks import IGNORE_INDEX, WHITE
from segnet.data.splits import SPLITS
from segnet.errors import UserError, printable
from segnet.visualization.overlays import overlay, palette, save

RARE = 0.001  # share of the training pixels below which a class is called rare
CLOSE = 5  # grey levels
Findings = dict[str, Any]


def examine(data: SegmentationDataModule, near: int) -> Findings:
    """Look at every file of the data set; plain containers.

    Errors are what would stop or mislead training: unreadable or unequal files, unknown mask values, a
    class that training never shows, the same image in training and in validation or test. All else is a warning.
    """
    with ThreadPoolExecutor() as pool:
        looks = pool.map(lambda i: _look(data, i), range(len(data.pairs)))
        rows = list(tqdm(looks, "check", len(data.pairs), unit="image", leave=False, disable=None))
    split_of = {i: name for name in SPLITS for i in data.indices[name]}
    errors, warnings = division.empty(data.indices)
    errors += [row["error"] for row in rows if row["error"]]
    warnings += data.layout.passed_over()
    shares = _shares(data, rows, errors, warnings)
    twins = duplicates(rows, split_of, near)
    alike = []
    for kind, first, second in twins:
        leak = "train" in (split_of[first], split_of[second])
        pair = " and ".join(f"{_name(data, i)} ({split_of[i]})" for i in (first, second))
        if kind == "exact":
            (errors if leak else warnings).append(f"the same image in two splits: {pair}")
        else:
            alike.append(pair)
    if alike:
        warnings.append(
            f"{len(alike)} pairs of nearly equal images in two splits, such as {alike[0]} (all in report.json); "
            f"'data.split.group=\"<regular expression>\"' keeps images of one object together"
        )
    warnings += _mixtures(data, rows)
    sizes = Counter("×".join(map(str, row["size"])) for row in rows if row["size"])
    if len(sizes) > 1:
        warnings.append(f"{len(sizes)} different image sizes; all are resized to {data.image_size}")
    return {
        "errors": errors,
        "warnings": warnings,
        "images": {name: len(data.indices[name]) for name in SPLITS},
        "empty_masks": {s: sum(not rows[i]["pixels"][1:].any() for i in data.indices[s]) for s in SPLITS},
        "class_shares": shares,
        "sizes": dict(sizes.most_common()),
        "mask_values": _values(rows),
        "duplicates": [[kind, _name(data, i), _name(data, j)] for kind, i, j in twins],
        "files": {_name(data, i): row["values"] for i, row in enumerate(rows)},
    }


def _mixtures(data: SegmentationDataModule, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What is read file by file, and differs between files of one set; masks that hide what they should show."""
    told = []
    masks = [row for row in rows if row["values"] and data.mask.kind == "grey"]
    whites = [(max(row["values"]), row["mask"]) for row in masks if max(row["values"]) in WHITE]
    depths = [(row["bits"], row["name"]) for row in rows if row["bits"]]
    for what, found in (("masks of white", whites), ("images with bits (data.bits)", depths)):
        kinds: dict[int, list[str]] = {}
        for value, name in found:
            kinds.setdefault(value, []).append(name)
        if len(kinds) > 1:
            parts = "; ".join(f"{value}: {counted(kinds[value], 'file')}" for value in sorted(kinds))
            told.append(f"{what} differ, and each file is read by its own: {parts}")
    if hidden := [row["mask"] for row in rows if row["ignored"] and not row["pixels"][1:].any()]:
        told.append(f"{counted(hidden, 'mask')} without any class but the first, where other pixels are ignored")
    return told


def _shares(
    data: SegmentationDataModule, rows: Sequence[dict[str, Any]], errors: list[str], warnings: list[str]
) -> dict[str, dict[str, float]]:
    """Share of each class in the pixels of each split; missing and rare classes are reported."""
    names = ["background", *data.classes] if data.num_classes == 1 else data.classes
    shares: dict[str, dict[str, float]] = {}
    for split in SPLITS:
        pixels = sum((rows[i]["pixels"] for i in data.indices[split]), np.zeros(len(names), np.int64))
        shares[split] = {n: float(p) / max(int(pixels.sum()), 1) for n, p in zip(names, pixels, strict=True)}
        for name, value in shares[split].items() if data.indices[split] else ():
            if value == 0:
                held = next((rows[i]["values"] for i in data.indices[split] if rows[i]["values"]), None)
                told = f"class {name} does not occur in {split}{guess(held) if split == 'train' else ''}"
                (errors if split == "train" else warnings).append(told)
            elif split == "train" and value < RARE:
                warnings.append(f"class {name} has {value:.3%} of the training pixels; weigh it or show it more often")
    return shares


def _look(data: SegmentationDataModule, index: int) -> dict[str, Any]:
    pair = data.pairs[index]
    count = max(data.num_classes, 2)
    row: dict[str, Any] = {"error": "", "size": None, "values": None, "pixels": np.zeros(count, np.int64)}
    row |= {"name": _name(data, index), "mask": "", "bits": 0, "ignored": False}
    row |= {"sha": "", "hash": np.zeros(64, bool), "thumb": np.zeros((16, 16), np.int16)}
    try:
        image, row["bits"] = read_image(pair.image, bits=pair.bits)
        row["size"] = [image.shape[1], image.shape[0]]
        row["sha"] = hashlib.sha256(image.tobytes()).hexdigest()
        row["hash"] = difference_hash(image)
        row["thumb"] = _grey(image, (16, 16))
        if pair.mask is not None:
            row["mask"] = str(pair.mask).removeprefix(f"{data.root}/")
            row["values"] = mask_values(pair.mask, data.mask.kind)
        mask = pair.indices(data.mask, image.shape[:2])
        found = np.bincount(mask.ravel(), minlength=IGNORE_INDEX + 1)
        if found[count:IGNORE_INDEX].any():
            top = int(np.flatnonzero(found[:IGNORE_INDEX])[-1])
            raise UserError(f"{pair.mask}: holds class {top}, but data.num_classes={data.num_classes}")
        row["pixels"], row["ignored"] = found[:count], bool(found[IGNORE_INDEX])
    except (ValueError, OSError) as error:
        row["error"] = str(error) if "data/mask=" in str(error) else f"{error}{guess(row['values'])}"
    return row


def mask_values(path: Path, kind: Any) -> list[Any]:
    """The different values (or colours, as lists) that a mask file holds, at most 32 of them."""
    raw = read_raw_mask(path, kind)
    found = np.unique(raw.reshape(-1, 3), axis=0) if raw.ndim == 3 else np.unique(raw)
    return list(found[:32].tolist())


def guess(values: Sequence[Any] | None) -> str:
    """What a mask with these values may be, as a hint behind an error."""
    if not values:
        return ""
    if isinstance(values[0], list):
        return f" (it holds {len(values)} colours: data/mask=palette with data.mask.colors={values[:12]})"
    if set(values) <= {0, 255}:
        return " (it holds 0 and 255: data/mask=threshold)"
    if set(values) <= {0, 1}:
        return " (it holds 0 and 1: data/mask=threshold or data/mask=values, or data.mask.above=0)"
    labels = sorted(set(values) - {IGNORE_INDEX})
    if len(values) < 32 and labels == list(range(len(labels))):
        return f" (it holds {values}: data/mask=values with data.num_classes={len(labels)})"
    if len(values) < 32 and max(values) <= IGNORE_INDEX:
        shown = str(list(values)).replace(" ", "")
        return (
            f" (it holds {values}: data/mask=values with 'data.mask.classes={shown}', data.num_classes={len(values)})"
        )
    return " (it holds many grey values: a soft or JPEG-compressed mask? data/mask=threshold takes those)"


def difference_hash(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """64 bits: whether a cell of the image, shrunk to 8 × 9 in grey, is brighter than the one to its right."""
    small = _grey(image, (9, 8))
    bits: NDArray[np.bool_] = (small[:, 1:] > small[:, :-1]).ravel()
    return bits


def _grey(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.int16]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.int16)


def duplicates(rows: Sequence[dict[str, Any]], split_of: dict[int, str], near: int) -> list[tuple[str, int, int]]:
    """Pairs of images in different splits whose pixels are equal, or nearly so.

    Nearly: the hashes differ in at most ``near`` bits, and 16 × 16 thumbnails by less than `CLOSE` grey levels on
    average (images with little structure have similar hashes).
    """
    used = [i for i in split_of if rows[i]["sha"]]
    signs = np.array([rows[i]["hash"] for i in used], np.float32) * 2 - 1
    found = []
    for a, i in enumerate(used):
        # Of two vectors of signs: product = 64 - 2 · differing bits.
        differing = (64 - signs[a + 1 :] @ signs[a]) / 2
        for offset in np.flatnonzero(differing <= near):
            j = used[a + 1 + int(offset)]
            if split_of[i] == split_of[j]:
                continue
            if rows[i]["sha"] == rows[j]["sha"]:
                found.append(("exact", i, j))
            elif np.abs(rows[i]["thumb"] - rows[j]["thumb"]).mean() < CLOSE:
                found.append(("near", i, j))
    return found


def _values(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(str(value) for value in row["values"] or ())
    return dict(counts.most_common(32))


def _name(data: SegmentationDataModule, index: int) -> str:
    return data.pairs[index].image.relative_to(data.root).as_posix()


def contact_sheet(data: SegmentationDataModule, findings: Findings, count: int, path: Path) -> None:
    """Thumbnails with the masks over them, spread over the data set, those with an error left out."""
    table = palette(data.num_classes, data.colors)
    tiles = list(_tiles(data, count, table))
    if not tiles:
        return
    columns = min(6, len(tiles))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    lines = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    save(path, np.concatenate(lines, 0))


def _tiles(data: SegmentationDataModule, count: int, table: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    side = 160
    for i in np.unique(np.linspace(0, len(data.pairs) - 1, min(count, len(data.pairs))).round().astype(int)):
        try:
            image, mask = data.pairs[i].load(data.mask, (side - 4, side - 4))
        except (ValueError, OSError):
            continue
        tile = np.full((side, side, 3), 255, np.uint8)
        tile[2:-2, 2:-2] = overlay(image, mask, table, data.num_classes == 1)
        yield tile


def summary(findings: Findings) -> str:
    """The report for people; long lists are cut."""
    lines = [f"images {findings['images']}, masks with only the first class {findings['empty_masks']}"]
    lines += [f"sizes {dict(list(findings['sizes'].items())[:5])}"]
    names = list(findings["class_shares"]["train"])
    lines += [f"{'share of pixels':20s}" + "".join(f"{split:>10s}" for split in SPLITS)]
    for name in names:
        shares = "".join(f"{findings['class_shares'][split][name]:>10.3%}" for split in SPLITS)
        lines.append(f"{name:20s}{shares}")
    for kind in ("errors", "warnings"):
        found = findings[kind]
        lines += [f"{kind[:-1]}: {text}" for text in found[:20]]
        lines += [f"… and {len(found) - 20} more {kind}, see report.json"] if len(found) > 20 else []
    return "\n".join(
        [*map(printable, lines), f"{len(findings['errors'])} errors, {len(findings['warnings'])} warnings"]
    )
