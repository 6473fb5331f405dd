"""What a sample of mask files shows: the values or colours in each, and how many pixels have them."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segnet.data.decoding import MAX_PIXELS, header, is_lossy, mode, opened
from segnet.data.images import read_raw_mask
from segnet.data.masks import IGNORE_INDEX, Threshold
from segnet.data.values import counted, packed, unpacked
from segnet.errors import UserError

PIXELS, FEWEST, MOST = 5 * 10**7, 12, 400  # of the sample: pixels in all, files at least and at most
FEW = 64  # colours; more are no classes
ENDS = 0.6  # of the pixels of a soft or compressed mask, at least, are nearly black or white
Rgb = tuple[int, int, int]


@dataclass
class Look:
    """What a mask file shows: how many pixels of each value, or of each colour if it is in colour."""

    path: Path
    values: Counter[int] | None = None
    colours: Counter[Rgb] | None = None
    flat: frozenset[Rgb] = frozenset()  # colours that fill some 3 × 3 pixels
    table: dict[int, Rgb] = field(default_factory=dict)  # of a palette file: the colour of each index
    soft: bool = False  # `Threshold` reads it

    @property
    def coloured(self) -> bool:
        """Whether it is a palette file that shows colours, and not greys alone."""
        return any(len(set(colour)) > 1 for colour in self.table.values())


def sample(files: Sequence[Path]) -> list[Path]:
    """As many of these as are read in seconds, spread over all."""
    for file in files:
        try:
            height, width = header(file)[:2]
        except UserError:
            continue
        count = min(len(files), max(FEWEST, min(MOST, PIXELS // (height * width))))
        return [files[i] for i in np.unique(np.linspace(0, len(files) - 1, count).round().astype(int))]
    return list(files[:FEWEST])


def looks(files: Sequence[Path]) -> list[Look]:
    """A look at each file; those that cannot be read are left to whoever reads all."""
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_look, files))
    return [look for look in found if look is not None]


def like_a_mask(path: Path) -> bool | None:
    """Whether a file shows few values or colours, or little but black and white; None if it cannot be read."""
    try:
        colour = _colour(path)
        if colour is not None:
            return len(counted(packed(colour))[0]) <= FEW
        raw = read_raw_mask(path, "index")
    except UserError:
        return None
    if len(counted(raw)[0]) <= FEW:
        return True
    white = {"u1": 255.0, "u2": 65535.0, "f4": 1.0}.get(raw.dtype.str[1:], float(raw.max()))
    return bool(((raw <= white / 32) | (raw >= white - white / 32)).mean() >= ENDS)


def _look(path: Path) -> Look | None:
    try:
        colour = _colour(path)
        if colour is not None:
            return _colour_look(path, colour)
        with opened(path, MAX_PIXELS) as (file, _, _):
            own = file.getpalette("RGB") if file.mode == "P" else None
            table = np.array(own or (), np.uint8).reshape(-1, 3)
            if file.format == "GIF" and not np.ptp(table, axis=1).any():  # read by its greys
                table = table[:0]
        values = _counts(read_raw_mask(path, "index"))
        look = Look(path, values, table={value: _rgb(table[value]) for value in values or () if value < len(table)})
        look.soft = not look.coloured and _soft(path)
        return look
    except UserError:
        return None


def _colour(path: Path) -> NDArray[np.uint8] | None:
    """The pixels of a file in colour, uint8 (H, W, 3); None where it is grey, or holds indices."""
    if mode(path) not in ("RGB", "RGBA", "CMYK", "YCbCr"):
        return None
    try:
        raw: NDArray[np.uint8] = read_raw_mask(path, "rgb")
    except UserError:  # the mask is in the alpha channel
        return None
    return None if np.ptp(raw, axis=2).max(initial=0) <= is_lossy(path) else raw  # what was grey may be off by one


def _colour_look(path: Path, raw: NDArray[np.uint8]) -> Look:
    edges = cv2.morphologyEx(raw, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))  # the greatest less the least
    flat = cv2.inRange(edges, np.zeros(3), np.zeros(3)) > 0
    codes = packed(raw)
    colours, counts = counted(codes)
    found = Counter({_rgb(colour): int(n) for colour, n in zip(unpacked(colours), counts, strict=True)})
    return Look(path, None, found, frozenset(map(_rgb, unpacked(counted(codes[flat])[0]))))


def _counts(raw: NDArray[np.generic]) -> Counter[int] | None:
    """Pixels of each value; None where they are no integers or too many to be classes."""
    if not np.issubdtype(raw.dtype, np.integer):
        return None
    values, counts = counted(raw)
    if len(values) > IGNORE_INDEX + 1 or values[0] < 0 or values[-1] > 65535:
        return None
    return Counter({int(v): int(n) for v, n in zip(values, counts, strict=True)})


def _soft(path: Path) -> bool:
    try:
        Threshold()(read_raw_mask(path, "grey"), path)
    except UserError:
        return False
    return True


def _rgb(row: NDArray[np.uint8]) -> Rgb:
    return int(row[0]), int(row[1]), int(row[2])
