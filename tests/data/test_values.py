"""The values and colours of masks, against numpy's sorting of every pixel."""

import numpy as np
import pytest

from segnet.data.values import counted, packed, unpacked


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("top", [1, 2, 200])
def test_values_and_how_often_they_are_there(kind, top):
    rng = np.random.default_rng(top)
    raw = np.repeat(rng.integers(0, top, (9, 8)).astype(kind), rng.integers(1, 5), axis=1)
    for found, expected in zip(counted(raw), np.unique(raw, return_counts=True), strict=True):
        assert found.tolist() == expected.tolist()


def test_no_pixel_has_no_value():
    assert [part.tolist() for part in counted(np.zeros((0, 4), np.uint8))] == [[], []]
    assert packed(np.zeros((0, 4, 3), np.uint8)).shape == (0, 4)


def test_colours_are_numbers_in_the_order_of_red_green_and_blue():
    colours = np.random.default_rng(0).integers(0, 3, (20, 30, 3), dtype=np.uint8) * 120
    codes = packed(colours)
    assert codes.shape == (20, 30)
    found, counts = counted(codes)
    rows, expected = np.unique(colours.reshape(-1, 3), axis=0, return_counts=True)  # by red, then green, then blue
    assert unpacked(found).tolist() == rows.tolist()
    assert counts.tolist() == expected.tolist()
    assert packed(colours[:, ::2]).tolist() == codes[:, ::2].tolist()  # not contiguous
