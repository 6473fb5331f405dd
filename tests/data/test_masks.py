"""Stored values become class indices; what an encoding does not know is an error with file, value and remedy."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segnet.data.images import read_raw_mask
from segnet.data.masks import IGNORE_INDEX, Palette, Threshold, Values

FILE = Path("some/mask.png")
RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


def grey(*values, dtype=np.uint8):
    return np.array([values], dtype)


@pytest.mark.parametrize(
    ("above", "values", "expected"),
    [
        (127, (0, 1, 127, 128, 254, 255), (0, 0, 0, 1, 1, 1)),
        (0, (0, 1, 2, 255), (0, 1, 1, 1)),
        (254, (0, 254, 255), (0, 0, 1)),
    ],
)
def test_threshold(above, values, expected):
    found = Threshold(above)(grey(*values), FILE)
    assert found.tolist() == [list(expected)]
    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    ("encoding", "values", "expected"),
    [
        (Values(3), (0, 1, 2, 2), (0, 1, 2, 2)),
        (Values(1), (0, 1, 1), (0, 1, 1)),  # binary: background and class
        (Values(3, ignore=[255, 9]), (0, 255, 9, 2), (0, IGNORE_INDEX, IGNORE_INDEX, 2)),
        (Values(3, classes=[0, 10, 20]), (20, 10, 0), (2, 1, 0)),
        (Values(3, classes=[20, 0, 10], ignore=[1]), (20, 10, 0, 1), (0, 2, 1, IGNORE_INDEX)),
        (Values(1, classes=[2, 1], ignore=[3]), (1, 2, 3), (1, 0, IGNORE_INDEX)),  # trimap
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.dtype(">u2"), np.int32])
def test_values(encoding, values, expected, dtype):
    found = encoding(grey(*values, dtype=dtype), FILE)
    assert found.tolist() == [list(expected)]
    assert found.dtype == np.uint8


def test_values_of_16_bits():
    assert Values(2, classes=[300, 65535])(grey(300, 65535, 300, dtype=np.uint16), FILE).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
    ("encoding", "values", "told"),
    [
        (Values(2), (0, 1, 7, 9), r"some/mask\.png: unknown mask value\(s\) \[7, 9\]; known are \[0, 1\]"),
        (Values(1, classes=[0, 255]), (0, 1), r"mask\.png: unknown mask value\(s\) \[1\]; known are \[0, 255\]"),
        (Values(2, ignore=[5]), (0, 6), r"ignored \[5\]: add them to data\.mask\.ignore or data\.mask\.classes"),
        (Values(2), tuple(range(40)), r"\[2, 3, 4, 5, 6, 7, 8, 9\] …;.* or correct data\.num_classes=2"),
        (Values(3, classes=[0, 1]), (0,), r"data\.mask\.classes=\[0, 1\]: needs 3 values for data\.num_classes=3"),
        (Values(1, classes=[255]), (0,), r"needs 2 values for data\.num_classes=1.*background first"),
    ],
)
def test_values_errors(encoding, values, told):
    with pytest.raises(ValueError, match=told):
        encoding(grey(*values), FILE)


@pytest.mark.parametrize("value", [-1, 65536])
def test_values_beyond_16_bits(value):
    with pytest.raises(ValueError, match=rf"some/mask\.png: mask values must lie in 0\.\.65535, found .*{value}"):
        Values(2)(grey(0, value, dtype=np.int32), FILE)


def test_palette():
    raw = np.array([[BLACK, RED, BLUE, (9, 9, 9), RED]], np.uint8)
    found = Palette([BLACK, RED, BLUE], ignore=[(9, 9, 9)])(raw, FILE)
    assert found.tolist() == [[0, 1, 2, IGNORE_INDEX, 1]]
    assert found.dtype == np.uint8


def test_palette_takes_grey_as_colour(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(grey(0, 255, 255)).save(path)
    assert Palette([BLACK, (255, 255, 255)])(read_raw_mask(path, "rgb"), path).tolist() == [[0, 1, 1]]


def test_palette_unknown_colour():
    raw = np.array([[BLACK, RED, (1, 2, 3)]], np.uint8)
    with pytest.raises(ValueError, match=r"some/mask\.png: unknown mask colour\(s\) \[\(1, 2, 3\)\]; add them to data"):
        Palette([BLACK, RED])(raw, FILE)


@pytest.mark.parametrize("encoding", [Threshold(), Values(2)])
def test_colour_where_grey_is_expected(tmp_path, encoding):
    path = tmp_path / "colour.png"
    Image.fromarray(np.array([[BLACK, RED]], np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"colour\.png: the mask is in colour, but.*use data/mask=palette"):
        encoding(read_raw_mask(path, encoding.kind), path)


@pytest.mark.parametrize(("encoding", "high"), [(Threshold(), 255), (Values(3), 2)])
def test_grey_saved_as_rgb_counts_as_grey(tmp_path, encoding, high):
    path = tmp_path / "grey.png"
    values = grey(0, high, high)
    Image.fromarray(np.repeat(values[..., None], 3, 2)).save(path)
    assert np.array_equal(encoding(read_raw_mask(path, encoding.kind), path), encoding(values, path))
    assert encoding(values, path).any()


def test_float_mask_is_told(tmp_path):
    path = tmp_path / "float.tif"
    Image.fromarray(grey(0, 1, dtype=np.float32)).save(path)
    with pytest.raises(ValueError, match=r"float\.tif"):
        Values(2)(read_raw_mask(path, "index"), path)


def test_more_classes_than_a_byte_holds():
    """255 is IGNORE_INDEX and 256 wraps to 0: both must be refused, not learnt as another class."""
    with pytest.raises(ValueError, match="255"):
        Values(300)(grey(0, 255, 256, dtype=np.uint16), FILE)


@pytest.mark.parametrize("encoding", [Threshold(), Palette([BLACK, (255, 255, 255)])])
def test_black_and_white_palette_file(tmp_path, encoding):
    """A mask drawn black on white in an indexed PNG looks the same as one in grey, so it has to mean the same."""
    path = tmp_path / "indexed.png"
    image = Image.fromarray(grey(0, 1, 1, 0))
    image.putpalette([*BLACK, 255, 255, 255])
    image.save(path)
    assert encoding(read_raw_mask(path, encoding.kind), path).tolist() == [[0, 1, 1, 0]]


def test_one_bit_file_holds_0_and_1(tmp_path):
    """Read as 0 and 255, its class would be what conf/data/mask/values.yaml ignores: nothing left to learn."""
    path = tmp_path / "bit.png"
    Image.fromarray(grey(0, 1, 1, 0) > 0).save(path)
    assert Values(1, ignore=[255])(read_raw_mask(path, "index"), path).tolist() == [[0, 1, 1, 0]]
