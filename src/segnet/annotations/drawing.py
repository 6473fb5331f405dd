"""Masks drawn from objects: on which pixels, in which order, and what is counted meanwhile."""

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segnet.annotations import raster
from segnet.annotations.classes import Classes, quoted
from segnet.annotations.records import Annotated, Object
from segnet.data.decoding import header, turned
from segnet.data.listing import amount
from segnet.data.masks import IGNORE_INDEX
from segnet.errors import UserError

Drawn = Literal["upright", "stored"]


@dataclass
class Counts:
    """What happened while masks were drawn."""

    objects: Counter[str] = field(default_factory=Counter)  # by label
    empty: Counter[str] = field(default_factory=Counter)  # those that cover no pixel
    left_out: Counter[str] = field(default_factory=Counter)  # those of no class
    overlap: int = 0  # pixels of several classes
    overlapping: int = 0  # images with such
    turned: int = 0  # images with an EXIF orientation


def mask(image: Annotated, file: Path, classes: Classes, counts: Counts, drawn: Drawn | None) -> NDArray[np.uint8]:
    """uint8 (H, W) class indices of the upright image."""
    height, width, orientation = header(file)
    sizes: dict[Drawn, tuple[int, int]] = {"upright": (height, width), "stored": (height, width)}
    if orientation > 4:
        sizes["stored"] = (width, height)
    counts.turned += orientation != 1
    fits = [kind for kind in sizes if image.size in (None, sizes[kind])]
    if not fits and image.size is not None:
        raise UserError(
            f"{image.image}: is {width}×{height} (width×height), and its annotation says "
            f"{image.size[1]}×{image.size[0]}; give the image that was annotated, or correct the size"
        )
    if orientation != 1 and len(fits) == 2 and drawn is None and image.objects is not None:
        raise UserError(
            f"{image.image}: states EXIF orientation {orientation}, and nothing tells whether its objects were drawn "
            f"on the upright image or on the pixels as stored; set drawn=upright or drawn=stored"
        )
    on = fits[0] if len(fits) == 1 else drawn or "upright"
    canvas = np.zeros(sizes[on], np.uint8)
    _draw(canvas, image.objects(*canvas.shape) if image.objects else (), classes, counts)
    return np.ascontiguousarray(turned(canvas, orientation if on == "stored" else 1))  # type: ignore[arg-type]


def _draw(canvas: NDArray[np.uint8], objects: Iterable[Object], classes: Classes, counts: Counts) -> None:
    overlap = 0
    for label, shape in objects:
        index = classes.index.get(label)
        if index is None:
            counts.left_out[label] += 1
            continue
        patch = shape(*canvas.shape)
        counts.objects[label] += 1
        if not patch.covered.any():
            counts.empty[label] += 1
            continue
        height, width = patch.covered.shape
        before = canvas[patch.top : patch.top + height, patch.left : patch.left + width][patch.covered]
        overlap += int(((before != 0) & (before != index) & (before != IGNORE_INDEX)).sum())
        raster.paint(canvas, patch, index)
    counts.overlap += overlap
    counts.overlapping += overlap > 0


def told(counts: Counts, classes: Classes) -> list[str]:
    """What is said of the counts."""
    said = []
    shown = {label for label, index in classes.index.items() if 0 < index < IGNORE_INDEX and counts.objects[label]}
    absent = [label for label, i in classes.index.items() if 0 < i < IGNORE_INDEX and label not in shown]
    if absent:
        kept = [label for label in classes.index if label in shown]
        plain = [label for label, i in classes.index.items() if 0 < i < IGNORE_INDEX] == classes.foreground
        remedy = f"; {shlex.quote(f'classes={quoted(kept)}')} leaves such classes out" if kept and plain else ""
        said.append(f"no object of {', '.join(absent)}{remedy}")
    if counts.left_out:
        said.append(f"left out objects of labels that classes does not name: {_tally(counts.left_out)}")
    if counts.empty:
        said.append(f"objects that cover no pixel (no area, or outside of the image): {_tally(counts.empty)}")
    if counts.overlap:
        said.append(
            f"{counts.overlap:,} pixel{'s' * (counts.overlap != 1)} in {amount(counts.overlapping, 'image')} belonged "
            f"to several classes; the later object has them"
        )
    return said


def _tally(count: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in count.most_common())
