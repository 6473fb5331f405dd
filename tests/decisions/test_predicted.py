"""The objects of predicted masks, against scipy; what a file may say an operating point is."""

import json

import numpy as np
import pytest
from scipy import ndimage

from segnet.decisions import OperatingPoint, predicted_objects
from segnet.decisions.given import chosen, told

EIGHT = np.ones((3, 3))


def random_mask(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 25, 2))
    mask = (rng.random(size) < rng.random()) * rng.integers(1, 4, size)
    return mask.astype(np.uint8), rng.random((4, *size), dtype=np.float32)


@pytest.mark.parametrize("seed", range(30))
def test_objects_are_scipys(seed):
    mask, p = random_mask(seed)
    expected = []
    for index in (1, 2, 3):
        labels, count = ndimage.label(mask == index, EIGHT)
        for number in range(1, count + 1):
            rows, columns = np.nonzero(labels == number)
            values = p[index][labels == number].astype(np.float64)
            box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
            expected.append((index, len(rows), *box, columns.mean(), rows.mean(), values.mean(), values.max()))
    found = predicted_objects(mask, p)
    columns = (found.classes, found.regions.areas, *found.boxes.T, *found.centroids.T, found.mean, found.greatest)
    assert len(found) == len(expected)
    np.testing.assert_allclose(sorted(zip(*columns, strict=True)), sorted(expected), rtol=1e-12, atol=1e-12)
    # The window shows every object under its number, and nothing else.
    top, left = found.corner
    whole = np.zeros(mask.shape, int)
    height, width = found.regions.labels.shape
    whole[top : top + height, left : left + width] = found.regions.labels
    assert np.array_equal(np.concatenate([[0], found.classes])[whole], mask)


@pytest.mark.parametrize("most", [0, 1, 5, 1000])
def test_the_largest_are_kept_in_their_order(most):
    mask, p = random_mask(7)
    every = predicted_objects(mask, p)
    kept = every.largest(most)
    order = sorted(range(len(every)), key=lambda i: (-every.regions.areas[i], i))[:most]
    assert kept.regions.areas.tolist() == [every.regions.areas[i] for i in sorted(order)]
    assert kept.greatest.tolist() == [every.greatest[i] for i in sorted(order)]
    assert np.bincount(kept.regions.labels.ravel(), minlength=len(kept) + 1)[1:].tolist() == kept.regions.areas.tolist()


POINT = OperatingPoint((0.6,), (0.3,), (5,), True, 1.5, {"target": "escape<=0.05"})


def test_the_key_names_the_models_own_none_or_a_file(tmp_path):
    file = tmp_path / "operating_point.json"
    file.write_text(json.dumps(POINT.stored()))
    assert chosen(None, POINT, ["defect"]) is POINT
    assert chosen(None, None, ["defect"]) is None
    assert chosen("none", POINT, ["defect"]) is None
    found = chosen(str(file), None, ["defect"])
    assert (found, found.record) == (POINT, POINT.record)
    assert told(found, ["defect"]) == (
        "operating point: defect above 0.6 (pixels above 0.3 join), at least 5 pixels; holes filled; temperature 1.5"
    )
    assert told(None, ["defect"]) == "no operating point: probability above 0.5"


DEEP = {}
for _ in range(20):
    DEEP = {"a": DEEP}
WRONG = {
    "none there": (None, "no such file"),
    "no JSON": ("{", "is no JSON"),
    "nested": ("[" * 100_000, "is no JSON"),
    "large": (" " * 10_000_001, "larger than 10,000,000 bytes"),
    "list": ([], "not a mapping"),
    "version": ({"version": 2}, "version 2, this program knows 1"),
    "lacking": ({"low": None}, "low must have 1 values"),
    "kinds": ({"thresholds": [0.5, 0.5]}, "thresholds must have 1 values"),
    "order": ({"low": [0.9]}, "0 <= low <= thresholds < 1"),
    "nan": ({"low": [float("nan")]}, "low must be numbers"),
    "huge": ({"thresholds": [10**400]}, "thresholds must be numbers"),
    "text": ({"thresholds": ["0.5"]}, "thresholds must be numbers"),
    "area": ({"min_area": [0]}, "min_area must be pixels"),
    "huge area": ({"min_area": [2**64]}, "min_area must be pixels"),
    "temperature": ({"temperature": 0}, "temperature must be above 0"),
    "holes": ({"fill_holes": 1}, "fill_holes must be true or false"),
    "record": ({"record": [1]}, "record must be a mapping"),
    "deep record": ({"record": DEEP}, "too deep or too large"),
    "long record": ({"record": {"a": list(range(20_000))}}, "too deep or too large"),
    "long text": ({"record": {"a": "x" * 2_000_000}}, "too deep or too large"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_operating_point_is_one_line(case, tmp_path):
    content, message = WRONG[case]
    file = tmp_path / "point.json"
    if isinstance(content, dict):
        content = json.dumps(POINT.stored() | content)
    elif isinstance(content, list):
        content = json.dumps(content)
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        chosen(str(file), None, ["defect"])
    assert str(error.value).startswith(f"operating_point={file}: ")
    assert "calibrate.py" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_folder_or_a_fifo_is_no_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(ValueError, match=r"no file; give the operating_point\.json"):
            chosen(str(path), None, ["defect"])


def test_a_record_holds_only_what_json_has():
    stored = POINT.stored() | {"record": {"a": float("nan"), "b": (1, 2)}}
    assert OperatingPoint.read(stored, ["defect"], "x").record == {"a": None, "b": [1, 2]}
    with pytest.raises(ValueError, match="its record holds a bytes"):
        OperatingPoint.read(stored | {"record": {"a": b""}}, ["defect"], "x")


@pytest.mark.parametrize("seed", range(5))
def test_mask_and_score_are_those_of_a_plain_program(seed):
    """As docs/deployment.md describes it for other programs, with scipy."""
    rng = np.random.default_rng(seed)
    p = ndimage.gaussian_filter(rng.random((3, 40, 50)), (0, 2, 2))
    p = (p / p.sum(0)).astype(np.float32)
    point = OperatingPoint((0.345, 0.36), (0.335, 0.34), (4, 9))
    mask, score = np.zeros(p.shape[1:], np.uint8), 0.0
    best = p[1:].argmax(0)
    for kind in (0, 1):
        labels, count = ndimage.label((best == kind) & (p[kind + 1] > point.low[kind]), EIGHT)
        for number in range(1, count + 1):
            inside = labels == number
            if inside.sum() < point.min_area[kind]:
                continue
            score = max(score, float(p[kind + 1][inside].max()))
            if p[kind + 1][inside].max() > point.thresholds[kind]:
                mask[inside] = kind + 1
    assert set(np.unique(mask)) == {0, 1, 2}
    found = point.decided(p)
    assert np.array_equal(found[0], mask)
    assert found[1] == score
