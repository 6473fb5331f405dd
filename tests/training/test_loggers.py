"""Every logger gets the same run; what each has kept is read back by its own means."""

import csv
import json

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import wandb_file
from helpers import SMALL, call_main
from segnet.training import loggers

FINAL = ("final/test/iou", "final/test/loss", "final/val/iou", "final/val/loss")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Runs are below a folder of their own, as is the store that they share."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(cable, cache, *overrides):
    options = (*SMALL, f"data.root={cable}", f"data.cache_dir={cache}", "data.batch_size=8", "seed=3")
    if any(text.startswith("resume=") for text in overrides):
        options = ()
    else:
        options += ("callbacks.panels.every_n_epochs=1", "callbacks.panels.images=1")
        options += ("callbacks.precision_recall.every_n_epochs=1",)
    return call_main("train", *options, *overrides)


def events(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def table(folder):
    with (folder / "csv" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def column(folder, name):
    return [(int(row["step"]), float(row[name])) for row in table(folder) if row.get(name)]


def scalars(board, name):
    return [(event.step, event.value) for event in board.Scalars(name)]


def epochs(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_table_and_event_files_hold_the_same_run_and_continue_it(here, cable, cache, capfd):
    run = here / "run"
    code = train(cable, cache, f"output_dir={run}", "logger=[tensorboard,csv]")
    printed = capfd.readouterr()
    assert code == 0, printed.err
    assert "dashboard  tensorboard --logdir" in printed.out
    assert f"dashboard  {run / 'csv' / 'metrics.csv'}" in printed.out
    first = {name: scalars(events(run), name) for name in ("train/loss", "val/loss", "val/iou")}
    steps = [int(row["step"]) for row in epochs(run)]
    assert train(cable, cache, f"resume={run}", "trainer.max_epochs=2") == 0, capfd.readouterr().err

    board, results = events(run), json.loads((run / "results.json").read_text())["metrics"]
    for name, before in first.items():
        kept = scalars(board, name)
        assert kept[:1] == before  # nothing of the first part is lost
        assert [step for step, _ in kept] == [steps[0] - 1, 2 * steps[0] - 1]
        np.testing.assert_allclose(column(run, name), kept, rtol=1e-6)
        assert [f"{value:.5g}" for _, value in kept] == [f"{float(row[name]):.5g}" for row in epochs(run)]
    for name in FINAL:
        ((_, value),) = scalars(board, name)
        np.testing.assert_allclose(value, results[name.removeprefix("final/")], rtol=1e-6)
        ((_, value),) = column(run, name)
        assert value == results[name.removeprefix("final/")]
    for row, kept in zip(epochs(run), scalars(board, "speed/images_per_second"), strict=True):
        assert kept[1] == pytest.approx(float(row["images_per_second"]))

    drawn = [steps[0] - 1, 2 * steps[0] - 1]
    for name in ("val/0", "val/confusion"):
        assert [event.step for event in board.Images(name)] == drawn
        for event in board.Images(name):
            path = run / "csv" / "images" / name / f"{event.step:07d}.png"
            with Image.open(path) as kept:
                assert (kept.width, kept.height) == (event.width, event.height)
    text = board.Tensors("configuration/text_summary")[-1].tensor_proto.string_val[0].decode()
    configuration = yaml.safe_load((run / "csv" / "configuration.yaml").read_text())
    assert configuration["trainer"]["max_epochs"] == 2
    assert configuration == yaml.safe_load("\n".join(line[4:] for line in text.splitlines()))
    assert yaml.safe_load((run / "csv" / "hparams.yaml").read_text())["batch_size"] == 8
    card = board.Tensors("model card/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert card == (run / "README.md").read_text()
    assert not (run / loggers.IDS).exists()


def test_none_writes_the_run_folder_alone(here, cable, cache, capfd):
    run = here / "run"
    assert train(cable, cache, f"output_dir={run}", "logger=none") == 0
    printed = capfd.readouterr()
    assert "dashboard" not in printed.out
    assert not list(run.rglob("events.*"))
    assert len(epochs(run)) == 1
    assert (run / "README.md").is_file()


def test_no_such_logger_is_one_line(here, cable, cache, capfd):
    assert train(cable, cache, "output_dir=run", "logger=nosuch") == 1
    err = capfd.readouterr().err
    assert "error: logger=nosuch: no such option; choose from csv, mlflow, none, tensorboard, wandb" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_missing_package_is_one_line_with_the_command(here, cable, cache, capfd, package, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    assert train(cable, cache, "output_dir=run", f"logger={package}") == 1
    err = capfd.readouterr().err
    assert f"{package} is not installed: pip install 'segnet-lightning[{package}]'" in err
    assert len(err.strip().splitlines()) == 1
    assert not (here / "run").exists()


def test_rows_from_the_checkpoint_on_are_dropped(tmp_path):
    first = loggers.CSVLogger(str(tmp_path))
    for step in (3, 7, 9):
        first.log_metrics({"a": step / 2}, step)
    first.finalize("success")
    second = loggers.CSVLogger(str(tmp_path), purge_step=8)
    second.log_metrics({"b": 1.0}, 8)
    second.save()
    with (tmp_path / "metrics.csv").open() as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    assert rows == [["3", "1.5", ""], ["7", "3.5", ""], ["8", "", "1.0"]]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("val/iou", "val/iou"),
        ("val/object_recall@fa0.1", "val/object_recall_at_fa0.1"),
        ("iou/Straße", "iou/Straße"),
        ("iou/a, b", "iou/a_2c_ b"),
        ("iou/..", "iou/_.."),
        ("iou/a/", "iou/a/_"),
        ("iou/?", "iou/_3f_"),
    ],
)
def test_names_as_mlflow_takes_them(name, kept):
    assert loggers.mlflow_name(name) == kept


def test_mlflow_agrees_about_names():
    validation = pytest.importorskip("mlflow.utils.validation")
    for name in ("val/object_recall@fa0.1", "iou/Straße", "iou/孔", "iou/a, b", "iou/..", "iou/a/", "iou//b", "iou/?"):
        validation._validate_metric_name(loggers.mlflow_name(name))


@pytest.mark.parametrize("content", ["", "[]", '{"mlflow": 3}', '{"mlflow": "../../x"}', '{"mlflow": "abc"}', "{"])
def test_an_identity_that_is_none_is_not_used(tmp_path, content):
    (tmp_path / loggers.IDS).write_text(content)
    assert loggers.identity(tmp_path, "mlflow") is None


def mlflow_client(here):
    tracking = pytest.importorskip("mlflow.tracking")
    return tracking.MlflowClient(f"sqlite:///{here / 'logs' / 'mlflow.db'}")


@pytest.mark.filterwarnings("ignore")  # of their packages
def test_mlflow_and_wandb_hold_the_figures_of_tensorboard(here, cable, cache, capfd):
    pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    run = here / "logs" / "train" / "a"
    given = ["logger=[tensorboard,mlflow,wandb]", "callbacks=histograms", "callbacks.histograms.every_n_epochs=1"]
    assert train(cable, cache, "output_dir=logs/train/a", *given) == 0, capfd.readouterr().err
    out = capfd.readouterr()
    assert "histograms: mlflow draws none" in out.out + out.err
    assert "mlflow ui --backend-store-uri sqlite:///logs/mlflow.db" in out.out
    names = json.loads((run / loggers.IDS).read_text())
    assert train(cable, cache, "resume=logs/train/a", "trainer.max_epochs=2") == 0, capfd.readouterr().err
    assert json.loads((run / loggers.IDS).read_text()) == names
    board, results = events(run), json.loads((run / "results.json").read_text())["metrics"]

    client = mlflow_client(here)
    (kept,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert (kept.info.run_id, kept.info.status) == (names["mlflow"], "FINISHED")
    assert kept.data.params["lr"] == "0.01"
    assert (kept.data.params["epochs"], kept.data.tags["resumed.epochs"]) == ("1", "2")
    for name in ("train/loss", "val/loss", "val/iou"):
        history = [(point.step, point.value) for point in client.get_metric_history(kept.info.run_id, name)]
        np.testing.assert_allclose(history, scalars(board, name), rtol=1e-6)
        assert len(history) == 2
    for name in FINAL:
        assert kept.data.metrics[name] == results[name.removeprefix("final/")]
    assert kept.data.tags["mlflow.note.content"] == (run / "README.md").read_text()
    artifacts = here / "logs" / "mlflow" / kept.info.run_id / "artifacts"
    for name in ("README.md", "results.json", "metrics.csv", "photo/0.png"):
        assert (artifacts / name).read_bytes() == (run / name).read_bytes()
    assert yaml.safe_load((artifacts / "configuration.yaml").read_text())["trainer"]["max_epochs"] == 2
    images = sorted((artifacts / "images").glob("val~0+step*.png"))
    sizes = [Image.open(path).size for path in images]
    assert sizes == [(event.width, event.height) for event in board.Images("val/0")]
    assert len(sizes) == 2
    assert list((artifacts / "images").glob("val~confusion+*.png"))

    parts = [wandb_file.read(path) for path in sorted((run / "wandb").glob("offline-run-*/*.wandb"))]
    assert {name for part in parts for name in part["id"]} == {names["wandb"]}
    assert len(parts) == 2
    for name in ("train/loss", "val/loss", "val/iou"):
        rows = [row for part in parts for row in part["history"] if name in row]
        history = [(row["trainer/global_step"], row[name]) for row in rows]
        np.testing.assert_allclose(history, scalars(board, name), rtol=1e-6)
    last = {name: value for config in parts[1]["history"] for name, value in config.items()}
    for name in FINAL:
        assert last[name] == results[name.removeprefix("final/")]
    config = {name: value for each in parts[1]["config"] for name, value in each.items()}
    assert config["configuration"]["trainer"]["max_epochs"] == 2
    assert config["lr"] == 0.01
    for name in ("README.md", "results.json", "photo/0.png"):
        assert name in parts[1]["files"]
    assert any(name.startswith("media/images/val/confusion") for name in parts[1]["files"])
    assert [name for name, value in last.items() if name.startswith("gradients/") and "histogram" in json.dumps(value)]
    assert not [path for path in run.rglob("*") if path.is_symlink()]


@pytest.mark.filterwarnings("ignore")
def test_a_run_whose_store_is_gone_becomes_a_new_one_and_says_so(here, capfd, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setattr(loggers, "STORE", loggers.STORE.with_name("gone.db"))  # MLflow keeps others open
    (here / "run").mkdir()
    (here / "run" / loggers.IDS).write_text(json.dumps({"mlflow": "0" * 32}))
    made = loggers.MLflow("run")
    printed = capfd.readouterr()
    assert f"mlflow: sqlite:///logs/gone.db has no run {'0' * 32}; what follows becomes a new run there" in (
        printed.out + printed.err
    )
    assert made.run_id != "0" * 32
