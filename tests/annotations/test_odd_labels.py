"""Labels and masks that are read by what they are, and remedies that can be pasted whatever labels are called."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image

from annotations.writers import imported
from segnet.data import description
from segnet.errors import UserError

SQUARE = np.pad(np.ones((4, 5), np.uint8), ((3, 3), (4, 3)))  # (10, 12)


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (10, 12, 3), np.uint8)).save(path)


def images(root, count=3):
    for i in range(count):
        image(root / f"images/{i}.png", i)
    (root / "masks").mkdir()


def coco(root, objects, files):
    """``objects``: (image number, label)."""
    names = list(dict.fromkeys(label for _, label in objects))
    (root / "labels.json").write_text(json.dumps({
        "images": [{"id": i, "file_name": name, "width": 12, "height": 10} for i, name in enumerate(files)],
        "annotations": [
            {"id": i, "image_id": at, "category_id": names.index(label), "segmentation": [[1, 1, 7, 1, 7, 7, 1, 7]]}
            for i, (at, label) in enumerate(objects)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }))  # fmt: skip


@pytest.mark.parametrize("palette", [[128, 0, 0, 0, 0, 0], [255, 255, 255, 255, 0, 0], [68, 1, 84, 253, 231, 37]])
def test_masks_with_a_palette_are_read_by_index_whatever_colours_it_shows(palette, tmp_path, run):
    """Black may be the defect's colour."""
    images(tmp_path / "in")
    for i in range(3):
        mask = Image.fromarray(SQUARE * (i > 0))
        mask = mask.convert("P")
        mask.putdata((SQUARE * (i > 0)).ravel().tolist())
        mask.putpalette(palette)
        mask.save(tmp_path / f"in/masks/{i}.png")
    code, out, said = run(tmp_path / "in")
    assert code == 0, said
    found = imported(out)
    assert not found["0"].any()
    assert np.array_equal(found["1"] > 0, SQUARE > 0)


@pytest.mark.parametrize("odd", ["float32.npy", "bool.npy", "bit.png"])
def test_a_mask_of_class_1_alone_may_be_stored_as_ones_or_as_bits(odd, tmp_path, run):
    images(tmp_path / "in")
    stored = {0: SQUARE + SQUARE * (np.arange(12) > 6), 1: SQUARE, 2: SQUARE * 2}
    kind, suffix = odd.split(".")
    for i, mask in stored.items():
        path = tmp_path / f"in/masks/{i}.{suffix}"
        if suffix == "npy":
            np.save(path, mask.astype(kind if i == 1 or kind == "float32" else np.uint8))
        else:
            (Image.fromarray(mask > 0) if i == 1 else Image.fromarray(mask)).save(path)
    code, out, said = run(tmp_path / "in")
    assert code == 0, said
    assert all(np.array_equal(imported(out)[str(i)], mask) for i, mask in stored.items())
    assert "left out" not in said


def test_yolo_lists_of_names_that_differ_are_refused(tmp_path, run):
    for split, names in {"train": "crack\nstain\n", "val": "stain\ncrack\n"}.items():
        image(tmp_path / f"in/images/{split}/{split}.png")
        label = tmp_path / f"in/labels/{split}/{split}.txt"
        label.parent.mkdir(parents=True)
        label.write_text("0 0.1 0.1 0.8 0.1 0.8 0.8 0.1 0.8\n")
        (label.parent / "classes.txt").write_text(names)
    code, _, said = run(tmp_path / "in")
    assert code == 1
    assert "val/classes.txt: names other classes than " in said
    assert "train/classes.txt; make them one list" in said
    (tmp_path / "in/labels/val/classes.txt").write_text("crack\nstain\n\n")  # a blank line at its end says nothing
    code, out, said = run(tmp_path / "in")
    assert code == 0, said
    assert description.read(out).classes == ["background", "crack", "stain"]


@pytest.mark.parametrize(
    "labels", [["scratch/deep", "scratch deep"], ["+/-", "*/*"], ["Öl/Fett", "it's/new"], ["a/b", "a_b"]]
)
def test_labels_that_are_no_names_are_renamed_by_what_the_error_says(labels, tmp_path, run):
    for i in range(2):
        image(tmp_path / f"in/{i}.png", i)
    coco(tmp_path / "in", list(enumerate(labels)), ["0.png", "1.png"])
    code, _, said = run(tmp_path / "in")
    assert code == 1
    assert "is no name of a class" in said
    code, out, said = run(tmp_path / "in", *shlex.split(said.rpartition("name them: ")[2]))
    assert code == 0, said
    assert sorted(mask.max() for mask in imported(out).values()) == [1, 2]  # a class for each label


@pytest.mark.parametrize("label", ["Größe", "裂纹", "Riss (tief)", "P&D", "it's", "true", "1e3", "a,b"])
def test_classes_without_objects_are_left_out_by_what_is_said(label, tmp_path, run):
    image(tmp_path / "in/0.png")
    coco(tmp_path / "in", [(0, label)], ["0.png"])
    content = json.loads((tmp_path / "in/labels.json").read_text())
    content["categories"].append({"id": 7, "name": "never"})
    (tmp_path / "in/labels.json").write_text(json.dumps(content))
    code, _, said = run(tmp_path / "in")
    assert code == 0, said
    (line,) = [line for line in said.splitlines() if "no object of never" in line]
    given = shlex.split(line.partition("no object of never; ")[2].partition(" leaves such")[0])
    code, out, said = run(tmp_path / "in", *given, out="again")
    assert code == 0, said
    assert description.read(out).classes == [label]


def test_where_classes_were_made_of_labels_nothing_is_said_that_would_take_them_apart(tmp_path, run):
    image(tmp_path / "in/0.png")
    coco(tmp_path / "in", [(0, "scratch"), (0, "stain")], ["0.png"])
    content = json.loads((tmp_path / "in/labels.json").read_text())
    content["categories"].append({"id": 7, "name": "dent"})
    (tmp_path / "in/labels.json").write_text(json.dumps(content))
    code, _, said = run(tmp_path / "in", "classes={defect:[scratch,dent],stain:stain}")
    assert code == 0, said
    assert "no object of dent" in said
    assert "leaves such classes out" not in said


@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_masks_beside_labels_are_no_unlabelled_images(format, tmp_path, run):
    images(tmp_path / "in", 2)
    for i in range(2):
        Image.fromarray(SQUARE * 255).save(tmp_path / f"in/masks/{i}.png")
    if format == "coco":
        coco(tmp_path / "in", [(0, "crack"), (1, "crack")], ["images/0.png", "images/1.png"])
    else:
        (tmp_path / "in/labels").mkdir()
        for i in range(2):
            (tmp_path / f"in/labels/{i}.txt").write_text("0 0.1 0.1 0.8 0.1 0.8 0.8 0.1 0.8\n")
    code, out, said = run(tmp_path / "in")
    assert code == 0, said
    assert sorted(path.name for path in (out / "images").iterdir()) == ["0.png", "1.png"]
    assert "left out 2 files (such as masks/0.png) without a label, called as a mask and not as an image" in said


@pytest.mark.parametrize("labels", [["???", "crack"], ["${x}", "crack"], ["crack", "crack_low"]])
def test_a_set_that_could_not_be_read_is_not_written(labels, tmp_path, run):
    image(tmp_path / "in/0.png")
    coco(tmp_path / "in", [(0, label) for label in labels], ["0.png"])
    code, out, said = run(tmp_path / "in")
    assert code == 1
    assert said.startswith("error: classes: ")
    assert not out.exists()


@pytest.mark.parametrize("line", ["img {}", "img {}.jpg", "img {} 1", "img {}  -1"])
def test_lists_of_voc_take_names_with_spaces(line, tmp_path, run):
    root = tmp_path / "in"
    for i in range(4):
        image(root / f"JPEGImages/img {i}.jpg", i)
        mask = Image.fromarray(SQUARE)
        mask.putpalette([0, 0, 0, 128, 0, 0])
        (root / "SegmentationClass").mkdir(exist_ok=True)
        mask.save(root / f"SegmentationClass/img {i}.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"{line.format(i)}\n" for i in range(3)))
    (lists / "val.txt").write_text(f"{line.format(3)}\n")
    code, _, said = run(root)
    assert code == 0, said
    assert "split as in the source: 3 train, 1 val" in said


def test_another_version_of_a_description_is_replaced_as_the_error_says(tmp_path):
    root = tmp_path / "my set"
    root.mkdir()
    (root / "dataset.yaml").write_text("segnet_dataset: 99\n")
    with pytest.raises(UserError, match=r"segnet_dataset=99 is not .*; move it away, and write another: ") as found:
        description.read(root)
    words = shlex.split(str(found.value).rpartition("write another: ")[2])
    assert words[-3:] == ["data=folder", f"data.root={root}", "write=true"]
