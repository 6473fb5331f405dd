"""A run folder from a stranger is resumed without running, reading or deleting anything that it chooses."""

import shutil

import pytest
import torch
from omegaconf import OmegaConf

from helpers import SMALL, call_main
from segnet.runs import record


@pytest.fixture(scope="module")
def stopped(cable, cache, tmp_path_factory):
    """A run of one epoch that can be resumed."""
    out = tmp_path_factory.mktemp("stopped")
    given = [f"data.root={cable}", f"data.cache_dir={cache}", "~callbacks.panels", f"output_dir={out}"]
    assert call_main("train", *SMALL, *given) == 0
    return out


@pytest.fixture
def run(stopped, tmp_path):
    """A copy that a test may attack."""
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def edited(run, **values):
    config = OmegaConf.load(run / record.CONFIG)
    for key, value in values.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True, merge=False)
    OmegaConf.save(config, run / record.CONFIG)


def content(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_moved_run_of_ones_own_is_resumed(run_main, run):
    code, err = run_main("train", run, f"resume={run}", "trainer.max_epochs=2")
    assert code == 0, err
    assert "trust" not in err


@pytest.mark.parametrize(
    "place",
    [
        "callbacks__x",
        "logger__x",
        "model__loss",
        "model__scheduler",
        "data__split",
        "trainer__profiler",
        "hydra__x",
        "x",
    ],
)
def test_a_target_of_a_strangers_runs_nothing(run_main, run, tmp_path, place):
    edited(
        run,
        **{
            place: {
                "_target_": "pathlib.Path.touch",
                "self": {"_target_": "pathlib.Path", "_args_": [f"{tmp_path}/ran"]},
            }
        },
    )
    before = content(run)
    code, err = run_main("train", run, f"resume={run}", "trainer.max_epochs=2")
    assert code == 1
    assert err.count("\n") == 1
    assert "_target_='pathlib.Path.touch' names code that a file must not run" in err
    assert "add trust=true" in err
    assert not (tmp_path / "ran").exists()
    assert content(run) == before


def test_the_environment_is_not_read(run_main, run, monkeypatch):
    monkeypatch.setenv("SECRET", "token")
    edited(run, monitor="${oc.env:SECRET}")
    code, err = run_main("train", run, f"resume={run}", "seed=3")
    assert code == 1
    assert "'${oc.env:SECRET}' is an interpolation that a file must not use" in err
    assert "token" not in err


def test_trust_is_not_taken_from_the_record(run_main, run, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nfrom lightning.pytorch import Callback\n"
        f"class Mine(Callback):\n    def __init__(self):\n        Path({str(tmp_path)!r}, 'ran').touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    edited(run, trust=True, callbacks__mine={"_target_": "mine.Mine"})
    code, err = run_main("train", run, f"resume={run}", "trainer.max_epochs=2")
    assert code == 1
    assert "_target_='mine.Mine' names code" in err
    assert not (tmp_path / "ran").exists()
    code, err = run_main("train", run, f"resume={run}", "trainer.max_epochs=2", "trust=true")
    assert code == 0, err
    assert (tmp_path / "ran").exists()
    code, err = run_main("train", run, f"resume={run}", "trust=no")
    assert (code, "trust=no: " in err) == (1, True)


@pytest.mark.parametrize("name", ["results.json", "metrics.csv.part", "checkpoints", "README.md"])
def test_a_link_out_of_the_folder_is_refused(run_main, run, tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    code, err = run_main("train", run, f"resume={run}", "trainer.max_epochs=2")
    assert code == 1
    assert f"{name} is a link out of this folder" in err
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("plugin", [True, False])
@pytest.mark.parametrize("key", ["kth_best_model_path", "last_model_path", "best_k_models", "dirpath"])
def test_a_checkpoint_cannot_have_other_files_deleted(run_main, run, tmp_path, key, plugin):
    """`ModelCheckpoint` deletes the older checkpoint that its state names."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "a").touch()
    file = run / "checkpoints" / "last.ckpt"
    state = torch.load(file, weights_only=True)
    path = f"{run}/checkpoints/../../victim"
    for callback in state["callbacks"].values():
        if "best_k_models" in callback:
            callback[key] = {path: torch.tensor(0.0)} if key == "best_k_models" else path
            callback.pop("dirpath" if key != "dirpath" else "x", None)
    torch.save(state, file)
    if not plugin:
        edited(run, trainer__plugins=[])
    code, err = run_main("train", run, f"resume={run}", "trainer.max_epochs=2")
    assert code == 1
    assert "as a checkpoint, which is no path that a run writes" in err
    assert (tmp_path / "victim" / "a").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x\n", "has an alias or is too deep"),
        ("[" * 500_000, "has an alias or is too deep"),
        ("a: " + "[" * 100 + "]" * 100, "has an alias or is too deep"),
        ("- 1\n", "not the configuration that a run records"),
        ("a: !!python/object/apply:os.system [x]", "cannot be read as the record of a run"),
        ("x" * 1_100_000, "larger than"),
        ("a: [1", "cannot be read as the record of a run"),
    ],
)
def test_a_file_that_is_no_record_is_one_line(run_main, run, text, message):
    (run / record.CONFIG).write_text(text)
    code, err = run_main("train", run, f"resume={run}")
    assert code == 1
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "values",
    [{"trainer": 5}, {"model": None}, {"model": {"a": 1}}, {"data__root": None}, {"data__root": [1]},
     {"seed": "abc"}, {"own_size": 5}, {"find": "lr2"}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("trust", ["false", "true"])
def test_values_that_no_run_records_are_one_line(run_main, run, values, trust):
    edited(run, **values)
    code, err = run_main("train", run, f"resume={run}", f"trust={trust}")
    assert code == 1
    assert err.startswith(f"error: resume={run}: ")
    assert next(iter(values)).replace("__", ".") in err
    assert err.count("\n") == 1


def test_overrides_of_a_stranger_are_one_line(run_main, run):
    (run / record.OVERRIDES).write_text("a: 1\n")
    code, err = run_main("train", run, f"resume={run}")
    assert code == 1
    assert "overrides.yaml: not the list of overrides that a run records" in err


@pytest.mark.parametrize(
    "overrides",
    [
        ["hydra.searchpath=[file:///tmp]"],
        ["+callbacks.x._target_=os.getcwd"],
        ["~search", "+search={model.net._target_:{choices:[os.getcwd]}}"],
        ["data.root=${oc.env:HOME}"],
        ["storage=sqlite:////tmp/x.db"],
        ["+trust=true"],
    ],
)
def test_a_study_of_a_stranger_is_refused(run_main, cable, tmp_path, overrides):
    folder = tmp_path / "study"
    (folder / ".hydra").mkdir(parents=True)
    given = [*(s for s in SMALL if "max_epochs" not in s), "trainer.max_epochs=1", f"data.root={cable}", "trials=1"]
    OmegaConf.save(OmegaConf.create([*given, *overrides]), folder / record.OVERRIDES)
    OmegaConf.save(OmegaConf.create({}), folder / record.CONFIG)
    code, err = run_main("tune", folder, f"resume={folder}")
    assert code == 1
    assert "trust=true" in err or "none of 1 trials was completed" in err
    assert not (folder / "0").exists()
    assert not (folder / "best.yaml").exists()
