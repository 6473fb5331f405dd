"""Images and masks whose names share only a number, padded with zeros or not: ``7.jpg`` and ``mask_007.png``."""

import re
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from segnet.data.naming import File, Parts
from segnet.data.recognition import LOOKED_AT, NEARLY, Names

Numbered = Mapping[int, File]
MATCH = r"0*(\d+)[^\d/]*\.[^./]+$"  # the last number of a path, without the zeros before it


def by_numbers(names: Names) -> tuple[dict[File, list[File]], str, str] | None:
    """Each image with its mask, and ``data.masks`` and ``data.match`` that say so; None unless one way fits."""
    groups: dict[tuple[Parts, str, str, str], dict[int, File]] = defaultdict(dict)
    for file in names.files:
        if found := re.fullmatch(r"(.*?)(\d+)(\D*)", file.stem):
            groups[file.folder, found[1], found[3], file.suffix][int(found[2])] = file
    ways = []
    for images in groups.values():
        for (folder, before, after, suffix), masks in groups.items():
            name = _name(masks, before, after)
            if masks is images or name is None or not _fit(names, images, masks):
                continue
            text = "/".join([*(_brace(part) for part in folder), name + _brace(suffix)])
            ways.append(({image: [masks[i]] for i, image in images.items() if i in masks}, text, MATCH))
    return ways[0] if len(ways) == 1 else None


def _name(masks: Numbered, before: str, after: str) -> str | None:
    """The names of masks as a template: with zeros up to a width, or with none; None where they are mixed."""
    digits = [file.stem.removeprefix(before).removesuffix(after) for file in masks.values()]
    if all(str(int(text)) == text for text in digits):
        number = "{1}"
    elif len({len(text) for text in digits}) == 1:
        number = f"{{1:0>{len(digits[0])}}}"
    else:
        return None
    return _brace(before) + number + _brace(after)


def _fit(names: Names, images: Numbered, masks: Numbered) -> bool:
    """Whether nearly every image has a mask, and some of both look like what they are."""
    shared = sorted(images.keys() & masks.keys())
    if not shared or len(shared) < NEARLY * max(len(images), len(masks)):
        return False
    some = [shared[i] for i in np.unique(np.linspace(0, len(shared) - 1, LOOKED_AT).astype(int))]
    return all(names.like_a_mask(masks[i]) and not names.like_a_mask(images[i]) for i in some)


def _brace(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
