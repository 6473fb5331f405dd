import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from helpers import ROOT, call_main
from segnet.cli import CONF_DIR
from segnet.commands.choices import settle_data
from segnet.configuration import instantiate
from segnet.hydra_versions import BASE
from segnet.reports.audit_report import summary
from segnet.reports.duplicates import difference_hash
from segnet.reports.mask_values import guess


@pytest.fixture
def root(tmp_path):
    """Twelve images of noise with masks 0 and 255, split by folder."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for kind in ("images", "masks"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        for i in range(count):
            # Coarse noise: as structured as a photograph.
            coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC)
            image.save(tmp_path / "data" / "images" / split / f"{split}{i}.png")
            mask = np.zeros((60, 80), np.uint8)
            mask[10:30, : 20 + i] = 255
            Image.fromarray(mask).save(tmp_path / "data" / "masks" / split / f"{split}{i}.png")
    return tmp_path / "data"


def split_by_folder():
    return [
        "data/mask=threshold", "data.split._target_=segnet.data.splits.ByPattern", "data.split.train=images/train/*",
        "data.split.val=images/val/*", "data.split.test=images/test/*",
    ]  # fmt: skip


def examine(run_main, root, tmp_path, *overrides):
    code, err = run_main(
        "check_data", tmp_path / "o", "data=folder", f"data.root={root}", "data.images=images/*/*.png",
        "data.masks='masks/{parent}/{name}'", *split_by_folder(), *overrides,
    )  # fmt: skip
    report = tmp_path / "o" / "report.json"
    return code, err, json.loads(report.read_text()) if report.is_file() else None


def test_sound_data_pass_with_their_shares(run_main, root, tmp_path):
    code, err, report = examine(run_main, root, tmp_path)
    assert code == 0, err
    assert report["errors"] == report["warnings"] == []
    assert report["images"] == {"train": 6, "val": 3, "test": 3}
    expected = sum(20 * (20 + i) for i in range(6)) / (6 * 60 * 80)
    assert report["class_shares"]["train"]["defect"] == pytest.approx(expected)
    assert report["mask_values"] == {"0": 12, "255": 12}
    with Image.open(tmp_path / "o" / "contact.jpg") as sheet:
        assert sheet.size == (6 * 160, 2 * 160)


def test_a_leak_is_an_error_and_a_near_one_a_warning(run_main, root, tmp_path):
    shutil.copy(root / "images" / "train" / "train0.png", root / "images" / "val" / "val0.png")
    near = np.asarray(Image.open(root / "images" / "train" / "train1.png")).astype(int) + 3
    Image.fromarray(near.clip(0, 255).astype(np.uint8)).save(root / "images" / "test" / "test0.png")
    code, _, report = examine(run_main, root, tmp_path)
    assert code == 1
    assert report["errors"] == [
        "the same image in two splits: images/train/train0.png (train) and images/val/val0.png (val)"
    ]
    assert len(report["warnings"]) == 1
    assert "images/train/train1.png (train)" in report["warnings"][0]
    assert sorted(kind for kind, *_ in report["duplicates"]) == ["exact", "near"]


def test_blank_images_of_other_shapes_are_not_the_same_and_no_sheet_stays_behind(run_main, root, tmp_path):
    for part, size in (("train", (80, 60)), ("val", (60, 80))):
        Image.new("RGB", size, (90, 90, 90)).save(root / "images" / part / f"{part}0.png")
        Image.new("L", size, 255).save(root / "masks" / part / f"{part}0.png")
    _, _, report = examine(run_main, root, tmp_path)
    assert not [text for text in report["errors"] if "the same image" in text]
    assert (tmp_path / "o" / "contact.jpg").is_file()
    examine(run_main, root, tmp_path, "contact=0")
    assert not (tmp_path / "o" / "contact.jpg").exists()


def test_bad_files_are_all_named_with_a_guess(run_main, root, tmp_path):
    (root / "images" / "train" / "train2.png").write_bytes(b"no image")
    Image.new("L", (10, 10)).save(root / "masks" / "train" / "train3.png")
    code, _, report = examine(run_main, root, tmp_path, "data/mask=values", "data.mask.num_classes=1")
    assert code == 1
    text = "\n".join(report["errors"])
    assert "train2.png: cannot be read as an image" in text
    assert "both must have the same size" in text
    assert "class defect does not occur in train (it holds 0 and 255: data/mask=threshold)" in text


def test_no_other_encoding_is_proposed_where_another_split_shows_the_class(run_main, root, tmp_path):
    """0, 1 and void: the first training mask is all 0, which says nothing of the encoding."""
    for i, path in enumerate(sorted((root / "masks").glob("*/*.png"))):
        mask = np.asarray(Image.open(path)) // 255
        mask[0] = 255 * (i % 2)
        Image.fromarray(mask * np.uint8(path.parent.name != "train")).save(path)
    code, _, report = examine(run_main, root, tmp_path, "data/mask=values", "data.mask.num_classes=1")
    assert code == 1
    assert report["errors"] == ["class defect does not occur in train"]


def test_missing_classes_and_strict(run_main, root, tmp_path):
    for i in range(3):
        Image.new("L", (80, 60)).save(root / "masks" / "val" / f"val{i}.png")
    code, _, report = examine(run_main, root, tmp_path)
    assert code == 0
    assert report["warnings"] == ["class defect does not occur in val"]
    assert report["empty_masks"]["val"] == 3
    assert examine(run_main, root, tmp_path, "strict=true")[0] == 1


@pytest.mark.parametrize(("empty", "code"), [("test", 0), ("val", 1), ("train", 1)])
def test_a_split_that_is_empty_is_reported(run_main, root, tmp_path, empty, code):
    """Training can do without test images alone."""
    for kind in ("images", "masks"):
        shutil.rmtree(root / kind / empty)
    found, err, report = examine(run_main, root, tmp_path)
    assert found == code, err
    assert report["images"][empty] == 0
    told = {"test": ["no image in test: a run ends without a test"]}.get(empty, [])
    assert report["warnings"] == told
    assert report["errors"] == ([] if told else [f"no image in {empty}: training needs some, so correct data.split"])


def test_good_images_alone_are_reported(run_main, root, tmp_path, capfd):
    shutil.rmtree(root / "masks")
    code = call_main(
        "check_data", f"output_dir={tmp_path / 'o'}", "data=folder", f"data.root={root}", "data.images=images/*/*.png",
        "data.missing_mask=empty", *split_by_folder(),
    )  # fmt: skip
    printed = capfd.readouterr().out
    assert code == 1
    told = "12 of 12 images used (6 train, 3 val, 3 test); left out: none; 12 without a mask count as free of defects"
    assert told in printed
    assert "error: class defect does not occur in train" in printed


def test_what_is_read_file_by_file_is_told(run_main, root, tmp_path, caplog):
    """Whites and bit depths that differ in one set, hidden files, other formats, and masks shared by images."""
    for i in range(2):
        path = root / "masks" / "train" / f"train{i}.png"
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    for i, shift in ((3, 4), (4, 4), (5, 2)):
        path = root / "images" / "train" / f"train{i}.png"
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        Image.fromarray(np.maximum(grey, 130) << shift).save(path)
    (root / "images" / "train" / "._train0.png").write_bytes(b"x")
    (root / "images" / "train" / "train0.heic").write_bytes(b"x")
    (root / "images" / "train" / "train0.JPG").write_bytes((root / "images" / "train" / "train0.png").read_bytes())
    with caplog.at_level("INFO"):
        code, err, report = examine(run_main, root, tmp_path, "data.images='images/*/*.[ph]*'")
    assert code == 0, err
    lines = [
        "passed over 1 .heic file (images/train/train0.heic), 1 hidden file (images/train/._train0.png)",
        "passed over 1 image file (images/train/train0.JPG), neither in data.images nor a mask of these",
    ]
    assert report["warnings"] == [
        *lines,
        "masks of white differ, and each file is read by its own: 1: 2 files (such as masks/train/train0.png); "
        "255: 10 files (such as masks/test/test0.png)",
        "images with bits (data.bits) differ, and each file is read by its own: 8: 9 files (such as "
        "images/test/test0.png); 10: 1 file (images/train/train5.png); 12: 2 files (such as images/train/train3.png)",
    ]
    assert not caplog.records  # once
    expected = sum(20 * (20 + i) for i in range(6)) / (6 * 60 * 80)
    assert report["class_shares"]["train"]["defect"] == pytest.approx(expected)


def test_labels_under_threshold_and_hidden_defects_are_told(run_main, root, tmp_path):
    path = root / "masks" / "train" / "train0.png"
    mask = np.array(Image.open(path))
    mask[0] = 3
    Image.fromarray(mask).save(path)
    code, _, report = examine(run_main, root, tmp_path)
    assert code == 1
    (error,) = report["errors"]
    assert error == (
        f"{path}: black and white is expected, but the mask holds [0, 3, 255]; set data.mask.above=<value> (what is "
        f"above is the class), or name them: data/mask=values 'data.mask.classes=[0,255]' 'data.mask.ignore=[3]'"
    )
    named = ["data/mask=values", "data.mask.num_classes=1", "data.mask.classes=[0,1]", "data.mask.ignore=[3,255]"]
    _, _, report = examine(run_main, root, tmp_path, *named)
    assert (
        "12 masks (such as masks/test/test0.png) without any class but the first, where other pixels are ignored"
        in (report["warnings"])
    )


def test_where_no_mask_can_be_read_no_class_is_said_to_be_absent(run_main, root, tmp_path):
    for path in (root / "masks").glob("*/*.png"):
        mask = np.asarray(Image.open(path)) // 255 + 1
        mask[:2, 0] = 1, 2  # of those without a defect too
        Image.fromarray(mask).save(path)
    code, _, report = examine(run_main, root, tmp_path)
    assert code == 1
    for error in report["errors"]:
        assert "the mask holds [1, 2]; set" in error
        assert "'data.mask.classes=[1,2]' 'data.mask.ignore=[]'" in error
    assert report["empty_masks"] == {"train": 0, "val": 0, "test": 0}
    assert not [text for text in report["warnings"] if "does not occur" in text]
    named = ["data/mask=values", "data.mask.num_classes=1", "data.mask.classes=[1,2]"]
    assert examine(run_main, root, tmp_path / "again", *named)[2]["errors"] == []  # the remedy


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 255], "data/mask=threshold"),
        ([0, 1], "data.mask.above=0"),
        ([0, 1, 2, 255], "data.num_classes=3"),
        ([0, 10, 20], "'data.mask.classes=[0,10,20]', data.num_classes=3"),
        ([[0, 0, 0], [255, 0, 0]], "data/mask=palette"),
        (list(range(32)), "soft or JPEG-compressed"),
    ],
)
def test_guesses(values, message):
    assert message in guess(values)


def test_the_hash_survives_scaling_and_light():
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 200, (6, 8, 3), dtype=np.uint8))
    large, small = (np.asarray(coarse.resize(s, Image.Resampling.BICUBIC)) for s in ((320, 240), (80, 60)))
    assert (difference_hash(large) != difference_hash(small + np.uint8(20))).sum() <= 4
    other = np.asarray(Image.fromarray(rng.integers(0, 200, (6, 8, 3), dtype=np.uint8)).resize((320, 240)))
    assert (difference_hash(large) != difference_hash(other)).sum() > 10


def test_every_data_set_takes_every_mask_encoding():
    """Which knows the number of classes in whatever configuration the data is a part of."""
    files = [path for path in (CONF_DIR / "data").glob("*.yaml") if path.stem != "default"]
    data = sorted(path.stem for path in files if "_target_: ???" not in path.read_text(encoding="utf-8"))
    masks = sorted(path.stem for path in (CONF_DIR / "data" / "mask").glob("*.yaml"))
    assert len(data) > 6
    assert {"palette", "threshold", "values"} <= set(masks)
    with initialize_config_dir(str(CONF_DIR), **BASE):
        for name, mask in itertools.product(data, masks):
            given = [f"data={name}", f"data/mask={mask}", "data.root=x", "data.num_classes=2", "data.classes=[a,b]"]
            colours = ["data.mask.colors=[[0,0,0],[1,1,1]]"] if mask == "palette" else []
            cfg = compose("check_data", [*given, *colours])
            if mask == "auto":
                settle_data(cfg)
            found = instantiate(cfg.data.mask, "data.mask")
            assert getattr(found, "num_classes", 2) == 2
            alone = OmegaConf.create(OmegaConf.to_container(cfg.data))  # as a command may hand the section on
            assert instantiate(alone.mask, "data.mask") == found


def test_what_many_files_share_is_one_line(run_main, root, tmp_path):
    for path in (root / "masks").rglob("*.png"):
        mask = np.asarray(Image.open(path)).copy()
        mask[40:] = 3
        Image.fromarray(mask).save(path)
    code, _, report = examine(run_main, root, tmp_path)
    assert code == 1
    expected = "black and white is expected, but the mask holds [0, 3, 255]"
    assert sum(expected in error for error in report["errors"]) == 12  # all of them are in the report
    grouped = summary(report).splitlines()
    (line,) = [line for line in grouped if expected in line]
    assert line.startswith(f"error: {root}/masks/")
    assert "(and 11 more alike, such as of " in line
    assert sum(line.startswith("error: ") for line in grouped) < 5


def test_lines_of_one_file_or_of_two_kinds_stay_apart():
    found = ["/a b/0.png: holds 3", "/a b/1.png: holds 4", "class x does not occur in val", "/a b/2.png: holds 3"]
    report = {"data": {}, "errors": found, "warnings": [], "images": {}, "empty_masks": {}, "sizes": {}}
    said = summary(report | {"class_shares": {"train": {}}}).splitlines()
    assert [line for line in said if line.startswith("error")] == [
        "error: /a b/0.png: holds 3 (and 1 more alike, such as of /a b/2.png)", "error: /a b/1.png: holds 4",
        "error: class x does not occur in val",
    ]  # fmt: skip


def test_lightning_is_not_imported(root, tmp_path):
    """Its import takes as long as a small audit."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); from segnet.commands.check_data import main; main(); "
        "assert not {'lightning', 'torchmetrics', 'matplotlib', 'albumentations'} & set(sys.modules)"
    )
    given = ["data=folder", f"data.root={root}", "data.images=images/*/*.png", "data.masks='masks/{parent}/{name}'"]
    given += [*split_by_folder(), f"output_dir={tmp_path / 'o'}"]
    done = subprocess.run([sys.executable, "-c", code, *given], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "recipe: optimizer=muon" in done.stdout


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("data.masks={a:1}", "data.masks={a:1}: must be text that is not empty, a list"),
        ("data.masks=true", "data.masks=true: must be text that is not empty, a list"),
        ("data.images=5", "data.images=5: must be text that is not empty, a list"),
    ],
)
def test_wrong_patterns_of_a_folder_are_one_line(run_main, root, tmp_path, given, told):
    code, err = run_main("check_data", tmp_path / "o", "data=folder", f"data.root={root}", given)
    assert code == 1
    assert err.count("error: ") == 1
    assert told in err
