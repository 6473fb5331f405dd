"""What the values of masks mean is found where one reading fits all of them; else it is asked, with the answers."""

import re
import shlex

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from segnet.cli import CONF_DIR
from segnet.commands.choices import settle_data
from segnet.configuration import instantiate
from segnet.data import folder
from segnet.data.masks import IGNORE_INDEX
from segnet.errors import UserError
from segnet.hydra_versions import BASE

COLOURS = np.array([[0, 0, 0], [200, 0, 0], [0, 0, 250]], np.uint8)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, *[0] * 756]
VOID = [*VOC[:-3], 224, 224, 192]


def blocks(*values, dtype=np.uint8):
    """24×24 zeros with an area of each value."""
    out = np.zeros((24, 24), dtype)
    for k, value in enumerate(values):
        out[2 + 3 * k : 4 + 3 * k, 3:12] = value
    return out


def put(root, masks, suffix="png", palette=None):
    """A plain set with these masks."""
    for part in ("images", "masks"):
        (root / part).mkdir()
    for i, mask in enumerate(masks):
        noise = np.random.default_rng(i).integers(0, 256, (*mask.shape[:2], 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"images/{i}.png")
        image = Image.fromarray(mask)
        if palette is not None:
            image = Image.new("P", mask.shape[::-1])
            image.putdata(mask.ravel().tolist())
            image.putpalette(palette[i] if isinstance(palette[0], list) else palette)
        image.save(root / f"masks/{i}.{suffix}")


def composed(root, *overrides):
    with initialize_config_dir(str(CONF_DIR), **BASE):
        cfg = compose("check_data", ["data=folder", f"data.root={root}", "data.cache_dir=null", *overrides])
    settle_data(cfg)
    return cfg.data


def read(root, *overrides):
    """The settled configuration, and every mask as the data module reads it, in the order of the numbers."""
    cfg = composed(root, *overrides)
    data = instantiate(cfg, "data")
    data.setup()
    pairs = sorted(data.pairs, key=lambda pair: int(pair.image.stem))
    return cfg, [pair.indices(data.mask) for pair in pairs]


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (0,), (0, 65535)])
def test_black_and_white_is_a_defect(tmp_path, values):
    masks = [blocks(*values[1:], dtype=np.uint16 if values[-1] > 255 else np.uint8) for _ in range(4)]
    put(tmp_path, masks)
    cfg, found = read(tmp_path)
    assert (cfg.mask._target_, cfg.classes, cfg.num_classes) == ("segnet.data.masks.Threshold", ["defect"], 1)
    assert all(np.array_equal(mask, given > 0) for mask, given in zip(found, masks, strict=True))


def test_files_of_0_and_1_beside_files_of_0_and_255(tmp_path):
    put(tmp_path, [blocks(1 if i % 2 else 255) for i in range(4)])
    cfg, found = read(tmp_path)
    assert cfg.mask._target_.endswith("Threshold")
    assert all(np.array_equal(mask, blocks(1)) for mask in found)


@pytest.mark.parametrize("void", [(), (255,)])
def test_class_indices_from_0_are_classes_and_255_counts_nowhere(tmp_path, void):
    masks = [blocks(1 + i % 3, *void) for i in range(6)]
    put(tmp_path, masks)
    cfg, found = read(tmp_path)
    assert list(cfg.classes) == ["background", "class_1", "class_2", "class_3"]
    assert list(cfg.mask.ignore) == list(void)
    assert all(np.array_equal(mask, given) for mask, given in zip(found, masks, strict=True))
    assert (np.stack(found) == IGNORE_INDEX).any() == bool(void)


def test_a_first_class_that_covers_little_is_no_background(tmp_path):
    put(tmp_path, [(np.arange(576).reshape(24, 24) // 48).astype(np.uint8)] * 3)
    cfg = composed(tmp_path)
    assert list(cfg.classes) == [f"class_{i}" for i in range(12)]


def test_a_named_number_of_classes_holds_where_a_sample_shows_fewer(tmp_path):
    put(tmp_path, [blocks(1), blocks(2)])
    cfg = composed(tmp_path, "data.num_classes=5")
    assert (len(cfg.classes), cfg.mask.num_classes) == (5, 5)
    cfg = composed(tmp_path, "data.classes=[ground,crack,stain]")
    assert (list(cfg.classes), cfg.num_classes, cfg.mask.num_classes) == (["ground", "crack", "stain"], 3, 3)


@pytest.mark.parametrize("void", [False, True])
def test_a_palette_of_voc_is_class_indices(tmp_path, void):
    masks = [blocks(1, *([255] if void else [])), blocks(2, 1)]
    put(tmp_path, masks, palette=VOID)
    cfg, found = read(tmp_path)
    assert (cfg.mask._target_, cfg.num_classes) == ("segnet.data.masks.Values", 3)
    assert cfg.colors == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert all(np.array_equal(mask, given) for mask, given in zip(found, masks, strict=True))


def test_where_files_colour_an_index_differently_the_colours_count(tmp_path):
    masks = [blocks(1, 2), blocks(2, 1)]
    red_first, green_first = [0, 0, 0, 255, 0, 0, 0, 255, 0], [0, 0, 0, 0, 255, 0, 255, 0, 0]
    put(tmp_path, masks, palette=[red_first, green_first])
    cfg, found = read(tmp_path)
    assert cfg.mask._target_.endswith("Palette")
    assert np.array_equal(found[0], found[1])  # the same colours


@pytest.mark.parametrize("palette", [VOC, VOID])
def test_objects_of_a_palette_become_one_class_as_the_error_says(tmp_path, palette):
    masks = [blocks(*range(1, 2 + i)) for i in range(5)]
    put(tmp_path, masks, palette=[*VOC[:9], 128, 128, 0, 0, 0, 128, 128, 0, 128, *palette[18:]])
    with pytest.raises(UserError, match=r"objects, or classes\? Objects of one class: data\.mask\.above=0; "):
        read(tmp_path)
    _, found = read(tmp_path, "data.mask.above=0")
    assert all(np.array_equal(mask, given > 0) for mask, given in zip(found, masks, strict=True))
    with pytest.raises(UserError, match=r"Objects of one class: data\.mask\.above=0$"):
        read(tmp_path, "data.classes=[cell]")
    _, found = read(tmp_path, "data.classes=[background,a,b,c,d,e]")  # named, they are classes
    assert all(np.array_equal(mask, given) for mask, given in zip(found, masks, strict=True))


def test_of_coloured_gifs_the_colours_count(tmp_path):
    """Pillow numbers the colours of each file by how many pixels they have."""
    masks = [COLOURS[blocks(1, 2)], COLOURS[2 - blocks(1, 2)], COLOURS[blocks(2)]]
    put(tmp_path, masks, suffix="gif")
    cfg, found = read(tmp_path)
    assert cfg.mask.colors == [list(map(int, colour)) for colour in COLOURS[[0, 2, 1]]]
    for mask, given in zip(found, masks, strict=True):
        assert np.array_equal(COLOURS[[0, 2, 1]][mask], given)


def test_where_files_number_their_greys_differently_the_greys_count(tmp_path):
    masks = [blocks(1, 2), blocks(2, 1), blocks(1, 2)]
    ramp = [0, 0, 0, 128, 128, 128, 255, 255, 255]
    put(tmp_path, masks, palette=[ramp, ramp, [0, 0, 0, 255, 255, 255, 128, 128, 128]])
    cfg, found = read(tmp_path)
    assert cfg.mask.colors == [[level] * 3 for level in (0, 128, 255)]
    other = np.array([0, 2, 1])
    for mask, given in zip(found, [masks[0], masks[1], other[masks[2]]], strict=True):
        assert np.array_equal(mask, given)


def test_few_colours_are_classes_black_first(tmp_path):
    masks = [blocks(1), blocks(2, 1), blocks()]
    put(tmp_path, [COLOURS[mask] for mask in masks])
    cfg, found = read(tmp_path)
    order = [0, 2, 1]  # blue comes before red by its numbers
    assert cfg.mask.colors == COLOURS[order].tolist() == cfg.colors
    assert all(np.array_equal(mask, np.array(order)[given]) for mask, given in zip(found, masks, strict=True))


def test_blended_edges_are_no_colours_of_their_own(tmp_path):
    import cv2

    disc = cv2.circle(np.zeros((64, 64), np.float32), (30, 30), 14, 1.0, -1)
    soft = cv2.GaussianBlur(disc, (0, 0), 0.8)
    put(tmp_path, [(soft[..., None] * [255, 0, 0]).round().astype(np.uint8)] * 3)
    cfg, found = read(tmp_path)
    assert (cfg.mask.colors, cfg.num_classes) == ([[0, 0, 0], [255, 0, 0]], 1)
    assert np.array_equal(found[0], soft > 0.5)


ASKED = {
    "a slip beside white": [blocks(255, 3), blocks(255), blocks(255, 4)],
    "void or white": [blocks(1, 255), blocks(1)],
    "a gap": [blocks(1, 3), blocks(3)],
    "another white": [blocks(7), blocks()],
    "three greys": [blocks(128, 255), blocks(255)],
    "none is 0": [np.maximum(blocks(2, 3), 1), np.maximum(blocks(3), 1)],
    "numbers of objects": [blocks(*range(1, 2 + i)) for i in range(5)],
    "numbers of few objects": [blocks(*range(1, 2 + i % 3)) for i in range(6)],
    "numbers of objects with borders": [blocks(*range(1, 2 + i), 255) for i in range(5)],
    "white and another": [blocks(100, 255)] * 2,
    "slips of 1 and 2": [blocks(255, 1), blocks(255, 2), *[blocks(255)] * 6],
}


@pytest.mark.parametrize("name", ASKED)
def test_what_could_mean_two_things_is_asked_and_each_answer_can_be_pasted(tmp_path, name):
    masks = ASKED[name]
    put(tmp_path, masks)
    with pytest.raises(UserError, match=r"masks/\d\.png: ") as error:
        read(tmp_path)
    ways = re.findall(r"(?:: |where: |class: |classes: )((?:'?data[/.][^;]+?)(?=;|$))", str(error.value))
    ways = [way for way in ways if "<value>" not in way]
    assert " and 4 counts " not in str(error.value)
    assert ways
    for way in ways:
        cfg, found = read(tmp_path, *shlex.split(way))
        assert len(cfg.classes) == cfg.num_classes
        assert max(int(mask[mask != IGNORE_INDEX].max()) for mask in found) == max(cfg.num_classes - 1, 1)


def test_masks_of_ignored_values_alone_are_told(tmp_path):
    put(tmp_path, [np.full((24, 24), 255, np.uint8)] * 4)
    with pytest.raises(UserError, match=r"0\.png: the masks hold nothing but 255, which data\.mask\.ignore names"):
        composed(tmp_path, "data.mask.ignore=[255]")


def test_slips_are_ignored_as_named(tmp_path):
    masks = ASKED["a slip beside white"]
    put(tmp_path, masks)
    cfg, found = read(tmp_path, "data.mask.ignore=[3,4]")
    assert (cfg.mask._target_, list(cfg.classes)) == ("segnet.data.masks.Values", ["defect"])
    for mask, given in zip(found, masks, strict=True):
        assert np.array_equal(mask, np.select([given == 255, (given == 3) | (given == 4)], [1, IGNORE_INDEX]))


def test_a_proposal_ignores_rare_slips_and_says_so_and_asks_the_rest(tmp_path):
    masks = [blocks(255) for _ in range(30)]
    masks[7][20, 20:22] = 3, 4
    put(tmp_path, masks)
    found, reasons = folder.propose(tmp_path)
    assert (found.mask.classes, found.mask.ignore, found.classes) == ([0, 255], [3, 4], ["defect"])
    assert "3 and 4, in 1 of 30 masks, are ignored" in reasons[-1]
    with pytest.raises(UserError, match="can mean several things"):
        composed(tmp_path)
    for file in (tmp_path / "masks").iterdir():
        Image.fromarray(blocks(255, 128)).save(file)  # as much of it as of white
    with pytest.raises(UserError, match="can mean several things"):
        folder.propose(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.mask.above=127"], {"_target_": "segnet.data.masks.Threshold", "above": 127}),
        (["data/mask=threshold"], {"_target_": "segnet.data.masks.Threshold", "above": None}),
        (
            ["data/mask=values"],
            {"_target_": "segnet.data.masks.Values", "num_classes": 1, "classes": None, "ignore": [255]},
        ),
        (
            ["data.mask.classes=[0,1]", "data.mask.ignore=[9]"],
            {"_target_": "segnet.data.masks.Values", "num_classes": 1, "classes": [0, 1], "ignore": [9]},
        ),
        (
            ["data/mask=palette", "data.mask.colors=[[0,0,0],[1,1,1]]"],
            {
                "_target_": "segnet.data.masks.Palette",
                "colors": [[0, 0, 0], [1, 1, 1]],
                "ignore": [],
                "tolerance": None,
            },
        ),
    ],
)
def test_a_named_encoding_holds(tmp_path, overrides, expected):
    put(tmp_path, [blocks(1), blocks(1)])
    cfg, _ = read(tmp_path, *overrides)
    assert dict(cfg.mask) == expected
    assert list(cfg.classes) == ["defect"]


def test_an_audit_shows_what_training_would_ask(tmp_path, run_main):
    (tmp_path / "s").mkdir()
    put(tmp_path / "s", ASKED["a slip beside white"])
    code, told = run_main("check_data", tmp_path / "o", "data=folder", f"data.root={tmp_path / 's'}")
    assert code == 1
    assert "the masks hold 0, 3, 4 and 255, which can mean several things" in told
    assert "black and white is expected" in (tmp_path / "o" / "report.json").read_text()
