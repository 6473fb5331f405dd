"""The choice against every setting tried by hand: masks of all images, counted in plain Python."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from segnet.decisions import OperatingPoint
from segnet.decisions.choosing import Option, choose, settings
from segnet.decisions.curves import scores
from segnet.decisions.sweeps import Verdicts
from segnet.decisions.tables import tables
from segnet.decisions.targets import parse

LOWS = (0.2, 0.5)
EIGHT = np.ones((3, 3))


def samples(seed, classes=1, images=9, levels=12, ignored=True):
    """Blobs of few levels, and masks like them; a third of the images is good."""
    draw = np.random.default_rng(seed)
    found = []
    for i in range(images):
        noise = ndimage.gaussian_filter(draw.normal(size=(max(classes, 1), 14, 15)), (0, 1.2, 1.2))
        noise /= noise.std()
        p = 1 / (1 + np.exp(-2 * noise)) if classes == 1 else np.exp(2 * noise) / np.exp(2 * noise).sum(0)
        p = (np.round(p * levels) / levels).astype(np.float32)
        other = noise + 0.4 * draw.normal(size=noise.shape)
        mask = (other[0] > 0.9).astype(np.uint8) if classes == 1 else other.argmax(0).astype(np.uint8)
        if i % 3 == 0:
            mask[:] = 0
        if ignored and i % 2:
            mask[draw.random(mask.shape) < 0.15] = 255
        found.append((p, mask))
    return found


def counts(point, given, parts):
    """Escapes, overkills; defects found, objects shown, objects that are true, defects: of masks as written."""
    truth, called = {}, {}
    objects = np.zeros(4, int)
    for part, (p, mask) in zip(parts, given, strict=True):
        guess = np.where(mask == 255, 0, point.mask(p))
        truth[part] = truth.get(part, False) or bool(((mask > 0) & (mask < 255)).any())
        called[part] = called.get(part, False) or bool(guess.any())
        for kind in range(1, max(len(p), 2)):
            a, n = ndimage.label(mask == kind, EIGHT)
            b, m = ndimage.label(guess == kind, EIGHT)
            same = [
                (i, j)
                for i, j in itertools.product(range(1, n + 1), range(1, m + 1))
                if ((a == i) & (b == j)).sum() >= max(0.1 * min((a == i).sum(), (b == j).sum()), 1)
            ]
            objects += [len({i for i, _ in same}), m, len({j for _, j in same}), n]
    pairs = [(truth[part], called[part]) for part in truth]
    return sum(t and not c for t, c in pairs), sum(c and not t for t, c in pairs), *objects.tolist()


@pytest.mark.parametrize("form", [(0.35, False), (0.35, True), (0.5, False)])
@pytest.mark.parametrize("area", [6, 15])
def test_scores_agree_with_masks_and_with_what_chooses_where_pixels_are_ignored(form, area):
    """A region keeps its area and its greatest probability, whatever of it is ignored, as long as a pixel is left."""
    given = samples(3, images=30)
    point = OperatingPoint((0.95,), form[:1], (area,), form[1])
    found = tables(given, 1, form[:1])
    verdicts = Verdicts.of([f"{i:02}" for i in range(30)], [True] * 30)
    chosen = scores(found, verdicts, Option(0, 0, False, form[1], area, 0, (0.95,), (0.95,), form))[:, 0]
    own = [point.decided(p, mask != 255)[1] for p, mask in given]
    assert own == pytest.approx(chosen.tolist())
    called = [bool(np.where(mask == 255, 0, point.mask(p)).any()) for p, mask in given]
    assert [score > 0.95 for score in own] == called
    assert 0 < sum(called) < 30


def loss(target, found, defective, good):
    """What is to be small, in two steps; None where the target is not reached."""
    escapes, overkills, hit, shown, true, there = found
    if target.kind == "escape":
        return (overkills, escapes) if escapes <= target.rate * defective + 1e-9 else None
    if target.kind == "overkill":
        return (escapes, overkills) if overkills <= target.rate * good + 1e-9 else None
    if target.kind == "cost":
        return target.cost[0] * escapes + target.cost[1] * overkills, escapes
    recall, precision = hit / there, true / shown if shown else 0
    return (-2 * recall * precision / (recall + precision) if recall + precision else 0), 0


def by_hand(found, given, parts, verdicts, target):
    """The best loss: level by level, a higher one only where it is better by more than one image, or object."""
    levels = {0: [], 1: [], 2: [], 3: []}
    defective = int(verdicts.defective.sum())
    good = len(verdicts.defective) - defective
    values = sorted({float(v) for p, _ in given for v in p.ravel() if v < 1})
    tried = [(False, False, 1, t, t) for t in [0.0, *values] if target.kind != "f1"]
    for (low, fill), _, area in settings(found):
        tried += [(low < t, fill, area, low, t) for t in [low, *(v for v in values if v > low)]]
    for hysteresis, fill, area, low, t in set(tried):
        value = loss(target, counts(OperatingPoint((t,), (low,), (area,), fill), given, parts), defective, good)
        if value is not None:
            levels[hysteresis + fill + (area > 1)].append(value)
    margin = 1 / len(found.truth) if target.kind == "f1" else max(target.cost)
    best = None
    for one in levels.values():
        if one and (best is None or min(one)[0] < best[0] - margin - 1e-9):
            best = min(one)
    return best


@pytest.mark.parametrize("text", ["escape<=0.34", "overkill<=0.4", "cost=3:1", "f1"])
@pytest.mark.parametrize("seed", range(3))
def test_the_choice_is_the_best_of_all_thresholds_areas_and_forms(text, seed):
    given = samples(seed)
    parts = [f"p{i // 2}" if seed == 2 else str(i) for i in range(len(given))]
    found, target = tables(given, 1, LOWS), parse(text)
    verdicts = Verdicts.of(parts, [bool(((m > 0) & (m < 255)).any()) for _, m in given])
    option = choose(found, verdicts, target).option
    defective = int(verdicts.defective.sum())
    point = choose(found, verdicts, target).point(1.0)
    reached = loss(target, counts(point, given, parts), defective, len(verdicts.defective) - defective)
    expected = by_hand(found, given, parts, verdicts, target)
    assert reached == pytest.approx(expected)
    assert (option.loss, option.second) == pytest.approx(expected)
