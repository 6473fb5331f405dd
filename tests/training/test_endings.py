"""Runs that end, or fail, for the right reason only, and say it in one line."""

import os
import re
import resource
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from helpers import SMALL, call_main, rows, start, wait_for
from segnet.commands.search import Prune
from segnet.data.dataset import EpochSampler, Samples, collate, shield
from segnet.errors import explain

SIZE = 32
FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12
SPLIT = ("data.split={_target_: segnet.data.splits.ByPattern, train: '*/a*', val: '*/b*', test: '*/c*'}",)


def write(root, name, mask):
    rng = np.random.default_rng(len(name) + ord(name[0]))
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(root / "images" / f"{name}.png")
    Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / f"{name}.png")


def square(value=255):
    mask = np.zeros((SIZE, SIZE))
    mask[8:24, 8:24] = value
    return mask


def folder(tmp_path, train, val=2, val_mask=None, train_mask=None):
    """Images a0, a1, … to train, b… to validate, c… to test."""
    root = tmp_path / "data"
    for i in range(train):
        write(root, f"a{i}", square() if train_mask is None else train_mask(i))
    for i in range(val):
        write(root, f"b{i}", square() if val_mask is None else val_mask)
        write(root, f"c{i}", square() if train_mask is None else train_mask(0))
    return root


def run(root, *overrides, epochs=2, out=None):
    small = [s for s in SMALL if "max_epochs" not in s]
    out = root.parent / "run" if out is None else out
    return call_main(
        "train", *small, "data=folder", f"data.root={root}", f"data.cache_dir={root.parent}/cache", *SPLIT,
        f"trainer.max_epochs={epochs}", "~callbacks.panels", f"output_dir={out}", *overrides,
    ), out  # fmt: skip


TINY = "model.net.widths=[4,4,4,4,4]"


class Undefined(nn.Module):
    """A loss without a value."""

    def __init__(self, num_classes):
        super().__init__()

    def forward(self, logits, target):
        return logits.sum() * float("nan")


# -- losses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["focal", "lovasz", "dice", "cross_entropy"])
def test_an_image_that_is_all_void_trains_alone_in_its_batch(tmp_path, capfd, loss):
    root = folder(tmp_path, 3, 1, train_mask=lambda i: square(1 + i % 2) if i < 2 else np.full((SIZE, SIZE), 255))
    masks = ["data/mask=values", "data.mask.ignore=[255]", "data.classes=[a,b,c]", "data.num_classes=3"]
    code, out = run(root, *masks, f"loss={loss}", "data.batch_size=1", TINY)
    assert code == 0, capfd.readouterr().err
    for name, value in torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"].items():
        assert value.isfinite().all(), name


def test_a_loss_without_a_value_is_not_blamed_on_the_learning_rate(tmp_path, capfd):
    root = folder(tmp_path, 2)
    code, _ = run(root, "loss=dice", f"model.loss._target_={Undefined.__module__}.Undefined", TINY)
    err = capfd.readouterr().err
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert "the loss itself has no value for this batch" in line
    assert f"{root}/images/a0.png" in line
    assert "lr" not in line


# -- metrics without a value -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["callbacks=early_stopping", "callbacks.early_stopping.patience=1"],
        ["trainer.check_val_every_n_epoch=2"],
    ],
)
def test_a_validation_split_without_the_class_stops_nothing(tmp_path, capfd, caplog, extra):
    root = folder(tmp_path, 4, val_mask=square(0))
    plateau = "model.scheduler={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, patience: 0}"
    code, out = run(root, plateau, TINY, *extra, epochs=4)
    err = capfd.readouterr().err
    assert code == 0, err
    assert len(rows(out)) == 4
    assert {row["lr"] for row in rows(out)} == {"0.01"}
    assert caplog.text.count("monitor=val/iou: no pixel of the val split shows defect") == 1
    best, last = (torch.load(out / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert best["epoch"] == last["epoch"] == 3


def test_a_plateau_waits_for_the_next_validation(tmp_path):
    plateau = "_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, patience: 0, threshold: 1e9"
    given = [f"model.scheduler={{{plateau}, threshold_mode: abs}}", "trainer.check_val_every_n_epoch=2"]
    code, out = run(folder(tmp_path, 4), TINY, *given, "model.optimizer.lr=1e-3", epochs=7)
    assert code == 0
    rates = [float(row["lr"]) for row in rows(out)]  # the second validation and the third are no better than the first
    assert rates == pytest.approx([1e-3] * 4 + [1e-4] * 2 + [1e-5])


def test_an_epoch_that_ends_midway_has_figures_of_its_own(tmp_path):
    root = folder(tmp_path, 6, train_mask=lambda i: square(0 if i else 255))
    code, out = run(root, TINY, "augment=none", "model.optimizer.lr=0", "data.batch_size=2", "+trainer.max_steps=4")
    assert code == 0
    first, second = rows(out)
    assert first["train/loss"] != second["train/loss"]  # of all images, and of two


def test_early_stopping_stops_and_says_why(tmp_path, caplog):
    root = folder(tmp_path, 4)
    early = ["callbacks=early_stopping", "callbacks.early_stopping.patience=2", "model.optimizer.lr=0"]
    code, out = run(root, TINY, *early, "monitor=train/loss", "mode=min", "augment=none", epochs=9)
    assert code == 0
    assert len(rows(out)) < 9
    assert "stopped early: Monitored metric train/loss did not improve" in caplog.text


def test_an_undefined_metric_prunes_no_trial():
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(0, 0))
    study.add_trial(optuna.trial.create_trial(value=0.1, intermediate_values={0: 0.1}, params={}, distributions={}))
    trial = study.ask()
    metrics = {"val/iou": torch.tensor(float("nan"))}
    trainer = SimpleNamespace(callback_metrics=metrics, current_epoch=0, lightning_module=None)
    prune = Prune(trial, "val/iou")
    prune.on_validation_end(trainer, None)
    prune.on_train_epoch_end(trainer, None)
    assert study.get_trials()[1].intermediate_values == {}
    metrics["val/iou"] = torch.tensor(0.5)
    prune.on_train_epoch_end(trainer, None)  # an epoch without a validation: the figure is an older one's
    assert study.get_trials()[1].intermediate_values == {}
    prune.on_validation_end(trainer, None)
    with pytest.raises(optuna.TrialPruned):
        prune.on_train_epoch_end(trainer, None)


# -- a last batch of one -----------------------------------------------------------------------------------------------

POOLED = "model=deeplabv3plus"


def test_global_pooling_trains_whatever_the_number_of_images(tmp_path, capfd, caplog):
    root = folder(tmp_path, 5)
    code, out = run(root, POOLED, "data.batch_size=2", "callbacks=reestimate_batchnorm")
    err = capfd.readouterr().err
    assert code == 0, err
    assert len(rows(out)) == 2
    assert int(rows(out)[-1]["step"]) == 4
    assert "data: an epoch uses 4 of 5 training images, each time others" in caplog.text
    assert "DeepLabV3Plus cannot be trained" in caplog.text


@pytest.mark.parametrize(
    ("images", "batch", "message"),
    [
        (3, 1, "data.batch_size=1: DeepLabV3Plus has batch norms over single pixels .* set data.batch_size=2 or more"),
        (1, 4, "data.split gives 1 image to train: DeepLabV3Plus has batch norms over single pixels"),
    ],
)
def test_global_pooling_on_single_images_is_refused_at_the_start(tmp_path, capfd, images, batch, message):
    code, _ = run(folder(tmp_path, images), POOLED, f"data.batch_size={batch}")
    assert code == 1
    assert re.search(f"error: {message}", capfd.readouterr().err)


def test_segnet_keeps_a_last_batch_of_one(tmp_path, capfd, caplog):
    code, out = run(folder(tmp_path, 5), TINY, "data.batch_size=2", epochs=1)
    err = capfd.readouterr().err
    assert code == 0, err
    assert int(rows(out)[-1]["step"]) == 3
    assert "an epoch uses" not in caplog.text


# -- lengths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["max_epochs", "limit_train_batches"])
def test_a_run_that_would_train_nothing_is_refused(tmp_path, capfd, key):
    code, out = run(folder(tmp_path, 2), TINY, f"trainer.{key}=0")
    assert code == 1
    assert f"error: trainer.{key}=0 trains nothing; leave it out" in capfd.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("override", ["check_val_every_n_epoch=5", "limit_val_batches=0"])
@pytest.mark.parametrize("callbacks", ["default", "early_stopping"])
def test_a_run_without_validation_says_so_and_tests_its_last_epoch(tmp_path, capfd, override, callbacks):
    code, out = run(folder(tmp_path, 2), TINY, f"trainer.{override}", f"callbacks={callbacks}")
    err = capfd.readouterr().err
    assert code == 0, err
    assert f"trainer.{override}: nothing is validated, so monitor=val/iou chooses no best.ckpt" in err
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["last.ckpt"]
    assert (out / "results.json").is_file()


# -- loaders and signals -----------------------------------------------------------------------------------------------


def children(process):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True)
    return [int(pid) for pid in found.stdout.split()]


@pytest.fixture
def training(cable, cache, tmp_path):
    """A run with two workers that does not end, in a process group of its own: process, folder, log."""
    out, log = tmp_path / "run", tmp_path / "log.txt"
    process = start(
        "train", *(s for s in SMALL if "max_epochs" not in s), f"data.root={cable}", f"data.cache_dir={cache}", TINY,
        "trainer.max_epochs=5000", "data.num_workers=2", "~callbacks.panels", f"output_dir={out}", log=log,
    )  # fmt: skip
    wait_for((out / "checkpoints" / "last.ckpt").is_file, process, log)
    yield process, out, log
    process.kill()
    process.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_the_whole_group_stops_cleanly(training, number):
    process, out, log = training
    loaders = children(process)
    assert len(loaders) >= 2
    os.killpg(process.pid, number)
    process.join(60)
    err = log.read_text()
    assert process.exitcode == 128 + number, err
    assert f"stopped by {number.name}; resume with: python src/train.py resume={out}" in err
    assert "Traceback" not in err
    torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert [pid for pid in loaders if Path(f"/proc/{pid}").exists()] == []


def test_a_killed_loader_is_one_line(training):
    process, out, log = training
    os.kill(children(process)[-1], signal.SIGKILL)
    process.join(60)
    err = log.read_text()
    assert process.exitcode == 1, err
    assert "error: a loader process ended" in err
    assert "set data.num_workers=0" in err
    assert "Traceback" not in err
    torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)


@FORKS
def test_shared_memory_that_is_full_is_one_line_and_no_hang():
    """By a limit on the size of files, which shared memory consists of, in the workers alone."""

    def load(i):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        return np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE), np.uint8)

    loader = DataLoader(
        Samples(load, range(4)), 2, sampler=EpochSampler(4, 0, True), num_workers=2, collate_fn=collate,
        worker_init_fn=shield, timeout=30, multiprocessing_context="fork",
    )  # fmt: skip
    with pytest.raises(RuntimeError) as caught:
        list(loader)
    assert explain(caught.value).startswith("a loader process ended or found no room in shared memory (/dev/shm)")


# -- full disks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def limited():
    """``limited(size)``: files of this process cannot become larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_has_no_room_leaves_the_old_one(tmp_path, capfd, limited):
    root = folder(tmp_path, 2)
    code, out = run(root, TINY, epochs=1)
    assert code == 0
    last = out / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    capfd.readouterr()
    limited(len(before) // 2)
    assert call_main("train", f"resume={out}", "trainer.max_epochs=2") == 1
    err = capfd.readouterr().err
    assert re.search(r"error: \S*(last|best)\.ckpt: File too large; free some space", err)
    assert "Traceback" not in err
    assert last.read_bytes() == before
    assert not list(out.rglob("*.part"))


def test_a_cache_that_has_no_room_is_one_line_and_leaves_nothing(tmp_path, capfd, limited):
    root = folder(tmp_path, 6)
    limited(20_000)
    code, _ = run(root, TINY)
    assert code == 1
    err = capfd.readouterr().err
    assert f"error: data.cache_dir={tmp_path}/cache: no room for " in err
    assert "data.cache_dir=null" in err
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 300 kB, where the tests may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, capfd, tiny_disk):
    root = folder(tmp_path, 80)
    code, _ = run(root, TINY, f"data.cache_dir={tiny_disk}")
    assert code == 1
    assert f"error: data.cache_dir={tiny_disk}: no room for " in capfd.readouterr().err
    assert not [path for path in tiny_disk.rglob("*") if path.is_file()]
    assert run(root, "logger=none", out=tiny_disk / "run", epochs=1)[0] == 1  # whose thread may fail first
    err = capfd.readouterr().err
    assert ".ckpt: No space left on device; free some space" in err
    assert "Traceback" not in err
    assert not list(tiny_disk.rglob("*.part"))
