"""Real processes, killed for real."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers import ROOT, SMALL, call_main, rows, start, wait_for
from segnet.runs.record import has_record

EPOCHS = 14


@pytest.fixture(scope="module")
def given(cable, cache):
    """A short run with everything that has a state: dropout, momentum, a schedule, augmentation."""
    return [
        *(s for s in SMALL if "max_epochs" not in s), f"data.root={cable}", f"data.cache_dir={cache}",
        "optimizer=adamw", "scheduler=onecycle", "model.net.dropout=0.5", f"trainer.max_epochs={EPOCHS}",
        "callbacks.panels.images=1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory):
    """The same run without an interruption."""
    out = tmp_path_factory.mktemp("whole")
    assert call_main("train", *given, f"output_dir={out}") == 0
    return out


def curve(folder, tag):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def assert_equal(folder, whole):
    states = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (folder, whole)]
    for part in ("lr_schedulers", "global_step", "epoch"):
        assert states[0][part] == states[1][part]
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(states[0][part], states[1][part], rtol=0, atol=0)
    best = [torch.load(f / "checkpoints" / "best.ckpt", weights_only=True) for f in (folder, whole)]
    torch.testing.assert_close(best[0]["state_dict"], best[1]["state_dict"], rtol=0, atol=0)
    timed = ("seconds", "images_per_second")
    tables = [[{k: v for k, v in row.items() if k not in timed} for row in rows(f)] for f in (folder, whole)]
    assert tables[0] == tables[1]
    assert len(tables[0]) == EPOCHS
    for tag in ("train/loss", "val/iou", "val/loss"):
        assert curve(folder, tag) == curve(whole, tag)
    assert (folder / "README.md").is_file()


def test_killed_at_seven_moments_it_ends_with_the_same_bits(given, whole, tmp_path):
    out, log = tmp_path / "run", tmp_path / "log.txt"
    checkpoints = out / "checkpoints"

    def writing(name):
        return lambda: (checkpoints / f"{name}.ckpt.part").exists()

    def after(count):
        goal = len(rows(out)) + count
        return lambda: len(rows(out)) >= goal

    moments = [
        lambda: lambda: has_record(out),
        lambda: writing("best"),
        lambda: after(1),
        lambda: writing("last"),
        lambda: after(2),
        lambda: lambda: (out / "metrics.csv.part").exists() or len(rows(out)) >= EPOCHS - 4,
        lambda: writing("last"),
    ]
    for i, moment in enumerate(moments):
        process = start("train", *([*given, f"output_dir={out}"] if i == 0 else [f"resume={out}"]), log=log)
        wait_for(moment(), process, log)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        for file in checkpoints.glob("*.ckpt"):  # never without a good one
            torch.load(file, weights_only=True)
    # The end by the command itself, in a process that shares nothing with the others.
    command = [sys.executable, str(ROOT / "src" / "train.py"), f"resume={out}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert_equal(out, whole)


def test_signals_stop_cleanly_and_the_run_can_be_resumed(given, whole, tmp_path):
    out = tmp_path / "run"
    for i, number in enumerate((signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)):
        log = tmp_path / f"{i}.txt"
        process = start("train", *([*given, f"output_dir={out}"] if i == 0 else [f"resume={out}"]), log=log)
        goal = len(rows(out)) + 1
        wait_for(lambda goal=goal: len(rows(out)) >= goal, process, log)
        os.kill(process.pid, number)
        process.join(60)
        err = log.read_text()
        assert process.exitcode == 128 + number, err
        assert f"stopped by {number.name}; resume with: python src/train.py resume={out}" in err
        assert "Traceback" not in err
    moved = tmp_path / "moved"  # a run folder may be moved
    shutil.move(out, moved)
    assert call_main("train", f"resume={moved}") == 0
    assert_equal(moved, whole)


@pytest.fixture(scope="module")
def short(given, tmp_path_factory):
    """A finished run of one epoch with a constant learning rate."""
    out = tmp_path_factory.mktemp("short")
    assert call_main("train", *given, "scheduler=constant", "trainer.max_epochs=1", f"output_dir={out}") == 0
    return out


def test_more_epochs_are_those_of_a_longer_run(given, short, tmp_path, capfd):
    longer, extended = tmp_path / "longer", tmp_path / "extended"
    assert call_main("train", *given, "scheduler=constant", "trainer.max_epochs=2", f"output_dir={longer}") == 0
    shutil.copytree(short, extended)
    capfd.readouterr()
    code = call_main("train", f"resume={extended}", "trainer.max_epochs=2", "model.optimizer.lr=0.5", "model=unet")
    err = capfd.readouterr().err
    assert code == 0, err
    assert "ignored: model.optimizer.lr=0.5 (the run has 0.001), model=unet" in err
    states = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (longer, extended)]
    torch.testing.assert_close(states[0]["state_dict"], states[1]["state_dict"], rtol=0, atol=0)
    assert [row["epoch"] for row in rows(extended)] == ["0", "1"]
    assert call_main("train", f"resume={extended}") == 0  # the larger number is on record
    assert len(rows(extended)) == 2


def test_a_run_killed_while_its_record_was_written_is_no_run_yet(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "overrides.yaml").touch()
    assert call_main("train", f"resume={tmp_path / 'run'}") == 1
    assert "there is no complete .hydra/overrides.yaml" in capfd.readouterr().err


def test_a_run_older_than_a_setting_resumes(short, tmp_path, capfd):
    old = tmp_path / "old"
    shutil.copytree(short, old)
    config = OmegaConf.load(old / ".hydra" / "config.yaml")
    del config["weights"]
    OmegaConf.save(config, old / ".hydra" / "config.yaml")
    code = call_main("train", f"resume={old}", "trainer.max_epochs=2")
    assert code == 0, capfd.readouterr().err
    assert len(rows(old)) == 2
    assert json.loads((old / "results.json").read_text())["epochs"] == 2  # its configuration does not name the report


def test_a_run_may_go_on_without_an_end(short, tmp_path, capfd):
    """``max_epochs=-1`` is more than any number; here the number of steps ends it."""
    out = tmp_path / "endless"
    shutil.copytree(short, out)
    config = OmegaConf.load(out / ".hydra" / "config.yaml")
    config.trainer.max_steps = 2 * int(rows(out)[0]["step"])
    OmegaConf.save(config, out / ".hydra" / "config.yaml")
    code = call_main("train", f"resume={out}", "trainer.max_epochs=-1")
    assert code == 0, capfd.readouterr().err
    assert [row["epoch"] for row in rows(out)] == ["0", "1"]
    assert call_main("train", f"resume={out}", "trainer.max_epochs=9") == 1  # fewer than without end
    assert "trainer.max_epochs=9: the run has -1; a resumed run can only get more" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["resume=/nowhere"], "resume=/nowhere: there is no complete .hydra/overrides.yaml; give the folder of a run"),
        (
            ["resume={short}", "trainer.max_epochs=0"],
            "trainer.max_epochs=0: the run has 1; a resumed run can only get more",
        ),
        (["resume={whole}", "trainer.max_epochs=99"], "the run's schedule spans its 14 epochs and cannot be stretched"),
        (["-m", "resume={short},{whole}"], "resume continues a single run; leave out -m"),
    ],
)
def test_bad_input(short, whole, capfd, overrides, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(path.stat().st_mtime_ns for path in short.rglob("*.*"))
    code = call_main("train", *(o.format(short=short, whole=whole) for o in overrides))
    assert code == 1
    assert message in capfd.readouterr().err
    assert before == sorted(path.stat().st_mtime_ns for path in short.rglob("*.*"))
