"""Order, classes, splits and names of imported labels, and everything that is asked about or told."""

import base64
import io
import json
import shlex
import subprocess
import sys
import time
import unicodedata

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from annotations.writers import imported, sources
from helpers import ROOT, call_main
from segnet.data import description

SQUARE = [1, 1, 7, 1, 7, 7, 1, 7]


def box(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def image(path, size=(10, 12), seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


def coco(path, annotations, images=None, categories=("crack", "stain")):
    """``annotations``: (image id, category name, segmentation or a dict)."""
    images = images or [{"id": 1, "file_name": "a.png", "width": 12, "height": 10}]
    names = {name: i for i, name in enumerate(categories, 1)}
    entries = [
        {"id": i, "image_id": number, "category_id": names[name]}
        | (shape if isinstance(shape, dict) else {"segmentation": [shape]})
        for i, (number, name, shape) in enumerate(annotations)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [{"id": i, "name": name} for name, i in names.items()]
    path.write_text(json.dumps({"images": images, "annotations": entries, "categories": listed}))


def named(*names):
    return [{"id": i, "file_name": name} for i, name in enumerate(names, 1)]


def filled(value, x0, y0, x1, y1, canvas=None):
    canvas = np.zeros((10, 12), np.uint8) if canvas is None else canvas
    canvas[y0:y1, x0:x1] = value
    return canvas


def test_later_objects_lie_over_earlier_ones_and_are_counted(tmp_path, run):
    image(tmp_path / "in/a.png")
    coco(
        tmp_path / "in/x.json",
        [(1, "stain", box(1, 1, 6, 6)), (1, "crack", box(4, 4, 9, 9)), (1, "crack", box(5, 5, 6, 6))],
    )
    code, out, said = run(tmp_path / "in")
    assert code == 0, said
    assert np.array_equal(imported(out)["a"], filled(1, 4, 4, 9, 9, filled(2, 1, 1, 6, 6)))
    assert "4 pixels in 1 image belonged to several classes" in said
    assert description.read(out).classes == ["background", "crack", "stain"]  # in the order of categories


def test_cvat_draws_by_z_order_and_background_cuts_holes(tmp_path, run):
    image(tmp_path / "in/images/a.png")

    def polygon(label, z, *corners):
        points = ";".join(f"{x},{y}" for x, y in np.reshape(box(*corners), (-1, 2)))
        return f'<polygon label="{label}" points="{points}" z_order="{z}"/>'

    shapes = polygon("background", 5, 2, 2, 4, 4) + polygon("b", 2, 1, 1, 6, 6) + polygon("a", 1, 0, 0, 9, 9)
    text = f'<annotations><image id="0" name="a.png" width="12" height="10">{shapes}</image></annotations>'
    (tmp_path / "in/annotations.xml").write_text(text)
    code, out, said = run(tmp_path / "in", "classes=[a,b]")
    assert code == 0, said
    expected = filled(0, 2, 2, 4, 4, filled(2, 1, 1, 6, 6, filled(1, 0, 0, 9, 9)))
    assert np.array_equal(imported(out)["a"], expected)


def test_crowds_are_ignored_beneath_objects_and_asked_about_where_all_are_such(tmp_path, run):
    image(tmp_path / "in/a.png")
    runs = [0, 60, 60]  # the left half, by columns
    crowd = {"segmentation": {"size": [10, 12], "counts": runs}, "iscrowd": 1}
    coco(tmp_path / "in/x.json", [(1, "crack", box(4, 4, 9, 9)), (1, "stain", crowd)])
    code, out, said = run(tmp_path / "in")
    assert code == 0, said
    assert np.array_equal(imported(out)["a"], filled(1, 4, 4, 9, 9, filled(255, 0, 0, 6, 10)))
    assert "1 crowds" in said
    coco(tmp_path / "in/x.json", [(1, "stain", crowd)])
    code, _, said = run(tmp_path / "in", out="two")
    assert code == 1
    assert "crowd=object" in said
    code, out, said = run(tmp_path / "in", "crowd=object", "classes=[stain]", out="three")
    assert code == 0, said
    assert np.array_equal(imported(out)["a"], filled(1, 0, 0, 6, 10))


def test_unlabelled_images_are_asked_about(tmp_path, run):
    for number, name in enumerate("abc"):
        image(tmp_path / f"in/{name}.png", seed=number)  # c is in no list
    coco(tmp_path / "in/x.json", [(1, "crack", SQUARE)], named("a.png", "b.png"), ["crack"])
    code, out, said = run(tmp_path / "in")
    assert (code, out.exists()) == (1, False)
    assert "2 of 3 images without a label" in said
    assert "unlabelled=empty" in said
    assert "unlabelled=skip" in said
    code, out, said = run(tmp_path / "in", "unlabelled=skip")
    assert (code, list(imported(out))) == (0, ["a"]), said
    assert "2 images without a label left out" in said
    code, out, said = run(tmp_path / "in", "unlabelled=empty", out="empty")
    assert (code, [int(m.sum()) for m in imported(out).values()]) == (0, [36, 0, 0]), said
    code, out, said = run(tmp_path / "in/x.json", "unlabelled=skip", out="file")
    assert "1 image (c.png) not in x.json" in said


def test_an_empty_labelme_or_yolo_file_says_that_there_is_no_object(tmp_path, run):
    for name in "ab":
        image(tmp_path / f"in/images/{name}.png")
        (tmp_path / "in/labels").mkdir(exist_ok=True)
    (tmp_path / "in/labels/a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    (tmp_path / "in/labels/b.txt").write_text("\n")
    (tmp_path / "in/classes.txt").write_text("crack\n")
    code, out, said = run(tmp_path / "in")
    assert code == 0, said
    assert (imported(out)["a"].any(), imported(out)["b"].any()) == (True, False)
    assert description.read(out).classes == ["crack"]


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ((1, "crack", [float("nan"), 1, 2, 2, 3, 4]), "annotations[0]"),
        ((1, "crack", [1e300, 1, 2, 2, 3, 4]), "annotations[0]"),
        ((1, "crack", [1, 1, 2]), "annotations[0]"),
        ((1, "crack", ["x", 1, 2, 2, 3, 4]), "annotations[0]"),
        ((1, "crack", {"segmentation": {"size": [10, 12], "counts": [5]}}), "annotations[0]"),
        ((1, "crack", {"segmentation": {"size": [10**9, 10**9], "counts": [10**18]}}), "annotations[0]"),
        ((1, "crack", {"segmentation": {"size": [10, 12], "counts": "ooooo"}}), "annotations[0]"),
        ((1, "crack", {"segmentation": [SQUARE], "category_id": 9}), "category_id=9"),
        ((1, "crack", {"segmentation": [], "bbox": [1, 1, 2, 2]}), "boxes=fill"),
    ],
)
def test_a_damaged_annotation_is_one_line_and_leaves_nothing(entry, word, tmp_path, run):
    image(tmp_path / "in/a.png")
    coco(tmp_path / "in/x.json", [entry])
    before = set(tmp_path.iterdir())
    begin = time.process_time()
    code, out, said = run(tmp_path / "in")
    assert time.process_time() - begin < 3
    assert (code, out.exists()) == (1, False)
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert word in said
    assert {p.name for p in set(tmp_path.iterdir()) - before} <= {"log"}


def test_what_is_left_out_is_counted(tmp_path, run):
    image(tmp_path / "in/a.png")
    far = [100, 100, 110, 100, 110, 110]
    entries = [(1, "crack", SQUARE), (1, "crack", far), (1, "stain", [1, 1, 1, 1]), (5, "crack", SQUARE)]
    box_only = {"segmentation": [], "bbox": [1, 1, 2, 2]}
    coco(tmp_path / "in/x.json", [*entries, (1, "stain", box_only)], categories=["crack", "stain", "unused"])
    code, out, said = run(tmp_path / "in", "boxes=skip")
    assert code == 0, said
    for words in (
        "left out 1 object with a box and no outline", "left out 1 object (", "whose image_id no image has",
        "cover no pixel (no area, or outside of the image): 1 crack, 1 stain", "no object of unused",
    ):  # fmt: skip
        assert words in said
    assert np.array_equal(imported(out)["a"], filled(1, 1, 1, 7, 7))
    code, out, said = run(tmp_path / "in", "boxes=fill", "classes=[stain]", out="filled")
    assert np.array_equal(imported(out)["a"], filled(1, 1, 1, 3, 3))
    assert "left out objects of labels that classes does not name: 2 crack" in said


def test_missing_images_are_asked_about(tmp_path, run):
    image(tmp_path / "in/a.png")
    coco(tmp_path / "in/x.json", [(1, "crack", SQUARE), (2, "crack", SQUARE)], named("a.png", "gone.png"), ["crack"])
    code, _, said = run(tmp_path / "in")
    assert (code, "'gone.png'" in said, "missing=skip" in said) == (1, True, True)
    code, out, said = run(tmp_path / "in", "missing=skip")
    assert (code, list(imported(out))) == (0, ["a"])
    assert "left out 1 name (gone.png)" in said


def test_no_name_leads_out_of_the_folder(tmp_path, run):
    image(tmp_path / "secret.png", seed=1)
    image(tmp_path / "in/sub/a.png", seed=2)
    for name in ("../secret.png", str(tmp_path / "secret.png"), "file:///etc/secret.png"):
        coco(tmp_path / "in/x.json", [(1, "crack", SQUARE)], named(name), ["crack"])
        code, out, said = run(tmp_path / "in")
        assert (code, out.exists()) == (1, False)
        assert "cannot be found below it" in said
    for i, name in enumerate(("../../a.png", "/somewhere/else/a.png", "C:\\data\\a.png", "https://host/x/a.png?y=1")):
        coco(tmp_path / "in/x.json", [(1, "crack", SQUARE)], named(name), ["crack"])
        code, out, said = run(tmp_path / "in", out=f"out{i}")
        assert code == 0, said
        assert "1 name (" in said
        assert (out / "images/a.png").read_bytes() == (tmp_path / "in/sub/a.png").read_bytes()
    (tmp_path / "in/sub/a.png").unlink()
    (tmp_path / "in/link").symlink_to(tmp_path)
    code, _, said = run(tmp_path / "in")
    assert code == 1


def test_images_of_the_same_name_get_names_of_their_own(tmp_path, run):
    for job in ("job1", "job2"):
        image(tmp_path / f"in/{job}/images/frame_000000.png", seed=len(job) + ord(job[-1]))
        points = "1,1;7,1;7,7;1,7" if job == "job1" else "0,0;2,0;2,2;0,2"
        shape = f'<polygon label="x" points="{points}"/>'
        text = f'<annotations><image name="frame_000000.png" width="12" height="10">{shape}</image></annotations>'
        (tmp_path / f"in/{job}/annotations.xml").write_text(text)
    image(tmp_path / "in/job2/images/Frame_000000.jpg")
    code, out, said = run(tmp_path / "in", "unlabelled=empty")
    assert code == 0, said
    found = sources(out)
    assert len({name.lower().rsplit(".")[0] for name in found}) == 3
    for name, source in found.items():
        assert (out / name).read_bytes() == (tmp_path / "in" / source).read_bytes()
        area = {"job1/images/frame_000000.png": 36, "job2/images/frame_000000.png": 4}.get(source, 0)
        assert int((imported(out)[name[7:-4]] > 0).sum()) == area
    assert "renamed" in said


def test_splits_are_those_of_the_source(tmp_path, run):
    for split, number in (("train", 3), ("val", 2)):
        names = [f"{split}{i}.png" for i in range(number)]
        for i, name in enumerate(names):
            image(tmp_path / f"in/{split}2017/{name}", seed=10 * number + i)
        shapes = [(i, "crack", SQUARE) for i in range(1, number + 1)]
        coco(tmp_path / f"in/annotations/instances_{split}2017.json", shapes, named(*names), ["crack"])
    code, out, said = run(tmp_path / "in")
    assert code == 0, said
    division = description.read(out).split
    assert (division.by, division.train, division.val, division.test) == ("list", "train.txt", "val.txt", None)
    assert (out / "train.txt").read_text().split() == [f"images/train{i}.png" for i in range(3)]
    assert (out / "val.txt").read_text().split() == ["images/val0.png", "images/val1.png"]
    assert call_main("check_data", "data=folder", f"data.root={out}", f"output_dir={tmp_path}/audit") == 0
    report = json.loads((tmp_path / "audit/report.json").read_text())
    assert report["errors"] == []
    assert report["images"] == {"train": 3, "val": 2, "test": 0}


def test_a_test_part_stays_one_where_the_source_has_no_validation_images(tmp_path, run):
    (tmp_path / "in").mkdir()
    for i in range(20):
        split = "train" if i < 15 else "test"
        image(tmp_path / f"in/images/{split}/{i}.jpg", seed=i)
        (tmp_path / f"in/labels/{split}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"in/labels/{split}/{i}.txt").write_text("1 0.1 0.1 0.5 0.1 0.5 0.5\n")
    (tmp_path / "in/d.yaml").write_text(
        yaml.safe_dump({"train": "images/train", "test": "images/test", "names": {1: "b"}})
    )
    code, out, said = run(tmp_path / "in")
    assert code == 0, said
    lists = {name: (out / f"{name}.txt").read_text().split() for name in ("train", "val", "test")}
    assert sorted(lists["test"]) == sorted(f"images/{i}.jpg" for i in range(15, 20))
    assert len(lists["val"]) == 2
    assert "no validation images in the source" in said


def test_voc_lists_void_and_classes(tmp_path, run):
    palette = np.zeros((256, 3), np.uint8)
    palette[[1, 2, 255]] = [[128, 0, 0], [0, 128, 0], [224, 224, 192]]
    (tmp_path / "in/SegmentationClass").mkdir(parents=True)
    expected = np.zeros((10, 12), np.uint8)
    expected[:3], expected[3:5], expected[5] = 1, 2, 255
    for i, name in enumerate(["a", "b", "c", unicodedata.normalize("NFD", "é")]):
        image(tmp_path / f"in/JPEGImages/{name}.jpg", seed=i)
        mask = Image.fromarray(expected).convert("P")
        mask.putdata(expected.ravel().tolist())
        mask.putpalette(palette.ravel().tolist())
        mask.save(tmp_path / f"in/SegmentationClass/{name}.png")
    lists = tmp_path / "in/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\né\n")
    (lists / "trainval.txt").write_text("a\nb\nc\né\n")
    code, out, said = run(tmp_path / "in", "classes=[x,y]")
    assert code == 0, said
    assert all(np.array_equal(mask, expected) for mask in imported(out).values())
    assert description.read(out).classes == ["background", "x", "y"]
    assert (out / "val.txt").read_text().split() == ["images/c.jpg", "images/é.jpg"]
    (tmp_path / "in/Annotations").mkdir()
    (tmp_path / "in/Annotations/a.xml").write_text("<annotation><object><name>bicycle</name></object></annotation>")
    code, out, said = run(tmp_path / "in", out="named")
    assert description.read(out).classes[:3] == ["background", "aeroplane", "bicycle"]
    assert "no object of bird" in said


def test_values_and_colours_of_masks(tmp_path, run):
    values = filled(2, 5, 5, 9, 9, filled(1, 0, 0, 4, 4))
    image(tmp_path / "in/images/a.png")
    (tmp_path / "in/masks").mkdir()

    def save(array):
        Image.fromarray(array).save(tmp_path / "in/masks/a.png")

    save(values)
    code, out, said = run(tmp_path / "in", out="values")
    assert (code, description.read(out).classes) == (0, ["background", "class_1", "class_2"]), said
    assert np.array_equal(imported(out)["a"], values)
    void = filled(255, 10, 0, 12, 2, values.copy())
    save(void)
    code, out, said = run(tmp_path / "in", "classes=[crack,stain]", out="void")
    assert (code, description.read(out).classes) == (0, ["background", "crack", "stain"]), said
    assert np.array_equal(imported(out)["a"], void)
    assert "255 is ignored" in said
    doubt = np.where(values == 2, 255, values).astype(np.uint8)
    save(doubt)
    code, _, said = run(tmp_path / "in")
    assert (code, "ignore=[255]" in said) == (1, True)
    code, out, said = run(tmp_path / "in", "ignore=[255]", out="ignored")
    assert (code, np.array_equal(imported(out)["a"], doubt)) == (0, True), said
    code, out, said = run(tmp_path / "in", "classes={both:[1,255]}", out="both")
    assert (code, np.array_equal(imported(out)["a"], doubt > 0)) == (0, True), said
    save(np.uint8([[0, 0, 0], [0, 200, 0], [200, 0, 0]])[values])
    code, out, said = run(tmp_path / "in", "classes={red:'#c80000',green:'#00c800'}", out="colours")
    assert (code, description.read(out).classes) == (0, ["background", "red", "green"]), said
    assert np.array_equal(imported(out)["a"], np.uint8([0, 2, 1])[values])


def test_two_ways_and_no_way_are_told(tmp_path, run):
    image(tmp_path / "in/a.png")
    code, _, said = run(tmp_path / "in")
    assert (code, "no labels were found" in said, ".png" in said) == (1, True, True)
    coco(tmp_path / "in/x.json", [(1, "crack", SQUARE)])
    shapes = '<polygon label="x" points="1,1;7,1;7,7;1,7"/>'
    text = f'<annotations><image name="a.png" width="12" height="10">{shapes}</image></annotations>'
    (tmp_path / "in/y.xml").write_text(text)
    code, _, said = run(tmp_path / "in")
    assert (code, "x.json" in said, "y.xml" in said, "format=coco or format=cvat" in said) == (1, True, True, True)
    code, out, said = run(tmp_path / "in", "format=cvat")
    assert (code, description.read(out).classes) == (0, ["x"]), said
    code, _, said = run(tmp_path / "in", "format=yolo", out="no")
    assert (code, "is not yolo" in said) == (1, True)
    code, _, said = run(tmp_path / "nowhere")
    assert (code, "no such file or folder" in said) == (1, True)


def test_several_sets_of_masks_are_asked_about(tmp_path, run):
    image(tmp_path / "in/images/21_training.png")
    for folder, name, value in (("1st_manual", "21_manual1.gif", 255), ("mask", "21_training_mask.gif", 0)):
        (tmp_path / "in" / folder).mkdir()
        Image.fromarray(filled(value, 2, 2, 5, 5)).save(tmp_path / "in" / folder / name)
    code, _, said = run(tmp_path / "in")
    assert (code, "masks=1st_manual" in said) == (1, True)
    code, out, said = run(tmp_path / "in", "masks=1st_manual")
    assert code == 0, said
    assert np.array_equal(imported(out)["21_training"], filled(1, 2, 2, 5, 5))


def test_lines_have_the_width_that_is_said_and_points_are_counted(tmp_path, run):
    image(tmp_path / "in/a.png")
    shapes = [
        {"label": "crack", "points": [[0, 5], [12, 5]], "shape_type": "line"},
        {"label": "crack", "points": [[0, 5]], "shape_type": "point"},
        {"label": "crack", "points": [[6, 2], [6, 0]], "shape_type": "circle"},
    ]
    (tmp_path / "in/a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.png", "imageData": None}))
    code, _, said = run(tmp_path / "in")
    assert (code, "line_width=3" in said) == (1, True)
    code, out, said = run(tmp_path / "in", "line_width=2")
    assert code == 0, said
    y, x = np.mgrid[:10, :12] + 0.5
    assert np.array_equal(imported(out)["a"], (np.abs(y - 5) <= 1) | (np.hypot(x - 6, y - 2) <= 2))
    assert "left out 1 point without an area" in said
    code, out, said = run(tmp_path / "in", "line_width=0", out="none")
    assert (code, int(imported(out)["a"].sum())) == (0, int((np.hypot(x - 6, y - 2) <= 2).sum()))


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_an_image_that_exif_turns_is_labelled_as_it_was_drawn(name, orientation, tmp_path, run):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image(tmp_path / "in" / name, exif=exif)
    stored = filled(1, 1, 1, 7, 4)
    upright = np.rot90(stored, {3: 2, 6: -1}[orientation])
    size = {"width": 12, "height": 10}
    coco(tmp_path / "in/x.json", [(1, "crack", box(1, 1, 7, 4))], [{"id": 1, "file_name": name} | size], ["crack"])
    code, out, said = run(tmp_path / "in")
    if orientation == 3:  # its size says nothing
        assert (code, "drawn=upright or drawn=stored" in said) == (1, True)
        code, out, said = run(tmp_path / "in", "drawn=stored")
    assert code == 0, said
    assert np.array_equal(imported(out)["a"], upright)
    assert description.read(out).mask_drawn == "upright"
    if orientation == 3:
        code, out, said = run(tmp_path / "in", "drawn=upright", out="upright")
        assert np.array_equal(imported(out)["a"], stored)


def test_a_size_that_is_not_the_images_is_refused(tmp_path, run):
    image(tmp_path / "in/a.png", (20, 24))
    coco(tmp_path / "in/x.json", [(1, "crack", SQUARE)])
    code, out, said = run(tmp_path / "in")
    assert (code, out.exists(), "24×20" in said, "12×10" in said) == (1, False, True, True)


def shapes(content):
    return f'<annotations><image name="a.png" width="12" height="10">{content}</image></annotations>'


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB + "]><annotations><image name='a.png'>&i;</image></annotations>",
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + shapes("&x;"),
        "<annotations><image name='a.png'>",
        shapes('<mask label="x" rle="1, 999999999999" left="0" top="0" width="9" height="9"/>'),
        shapes('<mask label="x" rle="1" left="0" top="0" width="1e9" height="1e9"/>'),
        shapes('<polygon label="x" points="1,1;inf,2;3,3"/>'),
        shapes('<polygon points="1,1;2,2;3,3"/>'),
    ],
)
def test_hostile_xml_is_one_line(text, tmp_path, run):
    image(tmp_path / "in/a.png")
    (tmp_path / "in/x.xml").write_text(text)
    begin = time.process_time()
    code, out, said = run(tmp_path / "in")
    assert time.process_time() - begin < 3
    assert (code, out.exists(), said.count("\n")) == (1, False, 1), said
    assert "x.xml" in said


def test_arrays_with_code_and_masks_that_are_too_large_are_refused(tmp_path, run):
    image(tmp_path / "in/images/a.png")
    (tmp_path / "in/masks").mkdir()
    np.save(tmp_path / "in/masks/a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    code, _, said = run(tmp_path / "in")
    assert (code, "no NumPy array of numbers" in said) == (1, True)
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000, 100000), }".ljust(117)
        + b"\n"
    )
    (tmp_path / "in/masks/a.npy").write_bytes(header)
    code, _, said = run(tmp_path / "in")
    assert (code, "a.npy" in said) == (1, True)
    buffer = io.BytesIO()
    Image.fromarray(np.ones((3000, 3000), np.uint8)).save(buffer, "PNG")
    shape = {
        "label": "x",
        "shape_type": "mask",
        "points": [[0, 0], [9, 9]],
        "mask": base64.b64encode(buffer.getvalue()).decode(),
    }
    image(tmp_path / "labelme/a.png")
    (tmp_path / "labelme/a.json").write_text(json.dumps({"shapes": [shape], "imagePath": "a.png"}))
    code, _, said = run(tmp_path / "labelme")
    assert (code, "larger than the image" in said) == (1, True)


def test_nothing_is_overwritten_and_the_input_stays_apart(tmp_path, run):
    image(tmp_path / "in/a.png")
    coco(tmp_path / "in/x.json", [(1, "crack", SQUARE)])
    code, _, said = run(tmp_path / "in", out="in/out")
    assert (code, "output=" in said, (tmp_path / "in/out").exists()) == (1, True, False)
    code, _, said = run(tmp_path / "in", f'output_dir="{tmp_path}/in/log"')
    assert (code, "output_dir=" in said) == (1, True)
    (tmp_path / "out").mkdir()
    assert run(tmp_path / "in")[0] == 0  # empty
    code, out, said = run(tmp_path / "in")
    assert (code, "is not an empty folder" in said) == (1, True)
    cv2.imwrite(str(tmp_path / "in/a.png"), np.zeros((10, 12), np.uint8))
    (tmp_path / "in/a.png").write_bytes((tmp_path / "in/a.png").read_bytes()[:60])
    code, out, said = run(tmp_path / "in", out="damaged")
    assert (code, out.exists(), str(tmp_path / "in/a.png") in said) == (1, False, True)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_mask_beside_its_photo_and_what_is_passed_over(tmp_path, run):
    for kind in ("MT_Crack", "MT_Free"):
        image(tmp_path / f"in/{kind}/a.jpg")
        Image.fromarray(filled(255 * (kind == "MT_Crack"), 2, 2, 5, 5)).save(tmp_path / f"in/{kind}/a.png")
        (tmp_path / f"in/{kind}/._a.png").write_bytes(b"\0")
        (tmp_path / f"in/{kind}/a.mat").write_bytes(b"\0")
    code, out, said = run(tmp_path / "in")
    assert code == 0, said
    assert {name: int(mask.sum()) for name, mask in imported(out).items()} == {"MT_Crack__a": 9, "MT_Free__a": 0}
    assert "passed over 2 .mat files" in said
    assert "passed over 2 hidden files" in said


def test_yolo_lists_paths_of_another_machine_and_labels_without_an_image(tmp_path, run):
    for i in range(5):
        image(tmp_path / f"in/set/images/{i} ä.jpg", seed=i)
        (tmp_path / "in/set/labels").mkdir(exist_ok=True)
        (tmp_path / f"in/set/labels/{i} ä.txt").write_text("0 0.25 0.2 0.75 0.2 0.75 0.8 0.25 0.8\n")
    for split, numbers in (("train", (0, 1)), ("val", (2, 3))):
        lines = [f"D:\\data\\set\\images\\{i} ä.jpg" for i in numbers]
        (tmp_path / f"in/{split}.txt").write_text("\n".join(lines), encoding="utf-8-sig")
    content = {"path": "D:/data", "train": "train.txt", "val": "val.txt", "names": ["crack", "stain"]}
    (tmp_path / "in/data.yaml").write_text(yaml.safe_dump(content))
    code, out, said = run(tmp_path / "in", "classes=[crack]")
    assert code == 0, said
    assert np.array_equal(imported(out)["2 ä"], filled(1, 3, 2, 9, 8))
    assert (out / "val.txt").read_text(encoding="utf-8").splitlines() == ["images/2 ä.jpg", "images/3 ä.jpg"]
    assert "left out 1 image (4 ä.jpg) that data.yaml does not list" in said
    (tmp_path / "in/set/labels/gone.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    code, _, said = run(tmp_path / "in", out="two")
    assert (code, "belong to no image" in said, "gone.txt" in said) == (1, True, True)


def test_masks_that_may_belong_to_two_images_or_to_none_are_told(tmp_path, run):
    for number in range(2):
        image(tmp_path / f"in/images/{number}.jpg", seed=number)
        for part in range(2):
            (tmp_path / f"in/masks/{number}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(filled(255, 2, 2, 5, 5)).save(tmp_path / f"in/masks/{number}/{part}.png")
    code, _, said = run(tmp_path / "in")
    assert (code, "may be a mask of the image" in said) == (1, True)
    image(tmp_path / "other/images/a.jpg")
    (tmp_path / "other/masks").mkdir()
    Image.fromarray(filled(255, 2, 2, 5, 5)).save(tmp_path / "other/masks/b.png")
    code, _, said = run(tmp_path / "other")
    assert (code, "belong to no image" in said, "masks/b.png" in said) == (1, True, True)


def test_names_as_coco_exporters_write_them(tmp_path, run):
    """CVAT's relative to images/<subset>, Label Studio's local files, and PowerShell's UTF-16."""
    names = {
        "default/a.png": "a.png",
        "default/sub/a.png": "sub/a.png",
        "my b.png": "/data/local-files/?d=x/my%20b.png",
        unicodedata.normalize("NFD", "ü.png"): "ü.png",  # as macOS writes it, and as a text has it
    }
    for file in names:
        image(tmp_path / "in/images" / file)
    path = tmp_path / "in/annotations/instances_default.json"
    shapes = [(i, "crack", box(i, 1, i + 2, 3)) for i in (1, 2, 3, 4)]
    coco(path, shapes, named(*names.values()), categories=("crack",))
    path.write_text(path.read_text(), encoding="utf-16")
    code, out, printed = run(tmp_path / "in")
    assert code == 0, printed
    masks = {p.stem: cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in (out / "masks").iterdir()}
    expected = {"default__a": 1, "sub__a": 2, "my b": 3, "ü": 4}
    assert masks.keys() == expected.keys()
    for name, i in expected.items():
        np.testing.assert_array_equal(masks[name], filled(1, i, 1, i + 2, 3))


def test_a_supercategory_of_any_kind_is_read(tmp_path, run):
    image(tmp_path / "in/a.png")
    path = tmp_path / "in/x.json"
    coco(path, [(1, "crack", SQUARE)], named("a.png"), ["crack"])
    content = json.loads(path.read_text())
    content["categories"][0]["supercategory"] = ["defect"]
    path.write_text(json.dumps(content))
    code, out, printed = run(tmp_path / "in")
    assert code == 0, printed
    assert description.read(out).classes == ["crack"]


def test_objects_of_no_image_at_all_are_an_error_and_not_images_without_objects(tmp_path, run):
    image(tmp_path / "in/a.png")
    coco(tmp_path / "in/x.json", [("1", "crack", SQUARE)], named("a.png"))
    code, _, printed = run(tmp_path / "in", "unlabelled=empty")
    assert code == 1
    assert "image_id='1' is no id of images, such as 1" in printed


@pytest.mark.parametrize("stem", ["a{}", "part {} x"])
@pytest.mark.parametrize("form", ["{}_crack.png {}_stain.png", "{}_mask_stain.png {}_mask_crack.png"])
def test_classes_that_the_names_of_masks_say_are_not_united(stem, form, tmp_path, run):
    for i in range(3):
        name = stem.format("bcd"[i])
        image(tmp_path / f"in/images/{name}.jpg", seed=i)
        for mask in form.split(" "):
            place = (1, 1, 3, 3 + i) if "crack" in mask else (5, 5, 8, 8)
            file = tmp_path / "in/masks" / mask.format(name)
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(filled(255, *place)).save(file)
    code, out, printed = run(tmp_path / "in")
    assert code == 0, printed
    classes = description.read(out).classes
    assert sorted(classes) == ["background", "crack", "stain"]
    for i in range(3):
        found = np.asarray(Image.open(out / f"masks/{stem.format('bcd'[i])}.png"))
        expected = filled(classes.index("stain"), 5, 5, 8, 8, filled(classes.index("crack"), 1, 1, 3, 3 + i))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bare", ["{}_mask.png", "{}_0.png"])
def test_a_mask_that_says_a_class_beside_one_that_says_none_is_asked_about(bare, tmp_path, run):
    masks = tmp_path / "in/masks"
    masks.mkdir(parents=True)
    for i, name in enumerate("bcd"):
        image(tmp_path / f"in/images/{name}.jpg", seed=i)
        for mask in (bare, "{}_crack.png"):
            Image.fromarray(filled(255, 1, 1, 3, 3 + i)).save(masks / mask.format(name))
    code, out, printed = run(tmp_path / "in")
    assert code == 1
    assert "b_crack.png: may be class 'crack', and " in printed
    assert "name the masks b_0, b_1, … if they are objects of one class, or b_<class> all of them" in printed
    assert not out.exists()
    for name in "bcd":  # the remedy
        (masks / bare.format(name)).rename(masks / f"{name}_stain.png")
    code, out, printed = run(tmp_path / "in")
    assert code == 0, printed
    assert sorted(description.read(out).classes) == ["background", "crack", "stain"]


@pytest.mark.parametrize(
    "tree",
    [
        ("{i}/image.png", "{i}/mask.png"),
        ("{i}ab/images/{i}ab.png", "{i}ab/masks/f{j}e.png"),
        ("train/{i}/img.jpg", "train/{i}/label.png"),
    ],
)
def test_a_folder_for_each_image(tree, tmp_path, run):
    for i in range(3):
        image(tmp_path / "in" / tree[0].format(i=i), seed=i)
        for j in range(2 if "{j}" in tree[1] else 1):
            file = tmp_path / "in" / tree[1].format(i=i, j=j)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(filled(255, 1 + 3 * j, 1, 3 + 3 * j, 3 + i)).save(file)
    code, out, printed = run(tmp_path / "in")
    assert code == 0, printed
    for i in range(3):
        (file,) = (p for p in (out / "masks").iterdir() if p.stem.startswith(str(i)))
        expected = filled(1, 1, 1, 3, 3 + i)
        expected = filled(1, 4, 1, 6, 3 + i, expected) if "{j}" in tree[1] else expected
        np.testing.assert_array_equal(np.asarray(Image.open(file)), expected)


def test_thumbnails_are_not_taken_for_the_images_and_capitals_do_not_matter(tmp_path, run):
    for i in range(2):
        image(tmp_path / f"in/images/{i}.jpg")
        image(tmp_path / f"in/thumbnails/{i}.jpg", size=(5, 6))
        (tmp_path / "in/masks").mkdir(exist_ok=True)
        Image.fromarray(filled(255, 1, 1, 3, 3)).save(tmp_path / f"in/masks/{i}.png")
        image(tmp_path / f"yolo/Images/{i}.JPG")
        (tmp_path / "yolo/Labels").mkdir(exist_ok=True)
        (tmp_path / f"yolo/Labels/{i}.txt").write_text("0 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3")
    code, out, printed = run(tmp_path / "in", "unlabelled=skip")
    assert code == 0, printed
    assert len(list((out / "images").iterdir())) == 2
    code, out, printed = run(tmp_path / "yolo", out="other")
    assert code == 0, printed
    expected = filled(1, 1, 1, 4, 3)
    np.testing.assert_array_equal(cv2.imread(str(out / "masks/0.png"), cv2.IMREAD_UNCHANGED), expected)


def test_class_0_of_yolo_is_an_object_where_nothing_names_it(tmp_path, run):
    image(tmp_path / "in/images/a.png")
    (tmp_path / "in/labels").mkdir()
    corners = "0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3"
    (tmp_path / "in/labels/a.txt").write_text(f"0 {corners}\n1 {corners.replace('0.1', '0.5').replace('0.3', '0.7')}\n")
    code, out, printed = run(tmp_path / "in")
    assert code == 0, printed
    expected = filled(2, 6, 5, 8, 7, filled(1, 1, 1, 4, 3))
    np.testing.assert_array_equal(cv2.imread(str(out / "masks/a.png"), cv2.IMREAD_UNCHANGED), expected)
    assert description.read(out).classes == ["background", "class_0", "class_1"]


def test_labels_that_are_no_names_of_classes_are_asked_about_in_a_form_to_paste(tmp_path, run):
    image(tmp_path / "in/a.png")
    coco(tmp_path / "in/x.json", [(1, "a/b", SQUARE), (1, 'x "y"', SQUARE)], categories=("a/b", 'x "y"'))
    code, _, printed = run(tmp_path / "in")
    assert code == 1
    code, out, printed = run(tmp_path / "in", shlex.split(printed.strip().rpartition("name them: ")[2])[0])
    assert code == 0, printed
    assert description.read(out).classes == ["background", "a_b", "x_y"]


def test_labels_that_differ_in_case_are_two_classes_and_told(tmp_path, run):
    image(tmp_path / "in/a.png")
    coco(tmp_path / "in/x.json", [(1, "Crack", SQUARE), (1, "crack", SQUARE)], categories=["Crack", "crack", "stain"])
    code, out, said = run(tmp_path / "in")
    assert (code, description.read(out).classes) == (0, ["background", "Crack", "crack", "stain"])
    told = "the labels Crack and crack differ in case only and are classes of their own; "
    (remedy,) = [line.removeprefix(told).split("'")[1] for line in said.splitlines() if line.startswith(told)]
    code, out, said = run(tmp_path / "in", remedy, out="one")
    assert (code, description.read(out).classes) == (0, ["background", "Crack", "stain"])
    assert "differ in case" not in said


def test_a_terminated_import_leaves_nothing(tmp_path):
    for i in range(400):
        image(tmp_path / f"in/{i:03d}.png", seed=i)
    coco(tmp_path / "in/x.json", [(1, "crack", SQUARE)], named(*(f"{i:03d}.png" for i in range(400))), ["crack"])
    given = [f"input={tmp_path / 'in'}", f"output={tmp_path / 'sets' / 'out'}", "unlabelled=empty"]
    command = [sys.executable, str(ROOT / "src" / "import_labels.py"), *given, f"output_dir={tmp_path / 'run'}"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("sets/.out-*/data/masks/*.png")) and time.monotonic() < end:
        time.sleep(0.002)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not list((tmp_path / "sets").iterdir())


@pytest.mark.parametrize("kept", [0, 60])
@pytest.mark.parametrize("only", [True, False])
def test_a_json_file_that_is_cut_off_is_not_passed_over(tmp_path, run, kept, only):
    for name in "ab":
        image(tmp_path / f"in/{name}.png")
        coco(tmp_path / f"in/{name}.json", [(1, "crack", SQUARE)], named(f"{name}.png"))
    cut = tmp_path / "in/b.json"
    cut.write_bytes(cut.read_bytes()[:kept])
    code, out, said = run(cut if only else tmp_path / "in", "unlabelled=empty")
    assert (code, out.exists()) == (1, False)
    assert f"{cut}: is no JSON (" in said
    assert "correct or remove it" in said


def test_objects_of_which_none_covers_a_pixel_are_an_error(tmp_path, run):
    image(tmp_path / "in/a.png")
    coco(tmp_path / "in/a.json", [(1, "crack", [0.1, 0.1, 0.3, 0.1, 0.3, 0.3])])
    code, out, said = run(tmp_path / "in")
    assert (code, out.exists()) == (1, False)
    assert "none of the 1 objects covers a pixel of its image; coordinates must be pixels, not shares" in said


def test_images_of_voc_in_no_list_are_counted(tmp_path, run):
    for name in "abc":
        image(tmp_path / f"in/JPEGImages/{name}.png")
    (tmp_path / "in/SegmentationClass").mkdir()
    mask = Image.fromarray(filled(1, 2, 2, 8, 8), "P")
    mask.putpalette([0, 0, 0, 128, 0, 0])
    mask.save(tmp_path / "in/SegmentationClass/a.png")
    (tmp_path / "in/ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "in/ImageSets/Segmentation/train.txt").write_text("a\n")
    code, out, said = run(tmp_path / "in")
    assert code == 0, said
    assert "left out 2 images of JPEGImages without a mask, in no list" in said
    assert list(imported(out)) == ["a"]


def test_classes_of_one_name_are_one_and_told(tmp_path, run):
    image(tmp_path / "in/a.png")
    coco(tmp_path / "in/a.json", [(1, "crack", SQUARE), (1, "other", SQUARE)], categories=("crack", "other"))
    text = (tmp_path / "in/a.json").read_text()
    (tmp_path / "in/a.json").write_text(text.replace('"name": "other"', '"name": "crack"'))
    code, out, said = run(tmp_path / "in")
    assert code == 0, said
    assert "a.json: 2 classes are called 'crack' and become one" in said
    assert set(np.unique(imported(out)["a"])) == {0, 1}


def test_a_number_of_classes_that_is_not_that_of_the_names_is_refused(tmp_path, run):
    image(tmp_path / "in/images/a.png")
    (tmp_path / "in/labels").mkdir()
    (tmp_path / "in/labels/a.txt").write_text("0 0.1 0.1 0.9 0.1 0.9 0.9\n")
    (tmp_path / "in/data.yaml").write_text("nc: 3\nnames: [crack]\ntrain: images\n")
    code, out, said = run(tmp_path / "in")
    assert (code, out.exists()) == (1, False)
    assert "data.yaml: nc=3, and names has 1; correct one of them" in said


def test_an_image_taken_for_one_that_is_not_there_is_told(tmp_path, run):
    image(tmp_path / "in/a.png")
    shape = {"label": "crack", "points": [[1, 1], [7, 1], [7, 7]], "shape_type": "polygon"}
    content = {"imagePath": "b.png", "imageData": None, "shapes": [shape], "imageHeight": 10, "imageWidth": 12}
    (tmp_path / "in/a.json").write_text(json.dumps(content))
    code, _, said = run(tmp_path / "in")
    assert code == 0, said
    assert "1 image (a.png) taken from beside the JSON file, as the imagePath in it is not there" in said
