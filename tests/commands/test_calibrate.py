"""calibrate.py end to end: argv as typed, what it writes, and that the other commands see the same decisions."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from helpers import SMALL, call_main
from segnet.data.images import read_rgb
from segnet.decisions import moved
from segnet.deployment.predictor import Predictor, load_model
from segnet.training.checkpoint import load_module


@pytest.fixture(scope="module")
def data(shared) -> Path:
    """Forty images: a bright spot on odd ones, faint on some; dirt on a few of the others."""

    def make(root: Path) -> None:
        draw = np.random.default_rng(0)
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True)
        for i in range(40):
            image = draw.normal(90, 12, (40, 36)).clip(0, 255)
            mask = np.zeros((40, 36), np.uint8)
            row, column, side = (int(draw.integers(*ends)) for ends in ((4, 26), (4, 26), (3, 9)))
            if i % 2:
                mask[row : row + side, column : column + side] = 255
                image[mask > 0] += draw.uniform(40, 150)
            elif i % 6 == 0:
                image[row : row + 2, column : column + 2] += 120
            for folder, content in (("images", image), ("masks", mask)):
                cv2.imwrite(str(root / folder / f"part{i // 2:02d}_{i}.png"), content.clip(0, 255).astype(np.uint8))

    return shared("spots", make)


SHARES = ("data.split.train=0.3", "data.split.val=0.4", "data.split.test=0.3")
TRAINING = (
    *SMALL, "data=folder", "data.batch_size=2", "trainer.max_epochs=6", "~callbacks.panels", "experiment=quickstart"
)  # fmt: skip


@pytest.fixture(scope="module")
def run(shared, data, cache) -> Path:
    def train(out: Path) -> None:
        given = (*TRAINING, *SHARES, f"data.root={data}", f"data.cache_dir={cache}", f"output_dir={out}")
        assert call_main("train", *given) == 0

    return shared("spots-run", train)


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def calibrated(shared, run) -> Path:
    def calibrate(out: Path) -> None:
        given = f"ckpt_path={run}/checkpoints/best.ckpt", "target=escape<=0.4", "worst=2"
        assert call_main("calibrate", *given, f"output_dir={out}") == 0

    return shared("spots-calibrated", calibrate)


def test_what_it_writes(calibrated, run):
    stored = json.loads((calibrated / "operating_point.json").read_text())
    module = load_module(calibrated / "calibrated.ckpt")
    assert module.operating_point.stored() == stored
    assert load_module(run / "checkpoints" / "best.ckpt").operating_point is None  # the input is as it was
    record = stored["record"]
    assert (record["target"], record["chosen_on"], record["confirmed_on"]) == ("escape<=0.4", "val", "test")
    found = results(calibrated)["metrics"]
    assert found["val/escape_rate"] <= 0.4
    for name in ("escape_rate", "overkill_rate", "object_recall", "object_precision"):
        for split in ("val", "test"):
            low, rate, high = (found[f"{split}/{name}{end}"] for end in ("_low", "", "_high"))
            assert rate is None or 0 <= low <= rate <= high <= 1
    assert set(results(calibrated)["before"]) == set(found)
    assert record["confirmed"] == (found["test/escape_rate_low"] <= 0.4)
    assert (calibrated / "curves.png").is_file()
    assert not list(calibrated.glob(".predictions-*"))


def test_the_curve_has_the_chosen_point(calibrated):
    with (calibrated / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    found, point = results(calibrated)["metrics"], json.loads((calibrated / "operating_point.json").read_text())
    thresholds = [float(row["threshold"]) for row in rows]
    assert thresholds == sorted(thresholds)
    own = [row for row in rows if float(row["threshold"]) <= point["thresholds"][0] and row["escape_rate"]][-1]
    assert float(own["escape_rate"]) == pytest.approx(found["val/escape_rate"], abs=1e-6)
    assert float(own["overkill_rate"]) == pytest.approx(found["val/overkill_rate"], abs=1e-6)
    escapes = [int(row["escapes"]) for row in rows]
    assert escapes == sorted(escapes)


def test_the_record_has_the_curve_that_the_demo_shows(calibrated):
    point = load_module(calibrated / "calibrated.ckpt").operating_point
    with (calibrated / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    metrics = results(calibrated)["metrics"]
    found = moved.rates(point, point.thresholds)
    assert len(point.record["curve"]["threshold"]) <= moved.POINTS
    for name in moved.RATES:
        rates = [metrics[f"val/{name}_rate{end}"] for end in ("", "_low", "_high")]
        assert found[name] == pytest.approx(rates)
        for row in rows:
            expected = [float(row[f"{name}_rate{end}"]) for end in ("", "_low", "_high")]
            assert moved.rates(point, (float(row["threshold"]) + 1e-9,))[name] == pytest.approx(expected, abs=1e-6)


def test_eval_of_the_checkpoint_counts_the_same(calibrated, run, tmp_path):
    for split in ("val", "test"):
        given = f"ckpt_path={calibrated}/calibrated.ckpt", "trainer=cpu", f"split={split}"
        assert call_main("eval", *given, f"output_dir={tmp_path / split}") == 0
        other, own = results(tmp_path / split)["metrics"], results(calibrated)["metrics"]
        for name in ("escape_rate", "overkill_rate", "object_recall", "object_precision"):
            for end in ("", "_low", "_high"):
                assert other[f"{split}/{name}{end}"] == pytest.approx(own[f"{split}/{name}{end}"]), name


def test_an_earlier_point_does_not_matter(calibrated, tmp_path):
    given = f"ckpt_path={calibrated}/calibrated.ckpt", "target=escape<=0.4"
    assert call_main("calibrate", *given, f"output_dir={tmp_path}") == 0
    first, again = (json.loads((f / "operating_point.json").read_text()) for f in (calibrated, tmp_path))
    assert all(first[key] == again[key] for key in first if key != "record")


@pytest.mark.parametrize("typed", ["target=cost=10:1", "target=escape<=0.4", 'target="overkill<=0.5"', "target=f1"])
def test_a_target_as_it_is_typed(typed, run, tmp_path, capfd):
    given = f"ckpt_path={run}/checkpoints/best.ckpt", typed, "confirm=null", "temperature=false", "worst=0"
    assert call_main("calibrate", *given, f"output_dir={tmp_path}") == 0
    stored = json.loads((tmp_path / "operating_point.json").read_text())
    assert stored["record"]["target"] == typed.partition("=")[2].strip('"')
    assert stored["temperature"] == 1
    assert "not confirmed on other images (confirm=null)" in capfd.readouterr().out
    assert not (tmp_path / "escapes.png").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["target=escape<=0.01"], ["target=escape<=0.01", "at least 100 defective", "'target=escape<=0.", "cost=10:1"]),
        (["target=overkill<=0.001"], ["at least 1000 good ones", "'target=overkill<=0."]),
        (["target=escape<=0"], ["between 0 and 1", "'target=escape<=0.05'"]),
        (["target=escape<0.1"], ["target=escape<0.1: must be one of", "target=f1"]),
        (["target=cost=0:1"], ["costs must be above 0"]),
        (["target=5"], ["target=5: must be one of"]),
        (["target=null"], ["target=null: must be one of"]),
        (["target=[a]"], ["target=[a]: must be one of"]),
        (["target=cost=1:2,f1"], ["a comma separates the values of a sweep"]),
        (["target=f1", "confirm=val"], ["confirm=val: images that choose (split=val) cannot confirm", "confirm=null"]),
        (["target=f1", "split=all"], ["confirm=test", "confirm=null"]),
        (["target=f1", "split=none"], ["split=none: must be one of"]),
        (["target=f1", "confirm=none"], ["confirm=none: must be one of"]),
        (["target=f1", "split=out_of_fold"], ["split=out_of_fold", "folds=5"]),
        (["target=f1", "data.image_size=64"], ["data.image_size=64", "leave it out"]),
    ],
)  # fmt: skip
def test_what_cannot_be_ends_in_one_line(given, told, run, tmp_path, capfd):
    assert call_main("calibrate", f"ckpt_path={run}/checkpoints/best.ckpt", *given, f"output_dir={tmp_path / 'o'}") == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    for part in told:
        assert part in lines[0], lines[0]
    assert not (tmp_path / "o" / "calibrated.ckpt").exists()


@pytest.mark.parametrize("kind", ["onnx", "xml", "pte", "tflite", "pt2"])
def test_an_exported_model_is_refused(tmp_path, capfd, kind):
    assert call_main("calibrate", f"ckpt_path=model.{kind}", f"output_dir={tmp_path}") == 1
    assert "calibrate the checkpoint, then export it" in capfd.readouterr().err


def test_data_of_good_images_alone(run, data, tmp_path, capfd):
    root = tmp_path / "good"
    shutil.copytree(data, root)
    for mask in (root / "masks").iterdir():
        cv2.imwrite(str(mask), np.zeros((40, 36), np.uint8))
    given = f"ckpt_path={run}/checkpoints/best.ckpt", f"data.root={root}", f"output_dir={tmp_path / 'o'}"
    assert call_main("calibrate", *given) == 1
    assert "has 0 defective and" in capfd.readouterr().err


def test_parts_of_several_images(run, tmp_path, capfd):
    given = f"ckpt_path={run}/checkpoints/best.ckpt", "target=cost=2:1", r"data.parts='(part\d+)_'", "split=all"
    assert call_main("calibrate", *given, "confirm=null", f"output_dir={tmp_path}") == 1  # every part has an odd image
    assert "20 defective and 0 good parts" in capfd.readouterr().err
    assert call_main("calibrate", *given, "target=f1", "confirm=null", f"output_dir={tmp_path}") == 0
    stored = json.loads((tmp_path / "operating_point.json").read_text())
    assert stored["record"]["images"] == {"all": {"defective": 20, "good": 0}}
    assert results(tmp_path)["metrics"]["all/overkill_rate"] is None


def test_out_of_fold(data, cache, tmp_path, capfd):
    """Chosen on what the folds have stored; independent: the confidences on disk decide alike."""
    run = tmp_path / "folds"
    given = (*TRAINING, "trainer.max_epochs=2", "folds=2", "data.split.train=0.5", "data.split.val=0.2")
    given += ("data.split.test=0.3", f"data.root={data}", f"data.cache_dir={cache}", f"output_dir={run}")
    assert call_main("train", *given) == 0
    given = f"ckpt_path={run}/checkpoints/best.ckpt", "target=cost=3:1", "split=out_of_fold"
    assert call_main("calibrate", *given, f"output_dir={tmp_path / 'o'}") == 0
    module = load_module(tmp_path / "o" / "calibrated.ckpt")
    point = module.operating_point
    escapes = defective = 0
    for file in sorted((run / "out_of_fold" / "confidence" / "images").iterdir()):
        p = (cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) / 255).astype(np.float32)[None]
        if cv2.imread(str(data / "masks" / file.name), cv2.IMREAD_GRAYSCALE).any():
            defective += 1
            escapes += not point.mask(point.calibrated(p)).any()
    found = results(tmp_path / "o")["metrics"]
    assert found["out_of_fold/escape_rate"] == pytest.approx(escapes / defective)
    assert "test/escape_rate" in found
    image = read_rgb(sorted((data / "images").iterdir())[1])
    (prediction,) = Predictor(load_model(str(tmp_path / "o" / "calibrated.ckpt"), "cpu"))([image])
    assert np.array_equal(prediction.mask(), point.mask(prediction.probabilities.numpy()))
    assert torch.is_tensor(prediction.probabilities)
