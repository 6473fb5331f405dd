"""Lists of runs: what is finished stays, what was stopped is resumed, what failed is reported."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from helpers import ROOT, SMALL, write_run
from segnet.cli import CONF_DIR
from segnet.commands.reproduce import finished, keep_weights, note, results
from segnet.errors import UserError
from segnet.hydra_versions import BASE
from segnet.training.checkpoint import load_module

SETS = "camvid", "magnetic_tile", "neu_seg", "crack_forest", "drive"


@pytest.fixture(scope="module")
def command(cable, cache):
    """``command(out, *overrides)``: the words that train the runs a, b, c and d of the folder data."""

    def words(out, *overrides, epochs=1):
        given = (
            *SMALL,
            f"data.root={cable}",
            f"data.cache_dir={cache}",
            "~callbacks.panels",
            "model.net.widths=[4,8,8,8,8]",
        )
        small = " ".join((*given, f"trainer.max_epochs={epochs}"))
        command = [sys.executable, ROOT / "src" / "reproduce.py", f"output_dir={out}", f"extra='{small}'"]
        best = r"${output_dir}/%s/\${seed}/checkpoints/best.ckpt"
        command += [
            "camvid=x",
            "magnetic_tile=x",
            "+runs.a='model.optimizer.lr=-1'",
            "+runs.b='model.optimizer.lr=0.1'",
        ]
        command += [f"+runs.c='model.optimizer.lr=0 weights={best % 'b'}'"]
        command += [f"+runs.d='model.optimizer.lr=0 weights=[{best % 'b'},{best % 'c'}]'"]
        return [*command, *overrides]

    return words


@pytest.fixture(scope="module")
def reproduce(command):
    """``reproduce(out, *overrides)``: the finished process of that command."""

    def run(out, *overrides, epochs=1):
        given = command(out, *overrides, epochs=epochs)
        return subprocess.run(given, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module")
def listed(reproduce, tmp_path_factory):
    """A folder of runs, and the processes that trained them: a, which fails, and b; another seed of b; c and d."""
    out = tmp_path_factory.mktemp("listed") / "out"
    calls = [["only=a|b", "seeds=[0]", "jobs=2"], ["only=b", "seeds=[0,1]"]]
    calls += [['only="[b-d]"', "seeds=[1]", "jobs=3", "keep=weights"]]
    return out, [reproduce(out, *overrides) for overrides in calls]


def trained(done):
    """Names of the runs that a process has started."""
    return [line.split()[1].strip(":") for line in done.stdout.splitlines() if ": train.py " in line]


def test_a_failed_run_is_reported_and_the_rest_continue(listed):
    out, (done, *_) = listed
    assert done.returncode == 1
    assert sorted(trained(done)) == ["a/0", "b/0"]
    assert "1 of 2 runs failed for the reasons above: a/0" in done.stderr
    assert (out / "b" / "0" / "results.json").is_file()


def test_what_runs_side_by_side_say_stands_in_a_file_of_each(listed):
    out, (done, *_) = listed
    reason = "error: model.optimizer.lr=-1: must be"
    assert f"a/0: {reason}" in done.stderr
    assert reason in (out / "a" / "0.log").read_text()
    assert "epoch 1/1" in (out / "b" / "0.log").read_text()
    assert "epoch 1/1" not in done.stdout


def test_of_finished_runs_the_weights_may_be_kept_alone(listed):
    out, _ = listed
    whole = torch.load(out / "b/1/checkpoints/best.ckpt", weights_only=True)
    assert whole["optimizer_states"]
    for name in "cd":
        (file,) = (out / name / "1/checkpoints").iterdir()
        kept = torch.load(file, weights_only=True)
        assert file.name == "best.ckpt"
        assert not {"optimizer_states", "callbacks", "loops", "lr_schedulers"} & kept.keys()
        assert kept["state_dict"].keys() == whole["state_dict"].keys()
        assert load_module(file).classes == ["defect"]


def test_a_run_without_its_data_is_told(reproduce, tmp_path):
    done = reproduce(tmp_path, "only=camvid", "list=gpu", "~camvid", "+camvid=???")
    assert done.returncode == 1
    assert done.stderr == "error: runs.camvid: needs camvid=<folder of this data set>\n"


def test_a_list_is_trained_once_and_tabulated(listed):
    out, (_, done, _) = listed
    assert done.returncode == 0, done.stderr
    assert trained(done) == ["b/1"]
    values = []
    for seed in (0, 1):
        found = json.loads((out / "b" / str(seed) / "results.json").read_text())
        assert (found["seed"], "model.optimizer.lr=0.1" in found["overrides"]) == (seed, True)
        values.append(found["metrics"]["val/iou"])
    row = next(line for line in done.stdout.splitlines() if line.startswith("| b |"))
    half = abs(values[0] - values[1]) / 2**0.5
    assert f"| {sum(values) / 2:.4f} ± {half:.4f} |" in row


def test_a_run_of_the_list_starts_from_another_of_its_seed(listed):
    out, (*_, done) = listed
    assert done.returncode == 0, done.stderr
    assert trained(done) == ["c/1", "d/1"]
    files = (out / name / "1" / "checkpoints" / "best.ckpt" for name in "bcd")
    first, progressive, mean = (
        torch.load(file, weights_only=True)["state_dict"]["net.classifier.weight"] for file in files
    )
    assert torch.equal(first, progressive)
    assert torch.equal(first, mean)


def test_what_is_finished_is_not_trained_again_and_another_run_is_refused(reproduce, listed):
    out, _ = listed
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.ckpt")}
    assert len(files) == 6
    again = reproduce(out, 'only="[b-d]"', "seeds=[1]")
    assert again.returncode == 0, again.stderr
    assert trained(again) == []
    assert (out / "results.md").read_text() in again.stdout
    other = reproduce(out, "only=b", "seeds=[0]", "runs.b='model.optimizer.lr=0.2'")
    assert other.returncode == 1
    assert "holds another run" in other.stderr
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_a_run_is_known_by_its_command_whatever_its_record_became(tmp_path):
    """``experiment=auto`` writes the recipe that it chose into the record; ``verbose`` and ``trust`` change no run."""
    folder, given = tmp_path / "a" / "0", ["experiment=auto", "data.root=/my data", "verbose=true", "seed=0"]
    note(folder, given)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("- optimizer=muon\n- data.root=/my data\n- seed=0\n")
    (folder / ".hydra" / "config.yaml").write_text("seed: 0\n")
    assert not finished(folder, given)
    assert not finished(folder, [word for word in given if word != "verbose=true"])
    with pytest.raises(UserError, match="holds another run"):
        finished(folder, [*given, "trainer.max_epochs=3"])


def test_the_only_checkpoint_is_kept(tmp_path):
    """A run without validation or without the best one's callback has ``last.ckpt`` alone."""
    for names in (["last"], ["best", "last"]):
        folder = tmp_path / "-".join(names) / "checkpoints"
        folder.mkdir(parents=True)
        for name in names:
            torch.save({"state_dict": {}, "optimizer_states": [1], "config": {}}, folder / f"{name}.ckpt")
        keep_weights(folder.parent)
        assert [path.name for path in folder.iterdir()] == [f"{names[0]}.ckpt"]
        assert set(torch.load(folder / f"{names[0]}.ckpt", weights_only=True)) == {"state_dict", "config"}


def test_time_that_is_up_stops_a_run_and_the_same_command_resumes_it(reproduce, tmp_path):
    begin, out = time.monotonic(), tmp_path / "out"
    stopped = reproduce(out, "only=b", "seeds=[0]", "minutes=0.1", epochs=150)
    assert time.monotonic() - begin < 60
    assert stopped.returncode == 0, stopped.stderr
    assert "time is up, 1 of 1 runs are not finished" in stopped.stdout
    assert not (out / "b" / "0" / "results.json").exists()
    done = reproduce(out, "only=b", "seeds=[0]", epochs=150)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "b" / "0" / "results.json").read_text())["epochs"] == 150


def test_a_signal_stops_its_runs_too(command, tmp_path):
    """``kill`` reaches the one process that it names; the runs must not train on without it."""
    out = tmp_path / "out"
    given = command(out, "only=b", "seeds=[0,1,2]", "jobs=2", epochs=5000)
    with subprocess.Popen(given, stdout=subprocess.PIPE, text=True) as process:
        while len(logs := [log for log in out.glob("b/*.log") if "epoch" in log.read_text()]) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        threads = Path(f"/proc/{process.pid}/task").iterdir()
        runs = [run for thread in threads for run in (thread / "children").read_text().split()]
        process.send_signal(signal.SIGUSR1)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1
    assert "stopped by SIGUSR1, 3 of 3 runs are not finished; the same command resumes them" in printed
    assert all("stopped by SIGUSR1; resume with" in log.read_text() for log in logs)
    assert len(runs) == 2
    assert not any(Path(f"/proc/{run}").exists() for run in runs)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["only=nope"], "only=nope: must match one of the runs"),
        (["only=a", "minutes=0"], "minutes=0: must be a number above 0 or null"),
        (["only=a", "seeds=[]"], "seeds=[]: must be a list that is not empty, each an integer"),
        (["only=a", "seeds=3"], "seeds=3: must be a list that is not empty, each an integer"),
    ],
)
def test_bad_input(reproduce, tmp_path, overrides, message):
    done = reproduce(tmp_path / "out", *overrides)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF_DIR / "list").glob("*.yaml")))
def test_every_run_of_a_list_composes(name):
    """Runs that only combine what others of the list say are left out: a composition takes a third of a second."""
    seen = set()
    with initialize_config_dir(str(CONF_DIR), **BASE):
        cfg = compose("reproduce", [f"list={name}", *(f"{name}=/d" for name in SETS)])
        assert cfg.runs
        for overrides in map(shlex.split, cfg.runs.values()):
            if not seen.issuperset(overrides):
                compose("train", overrides)
                seen.update(overrides)


def test_a_run_without_a_test_has_a_dash(tmp_path):
    for seed in (0, 1):
        write_run(
            tmp_path / "a" / str(seed), {"val/iou": 0.5 + seed / 4}, {"images/0.png": (60, 10, 10, 20)}, seed=seed
        )
        file = tmp_path / "a" / str(seed) / "results.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"hardware": "cpu", "precision": "32-true"}))
    assert "| 0.6250 ± 0.1768 | – | 6 ± 0 |" in results(tmp_path, ["a"])
