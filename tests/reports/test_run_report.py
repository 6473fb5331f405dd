"""What a run's report takes from its rows, and what it holds where there was no test."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import SMALL, call_main
from segnet.reports.run_report import best_row

ROWS = [
    {"epoch": "0", "val/loss": "0.5", "val/iou": "0.2", "train/loss": "0.9"},
    {"epoch": "1", "val/loss": "0.3", "val/iou": "0.1", "train/loss": "0.8"},
    {"epoch": "2", "val/loss": "nan", "val/iou": "nan", "train/loss": "0.7"},
    {"epoch": "3", "val/loss": "", "val/iou": "", "train/loss": "0.6"},
    {"epoch": "4", "val/loss": "0.7", "val/iou": "0.4", "train/loss": "0.5"},
]


@pytest.mark.parametrize(
    ("monitor", "mode", "epoch"),
    [("val/loss", "min", "1"), ("val/loss", "max", "4"), ("val/iou", "max", "4"), ("val/iou", "min", "1")],
)
def test_the_best_row_goes_by_monitor_and_mode(monitor, mode, epoch):
    assert best_row(ROWS, monitor, mode)["epoch"] == epoch


def test_without_a_value_it_is_the_last_row():
    assert best_row(ROWS[2:4], "val/loss", "min") == ROWS[3]
    assert best_row([], "val/loss", "min") == {}


@pytest.mark.filterwarnings("ignore:data. no val image shows")
def test_where_no_epoch_can_be_chosen_the_figures_are_those_of_the_last(cable, tmp_path):
    """Of validation images without a defect the IoU is 0 at a false alarm, and tells no epoch from another."""
    good, bad = [], []
    for path in sorted((cable / "images").iterdir()):
        (bad if np.asarray(Image.open(cable / "masks" / path.name)).any() else good).append(f"images/{path.name}")
    for name, files in {"train": bad[1:], "val": good, "test": bad[:1]}.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(files))
    lists = [f"data.split.{name}={tmp_path / name}.txt" for name in ("train", "val", "test")]
    small = [word for word in SMALL if not word.startswith("trainer.max_epochs")]
    code = call_main(
        "train", *small, f"data.root={cable}", "data.split._target_=segnet.data.splits.ByList", *lists,
        f"output_dir={tmp_path / 'run'}", "~callbacks.panels", "trainer.max_epochs=3", "data.cache_dir=null",
    )  # fmt: skip
    assert code == 0
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    kept = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert found["best_epoch"] == kept["epoch"] == 2
    with (tmp_path / "run" / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert found["metrics"]["train/loss"] == float(last["train/loss"])


@pytest.fixture(scope="module")
def few(cable, tmp_path_factory):
    """Folders of so many cables."""

    def make(count):
        root = tmp_path_factory.mktemp(f"few{count}")
        for part in ("images", "masks"):
            (root / part).mkdir()
            for path in sorted((cable / part).iterdir())[-count:]:  # the last ones have defects
                shutil.copy(path, root / part / path.name)
        return root

    return make


def trained_on(root, out, cache, *overrides):
    arguments = ["data=folder", f"data.root={root}", f"data.cache_dir={cache}", f"output_dir={out}", *overrides]
    return call_main("train", *SMALL, "trainer.max_epochs=2", "~callbacks.panels", *arguments)


def test_least_loss_chooses_the_figures_of_a_run(few, cache, tmp_path):
    """The learning rate makes the loss worse after the first epoch or better; the card has the least one's row."""
    out = tmp_path / "o"
    given = ("monitor=val/loss", "mode=min", "trainer.max_epochs=4", "model.optimizer.lr=0.5", "scheduler=constant")
    assert trained_on(few(10), out, cache, *given) == 0
    with (out / "metrics.csv").open() as file:
        import csv

        losses = {int(row["epoch"]): float(row["val/loss"]) for row in csv.DictReader(file)}
    found = json.loads((out / "results.json").read_text())
    assert len(set(losses.values())) == 4
    assert found["best_epoch"] == min(losses, key=losses.__getitem__)
    assert found["metrics"]["val/loss"] == pytest.approx(min(losses.values()), abs=1e-5)


def test_a_test_of_a_part_says_of_how_many_images(few, cache, tmp_path):
    given = ("trainer.limit_test_batches=1", "data.batch_size=1", "data.split.train=0.4", "data.split.val=0.2")
    assert trained_on(few(10), tmp_path / "o", cache, *given, "data.split.test=0.4") == 0
    card = (tmp_path / "o" / "README.md").read_text()
    assert "4 training, 2 validation, 1 of 4 test images" in card
    assert re.search(r"test unknown \(1 image: |test \d.\d+ to \d.\d+ \(1 images", card)


@pytest.mark.parametrize(
    ("count", "overrides", "sizes"),
    [
        (3, [], (1, 1, 1)),
        (3, ["data.split.test=0"], (2, 1, 0)),
        (6, [], (4, 1, 1)),
        (10, ["data.split.test=0"], (8, 2, 0)),
        (6, ["trainer.limit_test_batches=0"], (4, 1, 1)),
    ],
)
def test_a_few_images_and_no_test_do(few, cache, tmp_path, capfd, caplog, count, overrides, sizes):
    out = tmp_path / "o"
    code = trained_on(few(count), out, cache, *overrides)
    printed = capfd.readouterr()
    assert code == 0, printed.err
    told = ", ".join(f"{n} {name}" for n, name in zip(sizes, ("train", "val", "test"), strict=True))
    assert f"{count} of {count} images used ({told}); left out: none" in caplog.text
    found = json.loads((out / "results.json").read_text())
    assert tuple(found["images"].values()) == sizes
    tested = not overrides
    assert any(name.startswith("test/") for name in found["metrics"]) == tested
    assert found["metrics"]["val/loss"] > 0
    card = (out / "README.md").read_text()
    assert ("There was no test." in card) != tested
    assert f"{sizes[0]} training, {sizes[1]} validation, {sizes[2] or 'no'} test images" in card
    assert ("no test images: the run will end without a test" in caplog.text) == (sizes[2] == 0)
    assert ("there was no test;" in printed.out) != tested
    shown = sorted(path.name for path in (out / "photo").iterdir())
    assert shown
    assert [name for name in ("0.png", "1.png", "2.png", "3.png") if f"(photo/{name})" in card] == shown
