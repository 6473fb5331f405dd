"""Polygons along the edges of pixels, whose inside is exactly a mask."""

import numpy as np
from numpy.typing import NDArray


def rings(labels: NDArray[np.integer], boxes: NDArray[np.int64], corner: tuple[int, int]) -> list[list[int]]:
    """A closed ring [x, y, x, y, …] for each object, in the image; integers are corners of pixels.

    COCO's polygons know no holes. So the outlines of an object, clockwise, and of its holes, the other way round, are
    one ring, with a way to each and back the same way, along the edges of pixels. A pixel is in the object if its
    centre is inside, by the even-odd rule and by the winding rule alike.

    Args:
        labels: (h, w) of a window, the number 1, …, n of the object that a pixel belongs to, 0 where none.
        boxes: (n, 4) left, top, width, height of each in the window.
        corner: top and left of the window in the image.
    """
    found = []
    for number, (left, top, width, height) in enumerate(boxes.tolist(), 1):
        ring = _ring(labels[top : top + height, left : left + width] == number)
        found.append((ring + np.array([left + corner[1], top + corner[0]])).ravel().tolist())
    return found


def _ring(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n, 2) x, y of one ring around all pixels of a mask."""
    first, *others = (np.concatenate([loop, loop[:1]]) for loop in _loops(mask))
    parts = [first]
    for loop in others:
        turn = np.array([[loop[0, 0], first[0, 1]]])
        parts += [turn, loop, turn, first[:1]]
    return np.concatenate(parts)


def _loops(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The outlines (n, 2) x, y of their corners: those around pixels clockwise, those around holes the other way."""
    padded = np.pad(mask, 1)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]  # around a corner, by rows
    falling, rising = a & d & ~b & ~c, b & c & ~a & ~d  # where two pixels meet at their corners
    times = (a ^ b ^ c ^ d) + 2 * (falling | rising)
    y, x = np.repeat(np.argwhere(times), times[times > 0], 0).T
    second = np.zeros(len(x), np.bool_)  # of two outlines through a corner, the one to the right
    second[1:] = (x[1:] == x[:-1]) & (y[1:] == y[:-1])
    # Along a row corners are joined two by two; along a column too, and there the right one goes down or up.
    across = np.arange(len(x)) ^ 1
    ordered = np.lexsort([second ^ rising[y, x], y, x])
    along = np.empty_like(across)
    along[ordered] = ordered[np.arange(len(x)) ^ 1]
    found = []
    joined = [across.tolist(), along.tolist()]
    seen = np.zeros(len(x), np.bool_).tolist()
    outer = d[y, x].tolist()
    for start in range(len(x)):
        if seen[start]:
            continue
        loop, place, turn = [], start, 0 if outer[start] else 1
        while not seen[place]:
            seen[place] = True
            loop.append(place)
            place, turn = joined[turn][place], 1 - turn
        found.append(np.stack([x[loop], y[loop]], 1))
    return found
