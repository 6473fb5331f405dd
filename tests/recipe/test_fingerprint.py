"""What a recipe sees of a data set, against what the set was drawn with."""

import math
import time

import cv2
import numpy as np
import pytest

from segnet.data.datamodule import SegmentationDataModule
from segnet.data.masks import Threshold, Values
from segnet.data.splits import ByHash
from segnet.recipe import survey

SIZE = 64


def written(root, draw, count=24, classes=("defect",)):
    """A data set whose images and masks ``draw(rng, i)`` makes."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        image, mask = draw(np.random.default_rng(i), i)
        cv2.imwrite(str(root / "images" / f"{i:03d}.png"), image)
        cv2.imwrite(str(root / "masks" / f"{i:03d}.png"), mask)
    encoding = Threshold() if len(classes) == 1 else Values(len(classes))
    split = ByHash(1.0, 0.0, 0.0)
    data = SegmentationDataModule(root, "images/*", "masks/{stem}.png", encoding, classes, len(classes), split)
    data.setup()
    return data


def noise(rng):
    return rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def lines(rng, i):
    """Every other image has a line of 40 × 3 pixels, lying, away from the border."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    if i % 2:
        top, left = rng.integers(1, 60), rng.integers(1, 23)
        mask[top : top + 3, left : left + 40] = 255
    return noise(rng), mask


def scene(rng, i):
    """Class 1 at the top, class 2 at the bottom, as sky and road."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[: rng.integers(5, 30)] = 1
    mask[-rng.integers(5, 30) :] = 2
    return noise(rng), mask


def texture(rng, i):
    """Two squares of each class anywhere."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for name in (1, 2, 1, 2):
        top, left = rng.integers(0, SIZE - 8, 2)
        mask[top : top + 8, left : left + 8] = name
    return np.repeat(rng.integers(0, 256, (SIZE, SIZE, 1), np.uint8), 3, 2), mask


def film(rng, i):
    """Frames of one picture that moves by a pixel."""
    still = cv2.resize(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8), (SIZE * 2, SIZE))
    return still[:, i : i + SIZE], scene(rng, i)[1]


def test_lines_are_as_wide_and_as_frequent_as_they_were_drawn(tmp_path):
    seen = survey.measure(written(tmp_path, lines))
    assert (seen.height, seen.width, seen.one_size, seen.looked) == (SIZE, SIZE, True, 24)
    assert seen.empty == 0.5
    assert seen.shown == [1.0, 0.5]
    assert seen.shares[1] == pytest.approx(0.5 * 120 / SIZE**2)
    assert seen.thickness[1] == pytest.approx(2 * 120 / (2 * (40 + 3)))  # area and border of a rectangle
    assert seen.object_side == pytest.approx([120**0.5] * 3)
    assert seen.objects == 1
    assert seen.lying == pytest.approx((40 - 3) / (40 + 3))
    assert seen.grey == 0
    assert seen.foreground() == [1]


@pytest.mark.parametrize(("draw", "steady"), [(scene, True), (texture, False)])
def test_orientation_means_something_where_classes_keep_their_place(tmp_path, draw, steady):
    seen = survey.measure(written(tmp_path, draw, classes=("background", "a", "b")))
    assert (seen.vertical > 1) == steady
    assert seen.horizontal < 0.7
    assert (seen.lying > 0.5) == steady  # a scene's borders run from left to right
    assert seen.grey == (0 if steady else 1)
    assert seen.foreground() == [1, 2]


def test_too_few_images_tell_nothing_of_orientation(tmp_path):
    seen = survey.measure(written(tmp_path, scene, count=4, classes=("background", "a", "b")))
    assert seen.images["train"] < 5
    assert all(map(math.isnan, (seen.vertical, seen.horizontal, seen.lying)))


def test_frames_of_a_film_resemble_their_neighbours(tmp_path):
    assert survey.measure(written(tmp_path / "film", film, classes=("background", "a", "b"))).neighbours < 0.5
    assert survey.measure(written(tmp_path / "single", lines)).neighbours > 0.8


def test_a_hundred_thousand_images_take_no_longer(tmp_path):
    data = written(tmp_path, lines)
    seen = survey.measure(data)
    data.pairs = [pair for pair in data.pairs for _ in range(4200)]
    data.indices["train"] = list(range(len(data.pairs)))
    start = time.process_time()
    many = survey.measure(data)
    assert time.process_time() - start < 8
    assert many.looked == survey.IMAGES
    assert many.images["train"] == 100_800
    assert many.thickness[1] == seen.thickness[1]


def test_few_large_images_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "PIXELS", 3 * SIZE**2)
    assert survey.measure(written(tmp_path, lines)).looked == survey.FEWEST
