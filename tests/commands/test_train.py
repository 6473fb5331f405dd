import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers import ROOT, SMALL, call_main
from segnet.configuration import instantiate
from segnet.training.graph import WARM_UP
from segnet.training.module import SegmentationModule


def table(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_loss_falls_and_the_iou_rises_on_the_embedded_data(trained):
    rows = table(trained)
    assert [int(row["epoch"]) for row in rows] == list(range(20))
    # A dozen small images validate: how well differs with the seed, and as much with the processor's rounding.
    for split, fall, rise in (("train", 0.75, 0.2), ("val", 1.0, 0.05)):
        loss = [float(row[f"{split}/loss"]) for row in rows]
        iou = [float(row[f"{split}/iou"]) for row in rows]
        assert loss[-1] < fall * loss[0]
        assert iou[-1] > iou[0] + rise


def test_the_run_folder_tells_the_whole_story(trained):
    results = json.loads((trained / "results.json").read_text())
    assert {"metrics", "parameters", "seconds", "images_per_second", "overrides", "versions", "commit"} <= set(results)
    assert results["parameters"] == 3_087_185
    assert results["images_per_second"] > 0
    assert "experiment=quickstart" in results["overrides"]
    best = max(table(trained), key=lambda row: float(row["val/iou"]))
    assert results["metrics"]["val/iou"] == pytest.approx(float(best["val/iou"]))
    assert results["metrics"]["test/iou"] == results["metrics"]["test/iou/defect"] > 0

    card = (trained / "README.md").read_text()
    headings = ["## Model info", "## Input transform", "## Training", "## Results", "## Decisions", "## Outputs"]
    headings.append("## Versions")
    assert [line for line in card.splitlines() if line.startswith("## ")] == headings
    assert "3,087,185 parameters" in card
    assert "12.349 MB" in card
    for name in ("train.png", "val.png"):
        assert name in card
        with Image.open(trained / name) as image:
            assert image.size == (700, 400)
    root = Path(OmegaConf.load(trained / ".hydra" / "config.yaml").data.root)
    files = {np.asarray(Image.open(path)).tobytes() for path in (root / "images").iterdir()}
    for name in ("photo/0.png", "photo/3.png"):
        assert name in card
        with Image.open(trained / name) as image:
            assert np.asarray(image)[:, :64].tobytes() in files  # a panel begins with the image
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", ".hydra/config.yaml", ".hydra/overrides.yaml"):
        assert (trained / name).is_file()


def test_tensorboard_holds_curves_panels_confusion_and_hyperparameters(trained):
    events = EventAccumulator(str(trained), size_guidance={"images": 0}).Reload()
    tags = events.Tags()
    scalars = {"train/loss", "val/loss", "val/iou", "val/iou/defect", "test/iou", "final/test/iou", "final/val/iou"}
    assert scalars <= set(tags["scalars"])
    assert any(tag.startswith("lr-") for tag in tags["scalars"])
    assert {"val/0", "val/3", "val/confusion"} <= set(tags["images"])
    drawn = [int(row["step"]) - 1 for row in table(trained) if int(row["epoch"]) in (4, 9, 14, 19)]
    assert [event.step for event in events.Images("val/0")] == drawn  # every fifth epoch, at the step of its figures
    text = events.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "_target_: segnet.networks.segnet.SegNet" in text
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_the_worst_image_table_adds_up_to_the_test_iou(trained):
    with (trained / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    hit, missed, wrong = (sum(int(row[key]) for row in rows) for key in ("1>1", "1>0", "0>1"))
    results = json.loads((trained / "results.json").read_text())
    assert results["metrics"]["test/iou"] == pytest.approx(hit / (hit + missed + wrong), abs=1e-6)
    assert len(rows) == results["images"]["test"]


def test_a_run_starts_from_the_weights_of_another_and_resumes_without_them(trained, cable, tmp_path, run_main):
    given, out = tmp_path / "given.ckpt", tmp_path / "out"
    shutil.copy(trained / "checkpoints" / "best.ckpt", given)
    overrides = ["data.image_size=48", "model.optimizer.lr=0"]  # nothing moves but the statistics of the batch norms
    code, err = run_main("train", out, f"data.root={cable}", f"weights={given}", *overrides)
    assert code == 0, err
    before = torch.load(given, weights_only=True)["state_dict"]
    given.unlink()
    code, err = run_main("train", out, f"resume={out}", "trainer.max_epochs=2")
    assert code == 0, err
    after = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert after["epoch"] == 1
    learnt = [name for name in before if name.startswith("net.") and name.endswith((".weight", ".bias"))]
    assert len(learnt) > 50
    for name in learnt:
        assert torch.equal(before[name], after["state_dict"][name]), name


def test_checkpoint_loads_safely_and_describes_itself(trained):
    state = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    assert state["config"]["model"]["net"]["_target_"] == "segnet.networks.segnet.SegNet"
    assert state["config"]["data"]["image_size"] == 64
    assert "${" not in json.dumps(state["config"])


def test_the_same_seed_gives_the_same_weights_whatever_the_workers(tmp_path, cable, cache):
    weights = []
    for i, workers in enumerate((0, 2)):
        out = tmp_path / str(i)
        code = call_main(
            "train", *SMALL, f"data.root={cable}", f"data.cache_dir={cache}", f"output_dir={out}",
            f"data.num_workers={workers}", "trainer.max_epochs=2", "~callbacks.panels",
        )  # fmt: skip
        assert code == 0
        weights.append(torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_only_epochs_with_a_validation_have_its_figures(tmp_path, cable, cache):
    code = call_main(
        "train", *SMALL, f"data.root={cable}", f"data.cache_dir={cache}", f"output_dir={tmp_path}",
        "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2", "~callbacks.panels",
    )  # fmt: skip
    assert code == 0
    rows = table(tmp_path)
    assert [bool(row["val/iou"]) for row in rows] == [False, True, False, True]
    assert all(row["train/iou"] for row in rows)


def test_fast_dev_run_writes_nothing(tmp_path, cable, cache):
    small = [s for s in SMALL if s != "trainer=cpu"]
    out = tmp_path / "run"
    code = call_main(
        "train", *small, "trainer=fast_dev_run", f"data.root={cable}", f"data.cache_dir={cache}", f"output_dir={out}"
    )
    assert code == 0
    assert not [path for path in out.rglob("*") if path.is_file() and ".hydra" not in path.parts]


def test_median_frequency_weights_by_hand_reach_the_loss_and_the_checkpoint(tmp_path, cable, cache):
    out = tmp_path / "run"
    code = call_main(
        "train", *SMALL, f"data.root={cable}", f"data.cache_dir={cache}", f"output_dir={out}",
        "model.class_weights=median_frequency", "data.image_size=64", "~callbacks.panels",
    )  # fmt: skip
    assert code == 0
    found = torch.load(out / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]["loss.weight"]

    with (out / "images.csv").open() as file:
        test = {row["file"] for row in csv.DictReader(file)}
    from segnet.data.splits import ByHash

    names = [f"images/{path.name}" for path in sorted((cable / "images").iterdir())]
    split = ByHash(0.7, 0.15, 0.15)(cable, names)
    assert set(split["test"]) == test
    masks = [np.asarray(Image.open(cable / name.replace("images", "masks"))) > 127 for name in split["train"]]
    positive = sum(m.sum() for m in masks) / sum(m.size for m in masks if m.any())
    negative = sum((~m).sum() for m in masks) / sum(m.size for m in masks)
    assert found.item() == pytest.approx(negative / positive, rel=1e-5)


def test_two_processes_equal_one_on_the_same_global_batch(tmp_path, cable, cache):
    """A network without batch norm, whose statistics would see half a batch."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "plain.yaml").write_text(
        "net: {_target_: torch.nn.Conv2d, in_channels: 3, out_channels: 1, kernel_size: 3, padding: 1}\n"
    )
    given = [
        *(s for s in SMALL if s != "trainer=cpu"), f"hydra.searchpath=[file://{tmp_path}/conf]", "model=plain",
        f"data.root={cable}", f"data.cache_dir={cache}", "trainer.max_epochs=3", "model.optimizer.lr=0.5",
        "trainer.precision=32-true", "trainer.limit_train_batches=4",  # two processes leave out an odd image
        "callbacks=objects", "monitor=val/object_recall@fa1",
    ]  # fmt: skip
    assert call_main("train", *given, "trainer=cpu", "data.batch_size=4", f"output_dir={tmp_path}/one") == 0
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.sync_batchnorm=false"]
    command = [sys.executable, ROOT / "src" / "train.py", *given, *ddp, "data.batch_size=2"]
    done = subprocess.run(
        [*command, f"output_dir={tmp_path}/two"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    folders = [tmp_path / name for name in ("one", "two")]
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in folders]
    for key in weights[0]:
        torch.testing.assert_close(weights[0][key], weights[1][key], atol=1e-6, rtol=1e-5)
    results = [json.loads((f / "results.json").read_text()) for f in folders]
    assert results[0]["metrics"] == pytest.approx(results[1]["metrics"], abs=1e-5, nan_ok=True)
    assert results[0]["images"] == results[1]["images"]
    tables = [list(csv.DictReader((f / "images.csv").read_text().splitlines())) for f in folders]
    scores = [[float(row.pop("score")) for row in table] for table in tables]  # a last digit, as the weights
    assert tables[0] == tables[1]  # every test image once
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def checkpoints(folder):
    files = (folder / "checkpoints").glob("*.ckpt")
    return {file.stem: torch.load(file, weights_only=True) for file in files}


@pytest.fixture
def train(tmp_path, cable, cache):
    """``train(name, *overrides)``: the folder of a short run."""

    def run(name, *overrides):
        out = tmp_path / name
        code = call_main(
            "train", *SMALL, f"data.root={cable}", f"data.cache_dir={cache}", "~callbacks.panels",
            f"output_dir={out}", *overrides,
        )  # fmt: skip
        assert code == 0
        return out

    return run


def test_the_moving_average_is_what_the_checkpoint_holds(train):
    """Decay 0: the average is the last weights."""
    plain = checkpoints(train("plain", "trainer.max_epochs=2"))["last"]["state_dict"]
    for decay, equal in ((0.0, True), (0.9, False)):
        out = train(
            f"ema{decay}", "callbacks=[ema,early_stopping]", f"callbacks.ema.decay={decay}", "trainer.max_epochs=2",
            "callbacks.ema.update_starting_at_step=0",
        )  # fmt: skip
        key = "net.classifier.weight"
        assert torch.equal(checkpoints(out)["last"]["state_dict"][key], plain[key]) == equal


def test_the_cable_experiment_takes_the_original_layout(cable, cache, tmp_path):
    """Every third cable is a good one, which has no mask."""
    root = tmp_path / "cable"
    for i, image in enumerate(sorted((cable / "images").iterdir())):
        kind, name = ("bent_wire" if i % 3 else "good"), f"{i:03}"
        for folder in (root / "data" / kind, root / "label" / kind):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, root / "data" / kind / f"{name}.png")
        if i % 3:
            shutil.copy(cable / "masks" / image.name, root / "label" / kind / f"{name}_mask.png")
    out = tmp_path / "out"
    given = [*SMALL, "experiment=cable", f"data.root={root}", f"data.cache_dir={cache}", f"output_dir={out}"]
    assert call_main("train", *given, "data.batch_size=2") == 0
    images = json.loads((out / "results.json").read_text())["images"]
    assert sum(images.values()) == len(list((cable / "images").iterdir()))


def test_a_run_tests_the_averaged_weights(train, run_main, tmp_path):
    out = train("ema", "callbacks=ema", "callbacks.ema.update_starting_at_step=0", "trainer.max_epochs=2")
    code, err = run_main("eval", tmp_path / "e", f"ckpt_path={out}/checkpoints/best.ckpt", "trainer=cpu")
    assert code == 0, err
    ours, evals = (json.loads((f / "results.json").read_text())["metrics"] for f in (out, tmp_path / "e"))
    assert ours["test/loss"] == pytest.approx(evals["test/loss"], abs=1e-6)
    trained = torch.load(out / "checkpoints" / "best.ckpt", weights_only=True)["current_model_state"]
    assert not torch.equal(
        trained["net.classifier.weight"], checkpoints(out)["best"]["state_dict"]["net.classifier.weight"]
    )


@pytest.mark.filterwarnings("ignore:Swapping scheduler")
def test_averaged_weights_are_the_mean_of_the_epochs_they_are_said_to_cover(train):
    """From the start of the second epoch on; the epoch that Lightning adds holds the mean."""
    out = train(
        "swa", "callbacks=swa", "trainer.max_epochs=5", "callbacks.swa.annealing_epochs=1",
        "callbacks.swa.swa_epoch_start=2", "callbacks.last.filename='e{epoch}'", "+callbacks.last.save_top_k=-1",
        "+callbacks.last.auto_insert_metric_name=false",
    )  # fmt: skip
    found = checkpoints(out)
    key = "net.classifier.weight"
    expected = torch.stack([found[f"e{i}"]["state_dict"][key] for i in range(4)]).mean(0)
    torch.testing.assert_close(found["e5"]["state_dict"][key], expected, atol=1e-7, rtol=0)


def test_batch_norm_statistics_are_those_of_the_training_images(train, cable, cache):
    out = train("bn", "callbacks=reestimate_batchnorm", "trainer.precision=32-true", "trainer.max_epochs=2")
    states = checkpoints(out)
    from segnet.training.checkpoint import load_module

    module = load_module(out / "checkpoints" / "reestimated.ckpt")
    data = instantiate(module.config["data"], "data")
    data.setup()
    batches = [data.samples("train")[i]["image"].permute(2, 0, 1) for i in range(len(data.indices["train"]))]
    first = module.net.encoder[0][0]
    with torch.no_grad():
        values = first(module.normalise(torch.stack(batches)))
    norm = "net.encoder.0.1.running_mean"
    expected = values.mean((0, 2, 3))
    torch.testing.assert_close(states["reestimated"]["state_dict"][norm], expected, atol=0.02, rtol=0.05)
    assert not torch.allclose(states["best"]["state_dict"][norm], expected, atol=0.02, rtol=0.05)


@pytest.mark.filterwarnings("ignore:data. no training image shows c")
def test_the_largest_batch_is_found_and_what_limits_it_named(train, cable, capfd, monkeypatch):
    """The class that early stopping would follow occurs nowhere, so its figure is NaN."""
    images = 0.7 * len(list((cable / "images").iterdir()))
    absent = [
        "data.classes=[a,b,c]",
        "data.num_classes=3",
        "data/mask=values",
        "data.mask.classes=[0,255,7]",
        "data.mask.ignore=[]",
    ]
    out = train("images", "find=batch_size", "callbacks=early_stopping", "monitor=val/iou/c", *absent)
    size, count = re.search(
        r"^data\.batch_size=(\d+)   \(limited by the (\d+) training images, not by memory;", capfd.readouterr().out
    ).groups()
    assert size == count
    assert abs(int(size) - images) < 0.3 * images
    assert not [path for path in out.rglob("*") if path.is_file() and ".hydra" not in path.parts]

    monkeypatch.setattr("segnet.environment.memory", lambda: 1000)
    train("memory", "find=batch_size")
    assert "data.batch_size=4   (limited by memory, 8 do not fit;" in capfd.readouterr().out
    monkeypatch.setattr("segnet.commands.batch_size.LARGEST", 2)
    steps = []
    for name in ("training", "validation"):
        step = getattr(SegmentationModule, f"{name}_step")

        def noted(module, batch, batch_idx, name=name, step=step):
            steps.append((name, len(batch["image"])))
            return step(module, batch, batch_idx)

        monkeypatch.setattr(SegmentationModule, f"{name}_step", noted)
    train("bound", "find=batch_size", "trainer.check_val_every_n_epoch=9")
    # On a GPU the last one is a graph, whose memory validation takes as well.
    assert steps == [("training", 2)] * (WARM_UP + 1) + [("validation", 2)]
    assert "data.batch_size=2   (the largest that is tried, not limited by memory;" in capfd.readouterr().out


def test_the_search_for_a_rate_is_refused_with_what_to_do_instead(run_main, tmp_path, cable):
    code, err = run_main("train", tmp_path / "run", f"data.root={cable}", "find=lr")
    assert code == 1
    assert err.startswith("error: find=lr: ")
    assert "-m model.optimizer.lr=0.1,0.03,0.01" in err
    assert "tune.py" in err


def test_a_long_run_is_forecast(train, capfd):
    train("run", "callbacks.forecast.steps=2", "callbacks.forecast.minutes=0", "trainer.max_epochs=2")
    assert re.search(r"forecast: [\d.]+ images/s, [\d.]+ GB at most so far, 2 epochs of", capfd.readouterr().out)
    train(
        "steps",
        "callbacks.forecast.steps=1",
        "callbacks.forecast.minutes=0",
        "trainer.max_epochs=9",
        "+trainer.max_steps=3",
    )
    assert re.search(r"forecast: .* so far, 1 epochs of", capfd.readouterr().out)  # which has more than three steps


@pytest.mark.parametrize(
    "switches",
    [
        ["~logger", "data.augment=null", "+trainer.enable_checkpointing=false"],
        ["trainer.logger=false", "trainer.enable_progress_bar=false", "callbacks=throughput"],
        ["trainer.logger=null", "trainer.callbacks=null"],
        ["callbacks.panels=null", "logger.tensorboard=null"],
    ],
)
def test_natural_switches(switches, cable, cache, tmp_path, capfd):
    small = [
        word for word in SMALL if word.partition("=")[0] not in ("~callbacks.progress", switches[1].partition("=")[0])
    ]
    out = tmp_path / "run"
    code = call_main("train", *small, f"data.root={cable}", f"data.cache_dir={cache}", f"output_dir={out}", *switches)
    assert code == 0, capfd.readouterr().err
    assert (out / "results.json").is_file()
    assert not list(out.rglob("events.out.tfevents*"))
    assert (out / "checkpoints").exists() == ("+trainer.enable_checkpointing=false" not in switches)
