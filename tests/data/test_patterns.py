"""Where the mask of an image is: replacements, groups, alternatives, and several files that are one mask."""

import os
from time import process_time

import numpy as np
import pytest
from PIL import Image

from segnet.data.datamodule import SegmentationDataModule
from segnet.data.masks import IGNORE_INDEX, Threshold, Values
from segnet.data.pairs import Layout
from segnet.data.patterns import MaskPattern
from segnet.data.splits import ByHash
from segnet.errors import UserError


def put(root, name, pixels=None):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (
        np.random.default_rng(len(name)).integers(0, 256, (32, 32, 3), dtype=np.uint8) if pixels is None else pixels
    )
    Image.fromarray(pixels).save(path)


def square(row, value=255):
    out = np.zeros((32, 32), np.uint8)
    out[row : row + 6, 4:20] = value
    return out


def names(root, masks, image, match=None):
    return MaskPattern(root, masks, match).names(image)


@pytest.mark.parametrize(
    ("masks", "match", "image", "expected"),
    [
        ("masks/{stem}.png", None, "images/a.b.jpg", ["masks/a.b.png"]),
        ("{dir}annot/{name}", None, "train/a.png", ["trainannot/a.png"]),
        ("gt/{parent}/{stem}_m.gif", None, "x/y/a.png", ["gt/y/a_m.gif"]),
        ({"images": "masks", "_sat.jpg": "_mask.png"}, None, "images/7_sat.jpg", ["masks/7_mask.png"]),
        ({"images/": "masks/"}, None, "images/a/images_1.png", ["masks/a/images_1.png"]),
        ({"a": "b", "b": "a"}, None, "ab.png", ["ba.png"]),  # each place once
        ({"im": "x", "images": "masks"}, None, "images/1.png", ["masks/1.png"]),  # the longer one first
        ("m/{1}_{2}.png", r"cam(\d+)/f_(\d+)", "cam3/f_012.jpg", ["m/3_012.png"]),
        ("m/{day}/{stem}.png", r"/(?P<day>d\d)/", "x/d4/a.jpg", ["m/d4/a.png"]),
        (["masks/{stem}.png", "masks/{stem}.tif"], None, "images/a.jpg", ["masks/a.png", "masks/a.tif"]),
        ("masks/{stem}/*.png", None, "images/a[1].jpg", ["masks/a[[]1]/*.png"]),
    ],
)
def test_where_a_mask_may_be(tmp_path, masks, match, image, expected):
    assert names(tmp_path, masks, image, match) == expected


@pytest.mark.parametrize(
    ("masks", "match", "told"),
    [
        (
            {"photos": "masks"},
            None,
            r"data\.masks=\{photos: masks\}: replaces nothing in images/a\.png, .*own mask",
        ),
        ({}, None, r"must name what is replaced, such as \{images: masks\}"),
        ({"": "x"}, None, r"must name what is replaced"),
        ("{1}.png", None, r"wrong placeholder .* use \{stem\}, \{name\}, \{dir\}, \{parent\}"),
        ("{2}.png", r"images/(.*)", r"wrong placeholder .* and groups of data\.match, \{1\} or \{name\}"),
        ("{1}.png", r"photos/(.*)", r"data\.match='photos/\(\.\*\)' does not match 'images/a\.png'"),
        ("{1}.png", r"(", r"data\.match='\(': no regular expression"),
        ("{stem:9999999999}.png", None, r"wrong placeholder \(\{stem:9999999999\}\); use \{stem\}"),
        ("{stem!r}.png", None, r"wrong placeholder \(\{stem\}\)"),
        ("{stem.__class__}.png", None, r"wrong placeholder \(\{stem\.__class__\}\)"),
        ("{1}/etc/{stem}", r"(x)?", r"leads from 'images/a\.png' to '/etc/a', which is not below data\.root"),
        ("{1}{1}/{name}", r"(\.)", r"leads from 'images/a\.png' to '\.\./a\.png', which is not below data\.root"),
        ({"images": ""}, None, r"leads from 'images/a\.png' to '/a\.png', which is not below data\.root"),
        ({"imag": ".", "es": "."}, None, r"leads from 'images/a\.png' to '\.\./a\.png', which is not below data\.root"),
    ],
)
def test_a_pattern_that_leads_nowhere(tmp_path, masks, match, told):
    with pytest.raises(UserError, match=told):
        names(tmp_path, masks, "images/a.png", match)


@pytest.mark.parametrize("masks", ["/elsewhere/{stem}.png", "../masks/{stem}.png", {"images": "../masks"}])
def test_masks_elsewhere_are_named_openly(tmp_path, masks):
    (name,) = names(tmp_path, masks, "images/a.png", None)
    assert name.endswith("/a.png")


def test_parts_of_a_mask_are_found_outside_of_the_root(tmp_path):
    put(tmp_path, "set/images/a.png")
    for name in ("a_1", "a_2", ".a_3"):
        put(tmp_path, f"masks/{name}.png", square(3))
    found = Layout(tmp_path / "set", ["images/*"], "../masks/{stem}_*.png").pair("images/a.png").masks
    assert [path.resolve() for path in found] == [tmp_path / "masks/a_1.png", tmp_path / "masks/a_2.png"]


def test_two_masks_for_one_image_are_an_error(tmp_path):
    put(tmp_path, "images/a.png")
    for suffix in ("png", "tif"):
        put(tmp_path, f"masks/a.{suffix}", square(3))
    layout = Layout(tmp_path, ["images/*"], ["masks/{stem}.png", "masks/{stem}.tif"])
    with pytest.raises(UserError, match=r"images/a\.png: has two masks by data\.masks=.*a\.png and .*a\.tif; rem"):
        layout.pair("images/a.png")
    (tmp_path / "masks/a.png").unlink()
    assert layout.pair("images/a.png").masks == [tmp_path / "masks/a.tif"]


def test_a_mask_that_is_missing_is_named_by_the_first_choice(tmp_path):
    put(tmp_path, "images/a.png")
    for masks, first in ((["m/{stem}.png", "m/{stem}.tif"], r"m/a\.png"), ("m/{stem}/*.png", r"m/a/\*\.png")):
        layout = Layout(tmp_path, ["images/*"], masks)
        with pytest.raises(UserError, match=rf"images/a\.png: its mask .*{first} is missing; add it, or set data\."):
            layout.pair("images/a.png")
        assert Layout(tmp_path, ["images/*"], masks, "empty").pair("images/a.png").masks == []


@pytest.mark.parametrize("stem", ["a", "a[1]", "a*", "a{1}"])
def test_wildcards_are_those_of_the_template(tmp_path, stem):
    put(tmp_path, f"images/{stem}.png")
    put(tmp_path, f"masks/{stem}_1.png", square(3))
    put(tmp_path, f"masks/{stem}_2.png", square(9))
    put(tmp_path, "masks/ab_1.png", square(9))
    (tmp_path / f"masks/.{stem}_3.png").write_bytes(b"hidden")
    (tmp_path / f"masks/{stem}_4.txt").write_bytes(b"text")
    layout = Layout(tmp_path, ["images/*"], "masks/{stem}_*")
    assert [m.name for m in layout.pair(f"images/{stem}.png").masks] == [f"{stem}_1.png", f"{stem}_2.png"]


def module(root, mask, classes, **changes):
    options = {
        "root": str(root), "images": "images/*", "masks": "masks/{stem}/**/*.png", "mask": mask, "classes": classes,
        "num_classes": len(classes), "split": ByHash(0.5, 0.25, 0.25), "image_size": 32, "missing_mask": "error",
    }  # fmt: skip
    return SegmentationDataModule(**(options | changes))


def test_the_parts_of_a_mask_are_laid_over_each_other(tmp_path):
    """Binary: their union. Several classes: a class over void over background, the later file over the earlier."""
    given = {}
    for i in range(4):
        put(tmp_path, f"images/{i}.png")
        parts = [square(3, 1), square(6, 2), square(20, 255), square(22, 1)]
        for name, part in zip(("a", "b/x", "c", "d"), parts, strict=True):
            put(tmp_path, f"masks/{i}/{name}.png", part)
        given[i] = parts
    data = module(tmp_path, Values(3, ignore=[255]), ["background", "x", "y"])
    data.setup()
    for i, pair in enumerate(data.pairs):
        expected = np.zeros((32, 32), np.uint8)
        for part in given[i]:  # slow and plain: pixel by pixel
            for y, x in np.argwhere(part):
                value = IGNORE_INDEX if part[y, x] == 255 else part[y, x]
                if value != IGNORE_INDEX or expected[y, x] == 0:
                    expected[y, x] = value
        assert np.array_equal(pair.indices(data.mask), expected)


def test_a_changed_part_makes_another_cache_and_another_record(tmp_path):
    from segnet.training.data_record import rows

    for i in range(4):
        put(tmp_path / "s", f"images/{i}.png")
        for j in range(3):
            put(tmp_path / "s", f"masks/{i}/{j}.png", square(3 + 6 * j))

    def loaded():
        data = module(tmp_path / "s", Threshold(), ["x"], cache_dir=str(tmp_path / "cache"))
        data.prepare_data()
        data.setup()
        return data

    first = loaded()
    assert all(first.load(i)[1].sum() == 3 * 6 * 16 for i in range(4))
    before = rows(first)
    assert before[0]["mask"].split() == [f"masks/{before[0]['image'][7]}/{j}.png" for j in range(3)]
    put(tmp_path / "s", "masks/2/2.png", np.zeros((32, 32), np.uint8))
    os.utime(tmp_path / "s" / "masks/2/2.png", ns=(1, 1))
    again = loaded()
    assert sorted(int(again.load(i)[1].sum()) for i in range(4)) == [192, 288, 288, 288]
    changed = [new["image"] for old, new in zip(before, rows(again), strict=True) if old != new]
    assert changed == ["images/2.png"]


def test_every_part_is_known_to_the_listing(tmp_path):
    for i in range(2):
        put(tmp_path, f"images/{i}.png")
        put(tmp_path, f"masks/{i}/0.png", square(3))
        put(tmp_path, f"masks/{i}/1.png", square(9))
    layout = Layout(tmp_path, ["images/*"], "masks/{stem}/*.png")
    assert layout.passed_over() == []
    put(tmp_path, "masks/9/0.png", square(3))
    assert layout.passed_over() == [
        "passed over 1 image file (masks/9/0.png), neither in data.images nor a mask of these"
    ]
    shared = Layout(tmp_path, ["images/*"], "masks/0/*.png")
    assert any(told.startswith("several images with the same mask: 2 groups") for told in shared.passed_over())


def test_of_images_and_masks_in_one_folder_the_masks_are_no_images(tmp_path):
    for name in ("a", "b", "c"):
        put(tmp_path, f"{name}.png")
        put(tmp_path, f"{name}_mask.png", square(3))
    for masks in ("{stem}_mask.png", "{dir}/{stem}_mask.png", {".png": "_mask.png"}):
        assert Layout(tmp_path, ["*.png"], masks).list_images() == ["a.png", "b.png", "c.png"]
    for name in ("a_m1", "a_m2", "b_m1"):
        (tmp_path / "a_mask.png").with_stem(name).write_bytes((tmp_path / "a_mask.png").read_bytes())
    found = Layout(tmp_path, ["*.png"], "{stem}_m*.png", missing_mask="empty")
    assert found.list_images() == ["a.png", "b.png", "c.png"]
    assert [mask.name for mask in found.pair("a.png").masks] == ["a_m1.png", "a_m2.png", "a_mask.png"]


def test_masks_among_many_images_are_found_in_proportion_to_their_number(tmp_path):
    images = [f"d/{i}{end}.png" for i in range(20000) for end in ("", "_m")]
    start = process_time()
    found = MaskPattern(tmp_path, "{dir}/{stem}_m.png").among(images)
    assert process_time() - start < 5  # 0.1 s; with a copy of all names for each of them 30 s
    assert found == {name for name in images if name.endswith("_m.png")}
