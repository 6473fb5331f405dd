import itertools
import json
import shutil

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from segnet.cli import CONF_DIR
from segnet.configuration import instantiate
from segnet.reports.data_audit import difference_hash, guess


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


def test_bad_files_are_all_named_with_a_guess(run_main, root, tmp_path):
    (root / "images" / "train" / "train2.png").write_bytes(b"no image")
    Image.new("L", (10, 10)).save(root / "masks" / "train" / "train3.png")
    code, _, report = examine(run_main, root, tmp_path, "data/mask=values", "data.mask.num_classes=1")
    assert code == 1
    text = "\n".join(report["errors"])
    assert "train2.png: cannot be read as an image" in text
    assert "both must have the same size" in text
    assert "class defect does not occur in train (it holds 0 and 255: data/mask=threshold)" in text


def test_missing_classes_and_strict(run_main, root, tmp_path):
    for i in range(3):
        Image.new("L", (80, 60)).save(root / "masks" / "val" / f"val{i}.png")
    code, _, report = examine(run_main, root, tmp_path)
    assert code == 0
    assert report["warnings"] == ["class defect does not occur in val"]
    assert report["empty_masks"]["val"] == 3
    assert examine(run_main, root, tmp_path, "strict=true")[0] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 255], "data/mask=threshold"),
        ([0, 1], "data.mask.above=0"),
        ([0, 1, 2, 255], "data.num_classes=3"),
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
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        for name, mask in itertools.product(data, masks):
            given = [f"data={name}", f"data/mask={mask}", "data.root=x", "data.num_classes=2", "data.classes=[a,b]"]
            colours = ["data.mask.colors=[[0,0,0],[1,1,1]]"] if mask == "palette" else []
            cfg = compose("check_data", [*given, *colours])
            found = instantiate(cfg.data.mask, "data.mask")
            assert getattr(found, "num_classes", 2) == 2
            alone = OmegaConf.create(OmegaConf.to_container(cfg.data))  # as a command may hand the section on
            assert instantiate(alone.mask, "data.mask") == found
