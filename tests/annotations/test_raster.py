"""Which pixels a shape covers, against other ways to find out."""

import time
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from pycocotools import mask as coco_mask

from segnet.annotations import raster, runs
from segnet.errors import UserError


def pixels(shape, height, width):
    canvas = np.zeros((height, width), bool)
    raster.paint(canvas, shape(height, width), True)
    return canvas


def centres(height, width):
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([x.ravel(), y.ravel()], 1)


def crossings(ring, height, width):
    """Pixel by pixel: how many edges lie to the left of a centre or on it? Of an edge the upper end counts."""
    found = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            for a, b in zip(ring.tolist(), [*ring.tolist()[1:], ring.tolist()[0]], strict=True):
                (x0, y0), (x1, y1) = sorted((a, b), key=lambda point: point[1])
                if y0 <= y + 0.5 < y1 and x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0) <= x + 0.5:
                    found[y, x] ^= True
    return found


def test_random_polygons_cover_the_centres_that_matplotlib_finds_inside():
    rng = np.random.default_rng(0)
    for _ in range(300):  # simple ones: matplotlib counts windings where an outline crosses itself
        height, width = rng.integers(1, 60, 2)
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 20)))
        radius = rng.uniform(1, 40, len(angles))[:, None]
        ring = rng.uniform(-10, 50, 2) + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        expected = Outline(ring).contains_points(centres(height, width)).reshape(height, width)
        assert np.array_equal(pixels(partial(raster.polygon, [ring]), height, width), expected)


@pytest.mark.parametrize("step", [0.5, 1.0, 0.0])
def test_edges_on_centres_flat_edges_and_outlines_that_cross_themselves(step):
    rng = np.random.default_rng(1)
    for _ in range(60):
        height, width = rng.integers(1, 16, 2)
        ring = rng.uniform(-6, 20, (rng.integers(3, 9), 2))
        ring = np.round(ring / step) * step if step else ring
        got = pixels(partial(raster.polygon, [ring]), height, width)
        assert np.array_equal(got, crossings(ring, height, width))
        assert np.array_equal(got, pixels(partial(raster.polygon, [ring[::-1]]), height, width))


def test_shapes_with_a_common_edge_share_no_pixel_and_leave_none_out():
    rng = np.random.default_rng(2)
    for _ in range(50):
        a, b = rng.uniform(0, 20, 2), rng.uniform(0, 20, 2)
        far = np.array([(-99.0, -99.0), (-99.0, 99.0), (99.0, 99.0), (99.0, -99.0)])
        a, b = np.array([-99.0, a[1]]), np.array([99.0, b[1]])
        above = pixels(partial(raster.polygon, [np.array([a, b, far[3], far[0]])]), 20, 20)
        below = pixels(partial(raster.polygon, [np.array([b, a, far[1], far[2]])]), 20, 20)
        assert np.array_equal(above, ~below)


def test_holes_parts_and_what_lies_outside():
    outer = np.array([(1.0, 1.0), (9.0, 1.0), (9.0, 9.0), (1.0, 9.0)])
    inner = np.array([(3.0, 3.0), (6.0, 3.0), (6.0, 6.0), (3.0, 6.0)])
    expected = np.zeros((8, 12), bool)
    expected[1:, 1:9] = True  # cut off at the lower border
    assert np.array_equal(pixels(partial(raster.polygon, [outer]), 8, 12), expected)
    expected[3:6, 3:6] = False
    assert np.array_equal(pixels(partial(raster.polygon, [outer, inner]), 8, 12), expected)
    parts = [
        partial(raster.polygon, [inner]),
        partial(raster.polygon, [inner + 1]),
        partial(raster.polygon, [inner - 50]),
    ]
    expected[:] = False
    expected[3:6, 3:6] = expected[4:7, 4:7] = True
    assert np.array_equal(pixels(partial(raster.union, parts), 8, 12), expected)


@pytest.mark.parametrize(
    "ring", [[], [(1, 1)], [(1, 1), (5, 5)], [(1, 1), (5, 5), (9, 9)], [(2, 2)] * 5, [(1, 3), (9, 3), (4, 3)]]
)
def test_what_has_no_area_covers_no_pixel(ring):
    assert not pixels(partial(raster.polygon, [np.array(ring, float).reshape(-1, 2)]), 10, 10).any()


def test_time_and_memory_do_not_depend_on_how_far_a_shape_reaches():
    begin = time.process_time()
    edge = np.array([(-1e9, -1e9), (1e9, -1e9), (1e9, 1e9), (-1e9, 1e9)])
    assert pixels(partial(raster.polygon, [edge]), 50, 60).all()
    assert pixels(partial(raster.ellipse, 0, 0, 1e9, 1e9, 0), 50, 60).all()
    assert pixels(partial(raster.line, np.array([(-1e9, 25.0), (1e9, 25.0)]), 1e9), 50, 60).all()
    zigzag = np.random.default_rng(0).uniform(-1e9, 1e9, (20_000, 2))
    assert pixels(partial(raster.polygon, [zigzag]), 50, 60).shape == (50, 60)
    assert time.process_time() - begin < 2


def test_boxes_circles_ellipses_and_lines():
    x, y = centres(30, 40).T.reshape(2, 30, 40)
    box = pixels(partial(raster.box, 20.2, 25.5, 3.5, 2.4), 30, 40)
    assert np.array_equal(box, (x >= 3.5) & (x < 20.2) & (y >= 2.4) & (y < 25.5))
    circle = pixels(partial(raster.ellipse, 12.3, 9.7, 7.1, 7.1, 0), 30, 40)
    assert np.array_equal(circle, np.hypot(x - 12.3, y - 9.7) <= 7.1)
    turn = np.deg2rad(30)
    along, across = (x - 20) * np.cos(turn) + (y - 15) * np.sin(turn), (y - 15) * np.cos(turn) - (x - 20) * np.sin(turn)
    ellipse = pixels(partial(raster.ellipse, 20, 15, 12, 4, 30), 30, 40)
    assert np.array_equal(ellipse, (along / 12) ** 2 + (across / 4) ** 2 <= 1)
    points = np.array([(3.0, 4.0), (25.0, 10.0), (25.0, 28.0)])
    dense = np.concatenate([a + np.linspace(0, 1, 20_000)[:, None] * (b - a) for a, b in pairwise(points)])
    distance = np.sqrt(((centres(30, 40)[:, None] - dense[None, ::10]) ** 2).sum(2).min(1)).reshape(30, 40)
    line = pixels(partial(raster.line, points, 3), 30, 40)
    clear = np.abs(distance - 1.5) > 1e-2  # the rest is too close for the dense points to say
    assert np.array_equal(line[clear], (distance <= 1.5)[clear])


def test_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(3)
    for _ in range(300):
        mask = rng.random(rng.integers(1, 50, 2)) < rng.random()
        packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert np.array_equal(runs.decode(runs.unpack(packed), *mask.shape, by_column=True), mask)


@pytest.mark.parametrize(
    "text", ["", "o", "1o", "\x01\x02", "ooooooooooo1", "é", "PPPPPPPPPP0", "0" * 9, "Pn`4", "~~~~"]
)
def test_damaged_run_lengths_are_refused(text):
    with pytest.raises(UserError):
        runs.decode(runs.unpack(text), 4, 4, by_column=True)


@pytest.mark.parametrize(
    "counts", [[10**18, 5], [-1, 17], [4, 4], [[16]], ["a"], [2**70], None, [float("nan")], [16, 16]]
)
def test_run_lengths_that_do_not_add_up_are_refused_before_anything_is_allocated(counts):
    with pytest.raises(UserError):
        runs.decode(counts, 4, 4, by_column=False)
