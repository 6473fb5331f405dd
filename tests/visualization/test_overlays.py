import os

import cv2
import numpy as np
import pytest
from PIL import Image

from segnet.data.masks import IGNORE_INDEX
from segnet.visualization.overlays import (
    DEFECT,
    FALSE_ALARM,
    MISSED,
    VOID,
    WRONG,
    errors,
    grid,
    overlay,
    palette,
    panel,
    save,
)


def test_palette_is_distinct_and_takes_given_colours():
    for classes in (20, 255):
        colors = [VOID, *map(tuple, palette(classes)[:classes].tolist())]
        assert len(set(colors)) == classes + 1
    assert palette(2, [[1, 2, 3], [4, 5, 6]])[:2].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert palette(1)[:3].tolist() == [[0] * 3, list(DEFECT), [0] * 3]
    assert palette(1, [[9, 8, 7]])[1].tolist() == [9, 8, 7]
    for table in (palette(1), palette(20), palette(2, [[1, 2, 3], [4, 5, 6]])):
        assert tuple(table[IGNORE_INDEX]) == VOID


@pytest.mark.parametrize("binary", [True, False])
def test_overlay_blends_half_and_half(binary):
    table = palette(1 if binary else 3)
    image = np.full((2, 3, 3), 101, np.uint8)
    mask = np.array([[0, 1, IGNORE_INDEX], [1, 0, 0]])
    found = overlay(image, mask, table, binary)
    assert found[0, 1].tolist() == [(101 + int(c)) // 2 for c in table[1]]
    assert found[0, 2].tolist() == [(101 + c) // 2 for c in VOID]
    assert found[0, 0].tolist() == ([101] * 3 if binary else [(101 + int(c)) // 2 for c in table[0]])


@pytest.mark.parametrize("binary", [True, False])
def test_errors_show_wrong_pixels_and_no_ignored_ones(binary):
    image = np.full((1, 5, 3), 100, np.uint8)
    truth, guess = np.array([[0, 1, 0, 1, IGNORE_INDEX]]), np.array([[0, 1, 1, 0, 1]])
    expected = [[50] * 3, [50] * 3, FALSE_ALARM if binary else WRONG, MISSED if binary else WRONG, [50] * 3]
    assert errors(image, truth, guess, binary)[0].tolist() == [list(color) for color in expected]


def test_panel_and_file(tmp_path):
    image = np.zeros((4, 5, 3), np.uint8)
    image[..., 0] = 200  # red, to tell RGB from BGR
    drawn = panel(image, np.full((4, 5), IGNORE_INDEX), np.ones((4, 5), int), palette(1), binary=True)
    columns = [drawn[0, 13 * i].tolist() for i in range(4)]  # image, truth, prediction, errors
    blended = [[(a + b) // 2 for a, b in zip((200, 0, 0), color, strict=True)] for color in (VOID, DEFECT)]
    assert columns == [[200, 0, 0], *blended, [33] * 3]
    assert (drawn[:, 5:13] == 255).all()
    drawn = panel(image, np.zeros((4, 5), int), np.ones((4, 5), int), palette(1), binary=True)
    assert drawn.shape == (4, 4 * 5 + 3 * 8, 3)
    assert grid([drawn, drawn]).shape == (4 + 8 + 4, drawn.shape[1], 3)
    assert (drawn[:, -5:] == FALSE_ALARM).all()
    save(tmp_path / "a.png", drawn)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], drawn)
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "no" / "a.png", drawn)


def test_two_classes_are_not_drawn_as_a_defect_and_its_background():
    """Their palette may hold one colour beside black, as that of a binary task does."""
    image = np.full((2, 2, 3), 100, np.uint8)
    table = palette(2, [[0, 0, 0], [200, 0, 0]])
    drawn = panel(image, np.zeros((2, 2), int), np.ones((2, 2), int), table, binary=False)
    parts = [drawn[0, 2 * i + 8 * i].tolist() for i in range(4)]
    assert parts == [[100] * 3, [50] * 3, [150, 50, 50], list(WRONG)]


def test_a_name_that_is_no_valid_utf8_is_written(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    save(path, image)
    with Image.open(path) as found:
        assert np.array_equal(np.asarray(found), image)
