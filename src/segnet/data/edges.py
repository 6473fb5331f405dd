"""Whether what a mask holds between its classes is soft edges or the noise of compression, and not further labels."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
RINGING = 48 / 255  # of white: how far compression moves black and white
NOISE = 8 / 255  # of white: how far it moves the values of an area apart
AREA, NEAR = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)


def soft(raw: NDArray[Any], between: Flags, white: float) -> bool:
    """Whether the grey levels ``between`` black and white (H, W) look like soft edges.

    Soft edges have levels on both sides of the middle, and the dark ones lie beside brighter ones: in a line of one
    label nothing is. Of 311 masks with soft edges at most 0.15 of the pixels in between are the brightest of their
    5 × 5, of lines of labels nearly all; of lines along an axis that were shrunk, many of the bright ones are.
    """
    levels = raw[between]
    if not levels.min() <= white / 2 < levels.max():
        return False
    values, dark = _ordered(raw), between & (raw <= white / 2)
    brightest = (cv2.dilate(values, NEAR) == values) & dark
    return few_are_flat(raw, between) and bool(2 * brightest.sum() <= dark.sum())


def compressed(raw: NDArray[Any], white: float) -> bool:
    """Whether a mask (H, W) that lossy compression has changed was black and white, with soft edges or without.

    Labels leave areas of a level in between, of 5 × 5 pixels or more. At qualities of 20 to 100 no JPEG mask of 400 of
    soft or blurred edges has more than a twentieth of the pixels in between there, and 97 of 100 of labels have.
    Lines of labels look as soft edges do.
    """
    between = (raw > RINGING * white) & (raw < white - RINGING * white)
    return bool(_flat(raw, between, NEAR, NOISE * white).sum() <= 0.05 * between.sum())


def few_are_flat(values: NDArray[Any], between: Flags) -> bool:
    """Whether the pixels ``between`` have three levels or more and few of them lie in an area of one level.

    Few is below a share of ``levels / 256``: labels are few values in areas, soft edges many without. Measured over 315
    masks with soft edges: 4 levels and more, no flat pixel at all.
    """
    count = min(len(np.unique(values[between])), 256)
    return count >= 3 and bool(_flat(values, between, AREA).sum() < count / 256 * between.sum())


def blended(code: NDArray[np.uint32], place: NDArray[np.uint8], unknown: Flags) -> bool:
    """Whether the ``unknown`` colours of a mask look like soft edges: few are flat, and few make lines of one colour.

    Such lines, of further classes, have the same class on both sides; a thin line of a known class has that, too, but
    many colours.

    Args:
        code: (H, W) colours as numbers below 2**24.
        place: (H, W) classes of the known ones.
        unknown: (H, W) pixels of other colours.
    """
    if not few_are_flat(code, unknown):
        return False
    known = place.astype(np.uint16) + 1
    most = cv2.dilate(np.where(unknown, np.uint16(0), known), AREA)
    least = cv2.erode(np.where(unknown, np.uint16(257), known), AREA)
    count, parts = cv2.connectedComponents(unknown.view(np.uint8), connectivity=8)
    part = parts[unknown].astype(np.intp)
    first, last = np.full(count, 257, np.uint16), np.zeros(count, np.uint16)
    np.minimum.at(first, part, least[unknown])
    np.maximum.at(last, part, most[unknown])
    colours, pixels = np.unique(part << 24 | code[unknown].astype(np.intp), return_counts=True)
    common = np.zeros(count, np.intp)  # pixels of the most frequent colour of each part
    np.maximum.at(common, colours >> 24, pixels)
    lines = (first >= last) & (2 * common > np.bincount(part, minlength=count))
    return bool(lines[part].mean() < 0.5)


def _flat(values: NDArray[Any], between: Flags, around: NDArray[np.uint8], apart: float = 0) -> Flags:
    """Which of the pixels ``between`` have none ``around`` them that are further ``apart``."""
    ordered = _ordered(values)
    return (cv2.dilate(ordered, around).astype(np.float32) - cv2.erode(ordered, around) <= apart) & between


def _ordered(values: NDArray[Any]) -> NDArray[Any]:
    """The values as OpenCV takes them; whole numbers up to 2**24 stay what they are."""
    return values if values.dtype.str[1:] in ("u1", "f4") else values.astype(np.float32)
