"""Run lengths: masks as numbers of pixels that are alternately outside and inside, as COCO and CVAT store them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segnet.errors import UserError

MOST = 7  # characters of a number in COCO's text, which then has 35 bits


def decode(counts: Sequence[int] | NDArray[np.int64], height: int, width: int, by_column: bool) -> NDArray[np.bool_]:
    """(height, width) bool of run lengths; the first one is outside. Nothing is allocated before they add up.

    Args:
        counts: of pixels, in columns from left to right (COCO), or in rows (CVAT).
        height: of the mask, in pixels.
        width: of the mask.
        by_column: COCO's order.

    Raises:
        UserError: they are no run lengths of so many pixels.
    """
    try:
        runs = np.asarray(counts, np.int64)
    except (TypeError, ValueError, OverflowError):
        raise UserError("the run lengths are no list of integers") from None
    if runs.ndim != 1 or (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        raise UserError(f"the run lengths do not add up to {height}×{width} pixels")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T if by_column else flat.reshape(height, width)


def unpack(text: str) -> NDArray[np.int64]:
    """The run lengths of COCO's compressed text: numbers of five bits a character, from the third on as differences.

    The format is that of pycocotools, which the tests compare with. Its C code trusts the text; this one is bounded by
    its length.

    Raises:
        UserError: it is no such text.
    """
    codes = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - 48
    last = (codes & 32) == 0
    if not codes.size or not last[-1] or codes.min() < 0 or codes.max() > 63:
        raise UserError("the compressed run lengths are damaged")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if place.max() >= MOST:
        raise UserError("the compressed run lengths are damaged")
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * (place[ends] + 1)), 0)  # negative differences
    runs = values.copy()
    for first in (1, 2):  # each of them is added to the one before the last; the first one stands by itself
        runs[first::2] = np.cumsum(values[first::2])
    return runs
