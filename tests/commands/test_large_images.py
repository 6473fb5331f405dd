"""Networks trained on crops, from the command line: their figures are those of the masks that predict.py writes."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from helpers import SMALL, call_main
from lines import write
from segnet.data.images import read_rgb
from segnet.deployment.predictor import Predictor, load_model
from segnet.networks.window import pyramid, starts

EPOCHS = 8
TRAIN = (
    *(given for given in SMALL if "image_size" not in given and "epochs" not in given), "experiment=quickstart",
    "data=folder", "data.crop=64", "trainer.precision=32-true", "model.net.widths=[8,8,16,16,16]",
    "model.optimizer.lr=0.2", f"trainer.max_epochs={EPOCHS}", "data.batch_size=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(shared):
    return shared("lines", write)


@pytest.fixture(scope="module")
def run(shared, folder, cache):
    """A network that has learnt the lines well enough to be wrong in some places only."""
    given = (f"data.root={folder}", f"data.cache_dir={cache}")
    return shared("on_crops", lambda out: [call_main("train", *TRAIN, *given, f"output_dir={out}")])


@pytest.fixture(scope="module")
def half(shared, folder, cache):
    given = (f"data.root={folder}", f"data.cache_dir={cache}", "data.scale=0.5", "data.crops_per_epoch=80")
    return shared("on_half", lambda out: [call_main("train", *TRAIN, *given, f"output_dir={out}")])


def of_split(run, name):
    with (run / "data.csv").open() as file:
        return [row["image"] for row in csv.DictReader(file) if row["split"] == name]


def predicted(ckpt, folder, images, out, *more):
    """Masks that predict.py writes of these images, by their stems."""
    given = out / "given"
    given.mkdir(parents=True)
    for image in images:
        shutil.copy(folder / image, given)
    found = out / "found"
    assert call_main("predict", f"ckpt_path={ckpt}", f"input={given}", f"output_dir={found}", *more) == 0
    return {path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 127 for path in found.glob("??.png")}


def counted(folder, masks):
    """Confusion of each image and IoU over all, in NumPy."""
    rows = {}
    for stem, mask in masks.items():
        truth = cv2.imread(str(folder / "masks" / f"{stem}.png"), cv2.IMREAD_UNCHANGED) > 127
        rows[stem] = [int((a & b).sum()) for a in (~truth, truth) for b in (~mask, mask)]
    _, false, missed, hit = np.sum(list(rows.values()), 0)
    return rows, hit / (hit + false + missed)


def metrics(folder):
    return json.loads((folder / "results.json").read_text())["metrics"]


def test_figures_are_those_of_predicted_masks(run, folder, tmp_path):
    for split in ("val", "test"):
        images = of_split(run, split)
        assert len(images) >= 2
        masks = predicted(run / "checkpoints" / "best.ckpt", folder, images, tmp_path / split)
        rows, iou = counted(folder, masks)
        assert 0.1 < iou < 0.999  # else anything would agree
        assert metrics(run)[f"{split}/iou"] == pytest.approx(iou, abs=1e-6)
    assert metrics(run)["test/iou_own_size"] == pytest.approx(iou, abs=1e-6)
    with (run / "images.csv").open() as file:
        for row in csv.DictReader(file):
            stem = row["file"].removeprefix("images/").removesuffix(".png")
            assert [int(row[key]) for key in ("0>0", "0>1", "1>0", "1>1")] == rows.pop(stem)
    assert not rows


def test_predictions_are_blended_windows(run, folder):
    """Window by window through the network itself, without what predict.py and validation share but the weights."""
    module = load_model(str(run / "checkpoints" / "best.ckpt"), "cpu")
    for name in of_split(run, "test")[:2]:
        image = torch.from_numpy(read_rgb(folder / name)).permute(2, 0, 1)[None].float()
        height, width = image.shape[-2:]
        total, weights = np.zeros((height, width)), np.zeros((height, width))
        for top in starts(height, 64, 0.25):
            for left in starts(width, 64, 0.25):
                part = image[..., top : top + 64, left : left + 64]
                with torch.no_grad():
                    mean, std = module.mean.view(3, 1, 1), module.std.view(3, 1, 1)
                    answer = module.net((part / 255 - mean) / std).sigmoid()[0, 0].numpy()
                total[top : top + 64, left : left + 64] += answer * pyramid((64, 64)).numpy()
                weights[top : top + 64, left : left + 64] += pyramid((64, 64)).numpy()
        (found,) = Predictor(module)([read_rgb(folder / name)])
        assert np.abs(found.probabilities[0].numpy() - total / weights).max() < 1e-5


def test_evaluation_agrees_and_takes_every_split(run, folder, tmp_path, capsys):
    best = f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    assert call_main("eval", best, "trainer=cpu", "trainer.precision=32-true", f"output_dir={tmp_path / 'test'}") == 0
    assert metrics(tmp_path / "test")["test/iou"] == pytest.approx(metrics(run)["test/iou"], abs=1e-6)
    told = capsys.readouterr().out
    assert "whole images by windows of 64×64 at scale 1, as trained" in told
    assert "test/iou" in told
    assert "of whole images at scale 1, in windows of 64×64 as predict.py slides" in told
    given = (best, "trainer=cpu", "trainer.precision=32-true", "split=train", f"output_dir={tmp_path / 'train'}")
    assert call_main("eval", *given) == 0
    images = of_split(run, "train")
    rows, iou = counted(folder, predicted(run / "checkpoints" / "best.ckpt", folder, images, tmp_path / "masks"))
    assert metrics(tmp_path / "train")["train/iou"] == pytest.approx(iou, abs=1e-6)
    assert len(rows) == len(images)
    assert len(list((tmp_path / "train" / "worst").iterdir())) > 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("data.crop=96", "data.crop=96: an evaluation has that of the network's training, 64; leave it out"),
        ("data.scale=0.5", "data.scale=0.5: an evaluation has that of the network's training, 1.0; leave it out"),
        ("data.image_size=96", "data.image_size=96 beside data.crop=64"),
    ],
)
def test_evaluation_at_another_size_is_refused(run, tmp_path, run_main, given, told):
    best = f"ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    code, printed = run_main("eval", tmp_path / "out", best, "trainer=cpu", given)
    assert code == 1
    assert told in printed


def test_the_card_and_the_report_say_so(run):
    card = (run / "README.md").read_text()
    assert "| resize | none; trained on crops of 64×64 at scale 1 |" in card
    assert (
        "over whole images, scale 1, by a sliding window of 64 × 64 as in `predict.py`; in training over crops" in card
    )
    assert len(list((run / "photo").iterdir())) >= 1


def test_an_exported_model_slides_like_the_checkpoint(run, folder, tmp_path):
    pytest.importorskip("onnxruntime")
    best = run / "checkpoints" / "best.ckpt"
    assert call_main("export", f"ckpt_path={best}", "size=64x64", f"output_dir={tmp_path / 'model'}") == 0
    verification = json.loads((tmp_path / "model" / "verification.json").read_text())
    assert verification["sizes"][0]["size"] == [64, 64]
    assert verification["sizes"][0]["iou_checkpoint"] > 0.1  # of windows that show lines
    images = of_split(run, "test")
    checkpoint = predicted(best, folder, images, tmp_path / "one")
    exported = predicted(tmp_path / "model" / "model.onnx", folder, images, tmp_path / "other")
    assert all((checkpoint[stem] == exported[stem]).mean() > 0.9999 for stem in checkpoint)
    model = load_model(str(tmp_path / "model" / "model.onnx"), "cpu")
    assert (model.on_crops, model.scale, model.image_size) == (True, 1.0, (64, 64))
    assert (model.metadata["crop"], model.metadata["scale"]) == ([64, 64], 1.0)


def test_at_half_the_scale_the_figure_at_own_size_is_that_of_predicted_masks(half, folder, tmp_path):
    masks = predicted(half / "checkpoints" / "best.ckpt", folder, of_split(half, "test"), tmp_path)
    for stem, mask in masks.items():
        assert mask.shape == cv2.imread(str(folder / "masks" / f"{stem}.png"), cv2.IMREAD_UNCHANGED).shape
    iou = counted(folder, masks)[1]
    assert 0.1 < iou < 0.999
    assert metrics(half)["test/iou_own_size"] == pytest.approx(iou, abs=1e-6)
    with (half / "images.csv").open() as file:
        pixels = [sum(int(row[key]) for key in ("0>0", "0>1", "1>0", "1>1")) for row in csv.DictReader(file)]
    assert max(pixels) <= 76 * 100  # counted at half the scale


def test_an_image_smaller_than_the_crop_is_predicted_at_its_own_scale(run, folder, tmp_path):
    """It goes on as its mirror image, and is not enlarged."""
    image = read_rgb(folder / of_split(run, "test")[0])[:40, :50]
    module = load_model(str(run / "checkpoints" / "best.ckpt"), "cpu")
    wide = np.pad(image, [(0, 24), (0, 14), (0, 0)], mode="reflect")
    with torch.no_grad():
        expected = module.logits(torch.from_numpy(wide.copy()).permute(2, 0, 1)[None]).sigmoid()[0, :, :40, :50]
    (found,) = Predictor(module)([np.ascontiguousarray(image)])
    assert torch.allclose(found.probabilities, expected, atol=1e-5)


def test_a_window_of_another_size_can_be_named(run, folder, tmp_path):
    image = read_rgb(folder / of_split(run, "test")[0])
    module = load_model(str(run / "checkpoints" / "best.ckpt"), "cpu")
    (usual,), (wider,) = Predictor(module)([image]), Predictor(module, tile=96)([image])
    assert usual.probabilities.shape == wider.probabilities.shape
    assert (usual.probabilities - wider.probabilities).abs().max() > 0
    assert (usual.mask() == wider.mask()).mean() > 0.95


class Killed(BaseException):
    """Nothing tidies up after it."""


class Stop(Callback):
    """Ends a run once, after a batch of an epoch or in its validation."""

    at: list = []  # noqa: RUF012 - of the class, so that the resumed run does not stop there again

    def reach(self, *moment):
        if moment in Stop.at:
            Stop.at.remove(moment)
            raise Killed

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.reach("train", trainer.current_epoch, batch_idx)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.reach("val", trainer.current_epoch, batch_idx)


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_reruns_and_resumed_runs_end_with_the_same_bits(folder, cache, tmp_path):
    given = [
        *TRAIN, f"data.root={folder}", f"data.cache_dir={cache}", "trainer.max_epochs=3", "data.crops_per_epoch=24",
        "model.net.widths=[4,4,8,8,8]", "model.net.dropout=0.5", "~callbacks.panels", "own_size=false",
        f"+callbacks.stop._target_={Stop.__module__}.Stop",
    ]  # fmt: skip
    whole = tmp_path / "whole"
    assert call_main("train", *given, "data.num_workers=2", f"output_dir={whole}") == 0
    stopped = tmp_path / "stopped"
    Stop.at[:] = [("train", 1, 1), ("val", 2, 0)]
    with pytest.raises(Killed):
        call_main("train", *given, f"output_dir={stopped}")
    with pytest.raises(Killed):
        call_main("train", f"resume={stopped}", "trust=true")
    assert call_main("train", f"resume={stopped}", "trust=true") == 0
    one, other = weights(whole), weights(stopped)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert metrics(whole) == metrics(stopped)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["data.image_size=96"], "data.image_size=96 beside data.crop=64: crops are not resized"),
        (["data.positive_share=0.5"], "data.positive_share=0.5 beside data.crop=64: data.crop_share says"),
        (["data.crop=abc"], "data.crop=abc: must be one side or [height,width], at least 32 pixels each or null"),
        (["data.scale=1e-6"], "data.scale=1e-06: must be a number in [0.01, 4]"),
        (["data.crop=null", "data.scale=0.5"], "data.scale=0.5 without data.crop: add data.crop=480"),
    ],
)
def test_contradictions_are_one_line(folder, tmp_path, capfd, given, told):
    assert call_main("train", *TRAIN, f"data.root={folder}", *given, f"output_dir={tmp_path / 'out'}") == 1
    printed = capfd.readouterr().err
    assert told in printed
    assert "Traceback" not in printed


def test_the_largest_batch_is_bounded_by_the_crops_of_an_epoch(folder, tmp_path, capsys):
    given = (f"data.root={folder}", "find=batch_size", "data.crops_per_epoch=5", f"output_dir={tmp_path}")
    assert call_main("train", *TRAIN, *given) == 0
    assert "data.batch_size=5   (limited by the 5 crops of an epoch, not by memory" in capsys.readouterr().out
