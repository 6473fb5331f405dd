"""Cross-validation, its ensemble and its student, as a user runs them."""

import csv
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from helpers import SMALL, call_main, start, wait_for
from segnet.data.images import read_rgb
from segnet.deployment import exported_model, verification
from segnet.deployment.predictor import Predictor
from segnet.networks.ensemble import Ensemble
from segnet.runs import comparison
from segnet.training.checkpoint import load_module

FOLDS = 2


@pytest.fixture(scope="module")
def images(shared, cable):
    """12 of the rendered cables, whose names say the split: 7 train, 3 val, 2 test."""

    def make(root):
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True)
        for i, file in enumerate(sorted((cable / "images").iterdir())[::2]):
            split = "test" if i in (0, 5) else "val" if i in (1, 6, 9) else "train"
            shutil.copy(file, root / "images" / f"{split}_{file.name}")
            shutil.copy(cable / "masks" / file.name, root / "masks" / f"{split}_{file.name}")

    return shared("few", make)


@pytest.fixture(scope="module")
def given(images, cache):
    """A short training that does not answer "no defect" everywhere, in float32."""
    return [
        *SMALL, "data=folder", f"data.root={images}", f"data.cache_dir={cache}", "~callbacks.panels", "loss=bce_dice",
        "optimizer=adamw", "trainer.precision=32-true", "model.net.dropout=0.1",
    ]  # fmt: skip


APART = ["data.split._target_=segnet.data.splits.ByPattern"]
APART += [f"data.split.{name}=images/{name}_*" for name in ("train", "val", "test")]


@pytest.fixture(scope="module")
def validated(shared, given):
    """The run folder of a cross-validation with test images kept apart."""

    def train(out):
        assert call_main("train", *given, *APART, f"folds={FOLDS}", f"output_dir={out}") == 0

    return shared("validated", train)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_is_validated_once_and_predicted_by_the_network_without_it(validated, images, tmp_path, capfd):
    names = sorted(f"images/{file.name}" for file in (images / "images").iterdir() if "test" not in file.name)
    rows = table(validated / "out_of_fold" / "images.csv")
    assert [row["image"] for row in rows] == names
    for fold in range(FOLDS):
        own = {row["image"] for row in rows if row["fold"] == str(fold)}
        splits = {row["image"]: row["split"] for row in table(validated / f"fold{fold}" / "data.csv")}
        assert {name for name, split in splits.items() if split == "val"} == own
        assert {name for name, split in splits.items() if split == "train"} == set(names) - own
        out = tmp_path / str(fold)
        code = call_main(
            "predict", f"ckpt_path={validated}/fold{fold}/checkpoints/best.ckpt", f"input={images}/images",
            "probabilities=true", "overlay=false", f"output_dir={out}", "device=cpu",
        )  # fmt: skip
        assert code == 0
        for name in own:
            stem = name.removeprefix("images/").removesuffix(".png")
            mask = np.asarray(Image.open(validated / "out_of_fold" / "masks" / "images" / f"{stem}.png"))
            np.testing.assert_array_equal(mask * 255, np.asarray(Image.open(out / f"{stem}.png")))
            confidence = np.asarray(Image.open(validated / "out_of_fold" / "confidence" / "images" / f"{stem}.png"))
            np.testing.assert_array_equal(confidence, np.asarray(Image.open(out / f"{stem}_prob.png")))


def test_the_figures_are_means_deviations_and_sums(validated, images):
    results = json.loads((validated / "results.json").read_text())
    folds = [json.loads((validated / f"fold{i}" / "results.json").read_text())["metrics"] for i in range(FOLDS)]
    for name in ("val/loss", "val/iou"):
        values = np.array([fold[name] for fold in folds])
        assert results["metrics"][name] == pytest.approx(values.mean())
        assert results["deviations"][name] == pytest.approx(
            np.sqrt(((values - values.mean()) ** 2).sum() / (FOLDS - 1))
        )
    hit = union = 0
    for row in table(validated / "out_of_fold" / "images.csv"):
        truth = np.asarray(Image.open(images / row["image"].replace("images/", "masks/"))) > 127
        guess = np.asarray(Image.open(validated / "out_of_fold" / "masks" / row["image"])) == 1
        own = ((truth & guess).sum(), (truth | guess).sum())
        assert row["iou"] == ("" if own[1] == 0 else f"{own[0] / own[1]:.6f}")
        hit, union = hit + own[0], union + own[1]
    assert results["metrics"]["out_of_fold/iou"] == pytest.approx(hit / union, abs=1e-6)
    assert results["images"] == {"folds": 10, "test": 2}
    card = (validated / "README.md").read_text()
    assert f"{results['metrics']['val/iou']:.4f} ± {results['deviations']['val/iou']:.4f}" in card
    assert f"{results['metrics']['test/iou']:.4f}" in card
    assert "\n\n\n" not in card
    assert max(map(len, card.splitlines())) < 2000


def test_the_ensemble_is_the_mean_of_its_networks_for_every_tool(validated, images, tmp_path, capfd):
    best = validated / "checkpoints" / "best.ckpt"
    module = load_module(best)
    members = [load_module(validated / f"fold{i}" / "checkpoints" / "best.ckpt") for i in range(FOLDS)]
    assert isinstance(module.net, Ensemble)
    files = sorted((images / "images").iterdir())
    batch = torch.from_numpy(np.stack([read_rgb(f) for f in files])).permute(0, 3, 1, 2)[..., :32, :32].contiguous()
    with torch.no_grad():
        mean = torch.stack([member(batch).sigmoid() for member in members]).double().mean(0)
        torch.testing.assert_close(module(batch).sigmoid().double(), mean, rtol=0, atol=2e-7)
    small = tmp_path / "small"  # at the network's size, where no probability is interpolated
    small.mkdir()
    for file, image in zip(files, batch, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(small / file.name)
    folder = tmp_path / "predicted"
    arguments = [f"input={small}", "probabilities=true", "overlay=false", "device=cpu", f"output_dir={folder}"]
    assert call_main("predict", f"ckpt_path={best}", *arguments) == 0
    for file, expected in zip(files, mean, strict=True):
        found = np.asarray(Image.open(folder / f"{file.stem}_prob.png")).astype(float) / 255
        assert np.abs(found - expected[0].numpy()).max() < 0.5 / 255 + 1e-6
    assert call_main("eval", f"ckpt_path={best}", "trainer=cpu", f"output_dir={tmp_path / 'test'}") == 0
    evaluated = json.loads((tmp_path / "test" / "results.json").read_text())["metrics"]
    own = json.loads((validated / "results.json").read_text())["metrics"]
    assert evaluated["test/iou_own_size"] == pytest.approx(own["test/iou_own_size"], abs=1e-6)
    assert "optimistic" not in capfd.readouterr().out
    assert call_main("eval", f"ckpt_path={best}", "trainer=cpu", "split=val", f"output_dir={tmp_path / 'val'}") == 0
    assert "trained on each of these images, so the figures are optimistic" in capfd.readouterr().out
    assert call_main("export", f"ckpt_path={best}", "format=onnx", "images=2", f"output_dir={tmp_path}") == 0
    exported_model.write(module, tmp_path / "model.pt2", verification.metadata(module, best))
    for kind in ("onnx", "pt2"):
        exported = exported_model.ExportedModel(tmp_path / f"model.{kind}", trusted=True)
        torch.testing.assert_close(exported(batch).double(), mean, rtol=0, atol=1e-4)


def test_a_student_learns_from_the_ensemble(validated, given, tmp_path, capfd):
    out = tmp_path / "student"
    assert call_main("train", *given, *APART, f"teacher={validated}", f"output_dir={out}") == 0
    told = capfd.readouterr().err
    assert "it was trained on, or chosen by, 3 of 3 val images, so figures on them are optimistic" in told
    state = torch.load(out / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    plain = torch.load(validated / "fold0" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert state.keys() == plain.keys()  # the teacher is not saved
    card = (out / "README.md").read_text()
    assert f"| teacher | `{validated}/checkpoints/best.ckpt`, weight 0.5, temperature 2.0 |" in card
    assert "The teacher has seen 3 of 3 val images, so figures of these splits are optimistic." in card


def test_a_teacher_without_weight_changes_no_bit(validated, given, tmp_path):
    states = []
    for name, more in (("plain", []), ("taught", [f"teacher={validated}", "distill.weight=0"])):
        assert call_main("train", *given, *more, f"output_dir={tmp_path / name}") == 0
        states.append(torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True))
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(states[0][part], states[1][part], rtol=0, atol=0)


def test_killed_and_stopped_it_resumes_to_the_same_bits(validated, given, tmp_path, capfd):
    out, log = tmp_path / "run", tmp_path / "log.txt"
    process = start("train", *given, *APART, f"folds={FOLDS}", f"output_dir={out}", log=log)
    wait_for(lambda: (out / "fold1" / "environment.json").is_file(), process, log)
    process.kill()
    process.join()
    assert not (out / "fold1" / "results.json").exists()
    before = (out / "fold0" / "results.json").stat().st_mtime_ns
    process = start("train", f"resume={out}", log=log)
    wait_for(lambda: (out / "fold1" / "checkpoints" / "last.ckpt").is_file(), process, log)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM, log.read_text()
    assert f"stopped by SIGTERM; resume with: python src/train.py resume={out}\n" in log.read_text()
    assert call_main("train", f"resume={out}") == 0
    assert (out / "fold0" / "results.json").stat().st_mtime_ns == before
    for part in ("checkpoints", *(f"fold{i}/checkpoints" for i in range(FOLDS))):
        a, b = (torch.load(f / part / "best.ckpt", weights_only=True)["state_dict"] for f in (out, validated))
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    found, whole = (json.loads((f / "results.json").read_text())["metrics"] for f in (out, validated))
    assert found == whole
    # A fold is an ordinary run.
    assert call_main("train", f"resume={out}/fold1", "trainer.max_epochs=2") == 0
    assert OmegaConf.load(out / "fold1" / ".hydra" / "config.yaml").trainer.max_epochs == 2


def test_on_crops_whole_images_are_predicted_by_the_window(given, images, tmp_path):
    out = tmp_path / "crops"
    assert call_main("train", *given, *APART, "data.crop=32", "folds=2", f"output_dir={out}") == 0
    predictors = [Predictor(load_module(out / f"fold{i}" / "checkpoints" / "best.ckpt")) for i in range(2)]
    for row in table(out / "out_of_fold" / "images.csv"):
        (prediction,) = predictors[int(row["fold"])]([read_rgb(images / row["image"])])
        found = np.asarray(Image.open(out / "out_of_fold" / "confidence" / row["image"]))
        expected = prediction.probabilities[0].numpy() * 255
        assert found.shape == expected.shape == (64, 64)
        assert np.abs(found - expected).max() <= 0.5 + 1e-3
    assert load_module(out / "checkpoints" / "best.ckpt").on_crops
    assert json.loads((out / "results.json").read_text())["metrics"]["test/iou"] is not None


def test_by_default_shares_all_images_are_folded_and_the_whole_is_one_run_of_a_sweep(given, validated, tmp_path):
    sweep = tmp_path / "sweep"
    assert call_main("train", "-m", *given, "folds=2", "model.optimizer.lr=0.01", f"output_dir={sweep}") == 0
    results = json.loads((sweep / "0" / "results.json").read_text())
    assert results["images"] == {"folds": 12, "test": 0}
    assert not any(name.startswith("test/") for name in results["metrics"])
    (row,) = table(sweep / "leaderboard.csv")
    assert row["job"] == "0"
    assert float(row["best val/iou"]) == pytest.approx(results["metrics"]["val/iou"])
    runs = comparison.find([str(sweep), str(validated)])
    assert {run.folder for run in runs} == {(sweep / "0").resolve(), validated.resolve()}
    assert {len(run.images) for run in runs} == {12, 2}  # out of fold, and of the test
    assert [run.folder for run in comparison.find([f"{sweep}/0/fold1"])] == [(sweep / "0" / "fold1").resolve()]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["folds=1"], "folds=1: must be an integer in [2, 26] or null"),
        (["folds=13"], "folds=13: there are only 12 images to divide; use at most folds=12, or add some"),
        (["folds=2", "trainer.fast_dev_run=true"], ""),
        (["folds=5", "data.split.group='_(0).*'"], "folds=5: there are only 1 groups to divide"),
        (["folds=2", "trainer.devices=2"], "folds=2 with trainer.devices=2"),
        (["folds=2", "+trainer.enable_checkpointing=false"], "folds=2 without checkpoints"),
        (["teacher=/no/such/run"], "teacher=/no/such/run: no such file"),
    ],
)
def test_what_cannot_be_is_one_line(given, tmp_path, capfd, wrong, told):
    code = call_main("train", *given, *wrong, f"output_dir={tmp_path / 'out'}")
    err = capfd.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("error")]
    assert (code == 1) == bool(told), err
    assert len(lines) == bool(told)
    assert told in err


def test_a_teacher_of_other_classes_is_refused(validated, given, tmp_path, capfd):
    out = f"output_dir={tmp_path / 'out'}"
    assert call_main("train", *given, f"teacher={validated}", "data.classes=[scratch]", out) == 1
    err = capfd.readouterr().err
    assert "it knows the classes [defect], and this run has [scratch]: number, names and order must agree" in err


def test_the_ensemble_starts_no_other_network(validated, given, tmp_path, capfd):
    weights = f"weights={validated}/checkpoints/best.ckpt"
    assert call_main("train", *given, weights, f"output_dir={tmp_path / 'out'}") == 1
    err = capfd.readouterr().err
    assert "belongs to another network" in err
    assert f"teacher={validated}/checkpoints/best.ckpt" in err


def test_the_ensemble_is_published(validated, tmp_path, capfd):
    folder = tmp_path / "release"
    given = (f"run={validated}", f"output={folder}", "format=none", f"output_dir={tmp_path / 'log'}")
    assert call_main("publish", *given) == 0, capfd.readouterr().err
    module = load_module(folder)
    assert isinstance(module.net, Ensemble)
    expected = load_module(validated / "checkpoints" / "best.ckpt").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in module.state_dict().items())
    page = (folder / "README.md").read_text()
    assert "data.root=/my/images teacher=<this folder>" in page  # from an ensemble no training can start
    assert "weights=<this folder>" not in page
