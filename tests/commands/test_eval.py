import csv
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers import SMALL, call_main
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.masks import Threshold
from segnet.data.splits import ByHash
from segnet.training.checkpoint import load_module


def test_a_checkpoint_alone_is_enough(run_main, trained, tmp_path):
    code, err = run_main("eval", tmp_path / "e", f"ckpt_path={trained}/checkpoints/best.ckpt", "trainer=cpu")
    assert code == 0, err
    found = json.loads((tmp_path / "e" / "results.json").read_text())["metrics"]
    expected = json.loads((trained / "results.json").read_text())["metrics"]
    error = found.pop("test/calibration_error")
    assert {k: v for k, v in expected.items() if k.startswith("test/")} == pytest.approx(found, abs=1e-6)
    assert 0 < error < 0.5
    with Image.open(tmp_path / "e" / "reliability.png") as image:
        assert image.width > 100
    with Image.open(tmp_path / "e" / "confusion.png") as image:
        assert image.width > 100
    worst = sorted((tmp_path / "e" / "worst").glob("*.png"))
    scores = [float(path.stem.rpartition("iou")[2]) for path in worst]
    assert len(worst) == 12
    assert scores == sorted(scores)
    with Image.open(tmp_path / "e" / "grid.jpg") as image:
        assert image.size == (4 * 64 + 3 * 8, 4 * 64 + 3 * 8)


def test_other_data_and_split_by_override(run_main, trained, cable, tmp_path):
    code, err = run_main(
        "eval", tmp_path / "e", f"ckpt_path={trained}/checkpoints/best.ckpt", "split=val", f"data.root={cable}"
    )
    assert code == 0, err
    results = json.loads((tmp_path / "e" / "results.json").read_text())
    assert 0 <= results["metrics"]["val/iou"] <= 1
    assert results["images"] < 24


def test_the_mean_of_samples_is_evaluated(trained):
    """Dropout of half over a constant logit of 1: the mean probability lies between sigmoid(0) and sigmoid(2)."""
    module = load_module(trained / "checkpoints" / "best.ckpt")
    conv = nn.Conv2d(3, 1, 1)
    nn.init.zeros_(conv.weight)
    nn.init.constant_(conv.bias, 1.0)
    module.net = nn.Sequential(conv, nn.Dropout(0.5))
    torch.manual_seed(0)
    with torch.no_grad():
        found = module.mean_of_samples(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 200).sigmoid()
    assert found.mean().item() == pytest.approx((0.5 + 1 / (1 + math.exp(-2))) / 2, abs=0.003)
    assert found.std().item() < 0.03


# -- settings ----------------------------------------------------------------------------------------


@pytest.fixture
def evaluate(capfd, tmp_path):
    """``evaluate(folder of a run, *overrides)``: results.json, and what was printed on stdout."""
    done = iter(range(9))

    def run(trained, *overrides):
        out = tmp_path / f"eval{next(done)}"
        capfd.readouterr()
        code = call_main(
            "eval", f"ckpt_path={trained}/checkpoints/best.ckpt", "trainer=cpu", f"output_dir={out}", "worst=1",
            "grid=1", "trainer.enable_progress_bar=false", *overrides,
        )  # fmt: skip
        printed = capfd.readouterr()
        assert code == 0, printed.err
        return json.loads((out / "results.json").read_text()), printed.out

    return run


def test_a_data_group_changes_no_setting(evaluate, trained, cable):
    """Its default image size is 480, which was taken without a word."""
    expected, _ = evaluate(trained, f"data.root={cable}")
    found, printed = evaluate(trained, "data=folder", f"data.root={cable}")
    assert found["metrics"] == expected["metrics"]
    assert found["metrics"]["test/iou"] > 0.1
    assert (
        "image size 64×64, as trained; Threshold(above=None)\n3 of 24 images used (test); left out: 17 train, 4 val"
        in (printed)
    )


def test_a_named_size_is_evaluated_and_told(evaluate, trained, cable):
    module = load_module(trained / "checkpoints" / "best.ckpt")
    data = SegmentationDataModule(
        str(cable), "images/*", "masks/{name}", Threshold(), ["defect"], 1, ByHash(0.7, 0.15, 0.15), image_size=96
    )
    data.setup()
    counts = np.zeros((2, 2), np.int64)
    for index in data.indices["val"]:
        image, mask = data.load(index)
        with torch.no_grad():
            guess = module.logits(torch.from_numpy(image).permute(2, 0, 1)[None])[0, 0].numpy() > 0
        np.add.at(counts, (mask, guess.astype(int)), 1)
    given = (f"data.root={cable}", "data.image_size=96", "split=val", "trainer.precision=32-true")
    found, printed = evaluate(trained, *given)
    assert found["metrics"]["val/iou"] == pytest.approx(counts[1, 1] / (counts.sum() - counts[0, 0]), abs=2e-3)
    assert "image size 96×96 (trained at 64×64)" in printed
    assert re.search(r"val/iou +0\.\d+  at 96×96, as the network gets", printed)
    assert re.search(r"val/iou_own_size +0\.\d+  at the images' own size, .* \(network at 64×64\)", printed)


def test_named_masks_are_read_as_named(evaluate, trained, tmp_path):
    """Grey values 40 and 200: cut at 127, as in training, half of each mask is defect; cut at 30 all of it."""
    for part in ("images", "masks"):
        (tmp_path / "d" / part).mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (40, 40), (i, 50, 90)).save(tmp_path / f"d/images/{i}.png")
        mask = np.full((40, 40), 40, np.uint8)
        mask[:20] = 200
        Image.fromarray(mask).save(tmp_path / f"d/masks/{i}.png")
    for above, share in ((127, 0.5), (30, 1.0)):
        evaluate(trained, f"data.root={tmp_path / 'd'}", "split=all", f"data.mask.above={above}", "own_size=false")
        rows = table(tmp_path / f"eval{int(above == 30)}" / "images.csv")
        assert {(int(row["1>0"]) + int(row["1>1"])) / 64**2 for row in rows} == {share}


# -- which images ------------------------------------------------------------------------------------


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_image_of_a_folder_once(evaluate, trained, cable, tmp_path):
    found, printed = evaluate(trained, "data=folder", f"data.root={cable}", "split=all")
    assert [row["file"] for row in table(tmp_path / "eval0" / "images.csv")] == [
        f"images/{path.name}" for path in sorted((cable / "images").iterdir())
    ]
    assert found["images"] == 24
    assert found["image_size"] == [64, 64]
    assert "24 of 24 images used (all); left out: none" in printed
    parts = [evaluate(trained, f"data.root={cable}", f"split={name}")[0] for name in ("train", "val", "test")]
    assert sum(part["images"] for part in parts) == 24
    whole = sum(np.array([[int(v) for k, v in row.items() if ">" in k] for row in table(path)]).sum(0)
                for path in (tmp_path / f"eval{i}" / "images.csv" for i in (1, 2, 3)))  # fmt: skip
    assert found["metrics"]["all/iou"] == pytest.approx(whole[3] / whole[1:].sum(), abs=1e-4)


def test_a_split_without_an_image_names_the_way_out(run_main, trained, cable, tmp_path):
    code, err = run_main(
        "eval", tmp_path / "e", f"ckpt_path={trained}/checkpoints/best.ckpt", f"data.root={cable}", "data.split.test=0"
    )
    assert code == 1
    told = "split=test: 0 of 24 images used (test); left out: 20 train, 4 val; split=all takes every image, or correct"
    assert told in err


@pytest.mark.parametrize("rule", ["list", "pattern"])
def test_a_folder_with_a_test_part_alone(evaluate, trained, cable, tmp_path, rule):
    root = tmp_path / "d"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
        for name in ("00000.png", "00001.png", "00002.png"):
            shutil.copy(sorted((cable / part).iterdir())[int(name[:5])], root / part / name)
    (root / "test.txt").write_text("00000\n00002\n")
    values = {"list": ["train.txt", "val.txt", "test.txt"], "pattern": ["a/*", "b/*", "'images/0000[02].png'"]}[rule]
    found, printed = evaluate(
        trained, "data=folder", f"data.root={root}", f"data.split._target_=segnet.data.splits.By{rule.title()}",
        *(f"data.split.{name}={value}" for name, value in zip(("train", "val", "test"), values, strict=True)),
    )  # fmt: skip
    assert found["images"] == 2
    assert "2 of 3 images used (test); left out: 1 in no split" in printed


def test_a_defect_that_is_ignored_is_told(evaluate, trained, cable):
    """Masks of 0 and 255 read by value, where 255 is ignored: nothing shows the defect, and that is no praise."""
    found, printed = evaluate(trained, f"data.root={cable}", "data/mask=values", "split=all")
    assert found["metrics"]["all/iou"] is None
    masks = [np.asarray(Image.open(path)) for path in sorted((cable / "masks").iterdir())]
    assert f"but {np.mean(masks) / 255:.1%} of the pixels are ignored by data.mask=Values(" in printed
    assert "set data/mask=threshold" in printed


def test_images_without_a_defect_give_false_alarms(evaluate, trained, cable, tmp_path):
    """The cables with a defect, without their masks: whatever the network finds in them is a false alarm."""
    (tmp_path / "d").mkdir()
    shutil.copytree(cable / "images", tmp_path / "d" / "images")
    found, printed = evaluate(trained, f"data.root={tmp_path / 'd'}", "data.missing_mask=empty", "split=all")
    module, wrong = load_module(trained / "checkpoints" / "best.ckpt"), []
    for path in sorted((tmp_path / "d" / "images").iterdir()):
        with torch.no_grad():
            image = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
            wrong.append(int((module(image) > 0).sum()))
    assert 0 < sum(count > 0 for count in wrong) <= 24
    metrics = found["metrics"]
    assert metrics["all/false_alarm_images"] == pytest.approx(np.mean([count > 0 for count in wrong]), abs=1 / 24)
    assert metrics["all/false_alarm_pixels"] == pytest.approx(np.mean(wrong), rel=0.05)
    assert metrics["all/false_alarm_area"] == pytest.approx(np.mean(wrong) / 64**2, rel=0.05)
    for name in ("iou", "iou_own_size", "iou/defect", "dice", "precision", "recall", "average_precision"):
        assert metrics[f"all/{name}"] is None
    assert metrics["all/accuracy"] == pytest.approx(1 - metrics["all/false_alarm_area"])
    assert "left out: none; 24 without a mask count as free of defects" in printed
    assert "no pixel shows a defect, so there is no IoU" in printed
    most = max(table(tmp_path / "eval0" / "images.csv"), key=lambda row: int(row["0>1"]))
    (worst,) = (tmp_path / "eval0" / "worst").iterdir()
    shown = np.asarray(Image.open(worst).convert("RGB"))[:, :64]
    original = np.asarray(Image.open(tmp_path / "d" / most["file"]).convert("RGB"))
    np.testing.assert_array_equal(shown, original)  # the most false alarms


# -- the images' own size ----------------------------------------------------------------------------

SIZES = ((64, 64), (90, 50), (33, 130), (64, 64), (200, 61), (40, 40))


def numpy_iou(truths, masks, classes):
    """IoU of each class over all images, by sets of pixels; 255 in a truth counts nowhere."""
    hit, union = np.zeros(classes), np.zeros(classes)
    for truth, mask in zip(truths, masks, strict=True):
        for k in range(classes):
            one, two = (truth == k) & (truth != 255), (mask == k) & (truth != 255)
            hit[k] += (one & two).sum()
            union[k] += (one | two).sum()
    return hit / union


def test_iou_at_the_images_own_size_is_that_of_the_files_of_predict(run_main, evaluate, trained, cable, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "d" / part).mkdir(parents=True)
        for i, path in enumerate(sorted((cable / part).iterdir())[:18]):
            how = Image.Resampling.NEAREST if part == "masks" else Image.Resampling.BICUBIC
            Image.open(path).resize(SIZES[i % 6], how).save(tmp_path / "d" / part / path.name)
    assert (
        run_main("predict", tmp_path / "p", f"ckpt_path={trained}/checkpoints/best.ckpt", f"input={tmp_path}/d/images")[
            0
        ]
        == 0
    )
    names = sorted(path.name for path in (tmp_path / "d" / "masks").iterdir())
    truths, masks = (
        [np.asarray(Image.open(tmp_path / part / name)) // 255 for name in names] for part in ("d/masks", "p")
    )
    assert len({mask.shape for mask in masks}) == 5
    expected = numpy_iou(truths, masks, 2)[1]
    found, _ = evaluate(trained, f"data.root={tmp_path / 'd'}", "split=all")
    assert 0.05 < expected < 1
    assert found["metrics"]["all/iou_own_size"] == found["metrics"]["all/iou_own_size/defect"] == np.float32(expected)
    assert found["metrics"]["all/iou"] != np.float32(expected)  # at 64×64
    for row, truth, mask in zip(table(tmp_path / "eval0" / "images.csv"), truths, masks, strict=True):
        assert row["iou_own_size"] == (f"{numpy_iou([truth], [mask], 2)[1]:.6f}" if (truth | mask).any() else "")
    without, _ = evaluate(trained, f"data.root={tmp_path / 'd'}", "split=all", "own_size=false")
    kept = {k: v for k, v in found["metrics"].items() if k in without["metrics"]}
    assert without["metrics"] == kept
    assert not any("own_size" in name or "escape_rate" in name for name in kept)
    assert "iou_own_size" not in table(tmp_path / "eval1" / "images.csv")[0]


def test_a_defect_that_vanishes_at_the_networks_size_counts_at_its_own(evaluate, trained, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "d" / part).mkdir(parents=True)
    Image.new("RGB", (256, 256), (90, 90, 90)).save(tmp_path / "d/images/a.png")
    mask = np.zeros((256, 256), np.uint8)
    mask[1, 1] = 255  # of four rows and columns the third is taken
    Image.fromarray(mask).save(tmp_path / "d/masks/a.png")
    found, _ = evaluate(trained, f"data.root={tmp_path / 'd'}", "split=all")
    (row,) = table(tmp_path / "eval0" / "images.csv")
    assert int(row["1>0"]) + int(row["1>1"]) == 0
    assert 0 <= found["metrics"]["all/iou_own_size"] < 0.1
    assert "all/false_alarm_images" not in found["metrics"]


@pytest.fixture(scope="module")
def striped(shared, cache):
    """A run on three classes and ignored pixels, images of different sizes; beside it its data."""

    def train(out):
        rng = np.random.default_rng(0)
        for part in ("images", "masks"):
            (out.parent / "stripes" / part).mkdir(parents=True, exist_ok=True)
        for i in range(12):
            width, height = SIZES[i % 6]
            mask = np.zeros((height, width), np.uint8)
            mask[:, width // 3 :], mask[:, 2 * width // 3 :], mask[:4] = 1, 2, 255
            image = np.stack([60 * (mask % 255)] * 3, -1) + rng.integers(0, 60, (height, width, 3))
            Image.fromarray(image.astype(np.uint8)).save(out.parent / f"stripes/images/{i:02d}.png")
            Image.fromarray(mask).save(out.parent / f"stripes/masks/{i:02d}.png")
        code = call_main(
            "train", *SMALL, "data=folder", f"data.root={out.parent / 'stripes'}", "data/mask=values",
            "data.num_classes=3", "data.classes=[left,middle,right]", f"data.cache_dir={cache}", f"output_dir={out}",
            "trainer.max_epochs=4", "optimizer=adamw", "data.split.test=0.5", "data.split.train=0.25",
            "data.split.val=0.25",
        )  # fmt: skip
        assert code == 0

    return shared("striped", train)


def test_so_it_is_of_several_classes_and_in_the_card_of_the_run(run_main, evaluate, striped, tmp_path):
    root = striped.parent / "stripes"
    code, err = run_main(
        "predict", tmp_path / "p", f"ckpt_path={striped}/checkpoints/best.ckpt", f"input={root}/images"
    )
    assert code == 0, err

    def count(rows):
        names = [Path(row["file"]).name for row in rows]
        return numpy_iou(*([np.asarray(Image.open(f / n)) for n in names] for f in (root / "masks", tmp_path / "p")), 3)

    rows = table(striped / "images.csv")
    assert len(rows) == 6
    expected = count(rows)
    assert len(set(expected)) == 3
    metrics = json.loads((striped / "results.json").read_text())["metrics"]
    for name, value in zip(("left", "middle", "right"), expected, strict=True):
        assert metrics[f"test/iou_own_size/{name}"] == np.float32(value)
    assert metrics["test/iou_own_size"] == pytest.approx(np.nanmean(expected), abs=1e-7)
    card = (striped / "README.md").read_text()
    for name in ("left", "middle", "right"):
        one, two = (metrics[f"{key}/{name}"] for key in ("test/iou", "test/iou_own_size"))
        assert f"{one:.4f} | {two:.4f} |" in next(line for line in card.splitlines() if line.startswith(f"| {name} |"))
    assert "| IoU of class | validation, 32 × 32 | test, 32 × 32 | test, images' own size |" in card
    # Of a folder whose placeholder is one class and a threshold: the network's classes and encoding hold.
    found, printed = evaluate(striped, "data=folder", f"data.root={root}", "split=all")
    expected = count([{"file": path.name} for path in sorted((root / "masks").iterdir())])
    assert found["metrics"]["all/iou_own_size"] == pytest.approx(np.nanmean(expected), abs=1e-7)
    assert "Values(num_classes=3" in printed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ckpt_path=/nowhere.ckpt"], "ckpt_path=/nowhere.ckpt: no such file"),
        (["ckpt_path={best}", "split=nope"], "split=nope: must be one of train, val, test, or all for every image"),
        (["ckpt_path={best}", "data=camvid", "data.root=/etc"], r"data=camvid has the classes \[Sky,"),
        (["ckpt_path={best}", "data=folder", "data.root=/etc", "data.classes=[a]"], r"data\.classes is \[a\], but"),
        (["ckpt_path={best}", "split=all", "data.split.train=1"], r"split=all takes every image, so data\.split"),
        (["ckpt_path={best}", "own_size=1"], "own_size=1: must be true or false"),
        (["ckpt_path={best}", "trainer.limit_test_batches=0"], "trainer.limit_test_batches=0: no image is evaluated"),
        (["ckpt_path={best}", "mc_samples=1"], "mc_samples=1: must be 0, or an integer of at least 2"),
        (["ckpt_path={best}", "grid=-1"], "grid=-1: must be an integer of at least 0"),
        (["ckpt_path={best}", "mc_samples=4"], "mc_samples=4: the network has no dropout"),
        ([], "ckpt_path"),
    ],
)
def test_bad_input(run_main, trained, tmp_path, overrides, message):
    best = trained / "checkpoints" / "best.ckpt"
    code, err = run_main("eval", tmp_path / "e", *(o.replace("{best}", str(best)) for o in overrides))
    assert code == 1
    assert re.search(message, err)
    assert not (tmp_path / "e").exists()
