"""Run lengths: masks as numbers of pixels that are alternately outside and inside, as COCO and CVAT store them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segnet.errors import UserError

BLOCK = 2**16  # numbers written at a time, so that they take little more memory than their text
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


def encode(
    labels: NDArray[np.integer], count: int, corner: tuple[int, int], size: tuple[int, int]
) -> list[NDArray[np.int64]]:
    """COCO's run lengths, in columns, of each object of an image; `decode` reads them.

    Args:
        labels: (h, w) of a window, the number 1, …, ``count`` of the object that a pixel belongs to, 0 where none.
        count: of objects; each has a pixel.
        corner: top and left of the window in the image.
        size: height and width of the image.
    """
    (top, left), (height, width) = corner, size
    # Column by column, with a row of zeros below, unless columns join in the image too.
    rows = len(labels) + (len(labels) < height)
    flat = np.zeros((labels.shape[1], rows), labels.dtype)
    flat[:, : len(labels)] = labels.T
    flat = flat.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    firsts, lasts = edges[:-1], edges[1:] - 1
    owners = flat[firsts]
    order = np.flatnonzero(owners)[np.argsort(owners[owners > 0], kind="stable")]

    def place(index: NDArray[np.int64]) -> NDArray[np.int64]:
        column, row = np.divmod(index, rows)
        return (left + column) * height + top + row

    bounds = np.stack([place(firsts[order]), place(lasts[order]) + 1], 1)
    ends = np.cumsum(np.bincount(owners[order], minlength=count + 1)[1:])
    found = []
    for part in np.split(bounds, ends[:-1]):
        runs = np.diff(part.ravel(), prepend=0)
        rest = height * width - part[-1, 1]
        found.append(np.append(runs, rest) if rest else runs)
    return found


def pack(runs: NDArray[np.int64]) -> str:
    """COCO's compressed text of run lengths; `unpack` reads it."""
    values = runs.copy()
    values[3:] -= runs[1:-2]
    return "".join(_packed(values[start : start + BLOCK]) for start in range(0, len(values), BLOCK))


def _packed(values: NDArray[np.int64]) -> str:
    parts = values[:, None] >> 5 * np.arange(MOST)
    codes, rest = parts & 31, parts >> 5
    more = rest != -(codes >> 4)  # what is left is more than the sign that the fifth bit tells
    written = np.ones_like(more)
    written[:, 1:] = np.logical_and.accumulate(more, 1)[:, :-1]
    text = np.asarray(codes + 32 * more + 48, np.uint8)[written].tobytes()
    return str(text, "ascii")
