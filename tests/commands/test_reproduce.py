"""Lists of runs: what is finished stays, what was stopped is resumed, what failed is reported."""

import json
import subprocess
import sys
import time

import pytest
import torch
from hydra import compose, initialize_config_dir

from helpers import ROOT, SMALL
from segnet.cli import CONF_DIR


@pytest.fixture
def reproduce(cable, cache, tmp_path):
    """``reproduce(*overrides)``: the finished process, over two runs of the folder data."""

    def run(*overrides, epochs=1):
        given = (*SMALL, f"data.root={cable}", f"data.cache_dir={cache}", "~callbacks.panels")
        small = " ".join((*given, f"trainer.max_epochs={epochs}"))
        command = [sys.executable, ROOT / "src" / "reproduce.py", f"output_dir={tmp_path / 'out'}", f"extra='{small}'"]
        command += ["camvid=x", "magnetic_tile=x", "+runs.a='model.optimizer.lr=0.1'", "+runs.b='loss=bce'"]
        return subprocess.run([*command, *overrides], capture_output=True, text=True, check=False, cwd=tmp_path)

    return run


def test_a_list_is_trained_once_and_tabulated(reproduce, tmp_path):
    first = reproduce("only=a|b", "seeds=[0,1]")
    assert first.returncode == 0, first.stderr
    table = (tmp_path / "out" / "results.md").read_text()
    assert table in first.stdout
    values = []
    for seed in (0, 1):
        found = json.loads((tmp_path / "out" / "a" / str(seed) / "results.json").read_text())
        assert (found["seed"], "model.optimizer.lr=0.1" in found["overrides"]) == (seed, True)
        values.append(found["metrics"]["val/iou"])
    row = next(line for line in table.splitlines() if line.startswith("| a |"))
    half = abs(values[0] - values[1]) / 2**0.5
    assert f"| {sum(values) / 2:.4f} ± {half:.4f} |" in row
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.ckpt")}
    assert len(files) == 8
    again = reproduce("only=?", "seeds=[0,1]")
    assert again.returncode == 0
    assert "train.py" not in again.stdout
    assert files == {path: path.stat().st_mtime_ns for path in files}
    other = reproduce("only=a", "seeds=[0]", "runs.a='model.optimizer.lr=0.2'")
    assert other.returncode == 1
    assert "holds another run" in other.stderr


def test_a_run_of_the_list_starts_from_another_of_its_seed(reproduce, tmp_path):
    chain = [
        "only=?",
        "seeds=[1]",
        r"+runs.c='model.optimizer.lr=0 weights=${output_dir}/a/\${seed}/checkpoints/best.ckpt'",
        r"+runs.d='model.optimizer.lr=0 weights=[${output_dir}/a/\${seed}/checkpoints/best.ckpt,"
        r"${output_dir}/c/\${seed}/checkpoints/best.ckpt]'",
    ]
    done = reproduce(*chain)
    assert done.returncode == 0, done.stderr
    files = (tmp_path / "out" / name / "1" / "checkpoints" / "best.ckpt" for name in "acd")
    first, progressive, mean = (
        torch.load(file, weights_only=True)["state_dict"]["net.classifier.weight"] for file in files
    )
    assert torch.equal(first, progressive)
    assert torch.equal(first, mean)
    again = reproduce(*chain)
    assert again.returncode == 0, again.stderr
    assert "train.py" not in again.stdout


def test_time_that_is_up_stops_a_run_and_the_same_command_resumes_it(reproduce, tmp_path):
    begin = time.monotonic()
    stopped = reproduce("only=a", "seeds=[0]", "minutes=0.2", epochs=60)
    assert time.monotonic() - begin < 60
    assert stopped.returncode == 0, stopped.stderr
    assert "time is up, 1 of 1 runs are not finished" in stopped.stdout
    assert not (tmp_path / "out" / "a" / "0" / "results.json").exists()
    done = reproduce("only=a", "seeds=[0]", epochs=60)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "a" / "0" / "results.json").read_text())["epochs"] == 60


def test_a_failed_run_is_reported_and_the_rest_continue(reproduce, tmp_path):
    done = reproduce("only=a|b", "seeds=[0]", "runs.a='model.optimizer.lr=-1'")
    assert done.returncode == 1
    assert "1 of 2 runs failed for the reasons above: a/0" in done.stderr
    assert (tmp_path / "out" / "b" / "0" / "results.json").is_file()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["only=nope"], "only=nope: matches none of the runs"),
        (["only=a", "minutes=0"], "minutes=0: must be positive"),
        (["only=a", "seeds=[]"], "seeds=[]: must be a list of integers"),
        (["only=a", "seeds=3"], "seeds=3: must be a list of integers"),
    ],
)
def test_bad_input(reproduce, overrides, message):
    done = reproduce(*overrides)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF_DIR / "list").glob("*.yaml")))
def test_every_run_of_a_list_composes(name):
    import shlex

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("reproduce", [f"list={name}", "camvid=/c", "magnetic_tile=/m"])
        assert cfg.runs
        for overrides in cfg.runs.values():
            compose("train", shlex.split(overrides))
