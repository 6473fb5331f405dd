"""Which pixels an outline covers: those whose centre (x + 0.5, y + 0.5) lies inside.

Coordinates are those of the formats: x to the right, y down, integers are corners of pixels. A shape is a function of
the image's height and width that gives a `Patch`: the part of the image that it may cover, and which pixels it does.
Neither memory nor time depends on how far a shape reaches out of the image.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2): x, y
FAR = 1e9  # no coordinate lies further out
CROSSINGS = 2**20  # of edges and rows, computed at a time


class Patch(NamedTuple):
    """Pixels of an image: ``covered`` (h, w) bool begins at row ``top`` and column ``left`` and lies in the image."""

    top: int
    left: int
    covered: NDArray[np.bool_]


Shape = Callable[[int, int], Patch]


def polygon(rings: Sequence[Points], height: int, width: int) -> Patch:
    """The inside of one outline: of several rings, and where a ring crosses itself, by the even-odd rule.

    A centre on an edge belongs to the shape on the right or below, so two shapes with a common edge share no pixel and
    leave none out; the direction of an edge makes no difference.
    """
    rings = [ring for ring in rings if len(ring) > 2]
    if not rings:
        return Patch(0, 0, np.zeros((0, 0), np.bool_))
    top, bottom, left, right = _window(np.concatenate(rings), height, width)
    # A column more: what is crossed beyond the last pixel changes nothing.
    odd = np.zeros((bottom - top, right - left + 1), np.uint8)
    if not odd.size:
        return Patch(top, left, odd[:, :-1].astype(np.bool_))
    starts = np.concatenate(rings)
    ends = np.concatenate([part for ring in rings for part in (ring[1:], ring[:1])])
    down = (starts[:, 1] <= ends[:, 1])[:, None]
    (x0, y0), (x1, y1) = np.where(down, starts, ends).T, np.where(down, ends, starts).T
    # Rows whose centres the edge crosses; a horizontal one crosses none.
    first, after = (np.minimum(np.maximum(np.ceil(y - 0.5), top), bottom).astype(np.int64) for y in (y0, y1))
    (crossing,) = np.nonzero(first < after)
    count = (after - first)[crossing]
    places = np.cumsum(count)
    for edges in np.split(crossing, np.searchsorted(places, np.arange(CROSSINGS, count.sum(), CROSSINGS))):
        count = after[edges] - first[edges]
        edge = np.repeat(edges, count)
        row = np.arange(len(edge)) + np.repeat(first[edges] - np.cumsum(count) + count, count)
        x = x0[edge] + (row + 0.5 - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
        column = np.minimum(np.maximum(np.ceil(x - 0.5), left), right).astype(np.int64)
        np.bitwise_xor.at(odd.reshape(-1), (row - top) * odd.shape[1] + column - left, np.uint8(1))
    return Patch(top, left, np.bitwise_xor.accumulate(odd, axis=1)[:, :-1].astype(np.bool_))


def union(shapes: Sequence[Shape], height: int, width: int) -> Patch:
    """The parts of one object together."""
    patches = [patch for shape in shapes if (patch := shape(height, width)).covered.size]
    if len(patches) == 1:
        return patches[0]
    corners = [(p.top, p.left, p.top + p.covered.shape[0], p.left + p.covered.shape[1]) for p in patches]
    top, left = (min((c[i] for c in corners), default=0) for i in (0, 1))
    bottom, right = (max((c[i] for c in corners), default=0) for i in (2, 3))
    covered = np.zeros((bottom - top, right - left), np.bool_)
    for patch in patches:
        paint(covered, Patch(patch.top - top, patch.left - left, patch.covered), True)
    return Patch(top, left, covered)


def box(x0: float, y0: float, x1: float, y1: float, height: int, width: int) -> Patch:
    """An upright box between two corners, in any order."""
    return polygon([np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)], height, width)


def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float, height: int, width: int) -> Patch:
    """An ellipse of two radii, turned clockwise; a circle where they are equal."""
    angle, reach = math.radians(degrees), max(rx, ry)
    corners = np.array([(cx - reach, cy - reach), (cx + reach, cy + reach)])
    top, left, dx, dy = _centres(corners, height, width, cx, cy)
    along, across = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
    if rx <= 0 or ry <= 0:
        return Patch(top, left, np.zeros(along.shape, np.bool_))
    return Patch(top, left, (along / rx) ** 2 + (across / ry) ** 2 <= 1)


def line(points: Points, thickness: float, height: int, width: int) -> Patch:
    """What lies within half of the ``thickness`` of a line through ``points``, with round ends."""
    ends = np.concatenate([points[1:], points[-1:]])
    segments = [partial(_segment, a, b, thickness / 2) for a, b in zip(points, ends, strict=True)]
    return union(segments, height, width)


def stored(covered: NDArray[np.bool_], top: int, left: int, height: int, width: int) -> Patch:
    """Pixels that a format stores as they are, from row ``top`` and column ``left`` on; what is outside is cut off."""
    start = max(top, 0), max(left, 0)
    part = covered[start[0] - top : max(height - top, 0), start[1] - left : max(width - left, 0)]
    return Patch(*start, part) if part.size else Patch(0, 0, np.zeros((0, 0), np.bool_))


def paint(canvas: NDArray[Any], patch: Patch, value: int) -> None:
    """Set the pixels of a patch in (H, W) ``canvas``, in place."""
    height, width = patch.covered.shape
    canvas[patch.top : patch.top + height, patch.left : patch.left + width][patch.covered] = value


def _segment(a: Points, b: Points, radius: float, height: int, width: int) -> Patch:
    corners = np.stack([np.minimum(a, b) - radius, np.maximum(a, b) + radius])
    top, left, dx, dy = _centres(corners, height, width, *a)
    ex, ey = b - a
    along = np.clip((dx * ex + dy * ey) / max(ex * ex + ey * ey, 1e-300), 0, 1)
    return Patch(top, left, (dx - along * ex) ** 2 + (dy - along * ey) ** 2 <= radius**2)


def _centres(corners: Points, height: int, width: int, x: float, y: float) -> tuple[int, int, Points, Points]:
    """Of the pixels in a window: its top and left, and the offsets (1, w) and (h, 1) of their centres from a point."""
    top, bottom, left, right = _window(corners, height, width)
    columns, rows = np.arange(left, right, dtype=np.float64), np.arange(top, bottom, dtype=np.float64)
    return top, left, columns[None] + 0.5 - x, rows[:, None] + 0.5 - y


def _window(points: Points, height: int, width: int) -> tuple[int, int, int, int]:
    """Rows and columns of the image that points span: top, bottom, left, right; bottom and right are the next ones."""
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    rows = [min(max(math.floor(y0), 0), height), min(max(math.ceil(y1), 0), height)]
    return rows[0], rows[1], min(max(math.floor(x0), 0), width), min(max(math.ceil(x1), 0), width)
