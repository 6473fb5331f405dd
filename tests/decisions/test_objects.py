"""Objects, boundaries and the overlap curve against computations by scipy and plain Python."""

import math
import tracemalloc
from itertools import pairwise, product

import numpy as np
import pytest
from scipy import ndimage

from segnet.decisions import boundaries, objects, overlap_curve, regions
from segnet.decisions.overlap_curve import OverlapCurve

EIGHT = np.ones((3, 3))


def plain(truth, predicted):
    """Of two masks (bool): of each object, its area and whether it is the same by both rules and its covered share."""
    sides = [ndimage.label(mask, EIGHT) for mask in (truth, predicted)]
    sets = [[frozenset(map(tuple, np.argwhere(labels == i + 1))) for i in range(n)] for labels, n in sides]
    loose = [[len(a & b) > 0 and len(a & b) >= 0.1 * min(len(a), len(b)) for b in sets[1]] for a in sets[0]]
    strict = [[len(a & b) >= 0.5 * len(a | b) for b in sets[1]] for a in sets[0]]
    other = [set(map(tuple, np.argwhere(mask))) for mask in (predicted, truth)]
    found = []
    for side in (0, 1):
        table = {}
        for i, one in enumerate(sets[side]):
            rows = [[row[i] for row in rule] if side else rule[i] for rule in (loose, strict)]
            table[min(one)] = (len(one), any(rows[0]), any(rows[1]), len(one & other[side]) / len(one))
        found.append(table)
    return found


def ours(truth, predicted, probabilities):
    ((one, two),) = objects.compare(truth.astype(np.uint8), predicted.astype(np.uint8), probabilities)
    found = []
    for side in (one, two):
        table = {}
        for i in range(len(side.regions)):
            first = min(map(tuple, np.argwhere(side.regions.labels == i + 1)))
            table[first] = (side.regions.areas[i], side.same[i], side.same_iou[i], side.covered[i])
        found.append(table)
    return found, (one, two)


@pytest.mark.parametrize("seed", range(12))
def test_objects_are_those_of_scipy_and_plain_python(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 40, 2))
    share = rng.choice([0.02, 0.2, 0.4, 0.6, 0.95])
    smooth = ndimage.uniform_filter(rng.random(shape), rng.choice([1, 3]))
    truth = smooth > np.quantile(smooth, 1 - share)
    probabilities = rng.random((1, *shape), dtype=np.float32)
    predicted = (truth ^ (rng.random(shape) < 0.2)) if seed % 2 else rng.random(shape) < share
    found, sides = ours(truth, predicted, probabilities)
    assert found == plain(truth, predicted)
    for side in sides:
        for i in range(len(side.regions)):
            values = probabilities[0][side.regions.labels == i + 1]
            assert side.greatest[i] == values.max()
            assert side.mean[i] == pytest.approx(values.mean(dtype=np.float64), abs=1e-12)


def counts(truth, predicted, classes=1):
    """Objects of the truth, how many are found by both rules; predicted ones, how many are there by both rules."""
    truth, predicted = np.array(truth, np.uint8), np.array(predicted, np.uint8)
    p = np.zeros((classes if classes == 1 else classes + 1, *truth.shape), np.float32)
    one = objects.judge(objects.compare(truth, predicted, p), truth, predicted, 0.0)
    return [len(one.areas), *one.found.sum(0).tolist()], one.predicted.sum(0).tolist()


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ([[0, 0]], [[0, 0]], ([0, 0, 0], [0, 0, 0])),  # empty
        ([[1, 0]], [[0, 0]], ([1, 0, 0], [0, 0, 0])),
        ([[0, 0]], [[0, 1]], ([0, 0, 0], [1, 0, 0])),
        ([[1]], [[1]], ([1, 1, 1], [1, 1, 1])),  # one pixel, which is all of the image
        ([[1, 1], [1, 1]], [[1, 1], [1, 1]], ([1, 1, 1], [1, 1, 1])),  # all of it is defect
        ([[1, 0], [0, 1]], [[1, 0], [0, 1]], ([1, 1, 1], [1, 1, 1])),  # they touch at a corner: one object
        ([[1, 1, 1, 1, 1]], [[1, 0, 1, 0, 1]], ([1, 1, 0], [3, 3, 0])),  # three predictions over one defect
        ([[1, 0, 1, 0, 0]], [[1, 1, 1, 0, 0]], ([2, 2, 0], [1, 1, 0])),  # one prediction over two defects
        ([[1] * 10 + [0] * 9], [[0] * 9 + [1] * 10], ([1, 1, 0], [1, 1, 0])),  # exactly 10 % of the smaller
        ([[1] * 11 + [0] * 10], [[0] * 10 + [1] * 11], ([1, 0, 0], [1, 0, 0])),  # 1 of 11 is less
        ([[1, 1, 0]], [[1, 0, 0]], ([1, 1, 1], [1, 1, 1])),  # exactly half of the union
    ],
)
def test_edge_cases(truth, predicted, expected):
    assert counts(truth, predicted) == expected


def test_objects_of_different_classes_never_match():
    assert counts([[1, 1, 0, 2]], [[2, 2, 0, 2]], classes=2) == ([2, 1, 1], [2, 1, 1])
    assert counts([[1, 2]], [[1, 2]], classes=2) == ([2, 2, 2], [2, 2, 2])  # they touch, and are two


def test_noise_takes_no_matrix_of_all_pairs():
    """Of 14,400 objects against 14,400 a matrix would have 207 million entries, 1.6 GB."""
    truth = np.zeros((240, 240), np.uint8)
    truth[::2, ::2] = 1
    tracemalloc.start()
    ((one, two),) = objects.compare(truth, truth, truth[None].astype(np.float32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(one.regions) == len(two.regions) == 14400
    assert one.same_iou.all()
    assert peak < 20e6


# -- boundaries --------------------------------------------------------------------------------------


def plain_boundary(mask, distance):
    """Pixels of the mask that have one outside of it, or of the image, within a square around them."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        inside = [(y + dy, x + dx) for dy, dx in product(range(-distance, distance + 1), repeat=2)]
        found[y, x] = any(not (0 <= b < height and 0 <= a < width) or not mask[b, a] for b, a in inside)
    return found


def plain_near(one, other, tolerance):
    places = np.argwhere(other)
    return sum(bool(len(places)) and bool((((places - p) ** 2).sum(1) <= tolerance**2).any()) for p in np.argwhere(one))


@pytest.mark.parametrize(("seed", "tolerance", "width"), [(0, 2, 0.02), (1, 1.5, 0.1), (2, 0, 0.05), (3, 4, 0.2)])
def test_boundaries_are_those_of_plain_python(seed, tolerance, width):
    rng = np.random.default_rng(seed)
    shape = (30 + seed, 41)
    truth, predicted = (ndimage.uniform_filter(rng.random(shape), 5) > 0.5 for _ in range(2))
    distance = max(1, round(width * math.hypot(*shape)))
    first, second = (plain_boundary(mask, distance) for mask in (truth, predicted))
    one, two = (plain_boundary(mask, 1) for mask in (truth, predicted))
    expected = [(first & second).sum(), (first | second).sum(), plain_near(one, two, tolerance), one.sum()]
    expected += [plain_near(two, one, tolerance), two.sum()]
    assert boundaries.count(truth, predicted, width, tolerance).tolist() == expected
    iou, f = boundaries.iou(np.array(expected)), boundaries.f_score(np.array(expected))
    recall, precision = expected[2] / expected[3], expected[4] / expected[5]
    assert iou == expected[0] / expected[1]
    assert f == pytest.approx(2 * recall * precision / (recall + precision))


@pytest.mark.parametrize(("truth", "predicted", "iou", "f"), [(1, 1, 1, 1), (1, 0, 0, 0), (0, 1, 0, 0)])
def test_boundaries_of_full_and_empty_masks(truth, predicted, iou, f):
    found = boundaries.count(np.full((8, 9), bool(truth)), np.full((8, 9), bool(predicted)))
    assert (boundaries.iou(found), boundaries.f_score(found)) == (iou, f)
    empty = boundaries.count(np.zeros((8, 9), bool), np.zeros((8, 9), bool))
    assert np.isnan([boundaries.iou(empty), boundaries.f_score(empty)]).all()


# -- the overlap curve -------------------------------------------------------------------------------


def plain_aupro(probabilities, truths, limit=0.3):
    """A threshold at every value, trapezoids up to the limit: as MVTec's and anomalib's programs have it."""
    good = np.concatenate([p[~t] for p, t in zip(probabilities, truths, strict=True)])
    parts = []
    for p, t in zip(probabilities, truths, strict=True):
        labels, count = ndimage.label(t, EIGHT)
        parts += [p[labels == i + 1] for i in range(count)]
    thresholds = np.unique(np.concatenate([good, *parts]))[::-1]

    def above(values):
        return 1 - np.searchsorted(np.sort(values), thresholds) / len(values)

    points = [(0.0, 0.0), *zip(above(good), np.mean([above(part) for part in parts], 0), strict=True)]
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1, x1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0), limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def curve_of(probabilities, truths):
    curve = OverlapCurve()
    for p, t in zip(probabilities, truths, strict=True):
        curve.add(overlap_curve.histograms(p, regions(t), np.ones(t.shape, bool)))
    return curve


@pytest.mark.parametrize("seed", range(4))
def test_aupro_is_that_of_a_plain_reference_within_its_bound(seed):
    rng = np.random.default_rng(seed)
    truths = [ndimage.uniform_filter(rng.random((40, 50)), 5) > 0.56 for _ in range(5)]
    logits = [rng.normal(-6, 3, t.shape) + rng.uniform(0, 8) * t for t in truths]
    probabilities = [(1 / (1 + np.exp(-logit))).astype(np.float32) for logit in logits]
    curve, expected = curve_of(probabilities, truths), plain_aupro(probabilities, truths)
    assert 0.1 < expected < 1
    assert abs(curve.area() - expected) <= curve.bound() + 1e-12
    assert curve.bound() < 2e-3
    assert curve.area() == pytest.approx(expected, abs=1e-4)


def test_aupro_is_exact_where_values_lie_in_bins_of_their_own():
    rng = np.random.default_rng(0)
    truths = [ndimage.uniform_filter(rng.random((30, 30)), 5) > 0.56 for _ in range(3)]
    values = np.array([0, 1e-6, 1e-3, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999, 1], np.float32)
    assert len(set(overlap_curve.bins(values).tolist())) == len(values)
    probabilities = [values[np.minimum(rng.integers(0, 7, t.shape) + 3 * t, 9)] for t in truths]
    assert curve_of(probabilities, truths).area() == pytest.approx(plain_aupro(probabilities, truths), abs=1e-12)


def test_bins_keep_the_order_of_probabilities():
    p = np.concatenate([np.linspace(0, 1, 4001), np.geomspace(1e-30, 0.5, 999), 1 - np.geomspace(1e-7, 0.5, 999)])
    places = overlap_curve.bins(np.sort(p.astype(np.float32)))
    assert (np.diff(places) >= 0).all()
    assert (places[0], places[-1]) == (0, overlap_curve.BINS - 1)


def test_ignored_pixels_are_no_good_ones():
    truth, known = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    truth[0], known[3] = True, False
    p = np.where(truth, 0.5, np.where(known, 0.1, 0.9)).astype(np.float32)
    curve = OverlapCurve()
    curve.add(overlap_curve.histograms(p, regions(truth), known))
    assert curve.area() == 1


@pytest.mark.parametrize("truth", [0, 1])
def test_aupro_needs_a_region_and_a_good_pixel(truth):
    mask = np.full((4, 4), bool(truth))
    assert math.isnan(curve_of([np.full((4, 4), 0.5, np.float32)], [mask]).area())
