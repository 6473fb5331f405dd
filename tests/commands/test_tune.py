import csv
import json
import signal

import optuna
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution
from PIL import Image

from helpers import SMALL, call_main, start, wait_for
from segnet.cli import CONF_DIR, check_entries
from segnet.commands import storage
from segnet.commands.search import history, open_study
from segnet.commands.trials import experiment, overrides_of
from segnet.hydra_versions import BASE

# sqlite connections of Optuna's storage are closed when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def given(cable, cache):
    return [
        *SMALL, f"data.root={cable}", f"data.cache_dir={cache}", "~callbacks.panels", "trainer.max_epochs=2",
        "prune.startup_trials=2", "prune.warmup_epochs=0",
    ]  # fmt: skip


def trials(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_study_leaves_trials_plots_and_the_best_configuration(study):
    rows = trials(study)
    assert len(rows) == 5
    for row in rows:
        assert row["optimizer"] in ("sgd", "adamw")
        assert 0.0003 <= float(row["model.optimizer.lr"]) <= 0.1
        if row["state"] == "COMPLETE":
            found = json.loads((study / row["number"] / "results.json").read_text())
            assert float(row["value"]) == pytest.approx(found["metrics"]["val/iou"])
    with Image.open(study / "history.png") as image:
        assert image.size == (770, 440)


@pytest.mark.parametrize(
    ("direction", "best"), [("maximize", [0.2, 0.5, 0.5, 0.7]), ("minimize", [0.2, 0.2, 0.1, 0.1])]
)
def test_the_history_shows_each_value_and_the_best_so_far(direction, best):
    trial = optuna.create_study(direction=direction)
    for value in (0.2, 0.5, 0.1, 0.7):
        trial.add_trial(optuna.trial.create_trial(value=value))
    dots, line = history(trial).axes[0].lines
    assert dots.get_xydata().tolist() == [[0, 0.2], [1, 0.5], [2, 0.1], [3, 0.7]]
    assert line.get_ydata().tolist() == best


def test_the_best_configuration_is_an_experiment_that_repeats_the_trial(study, given, tmp_path):
    experiments = tmp_path / "conf" / "experiment"
    experiments.mkdir(parents=True)
    (experiments / "best.yaml").write_text((study / "best.yaml").read_text())
    out = tmp_path / "again"
    own = [o for o in given if not o.startswith(("prune", "trainer.max_epochs", "~"))]
    code = call_main(
        "train", *own, "experiment=best", f"hydra.searchpath=[file://{tmp_path}/conf]", f"output_dir={out}"
    )
    assert code == 0
    done = [row for row in trials(study) if row["state"] == "COMPLETE"]
    best = max(done, key=lambda row: float(row["value"]))
    found = json.loads((out / "results.json").read_text())["metrics"]
    trial = json.loads((study / best["number"] / "results.json").read_text())["metrics"]
    assert found == trial


def test_a_killed_study_resumes_and_tries_the_killed_trial_again(given, tmp_path):
    out = tmp_path / "study"
    log = tmp_path / "log"
    process = start("tune", *given, "trials=4", f"output_dir={out}", log=log)
    wait_for((out / "1" / "environment.json").exists, process, log)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert call_main("tune", f"resume={out}") == 0
    rows = trials(out)
    assert [row["state"] == "FAIL" for row in rows] == [
        False,
        True,
        False,
        False,
        False,
    ]  # the repetition counts in its place
    keys = ("optimizer", "model.optimizer.lr", "data.batch_size")
    assert [rows[2][key] for key in keys] == [rows[1][key] for key in keys]
    assert len({tuple(row[key] for key in keys) for row in rows}) == 4


@pytest.mark.parametrize("name", ["plain", "what?", "a%20b", "a#b c"])
def test_a_study_killed_in_its_last_trial_repeats_it(name, tmp_path):
    cfg = OmegaConf.create({
        "output_dir": str(tmp_path / name), "storage": None, "study": "s", "mode": "max",
        "prune": {"startup_trials": 1, "warmup_epochs": 0},
    })  # fmt: skip
    killed = open_study(cfg)
    value = killed.ask().suggest_float("model.optimizer.lr", 0.1, 0.9)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert "study.db" in [path.name for path in (tmp_path / name).iterdir()]
    again = open_study(cfg)
    assert storage.ready(again, 1)
    trial = again.ask()
    assert trial.suggest_float("model.optimizer.lr", 0.1, 0.9) == value
    again.tell(trial, 0.5)
    assert not storage.ready(again, 1)


@pytest.mark.parametrize(
    ("given", "params"),
    [
        (["callbacks=[default,ema]", "augment=[flip]"], {"model.optimizer.lr": 0.5}),
        (["~scheduler", "data/mask=values", "data.mask.ignore=[3,4]"], {"data.batch_size": 3}),
        (["experiment=camvid", "~scheduler", "~callbacks.panels", "data.augment.1.size=[128,128]"], {"seed": 3}),
        ([], {"optimizer": "adamw"}),
        (["experiment=quickstart"], {"model.class_weights": None, "scheduler": None}),
        (["experiment=quickstart"], {"data.split.group": "([^/]+)/x, y", "data.classes": "[crack]", "own_size": True}),
    ],
)
def test_an_experiment_file_composes_as_its_trial(given, params, tmp_path):
    trial = optuna.trial.create_trial(
        value=0.5, params=params, distributions={k: CategoricalDistribution([v]) for k, v in params.items()}
    )
    (tmp_path / "experiment").mkdir()
    with initialize_config_dir(str(CONF_DIR), **BASE):
        expected = compose("train", [*given, *overrides_of(params)])
        (tmp_path / "experiment" / "best.yaml").write_text(experiment(trial, given))
        found = compose("train", ["experiment=best", f"hydra.searchpath=[file://{tmp_path}]"])
    for config in (expected, found):
        check_entries(config, "callbacks")  # which leaves out what is null
    found, expected = (OmegaConf.to_container(config, resolve=False) for config in (found, expected))
    assert {k: v for k, v in found.items() if k != "model"} == {k: v for k, v in expected.items() if k != "model"}
    schedules = [one["model"].pop("scheduler", None) for one in (found, expected)]  # null, or not there
    assert found["model"] == expected["model"]
    assert schedules[0] == schedules[1]
    for key, value in params.items():
        if "." in key:
            assert OmegaConf.select(OmegaConf.create(expected), key) == {"[crack]": ["crack"]}.get(value, value)


def test_failed_trials_are_counted_and_not_fatal(given, tmp_path, capfd):
    space = tmp_path / "conf" / "search"
    space.mkdir(parents=True)
    (space / "odd.yaml").write_text("model.optimizer.lr: {choices: [-1, 0.01]}\n")
    out = tmp_path / "study"
    code = call_main(
        "tune", *given, "trials=6", "search=odd", f"hydra.searchpath=[file://{tmp_path}/conf]", f"output_dir={out}",
        "trainer.max_epochs=1",
    )  # fmt: skip
    rows = trials(out)
    failed = [row for row in rows if row["state"] == "FAIL"]
    assert code == 0
    assert len(rows) == 6
    assert {row["model.optimizer.lr"] for row in failed} == {"-1"}
    printed = capfd.readouterr().out
    assert f"{len(failed)} failed" in printed
    assert "failed: model.optimizer.lr=-1: must be a number of at least 0" in printed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["storage=nowhere://x"], "storage: the database cannot be opened"),
        (["trials=0"], "trials=0: must be an integer of at least 1"),
        (["resume=/nowhere"], "resume=/nowhere: there is no complete .hydra/overrides.yaml"),
        (["+search.seed={low: 3, high: 1}"], "search.seed={'low': 3, 'high': 1}: must be {choices: [...]} or"),
        (["trails=3"], "trails"),
    ],
)
def test_bad_input(given, tmp_path, capfd, overrides, message):
    out = tmp_path / "o"
    assert call_main("tune", *given, *overrides, f"output_dir={out}") == 1
    assert message in capfd.readouterr().err
    assert not out.exists()
