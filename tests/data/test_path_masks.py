"""Masks whose class is the name of a folder, against the folders that the files were written to."""

from pathlib import Path

import numpy as np
import pytest

from segnet import trust
from segnet.data.path_masks import ByPath
from segnet.errors import UserError

CLASSES = ["background", "crack", "stain", "dent"]
WHITE = np.random.default_rng(0).random((9, 7)) < 0.3
KIND = ByPath(pattern="([^/]+)/[^/]+$", classes=CLASSES)


@pytest.mark.parametrize("label", [1, 2, 3])
@pytest.mark.parametrize("white", [1, 255, 65535])
def test_white_is_the_class_that_the_folder_names(label, white):
    raw = (WHITE * white).astype(np.uint16 if white > 255 else np.uint8)
    found = KIND(raw, Path(f"/data/stain/masks/{CLASSES[label]}/7.png"))
    assert found.dtype == np.uint8
    assert [[int(v) for v in row] for row in found] == [[label if there else 0 for there in row] for row in WHITE]


def test_the_last_match_counts_and_a_pattern_may_have_no_group():
    path = Path("/dent/data/crack/stain/7.png")
    assert ByPath(pattern="dent|crack|stain", classes=CLASSES)(WHITE * 1, path).max() == 2
    assert ByPath(pattern="(dent|crack)/", classes=CLASSES)(WHITE * 1, path).max() == 1


def test_it_may_be_cut_elsewhere():
    raw = np.array([[0, 3, 100, 101, 255]], np.uint8)
    found = ByPath(pattern="([^/]+)/[^/]+$", classes=CLASSES, above=100)(raw, Path("dent/7.png"))
    assert found.tolist() == [[0, 0, 0, 3, 3]]


@pytest.mark.parametrize("folder", ["free", "background", "crack"])
def test_a_black_mask_needs_no_class(folder):
    assert not KIND(np.zeros((4, 5), np.uint8), Path(f"{folder}/7.png")).any()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("data/hole/7.png", "'hole'"),
        ("data/background/7.png", "'background'"),  # what is white is no background
        ("data/Crack/7.png", "'Crack'"),
        ("7.png", "nothing"),
    ],
)
def test_a_folder_that_no_class_names(path, told):
    with pytest.raises(UserError) as error:
        KIND(WHITE * 1, Path(path))
    assert str(error.value) == (
        f"{path}: its path names {told} by data.mask.pattern='([^/]+)/[^/]+$', and the classes are crack, stain, dent; "
        f"add it to data.classes, or correct the pattern"
    )


def test_patterns_and_classes_that_cannot_be():
    with pytest.raises(UserError, match=r"^data\.mask\.pattern='\(': no regular expression"):
        ByPath(pattern="(", classes=CLASSES)
    with pytest.raises(
        UserError, match=r"^data\.mask\.classes=\['defect'\]: must name the background and .*threshold$"
    ):
        ByPath(pattern="x", classes=["defect"])


def test_a_run_that_used_it_may_be_read():
    mask = {"_target_": "segnet.data.path_masks.ByPath", "pattern": r"MT_(\w+?)/", "classes": CLASSES, "above": None}
    split = {"_target_": "segnet.data.splits.ByGroup", "group": r"([^/_]+)_[^/]*$", "val": ["a"], "test": "b"}
    trust.check({"data": {"mask": mask, "split": split}}, "run", trust.RUN)
