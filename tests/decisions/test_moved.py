"""The rates beside the demo's sliders: what is counted on masks of the operating point that the sliders set."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, stats

from segnet.decisions import OperatingPoint, moved
from segnet.decisions.choosing import Choice, Option
from segnet.decisions.curves import curve, scores
from segnet.decisions.sweeps import Verdicts
from segnet.decisions.tables import tables


@pytest.mark.parametrize(
    ("point", "asked", "low"),
    [
        (OperatingPoint((0.5,), (0.5,), (1,)), (0.7,), (0.7,)),
        (OperatingPoint((0.5,), (0.5,), (9,)), (0.7,), (0.5,)),  # its regions stay those that the rates were counted on
        (OperatingPoint((0.5,), (0.5,), (1,), True), (0.7,), (0.5,)),
        (OperatingPoint((0.5,), (0.3,), (9,), True, 2.0), (0.7,), (0.3,)),
        (OperatingPoint((0.5,), (0.3,), (9,), True, 2.0), (0.2,), (0.2,)),
        (OperatingPoint((0.5, 0.4), (0.5, 0.4), (1, 1)), (0.7, 0.4), (0.7, 0.4)),
        (OperatingPoint((0.5, 0.3), (0.3, 0.3), (1, 1)), (0.2, 0.6), (0.2, 0.3)),
    ],
)
def test_a_moved_point_keeps_its_form(point, asked, low):
    assert moved.at(point, asked) == replace(point, thresholds=asked, low=low)


def samples(seed, classes):
    """Blobs with holes, and masks like them, with ignored pixels; of four images two are good."""
    draw, found = np.random.default_rng(seed), []
    for i in range(16):
        noise = ndimage.gaussian_filter(draw.normal(size=(classes, 16, 17)), (0, 1, 1))
        noise /= noise.std()
        if classes > 1:
            noise[0] += 1
        p = 1 / (1 + np.exp(1 - 2 * noise)) if classes == 1 else np.exp(2 * noise) / np.exp(2 * noise).sum(0)
        other = noise + 0.5 * draw.normal(size=noise.shape)
        mask = (other[0] > 1.5).astype(np.uint8) if classes == 1 else other.argmax(0).astype(np.uint8)
        mask[:] = mask if i % 4 > 1 else 0
        mask[draw.random(mask.shape) < 0.1 * (i % 2)] = 255
        found.append((p.astype(np.float32), mask))
    return found


def counted(point, given, parts):
    """Both rates with the intervals of scipy, of masks as they are written; a part is called by any of its images."""
    truth, called = {}, {}
    for part, (p, mask) in zip(parts, given, strict=True):
        truth[part] = truth.get(part, False) or bool(((mask > 0) & (mask < 255)).any())
        called[part] = called.get(part, False) or bool(point.mask(p)[mask < 255].any())
    found = []
    for defective in (True, False):
        wrong = [called[part] != defective for part in truth if truth[part] == defective]
        interval = stats.binomtest(sum(wrong), len(wrong)).proportion_ci(0.95)
        found.append([sum(wrong) / len(wrong), interval.low, interval.high])
    return found


FORMS = [(None, 1), ((0.35, False), 1), ((0.35, False), 9), ((0.35, True), 1), ((0.5, True), 6)]


@pytest.mark.parametrize(("form", "area"), FORMS)
@pytest.mark.parametrize(("seed", "classes"), [(0, 1), (2, 1), (0, 3), (2, 4)])
def test_rates_are_those_of_the_masks_at_any_thresholds(form, area, seed, classes):
    given = samples(seed, classes)
    parts = [f"p{i // 2}" if seed == 2 else str(i) for i in range(len(given))]
    verdicts = Verdicts.of(parts, [bool(((m > 0) & (m < 255)).any()) for _, m in given])
    found = tables(given, classes, (0.35, 0.5))
    draw, kinds = np.random.default_rng(seed), max(classes - 1, 1)
    low, fill = form or (0.6, False)
    same = (low,) * kinds
    option = Option(0, 0, False, fill, area, 0, same, same, form)
    point = replace(Choice(option, 1).point(1.0), record=record(found, verdicts, option))
    least = low if form else 0
    tried = [same, *(tuple((1 - (1 - least) * draw.random(kinds) ** 3).tolist()) for _ in range(12))]
    different = set()
    for thresholds in tried:
        rates = moved.rates(point, thresholds)
        expected = counted(moved.at(point, thresholds), given, parts)
        assert [rates["escape"], rates["overkill"]] == [pytest.approx(one) for one in expected], thresholds
        different.add((*rates["escape"], *rates["overkill"]))
    assert len(different) > 1


def record(found, verdicts, option):
    """As calibrate.py writes it, the curve without any thinning out."""
    rows = curve(found, verdicts, option)

    def rate(hits, group):
        interval = stats.binomtest(hits, int(group.sum())).proportion_ci(0.95)
        return [hits / group.sum(), interval.low, interval.high]

    return {
        "scores": moved.stored(scores(found, verdicts, option), verdicts.defective),
        "curve": {
            "threshold": [row.thresholds[0] for row in rows],
            "escape": [rate(row.escapes, verdicts.defective) for row in rows],
            "overkill": [rate(row.overkills, ~verdicts.defective) for row in rows],
        },
    }


def test_scores_of_one_kind_and_too_many_are_not_stored():
    defective = np.arange(moved.VALUES // 2) % 2 == 0
    assert moved.stored(np.full((len(defective), 2), 0.5), defective) is not None
    assert moved.stored(np.full((len(defective), 3), 0.5), defective) is None
    assert moved.stored(np.full((len(defective), 1), 0.5), defective) is None


SCORES = {"defective": [[0.9, 0.2], [0.1, 0.7]], "good": [[0.4], [0.6]]}


def test_below_the_lower_threshold_the_rates_are_those_at_it():
    point = OperatingPoint((0.5, 0.5), (0.3, 0.5), (4, 4), record={"scores": SCORES})
    assert moved.rates(point, (0.1, 0.8)) == moved.rates(point, (0.3, 0.8))
    assert moved.rates(point, (0.1, 0.8))["threshold"] == [0.3, 0.8]
    assert moved.rates(point, (0.1, 0.8))["escape"][0] == 0.5
    free = OperatingPoint((0.5, 0.5), (0.5, 0.5), (1, 1), record={"scores": SCORES})
    assert moved.rates(free, (0.1, 0.8))["escape"][0] == 0


@pytest.mark.parametrize(
    "scores",
    [
        None,
        5,
        [],
        {},
        {"good": SCORES["good"]},
        SCORES | {"good": []},
        SCORES | {"good": [[], []]},
        SCORES | {"good": [[0.4]]},
        SCORES | {"good": [[0.4], [0.6, 0.1]]},
        SCORES | {"good": [[0.4], ["0.6"]]},
        SCORES | {"good": [[0.4], [None]]},
        SCORES | {"good": [[0.4], [[0.6]]]},
        SCORES | {"good": [[0.4], {"0": 0.6}]},
        SCORES | {"good": [[0.1] * (moved.VALUES + 1)] * 2},
    ],
)
def test_a_record_of_something_else_has_no_rates(scores):
    assert moved.rates(OperatingPoint((0.5, 0.5), (0.5, 0.5), (1, 1), record={"scores": scores}), (0.5, 0.5)) is None
