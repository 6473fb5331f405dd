"""``check_data.py write=true``: a folder describes itself, and nothing is typed of it afterwards; inverted masks."""

import json
import re
import shlex

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from helpers import call_main

CLASSES = [
    "data/mask=values",
    "data.num_classes=3",
    "data.classes=[background,scratch,dent]",
    "data.mask.classes=[0,7,9]",
]


def make(root, change):
    """24 images with a disc; ``change`` makes a mask of its number and its place."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    y, x = np.mgrid[:64, :64]
    for i in range(24):
        image = rng.integers(30, 110, (64, 64, 3)).astype(np.uint8)
        disc = (y - rng.integers(16, 48)) ** 2 + (x - rng.integers(16, 48)) ** 2 <= 12**2
        image[disc] += 120
        Image.fromarray(image).save(root / "images" / f"{i:03d}.png")
        Image.fromarray(change(i, disc)).save(root / "masks" / f"{i:03d}.png")
    return root


def three(i, disc):
    return np.where(disc, 7 + 2 * (i % 2), 0).astype(np.uint8)


@pytest.fixture
def check(tmp_path, capfd):
    def run(*overrides):
        out = tmp_path / "o"
        (out / "report.json").unlink(missing_ok=True)
        code = call_main("check_data", f"output_dir={out}", "data=folder", f"data.root={tmp_path / 'data'}", *overrides)
        printed = capfd.readouterr()
        report = json.loads((out / "report.json").read_text()) if (out / "report.json").is_file() else None
        return code, printed.out + printed.err, report

    return run


def test_nothing_is_typed_once_the_folder_describes_itself(check, tmp_path):
    root = make(tmp_path / "data", three)
    split = ["data.split.group='(\\d\\d)\\d'", "data.split.val=0.3", "data.split.test=0"]
    code, told, before = check(*CLASSES, *split, "write=true")
    assert code == 0, told
    file = root / "dataset.yaml"
    assert yaml.safe_load(file.read_text()) == {
        "segnet_dataset": 1, "images": ["images/*"], "masks": "masks/{stem}.png",
        "classes": ["background", "scratch", "dent"],
        "mask": {"encoding": "values", "classes": [0, 7, 9], "ignore": [255]}, "missing_mask": "error",
        "split": {"by": "hash", "train": 0.7, "val": 0.3, "test": 0.0, "group": "(\\d\\d)\\d"},
    }  # fmt: skip
    (line,) = re.findall(r"train on it: (.*)", told)
    assert shlex.split(line)[2:] == ["experiment=auto", "data=folder", f"data.root={root}"]
    content, when = file.read_bytes(), file.stat().st_mtime_ns
    code, told, after = check("write=true")
    assert code == 0, told
    assert after == before
    assert "says so already" in told
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (content, when)


def test_another_description_is_kept(check, tmp_path):
    root = make(tmp_path / "data", three)
    mine = (
        "segnet_dataset: 1\nimages: [images/*]\nmasks: masks/{stem}.png\nclasses: [background, a, b]  # by hand\n"
        "mask: {encoding: values, classes: [0, 7, 9]}\nsource: the line in hall 3\n"
    )
    (root / "dataset.yaml").write_text(mine)
    code, told, report = check(*CLASSES, "write=true")
    assert code == 1
    assert report is None
    assert "dataset.yaml: says otherwise (classes: ['background', 'a', 'b'] there, ['background', 'scratch'" in told
    assert (root / "dataset.yaml").read_text() == mine
    code, told, _ = check(*CLASSES, "write=true", "overwrite=true")
    assert code == 0, told
    assert (root / "dataset.yaml.1").read_text() == mine
    written = yaml.safe_load((root / "dataset.yaml").read_text())
    assert (written["classes"][1], written["source"]) == ("scratch", "the line in hall 3")


def test_with_errors_nothing_is_written(check, tmp_path):
    root = make(tmp_path / "data", three)
    (root / "images" / "004.png").write_bytes(b"no image")
    code, told, _ = check(*CLASSES, "write=true")
    assert code == 1
    assert "dataset.yaml is not written, because of the errors" in told
    assert not (root / "dataset.yaml").exists()


def test_what_leads_out_of_the_folder_is_not_written(check, tmp_path):
    root = make(tmp_path / "data", three)
    (root / "masks").rename(tmp_path / "masks")
    code, told, _ = check(*CLASSES, 'data.masks="../masks/{stem}.png"', "write=true")
    assert code == 1
    assert "leads out of the folder" in told
    assert not (root / "dataset.yaml").exists()


def test_rare_strange_values_are_decided_and_said(check, tmp_path):
    def slips(i, disc):
        mask = disc.astype(np.uint8) * 255
        if i < 3:
            mask[0, :2] = 3 + i % 2
        return mask

    root = make(tmp_path / "data", slips)
    code, told, _ = check("write=true")
    assert code == 0, told
    written = yaml.safe_load((root / "dataset.yaml").read_text())
    assert written["mask"]["encoding"] == "values"
    assert written["mask"]["ignore"] == [3, 4]
    assert "3" in told
    assert "ignore" in told


@pytest.mark.parametrize("kind", ["sharp", "ones", "soft"])
def test_inverted_masks_are_told_with_what_inverts_them(check, tmp_path, kind):
    def inverted(i, disc):
        mask = (~disc).astype(np.uint8) * (1 if kind == "ones" else 255)
        if kind == "soft":
            mask = cv2.GaussianBlur(mask, (0, 0), 1)
        return mask

    make(tmp_path / "data", inverted)
    code, told, report = check("data/mask=threshold")
    assert code == 0, told
    (warning,) = report["warnings"]
    assert "24 masks (such as masks/000.png) of 24 call more than half of the image defect" in warning
    words = shlex.split(warning.partition("invert them: ")[2])
    share = report["class_shares"]["train"]["defect"]
    code, told, report = check(*words)
    assert code == 0, told
    assert report["warnings"] == []
    assert report["class_shares"]["train"]["defect"] == pytest.approx(1 - share, abs=0.01)


@pytest.mark.parametrize("some", [{3}, {1, 5, 9}, set(range(0, 24, 2))])
def test_a_few_inverted_masks_are_told_too(check, tmp_path, some):
    make(tmp_path / "data", lambda i, disc: (disc != (i in some)).astype(np.uint8) * 255)
    code, told, report = check("data/mask=threshold")
    assert code == 0, told
    (warning,) = report["warnings"]
    assert warning.startswith(f"{len(some)} mask")
    assert " of 24 call more than three quarters of the image defect, the others less than a quarter" in warning
