import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from helpers import ROOT, SMALL, call_main
from segnet.runs import leaderboard


@pytest.mark.parametrize(("launcher", "jobs"), [("basic", 4), ("joblib", 2), ("submitit_local", 2)])
def test_a_failed_job_is_recorded_and_the_rest_continue(launcher, jobs, cable, cache, tmp_path, monkeypatch):
    """Nesterov and momentum, with and without, of which Nesterov without momentum is the one that PyTorch refuses."""
    given = [
        "-m", *SMALL, f"data.root={cable}", f"data.cache_dir={cache}", "~callbacks.panels",
        "model.optimizer.nesterov=true,false" if jobs == 4 else "model.optimizer.nesterov=True",
        "model.optimizer.momentum=0.0,0.9",
    ]  # fmt: skip
    if launcher == "basic":
        monkeypatch.chdir(tmp_path)
        assert call_main("train", *given) == 1
        (sweep,) = (tmp_path / "logs" / "train").iterdir()  # no folder is named
    else:
        sweep = tmp_path
        given.append(f"output_dir={sweep}")
        if launcher == "joblib":
            given.append("hydra.launcher.n_jobs=2")
        command = [sys.executable, ROOT / "src" / "train.py", *given, f"hydra/launcher={launcher}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert "error: model.optimizer: Nesterov momentum requires a momentum" in done.stderr
    with (sweep / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["job"] for row in rows[jobs - 1 :]] == ["0"]
    assert "Nesterov momentum requires a momentum" in rows[-1]["error"]
    assert "model.optimizer.nesterov=True" in rows[-1]["error"]
    assert {row["job"] for row in rows[:-1]} == {str(job) for job in range(1, jobs)}
    values = [float(row["best val/iou"]) for row in rows[:-1]]
    assert values == sorted(values, reverse=True)
    for row in rows[:-1]:
        found = json.loads((sweep / row["job"] / "results.json").read_text())
        assert float(row["test/loss"]) == found["metrics"]["test/loss"]
        assert (row.get("nesterov", "True"), row.get("momentum", "0.9")) != ("True", "0.0")
    assert (sweep / "leaderboard.md").read_text().count("\n") == jobs + 2
    with Image.open(sweep / "leaderboard.png") as image:
        assert image.size == (990, int(110 * (1.2 + 0.32 * (jobs - 1))))  # a bar for each that has ended


def test_jobs_that_ended_together_are_all_in_the_last_table(sweep, tmp_path, capfd):
    """Each may have looked before the other had its figures."""
    folder = shutil.copytree(sweep, tmp_path / "sweep")
    shutil.move(folder / "1", tmp_path / "late")
    leaderboard.write(folder)
    shutil.move(tmp_path / "late", folder / "1")
    leaderboard.Leaderboard().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}))
    with (folder / "leaderboard.csv").open() as file:
        assert [row["job"] for row in csv.DictReader(file)] == ["1", "0", "2", "3"]
    assert (folder / "leaderboard.md").read_text() in capfd.readouterr().out


def test_a_sweep_over_ddp_is_refused_with_the_way_out(cable, cache, tmp_path, capfd):
    code = call_main(
        "train", "-m", *SMALL, f"data.root={cable}", f"data.cache_dir={cache}", f"output_dir={tmp_path}",
        "model.optimizer.lr=0.1,0.01", "trainer.strategy=ddp", "trainer.devices=2",
    )  # fmt: skip
    assert code == 1
    assert "trainer.strategy=ddp in a sweep" in capfd.readouterr().err


def _group(number):
    """Whether a process of this group is left."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


def _wait(what):
    end = time.monotonic() + 240
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_jobs_of_a_sweep_that_is_terminated_stop_too(cable, cache, tmp_path):
    """Of three jobs two train side by side: both end with a whole checkpoint, and the third does not begin."""
    command = [
        sys.executable, ROOT / "src" / "train.py", "-m", *SMALL, f"data.root={cable}", f"data.cache_dir={cache}",
        "trainer.max_epochs=2000", "seed=0,1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
        f"output_dir={tmp_path}/out",
    ]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        sweep = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    kept = [tmp_path / "out" / name / "checkpoints/last.ckpt" for name in "01"]
    try:
        _wait(lambda: all(path.is_file() for path in kept) or sweep.poll() is not None)
        assert sweep.poll() is None, (tmp_path / "log").read_text()
        sweep.terminate()
        assert sweep.wait(60) == -signal.SIGTERM
        _wait(lambda: not _group(sweep.pid))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(sweep.pid, signal.SIGKILL)
    for path in kept:
        torch.load(path, weights_only=True)
    assert not (tmp_path / "out/2").exists()


@pytest.mark.skipif(shutil.which("srun") is not None, reason="Slurm is installed")
def test_a_sweep_on_slurm_without_slurm_is_one_line(cable, tmp_path):
    """The launcher composes, and is asked to submit the jobs."""
    given = ["-m", *SMALL, f"data.root={cable}", "seed=0,1", "hydra/launcher=submitit_slurm", f"output_dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, ROOT / "src" / "train.py", *given], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.endswith("there is no srun here; start the sweep where Slurm is installed\n")
    assert "Traceback" not in done.stderr
