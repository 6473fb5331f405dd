"""What may be wrong with a data set: values, classes, sizes, and images that are in two splits."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from segnet.data import division
from segnet.data.listing import counted
from segnet.data.segmentation_data import SegmentationData
from segnet.data.splits import SPLITS
from segnet.reports.duplicates import Twins
from segnet.reports.looks import Observer, Seen, Tile, see
from segnet.reports.mask_values import guess

RARE = 0.001  # share of the training pixels below which a class is called rare
Findings = dict[str, Any]


def examine(
    data: SegmentationData, near: int, contact: int = 0, observers: Sequence[Observer] = ()
) -> tuple[Findings, list[Tile]]:
    """Look at every file of the data set, as the ``observers`` do; plain containers, and ``contact`` thumbnails.

    Errors are what would stop or mislead training: unreadable or unequal files, unknown mask values, a
    class that training never shows, the same image in training and in validation or test. All else is a warning.
    """
    seen = see(data, contact, observers)
    split_of = {i: name for name in SPLITS for i in data.indices[name]}
    errors, warnings = division.empty(data.indices)
    errors += seen.errors
    warnings += data.layout.passed_over()
    shares = _shares(data, seen, errors, warnings)
    twins = seen.prints.twins(split_of, near)
    _tell_twins(data, twins, split_of, errors, warnings)
    warnings += [*_mixtures(data, seen), *_inverted(data, seen)]
    if len(seen.sizes) > 1 and not data.plan:
        warnings.append(f"{len(seen.sizes)} different image sizes; all are resized to {data.image_size}")
    place = {i: n for n, i in enumerate(split_of)}
    pairs = [(place[i], place[j], kind, i, j) for kind in ("exact", "near") for i, j in getattr(twins, kind)]
    layout = data.layout
    findings = {
        "data": {
            "images": list(layout.images),
            "masks": layout.masks if isinstance(layout.masks, str | dict) else list(layout.masks),
            "encoding": str(data.mask),
            "classes": data.classes,
        },
        "errors": errors,
        "warnings": warnings,
        "images": {name: len(data.indices[name]) for name in SPLITS},
        "empty_masks": {s: int(seen.empty[data.indices[s]].sum()) for s in SPLITS},
        "class_shares": shares,
        "sizes": dict(seen.sizes.most_common()),
        "mask_values": seen.values.everywhere(),
        "duplicates": [[kind, _name(data, i), _name(data, j)] for _, _, kind, i, j in sorted(pairs)],
        "files": {_name(data, i): seen.values[i] for i in range(len(data.pairs))},
    }
    return findings, seen.tiles


def _tell_twins(
    data: SegmentationData, twins: Twins, split_of: dict[int, str], errors: list[str], warnings: list[str]
) -> None:
    """An exact pair is an error where one is trained on; the others are warnings."""

    def shown(i: int, j: int) -> str:
        return " and ".join(f"{_name(data, k)} ({split_of[k]})" for k in (i, j))

    told = Counter(("train" in (split_of[i], split_of[j])) for i, j in twins.exact)
    for i, j in twins.exact:
        to = errors if "train" in (split_of[i], split_of[j]) else warnings
        to.append(f"the same image in two splits: {shown(i, j)}")
    for leak, to in ((True, errors), (False, warnings)):
        more = sum(count for pair, count in twins.exact_found.items() if ("train" in pair) == leak) - told[leak]
        to += [f"{more} more pairs of the same image in two splits, which are not listed"] if more else []
    if twins.near:
        warnings.append(
            f"{len(twins.near)} {'or more ' * twins.cut}pairs of nearly equal images in two splits, such as "
            f"{shown(*twins.near[0])} (all in report.json); "
            f"'data.split.group=\"<regular expression>\"' keeps images of one object together"
        )


def _mixtures(data: SegmentationData, seen: Seen) -> Iterator[str]:
    """What is read file by file, and differs between files of one set; masks that hide what they should show."""
    found = ("masks of white", seen.white, _mask), ("images with bits (data.bits)", seen.bits, _name)
    for what, values, name in found:
        kinds = {int(v): [name(data, i) for i in np.flatnonzero(values == v).tolist()] for v in np.unique(values) if v}
        if len(kinds) > 1:
            parts = "; ".join(f"{value}: {counted(names, 'file')}" for value, names in kinds.items())
            yield f"{what} differ, and each file is read by its own: {parts}"
    if hidden := [_mask(data, i) for i in np.flatnonzero(seen.hidden).tolist()]:
        yield f"{counted(hidden, 'mask')} without any class but the first, where other pixels are ignored"


def _inverted(data: SegmentationData, seen: Seen) -> Iterator[str]:
    """Binary masks that call more than half of an image defective: black and white may be exchanged.

    In all of them, where most do; in these, where the others are far from it.
    """
    masks = [i for i, pair in enumerate(data.pairs) if pair.mask is not None]
    inverted = [i for i in masks if seen.share[i] > 0.5]
    if data.num_classes > 1 or not inverted:
        return
    if 2 * len(inverted) <= len(masks):
        if not any(0.25 < share < 0.75 for share in seen.share[masks]):
            yield (
                f"{counted([_mask(data, i) for i in inverted], 'mask')} of {len(masks)} call more than three quarters "
                f"of the image {data.classes[0]}, the others less than a quarter; if black and white are exchanged in "
                f"these files, invert them"
            )
        return
    values = set(seen.values.everywhere())
    remedy = {
        "grey": "data/mask=palette 'data.mask.colors=[[255,255,255],[0,0,0]]'",
        "index": f"'data.mask.classes={list(getattr(data.mask, 'classes', None) or (0, 1))[::-1]}'".replace(" ", ""),
        "rgb": f"'data.mask.colors={list(getattr(data.mask, 'colors', ()))[::-1]}'".replace(" ", ""),
    }["grey" if data.mask.kind == "number" else data.mask.kind]
    if data.mask.kind == "grey" and values <= {"0", "1", "255"} and len(values) == 2:
        remedy = f"data/mask=values 'data.mask.classes=[{max(map(int, values))},0]' 'data.mask.ignore=[]'"
    yield (
        f"{counted([_mask(data, i) for i in inverted], 'mask')} of {len(masks)} call more than half of the image "
        f"{data.classes[0]}; if black and white are exchanged, invert them: {remedy}"
    )


def _shares(data: SegmentationData, seen: Seen, errors: list[str], warnings: list[str]) -> dict[str, dict[str, float]]:
    """Share of each class in the pixels of each split; missing and rare classes are reported."""
    names = [f"not {data.classes[0]}" if data.classes == ["background"] else "background", *data.classes]
    names = names if data.num_classes == 1 else data.classes
    shares: dict[str, dict[str, float]] = {}
    for split, pixels in seen.pixels.items():
        shares[split] = {n: float(p) / max(int(pixels.sum()), 1) for n, p in zip(names, pixels, strict=True)}
        # Where no mask of the split could be read, each has its own error.
        judged = data.indices[split] and (pixels.any() or not seen.errors)
        for place, (name, value) in enumerate(shares[split].items() if judged else ()):
            if value == 0:
                # Where no split shows it, the masks may be encoded in another way.
                nowhere = split == "train" and not any(other[place] for other in seen.pixels.values())
                told = f"class {name} does not occur in {split}{guess(seen.values.union()) if nowhere else ''}"
                (errors if split == "train" else warnings).append(told)
            elif split == "train" and value < RARE:
                warnings.append(f"class {name} has {value:.3%} of the training pixels; weigh it or show it more often")
    return shares


def _name(data: SegmentationData, index: int) -> str:
    return data.pairs[index].image.relative_to(data.root).as_posix()


def _mask(data: SegmentationData, index: int) -> str:
    return str(data.pairs[index].mask).removeprefix(f"{data.root}/")
