"""Stored values become class indices; what an encoding does not know is an error with file, value and remedy."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segnet.data.images import read_raw_mask
from segnet.data.masks import IGNORE_INDEX, Palette, Threshold, Values, check_classes

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


def disc(radius=20, side=64):
    y, x = np.mgrid[:side, :side]
    return (y - side // 2) ** 2 + (x - side // 2 + 3) ** 2 <= radius**2


def blurred(sigma, radius=20):
    return cv2.GaussianBlur(disc(radius).astype(np.float64), (0, 0), sigma)


@pytest.mark.parametrize(
    ("white", "dtype"),
    [
        (255, np.uint8),
        (65535, np.uint16),
        (65535, np.dtype(">u2")),
        (4095, np.uint16),  # a 12-bit camera's white
        (255, np.uint16),
        (65535, np.int32),
        (255, np.int32),
        (1, np.float32),
        (255, np.float32),
    ],
)
def test_threshold_cuts_at_half_of_the_files_own_range(white, dtype):
    for values in (disc() * 1.0, blurred(0.8), blurred(3)):
        raw = np.round(values * white, 0 if white > 1 else 4).astype(dtype)
        found = Threshold()(raw, FILE)
        assert np.array_equal(found, raw > white / 2)
        assert found.dtype == np.uint8
        assert not Threshold()(raw * 0, FILE).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_threshold_reads_0_and_1(dtype):
    """A set may hold such masks beside those of 0 and 255, and each file says which it is."""
    assert np.array_equal(Threshold()(disc().astype(dtype), FILE), disc())


@pytest.mark.parametrize(
    ("name", "quality"), [(name, q) for name in ("m.jpg", "m.png") for q in (20, 50, 75, 90, 95)] + [("m.jpg", 100)]
)
def test_threshold_takes_what_jpeg_leaves(tmp_path, name, quality):
    Image.fromarray(disc().astype(np.uint8) * 255).save(tmp_path / "m.jpg", quality=quality)
    if name == "m.png":
        Image.open(tmp_path / "m.jpg").save(tmp_path / name)
    found = Threshold()(read_raw_mask(tmp_path / name, "grey"), tmp_path / name)
    assert (found != disc()).mean() < 0.002


def test_threshold_takes_small_and_halved_masks():
    half = cv2.resize(disc().astype(np.uint8) * 255, (32, 32), interpolation=cv2.INTER_AREA)
    assert set(np.unique(half)) == {0, 64, 128, 191, 255}
    assert np.array_equal(Threshold()(half, FILE), half > 127.5)
    small = np.round(blurred(0.8, 2) * 255).astype(np.uint8)  # never quite white
    assert small.max() < 255
    assert np.array_equal(Threshold()(small, FILE), small > 127.5)


def labels(*values, stripes=False):
    """The disc cut into areas (or stripes a pixel wide) of these values."""
    x = np.mgrid[:64, :64][1]
    part = x % len(values) if stripes else np.clip((x - 9) * len(values) // 41, 0, len(values) - 1)
    return np.where(disc(), np.array(values)[part], 0)


@pytest.mark.parametrize(
    ("raw", "shown", "remedy"),
    [
        (labels(3, 255, 255, stripes=True), "[0, 3, 255]", "'data.mask.classes=[0,255]' 'data.mask.ignore=[3]'"),
        (labels(3, 4, 255), "[0, 3, 4, 255]", "'data.mask.ignore=[3,4]'"),  # as in crack_forest
        (labels(1, 255), "[0, 1, 255]", "'data.mask.ignore=[1]'"),
        (labels(128, 255), "[0, 128, 255]", "data.mask.above=<value>"),
        (labels(1, 2, 3, 4), "[0, 1, 2, 3, 4]", "'data.mask.classes=[0,1,2,3,4]' 'data.mask.ignore=[]'"),
        (np.where(disc(), 26, 7), "[7, 26]", "'data.mask.classes=[7,26]' 'data.mask.ignore=[]'"),
        (labels(*range(1, 12), 255), "[0, 1, 2, 3, 4, 5, 6, 7] …", "data/mask=values"),
        (labels(40, 80, 120, 160, 200), "[0, 40, 80, 120, 160, 200]", "data/mask=values"),
        (labels(1, 254, 255), "[0, 1, 254, 255]", "data/mask=values"),
        (labels(7), "[0, 7]", "'data.mask.classes=[0,7]'"),
        (np.where(disc(), 2, 1), "[1, 2]", "'data.mask.classes=[1,2]' 'data.mask.ignore=[]'"),
        (np.where(disc(), 255, 1), "[1, 255]", "'data.mask.classes=[1,255]' 'data.mask.ignore=[]'"),
    ],
)
def test_threshold_tells_labels(raw, shown, remedy):
    for dtype in (np.uint8, np.uint16):
        with pytest.raises(ValueError) as error:
            Threshold()(raw.astype(dtype), FILE)
        told = str(error.value)
        assert told.startswith(f"{FILE}: black and white is expected, but the mask holds {shown}; set data.mask.above=")
        assert remedy in told
        assert "\n" not in told
    assert np.array_equal(Threshold(2)(raw, FILE), raw > 2)  # said by hand: no question asked


@pytest.mark.parametrize("quality", [20, 50, 75, 90, 95])
@pytest.mark.parametrize("values", [(110, 255), (85, 170, 255), (200,)])
def test_threshold_tells_areas_of_labels_in_a_jpeg(tmp_path, values, quality):
    Image.fromarray(labels(*values).astype(np.uint8)).save(tmp_path / "m.jpg", quality=quality)
    with pytest.raises(ValueError, match=r"m\.jpg: black and white is expected"):
        Threshold()(read_raw_mask(tmp_path / "m.jpg", "grey"), tmp_path / "m.jpg")


def lines(*values):
    """Lines of two pixels in each of these values, slanted, far from each other."""
    out = np.zeros((64, 64), np.uint8)
    for place, value in enumerate(values):
        cv2.line(out, (4 + 14 * place, 3), (10 + 14 * place, 60), value, 2)
    return out


@pytest.mark.parametrize("values", [(60, 120, 180, 240), (60, 120, 180, 255)])
def test_lines_of_labels_are_no_soft_edges(values):
    with pytest.raises(ValueError, match="black and white is expected"):
        Threshold()(lines(*values), FILE)
    level = np.zeros((64, 64), np.uint8)
    level[10:12, 4:60] = level[30:32, 4:60] = 255
    for soft, side in ((lines(255, 255), 48), (level, 40), (level, 24)):
        shrunk = cv2.resize(soft, (side, side), interpolation=cv2.INTER_AREA)
        assert np.array_equal(Threshold()(shrunk, FILE), shrunk > 127.5)


def test_lines_of_further_classes_are_no_blended_edges():
    raw = np.zeros((64, 64, 3), np.uint8)
    raw[..., 0] = lines(64, 128, 160)
    raw[:, 52:] = 192, 0, 0
    with pytest.raises(ValueError, match="unknown mask colour"):
        Palette([BLACK, (192, 0, 0)])(raw, FILE)


@pytest.mark.parametrize("width", [4, 6, 12])
def test_a_thin_line_with_soft_edges_is_one_colour(width):
    """It may have no pixel of its own colour."""
    large = cv2.line(np.zeros((256, 256), np.uint8), (20, 30), (230, 170), 255, width)
    soft = cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA) / 255
    found = Palette([BLACK, RED])(blend((1 - soft, soft), BLACK, RED), FILE)
    assert (found == (soft > 0.5)).all()


@pytest.mark.parametrize("values", [(0, 255), (0, 2), (0, 1, 2), (0, 128, 255)])
def test_of_a_grey_gif_its_levels_are_the_values(tmp_path, values):
    """Pillow leaves levels out of the palette that a file does not hold, and numbers the others anew."""
    raw = np.array(values, np.uint8)[np.arange(64 * 64).reshape(64, 64) * len(values) // 64**2]
    Image.fromarray(raw).save(tmp_path / "m.gif")
    for kind in ("index", "grey", "number"):
        assert np.array_equal(read_raw_mask(tmp_path / "m.gif", kind), raw)


@pytest.mark.parametrize("ground", [0, 90, 255])
def test_what_is_transparent_must_not_be_brighter_than_what_is_not(tmp_path, ground):
    """A black drawing on transparent white: the colour says the opposite of the alpha channel."""
    raw = np.full((16, 16, 4), (ground, ground, ground, 0), np.uint8)
    raw[4:9, 4:9] = 0 if ground else 255
    raw[4:9, 4:9, 3] = 255
    Image.fromarray(raw).save(tmp_path / "m.png")
    if ground:
        with pytest.raises(ValueError, match="its colours and its alpha channel say different things"):
            read_raw_mask(tmp_path / "m.png", "grey")
    else:
        assert np.array_equal(read_raw_mask(tmp_path / "m.png", "grey") > 127, raw[..., 3] > 0)


@pytest.mark.parametrize("values", [(0, 128, 200), (-1, 0, 1), (0, 2, 4)])
def test_threshold_tells_floats_without_a_range(values):
    with pytest.raises(ValueError, match=r"black and white is expected.*data\.mask\.above=<value>"):
        Threshold()(grey(*values, dtype=np.float32), FILE)
    assert Threshold(0.5)(grey(*values, dtype=np.float32), FILE).tolist() == [[int(v > 0.5) for v in values]]


def test_a_jpeg_of_0_and_1_is_told():
    with pytest.raises(ValueError, match=r"m\.jpg: black and white is expected, but the mask holds \[0, 1\]"):
        Threshold()(grey(0, 1, 1), Path("m.jpg"))


def test_values_are_not_read_from_a_jpeg(tmp_path):
    """0 beside 2 becomes 1 at the edge: another class."""
    Image.fromarray(labels(1, 2).astype(np.uint8)).save(tmp_path / "m.jpg")
    with pytest.raises(
        ValueError, match=r"m\.jpg: its compression changes values, so it holds no class values; save it as PNG"
    ):
        Values(3)(read_raw_mask(tmp_path / "m.jpg", "index"), tmp_path / "m.jpg")


def test_every_channel_counts_in_a_palette():
    """Colours that differ in one channel only, whichever."""
    colors = [(10, 20, 30), (11, 20, 30), (10, 21, 30), (10, 20, 31), (20, 10, 30), (30, 20, 10), (10, 30, 20)]
    raw = np.array([colors], np.uint8)
    assert Palette(colors)(raw, FILE).tolist() == [list(range(7))]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Palette([]), r"data\.mask\.colors=\[\]: must name a colour"),
        (lambda: Palette([BLACK, RED, RED]), "must be different"),
        (lambda: Palette([BLACK, RED], ignore=[BLACK]), "must be different"),
        (lambda: Palette([BLACK, (0, 0, 256)]), r"values in 0\.\.255"),
        (lambda: Palette([BLACK, (0, 0)]), r"must be different \[r, g, b\]"),
        (
            lambda: Palette([BLACK, RED], tolerance=-1),
            r"data\.mask\.tolerance=-1: must be null or an integer in 0\.\.255",
        ),
        (lambda: Values(2, classes=[0, 0])(grey(0), FILE), "must be different values"),
        (lambda: Values(2, ignore=[1])(grey(0), FILE), "must be different values"),
        (lambda: Values(2, classes=[0, -1])(grey(0), FILE), r"in 0\.\.65535"),
    ],
)
def test_duplicates_and_impossible_values_are_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def blend(weights, *colors):
    """(H, W, 3) uint8 mix of colours by weights (H, W) each."""
    mixed = sum(w[..., None] * np.array(c, np.float64) for w, c in zip(weights, colors, strict=True))
    return np.round(mixed).astype(np.uint8)


@pytest.mark.parametrize("sigma", [0.8, 2])
@pytest.mark.parametrize("ground", [BLACK, (255, 255, 255), BLUE])
def test_blended_edges_of_a_palette_become_the_nearest_colour(sigma, ground):
    soft = blurred(sigma)
    raw = blend((1 - soft, soft), ground, RED)
    assert len(np.unique(raw.reshape(-1, 3), axis=0)) > 10
    assert (Palette([ground, RED])(raw, FILE) != (soft > 0.5)).mean() < 0.002  # ties at half
    with pytest.raises(ValueError, match=r"unknown mask colour\(s\) .* …; .*data\.mask\.tolerance="):
        Palette([ground, RED], tolerance=0)(raw, FILE)


@pytest.mark.parametrize("other", [(0, 255, 0), (128, 0, 0), (90, 0, 90)])
def test_another_class_is_no_blended_edge(other):
    """Far from the line between the known colours, or on it but in areas as labels are."""
    raw = np.where(disc()[..., None], np.array(RED), np.array(BLACK)).astype(np.uint8)
    raw[20:40, 20:30] = other
    with pytest.raises(ValueError) as error:
        Palette([BLACK, RED])(raw, FILE)
    apart = min(max(abs(a - b) for a, b in zip(other, known, strict=True)) for known in (BLACK, RED))
    assert str(error.value) == (
        f"some/mask.png: unknown mask colour(s) [{other}]; add them to data.mask.colors or data.mask.ignore, or take "
        f"the nearest one: data.mask.tolerance={apart}"
    )
    found = Palette([BLACK, RED], tolerance=apart)(raw, FILE)
    nearest = min((BLACK, RED), key=lambda known: sum((a - b) ** 2 for a, b in zip(other, known, strict=True)))
    assert (found[20:40, 20:30] == (nearest == RED)).all()


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (["crack", "stain", "crack"], "'crack' is there twice"),
        (["a", "", "b"], "'' must be a text"),
        (["a", "  ", "b"], "'  ' must be a text"),
        (["a", "b/c", "d"], "'b/c' must be a text without '/'"),
        (["a", "b\\c", "d"], "must be a text without '/'"),
        (["a", "b\x1b[31m", "d"], "control characters"),
        (["a", "b\nc", "d"], "control characters"),
        (["a", 3, "d"], "3 must be a text"),
    ],
)
def test_names_of_classes_that_cannot_be(classes, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        check_classes(classes, len(classes), None)
    check_classes(["Straße", "oil stain", "(void)"], 3, None)


@pytest.mark.parametrize(
    ("values", "proposed"),
    [
        (np.array([[0, 3, 255]], np.uint8), "data/mask=values 'data.mask.classes=[0,255]' 'data.mask.ignore=[3]'"),
        (np.arange(9, dtype=np.uint16)[None] * 300, "=[0,300,600,900,1200,1500,1800,2100,2400]' 'data.mask.ignore=[]'"),
        (np.arange(40, dtype=np.uint16)[None] * 70, None),  # shades, of which a list would be as long as useless
        (np.array([[-1, 0]], np.int32), None),  # which data/mask=values refuses
        (np.array([[0, 0.5, 2]], np.float32), None),
    ],
)
def test_values_are_proposed_where_they_can_be_named(values, proposed):
    with pytest.raises(ValueError, match=r"set data\.mask\.above=<value> \(what is above is the class\)") as error:
        Threshold()(values, Path("m.png"))
    assert ("data/mask=values" in str(error.value)) == (proposed is not None)
    assert proposed is None or str(error.value).endswith(proposed)
