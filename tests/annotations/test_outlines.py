"""Run lengths and polygons of objects, against pycocotools and a winding number counted edge by edge."""

import numpy as np
import pytest
from pycocotools import mask as coco

from segnet.annotations import outlines, runs
from segnet.decisions import predicted_objects

# pycocotools hands its arrays to numpy in an old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def objects(seed):
    rng = np.random.default_rng(seed)
    mask = (rng.random(tuple(rng.integers(1, 20, 2))) < rng.random()).astype(np.uint8)
    return mask, predicted_objects(mask, rng.random((1, *mask.shape), dtype=np.float32))


@pytest.mark.parametrize("seed", range(40))
def test_run_lengths_are_pycocotools(seed):
    mask, found = objects(seed)
    height, width = mask.shape
    total = np.zeros_like(mask)
    counts = runs.encode(found.regions.labels, len(found), found.corner, found.size) if len(found) else []
    for single in counts:
        text = runs.pack(single)
        drawn = coco.decode({"size": [height, width], "counts": text})
        assert coco.encode(np.asfortranarray(drawn))["counts"] == text.encode()
        assert np.array_equal(runs.unpack(text), single)
        total += drawn
    assert len(counts) == len(found)
    assert np.array_equal(total, mask)


def test_large_differences_are_packed():
    draw = np.random.default_rng(0)
    long = draw.integers(1, 50, 200_000).tolist()  # more than are written at a time
    for single in (long, [0, 100_000_000], [99_999_999, 1], [16, 15, 2**26, 1, 3, 2**26 - 7, 0x1F]):
        text = runs.pack(np.array(single))
        assert runs.unpack(text).tolist() == single


def winding(ring, x, y):
    """How often a ring of edges along the axes turns around a point that is on none of them."""
    number = 0
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, 0), strict=True):
        if x0 == x1 and x0 > x and (y0 > y) != (y1 > y):
            number += 1 if y1 > y0 else -1
    return number


@pytest.mark.parametrize("seed", range(40))
def test_polygons_hold_exactly_the_pixels_by_both_rules(seed):
    mask, found = objects(seed)
    total = np.zeros_like(mask)
    for ring in outlines.rings(found.regions.labels, found.regions.boxes, found.corner):
        drawn = coco.decode(coco.frPyObjects([ring], *mask.shape))[..., 0]
        total += drawn
        if mask.size < 150:
            corners = np.array(ring).reshape(-1, 2)
            turns = [[winding(corners, x + 0.5, y + 0.5) for x in range(mask.shape[1])] for y in range(mask.shape[0])]
            assert np.array_equal(turns, drawn)
    assert np.array_equal(total, mask)
