"""data=folder from the command line: what is settled stands in the record, and is not settled anew."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image

from helpers import SMALL, call_main

QUIET = ("own_size=false", "~callbacks.panels")
EVAL = ("trainer=cpu", "trainer.enable_progress_bar=false", "own_size=false", "worst=0", "grid=0")


def put(root, values=(1, 2)):
    """train/, val/ and test/ beside their masks: two classes on a background; how often each value was written."""
    pixels = np.zeros(256, np.int64)
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for part in (split, f"{split}_labels"):
            (root / part).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            noise = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            mask = np.zeros((32, 32), np.uint8)
            for k, value in enumerate(values):
                mask[4 + 8 * k : 9 + 8 * k, 5:20] = value
            Image.fromarray(noise).save(root / split / f"{i}.png")
            Image.fromarray(mask).save(root / f"{split}_labels" / f"{i}.png")
            pixels += np.bincount(mask.ravel(), minlength=256)
    return pixels


def data_of(run):
    return OmegaConf.load(run / ".hydra" / "config.yaml").data


@pytest.fixture(scope="module")
def run(shared, cache) -> Path:
    """A run on a folder that nothing is said of."""

    def train(out):
        put(out.parent / "plain_folder")
        code = call_main(
            "train", *SMALL, *QUIET, "data=folder", f"data.root={out.parent / 'plain_folder'}",
            f"data.cache_dir={cache}", f"output_dir={out}",
        )  # fmt: skip
        assert code == 0

    return shared("folder_run", train)


def test_a_folder_trains_with_two_words_and_its_record_says_what_was_found(run):
    data = data_of(run)
    assert list(data.images) == ["test/*", "train/*", "val/*"]
    assert data.masks == "{dir}_labels/{name}"
    assert (list(data.classes), data.mask.num_classes) == (["background", "class_1", "class_2"], 3)
    assert (data.split.train, data.split.val, data.split.test) == ("train/*", "val/*", "test/*")
    assert data.seed == "${seed}" or data.seed == 0  # what was not null is as it was
    results = json.loads((run / "results.json").read_text())
    assert results["images"] == {"train": 6, "val": 3, "test": 3}


def test_resuming_reads_no_description(run, tmp_path, capfd):
    import shutil

    out = tmp_path / "run"
    shutil.copytree(run, out)
    root = Path(data_of(out).root)
    (root / "dataset.yaml").write_text("no description at all: [")
    try:
        assert call_main("train", f"resume={out}", "trainer.max_epochs=2") == 0
    finally:
        (root / "dataset.yaml").unlink()
    assert "dataset.yaml" not in capfd.readouterr().err
    assert data_of(out).classes == data_of(run).classes


def evaluated(run, tmp_path, *overrides):
    checkpoint = f"ckpt_path={run}/checkpoints/best.ckpt"
    return call_main("eval", *EVAL, checkpoint, f"output_dir={tmp_path / 'e'}", *overrides)


def describe(root, classes, values):
    content = {
        "segnet_dataset": 1, "images": ["test/*"], "masks": {"test/": "test_labels/"}, "classes": classes,
        "mask": {"encoding": "values", "classes": values},
    }  # fmt: skip
    (root / "dataset.yaml").write_text(yaml.safe_dump(content))


def test_a_checkpoint_is_evaluated_on_a_folder_that_says_how_its_masks_are_encoded(run, tmp_path, capfd):
    """The same images with masks of other values give the same figures."""
    put(tmp_path / "same")
    put(tmp_path / "other", (70, 90))
    assert evaluated(run, tmp_path / "a", "data=folder", f"data.root={tmp_path / 'same'}", "split=all") == 0
    told = capfd.readouterr()
    assert "data: found images [test/*, train/*, val/*], masks {dir}_labels/{name}" in told.out + told.err
    describe(tmp_path / "same", ["background", "class_1", "class_2"], [0, 1, 2])
    describe(tmp_path / "other", ["background", "class_1", "class_2"], [0, 70, 90])
    figures = []
    for name in ("same", "other"):
        assert evaluated(run, tmp_path / f"of_{name}", "data=folder", f"data.root={tmp_path / name}", "split=all") == 0
        figures.append(json.loads((tmp_path / f"of_{name}" / "e" / "results.json").read_text())["metrics"])
    assert figures[0] == figures[1]


def test_without_a_description_the_encoding_of_the_training_holds(run, tmp_path, capfd):
    put(tmp_path / "other", (70, 90))
    assert evaluated(run, tmp_path, "data=folder", f"data.root={tmp_path / 'other'}", "split=all") == 1
    assert "unknown mask value(s) [70, 90]; known are [0, 1, 2]" in capfd.readouterr().err


def test_the_classes_of_a_description_must_be_those_of_the_network(run, tmp_path, capfd):
    put(tmp_path / "other")
    describe(tmp_path / "other", ["background", "class_2", "class_1"], [0, 1, 2])
    assert evaluated(run, tmp_path, "data=folder", f"data.root={tmp_path / 'other'}", "split=all") == 1
    assert "[background,class_2,class_1], but the network was trained for" in capfd.readouterr().err


def test_an_audit_settles_the_same(run, tmp_path, capfd):
    root = data_of(run).root
    assert call_main("check_data", "data=folder", f"data.root={root}", f"output_dir={tmp_path / 'o'}") in (0, 1)
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["images"] == {"train": 6, "val": 3, "test": 3}
    assert set(report["class_shares"]["train"]) == {"background", "class_1", "class_2"}
