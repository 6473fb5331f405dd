"""Figures of a split, counted once more by hand; intervals against published and simulated ones."""

import math

import numpy as np
import pytest

from segnet.decisions import objects, rates
from segnet.decisions.figures import Tally


def add(tally, file, truth, predicted, score=0.5):
    truth, predicted = np.array(truth, np.uint8), np.array(predicted, np.uint8)
    p = np.full((len(tally.classes), *truth.shape), 0.5, np.float32)
    found = objects.compare(truth, predicted, p)
    judged = objects.judge(found, truth, predicted, score)
    tally.add(file, judged, objects.curves(found, p, np.ones(truth.shape, bool)))


@pytest.fixture
def tally():
    """Two parts of two images, and a single one; kinds by folder."""
    found = Tally(["defect"], kinds=r"^(\w+)/", parts=r"(part\d)")
    add(found, "crack/part1_a.png", [[1, 0, 1, 1]], [[1, 0, 0, 0]], 0.9)  # one of two is found
    add(found, "crack/part1_b.png", [[0, 0, 0, 0]], [[0, 0, 0, 0]], 0.1)
    add(found, "spot/part2_a.png", [[1, 1, 1, 0]], [[0, 0, 0, 0]], 0.2)  # the part escapes
    add(found, "spot/part2_b.png", [[0, 0, 0, 0]], [[0, 0, 0, 0]], 0.3)
    add(found, "good/part3_a.png", [[0, 0, 0, 0]], [[1, 0, 1, 0]], 0.8)  # two false alarms
    add(found, "good/part3_b.png", [[0, 0, 0, 0]], [[0, 0, 0, 0]], 0.1)
    add(found, "other.png", [[0, 0, 0, 0]], [[0, 0, 0, 0]], 0.0)
    return found


def test_parts_kinds_and_sizes(tally):
    found = tally.figures()
    expected = {
        "object_recall": (1, 3), "object_precision": (1, 3), "object_recall_iou50": (1, 3),
        "object_recall/kind/crack": (1, 2), "object_recall/kind/spot": (0, 1), "object_recall/kind/good": (0, 0),
        "object_recall/size/1": (1, 1), "object_recall/size/2": (0, 1), "object_recall/size/3": (0, 0),
        "object_recall/size/4": (0, 1), "false_alarms_per_image": (2, 7), "escape_rate": (1, 2),
        "overkill_rate": (1, 2), "escape_rate/kind/crack": (0, 1), "escape_rate/kind/spot": (1, 1),
        "overkill_rate/kind/good": (1, 1), "overkill_rate/kind/no kind": (0, 1), "overkill_rate/kind/crack": (0, 0),
    }  # fmt: skip
    assert {name: (found[name].hits, found[name].total) for name in expected} == expected
    for name, (hits, total) in expected.items():
        value, low, high = found[name][:3]
        assert value == hits / total if total else all(map(math.isnan, (value, low, high)))
        assert not total or low <= value <= high
    assert found["escape_rate"][1:3] == rates.exact_interval(1, 2)
    assert found["image_auroc"].value == 0.75  # parts: 0.9 and 0.3 against 0.8 and 0
    told = tally.described()
    assert (told["unit"], told["defective"], told["good"]) == ("part", 2, 2)
    assert (told["images_without_kind"], told["images_without_part"]) == (1, 1)
    assert told["area_edges"] == [1.5, 2.0, 2.5]


def test_without_parts_each_image_decides(tally):
    tally.parts = None
    found = tally.figures()
    assert (found["escape_rate"].hits, found["escape_rate"].total) == (1, 2)
    assert (found["overkill_rate"].hits, found["overkill_rate"].total) == (1, 5)


def test_pro_is_the_mean_over_defects_and_classes_count_by_themselves():
    tally = Tally(["good", "a", "b"])
    add(tally, "1", [[1, 1, 0, 2, 2, 2, 2]], [[1, 0, 0, 2, 2, 2, 1]])
    add(tally, "2", [[1, 0, 0, 0, 0, 0, 0]], [[0, 0, 0, 0, 0, 0, 0]])
    found = tally.figures()
    assert found["pro/a"].value == 0.25  # a half and nothing
    assert found["pro/b"].value == 0.75
    assert found["pro"].value == 0.5
    assert found["object_recall/a"][3:] == (1, 2)
    assert found["object_precision/a"][3:] == (1, 2)
    assert found["object_recall/b"][3:] == (1, 1)


def test_where_every_image_is_defective_the_rates_of_good_ones_are_undefined():
    tally = Tally(["a", "b"])
    for i in range(3):
        add(tally, str(i), [[1, 0]], [[1, 0]], i / 3)
    found = tally.figures()
    for name in ("overkill_rate", "image_auroc", "image_average_precision"):
        assert math.isnan(found[name].value)
        assert math.isnan(found[name].low)
    assert found["escape_rate"].value == 0


def test_no_images_and_no_objects():
    assert math.isnan(Tally(["defect"]).figures()["object_recall"].value)
    tally = Tally(["defect"])
    add(tally, "a", [[0, 0]], [[0, 0]])
    found = tally.figures()
    assert all(math.isnan(found[name].value) for name in ("object_recall", "boundary_iou", "pro", "aupro"))
    assert (found["false_alarms_per_image"].value, found["false_alarms_per_image"].low) == (0, 0)


# -- intervals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second", "count"), [(12, 2, 50), (14, 1, 54), (0, 5, 20)])
def test_ends_of_a_paired_interval_solve_its_equation(first, second, count):
    """Tango 1998: the score of the difference at an end is 1.96, by the most likely rest, searched here."""
    ends = rates.paired_interval(first, second, count)
    for end, score in zip(ends, (1.959964, -1.959964), strict=True):
        q = np.linspace(max(0, -end), (1 - end) / 2, 200_001)[1:-1]
        likelihood = first * np.log(q + end) + second * np.log(q) + (count - first - second) * np.log(1 - 2 * q - end)
        best = q[likelihood.argmax()]
        found = (first - second - count * end) / math.sqrt(count * (2 * best + end - end**2))
        assert found == pytest.approx(score, abs=2e-3)


def test_a_paired_interval_without_a_difference_is_no_point():
    low, high = rates.paired_interval(0, 0, 54)
    assert -low == pytest.approx(high)
    assert high == pytest.approx(1.96**2 / (54 + 1.96**2), abs=1e-3)
    low, high = rates.paired_interval(12, 2, 50)
    assert rates.paired_interval(2, 12, 50) == pytest.approx((-high, -low), abs=1e-9)


def test_interval_of_a_mean_number():
    assert rates.counted_interval([0] * 100) == pytest.approx((0, 0.036889), abs=1e-6)  # 3.6889 of 100
    assert rates.counted_interval([1, 0] * 5) == pytest.approx((0.16235, 1.16683), abs=1e-5)  # Garwood's of 5: 1.6235
    low, high = rates.counted_interval([0] * 9 + [10])
    assert low < 0.1623
    assert high > 1.839  # ten in one image say less than one in each of ten
    assert all(map(math.isnan, rates.counted_interval([])))


@pytest.mark.parametrize("separation", [0.5, 2.5])
def test_auroc_interval_holds_the_true_area(separation):
    rng = np.random.default_rng(0)
    truth = 0.5 * (1 + math.erf(separation / 2))
    positive = np.arange(60) < 20
    hits = 0
    for _ in range(400):
        area = rates.auroc(rng.normal(size=60) + separation * positive, positive)
        low, high = rates.auroc_interval(area, 20, 40)
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.995


def test_intervals_of_perfect_scores_are_no_points():
    assert rates.auroc_interval(1.0, 5, 5)[0] < 0.8
    assert rates.average_precision_interval(1.0, 5) == pytest.approx((0.025 ** (1 / 5), 1))
