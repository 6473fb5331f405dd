"""What a listing leaves out is counted and told."""

import logging
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segnet.annotations.folder import Folder
from segnet.data import ByPattern, SegmentationDataModule, Threshold, layouts
from segnet.data.pairs import Layout
from segnet.deployment import inputs
from segnet.errors import UserError


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg"):
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
        else:
            path.write_bytes(b"text")


def layout(root, images=("images/*",), masks="masks/{stem}.png", **changes):
    return Layout(root, images, masks, **changes)


def test_nothing_is_said_of_a_plain_set(tmp_path):
    put(tmp_path, "images/a.png", "images/b.JPG", "masks/a.png", "masks/b.png", "README.txt")
    assert layout(tmp_path).list_images() == ["images/a.png", "images/b.JPG"]
    assert layout(tmp_path).passed_over() == []


@pytest.mark.parametrize(
    "clutter",
    [
        ["images/._a.png", "images/._b.png", "images/.DS_Store"],
        ["images/.ipynb_checkpoints/a-checkpoint.png", "images/.trash/b.jpg", "images/Thumbs.db"],
        ["images/__MACOSX/a.png", "images/@eaDir/a.png", "images/desktop.ini"],
    ],
)
def test_hidden_files_are_passed_over_and_counted(tmp_path, clutter):
    put(tmp_path, "images/a.png", "masks/a.png", "masks/._a.png", *clutter)
    found = layout(tmp_path, ["images/**/*"])
    assert found.list_images() == ["images/a.png"]
    first = sorted(clutter)[0]
    assert found.passed_over() == [f"passed over 3 hidden files (such as {first})"]


def test_a_link_to_the_folder_in_which_it_lies_is_not_followed(tmp_path):
    put(tmp_path, "images/a.png", "masks/a.png")
    (tmp_path / "images/again").symlink_to(tmp_path / "images")
    assert layout(tmp_path).passed_over() == []


@pytest.fixture
def shut():
    """A set of which ``images/b/`` cannot be read, for a user other than root, who reads everything."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        put(root, *(f"{kind}/{folder}/{i}.png" for kind in ("images", "masks") for folder in "ab" for i in range(3)))
        root.chmod(0o755)
        (root / "images/b").chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        yield root
        os.seteuid(user)
        (root / "images/b").chmod(0o755)


def test_a_folder_that_cannot_be_read_is_told(shut):
    told = "1 folder (images/b) that cannot be read: give permission, chmod -R u+rX"
    found = layout(shut, ["images/**/*"], {"images": "masks"})
    assert found.list_images() == ["images/a/0.png", "images/a/1.png", "images/a/2.png"]
    assert found.passed_over() == [f"passed over {told}"]
    orphans = "not used are 3 image files (masks/b (3)); where they belong to the set, name data.images"
    assert layouts.find(shut, masks={"images": "masks"}).told == [f"passed over {told}", orphans]
    with pytest.raises(UserError, match=re.escape(f"; passed over: {told}")):
        layout(shut, ["images/b/*"]).list_images()


def test_so_it_is_in_an_import_and_a_prediction(shut, caplog):
    caplog.set_level(logging.INFO)
    folder = Folder(shut)
    assert len(folder.images) == 9
    assert any("1 folder (images/b) that cannot be read" in text for text in folder.told())
    assert len(inputs.find(f"{shut}/images/**/*")) == 3
    assert "passed over 1 folder (b) that cannot be read" in caplog.text
    with pytest.raises(UserError, match=r"input=.*/b: cannot be read; give permission: chmod -R u\+rX "):
        inputs.find(f"{shut}/images/b")


def test_other_suffixes_are_counted_by_suffix(tmp_path):
    put(tmp_path, "images/a.png", "masks/a.png", "images/b.heic", "images/c.heic", "images/notes.txt", "images/README")
    assert layout(tmp_path).list_images() == ["images/a.png"]
    assert layout(tmp_path).passed_over() == [
        "passed over 2 .heic files (such as images/b.heic), 1 .txt file (images/notes.txt), "
        "1 suffixless file (images/README)"
    ]


def test_patterns_that_lose_images(tmp_path):
    put(tmp_path, "images/a.png", "images/B.JPG", "images/deep/c.png", "masks/a.png", "masks/left.png")
    assert layout(tmp_path, ["images/*.png", "scans/*.png"]).passed_over() == [
        "no file for data.images='scans/*.png'",
        "passed over 3 image files (such as images/B.JPG), neither in data.images nor a mask of these",
    ]


def test_masks_beside_the_images_are_no_leftover(tmp_path):
    put(tmp_path, "x/a.jpg", "x/a.png", "x/b.jpg", "x/b.png", "x/c.png")
    assert layout(tmp_path, ["*/*.jpg"], "{dir}/{stem}.png").passed_over() == [
        "passed over 1 image file (x/c.png), neither in data.images nor a mask of these"
    ]


def test_images_that_share_a_mask(tmp_path):
    put(tmp_path, "images/a.png", "images/a.jpg", "images/b.png", "masks/a.png", "masks/b.png")
    assert layout(tmp_path).passed_over() == [
        "several images with the same mask: 1 group (images/a.jpg and images/a.png)"
    ]


def test_no_image_says_what_is_there(tmp_path):
    put(tmp_path, "images/day/a.png", "images/day/b.png", "images/c.heic")
    with pytest.raises(ValueError, match=r"nothing matches data\.images=\['images/\*'\]") as error:
        layout(tmp_path).list_images()
    assert "images there: 2 files (such as images/day/a.png); passed over: 1 .heic file (images/c.heic)" in str(
        error.value
    )


def test_it_is_told_once_in_one_line_without_control_characters_when_it_is_trained_on(tmp_path, caplog):
    put(tmp_path, "images/a.png", "masks/a.png")
    (tmp_path / "images" / "x\x1b[2J\n.heic").write_bytes(b"")
    split = ByPattern(train="images/*", val="none/*", test="none/*")
    data = SegmentationDataModule(tmp_path, "images/*", "masks/{stem}.png", Threshold(), ["defect"], 1, split)
    with caplog.at_level(logging.INFO):
        data.setup()  # as a survey and an audit do, which say it themselves
        assert not caplog.records
        for stage in ("predict", "predict"):
            data.setup(stage)
    (told,) = [record.message for record in caplog.records]
    assert told == f"data.root={tmp_path}: passed over 1 .heic file (images/x\\x1b[2J\\n.heic)"


def test_a_link_to_no_mask_is_not_taken_for_no_defect(tmp_path):
    put(tmp_path, "images/a.png", "images/b.png")
    (tmp_path / "masks").mkdir()
    os.symlink("gone.png", tmp_path / "masks" / "a.png")  # noqa: PTH211
    found = layout(tmp_path, missing_mask="empty")
    assert found.pair("images/a.png").mask == tmp_path / "masks" / "a.png"
    assert found.pair("images/b.png").mask is None


@pytest.mark.parametrize("masks", ["{root}/labels/{stem}.png", "../labels/{stem}.png"])
def test_masks_may_lie_elsewhere(tmp_path, masks):
    put(tmp_path, "set/images/a.png", "labels/a.png", "labels/b.png")
    found = layout(tmp_path / "set", masks=masks.replace("{root}", str(tmp_path)))
    assert found.passed_over() == []
    assert found.pair("images/a.png").mask.is_file()
