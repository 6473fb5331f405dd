"""How each kind of logger takes an image, a curve, a histogram, the configuration and files.

Nothing else in this package knows the classes of loggers.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray

from segnet.files import write_text
from segnet.training.loggers import CSVLogger, mlflow_name
from segnet.training.metrics import rates
from segnet.visualization.figures import drawn, precision_recall_figure
from segnet.visualization.overlays import Image, save

# Of a run folder, what goes to loggers that keep files.
FILES = ("README.md", "results.json", "recipe.md", "*.csv", "*.png", "photo/*.png", ".hydra/*.yaml")
Counts = NDArray[np.int64]  # (2, N): how often each probability from 0 to 1 occurs, of negatives and of positives


@dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
        text: its configuration as YAML.
        config: the same as containers.
        parameters: what of it runs are compared by.
        objects: names of the figures about objects that it counts.
    """

    text: str
    config: Mapping[str, Any]
    parameters: Mapping[str, Any]
    objects: Sequence[str] = ()


class Record:
    """What a run sends to one logger.

    Args:
        logger: of Lightning.
    """

    draws_histograms = False

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def begin(self, start: Start) -> str | None:
        """Take the configuration; the run's name in a store that gives it one."""
        raise NotImplementedError

    def image(self, name: str, image: Image, step: int) -> None:
        """Take an image (H, W, 3) uint8 RGB."""
        raise NotImplementedError

    def curve(self, name: str, counts: Counts, step: int) -> None:
        """Take precision and recall at thresholds from 0 to 1, see `show_curve`."""
        precision, recall = rates(counts)[4:]
        self.image(name, drawn(precision_recall_figure(precision, recall, name)), step)

    def histogram(self, name: str, values: Any, step: int) -> None:
        """Take numbers, if it ``draws_histograms``."""
        raise NotImplementedError

    def finish(self, parameters: Mapping[str, Any], metrics: Mapping[str, float], step: int, folder: Path) -> None:
        """Take the final figures and the files of the run folder."""
        self.logger.log_metrics(metrics, step)
        self.logger.save()

    def close(self) -> None:
        """End the record; a later run of this process begins its own."""

    def opened_with(self, folder: Path) -> str:
        """What shows it."""
        raise NotImplementedError


class _TensorBoard(Record):
    """Event files. Parameters count for HParams only together with final figures."""

    draws_histograms = True

    def begin(self, start: Start) -> str | None:
        writer = self.logger.experiment
        writer.add_text("configuration", "    " + start.text.replace("\n", "\n    "))
        writer.add_custom_scalars(layout(start.objects))
        return None

    def image(self, name: str, image: Image, step: int) -> None:
        self.logger.experiment.add_image(name, image, step, dataformats="HWC")

    def curve(self, name: str, counts: Counts, step: int) -> None:
        self.logger.experiment.add_pr_curve_raw(name, *rates(counts), step, counts.shape[1])

    def histogram(self, name: str, values: Any, step: int) -> None:
        self.logger.experiment.add_histogram(name, values, step)

    def finish(self, parameters: Mapping[str, Any], metrics: Mapping[str, float], step: int, folder: Path) -> None:
        self.logger.log_hyperparams(dict(parameters), dict(metrics), step)
        self.logger.experiment.add_text("model card", (folder / "README.md").read_text(encoding="utf-8"), step)
        self.logger.save()

    def opened_with(self, folder: Path) -> str:
        home = Path("logs").resolve()
        shown = "logs" if folder.resolve().is_relative_to(home) else folder
        return f"tensorboard --logdir {shown}, then http://localhost:6006/#custom_scalars"


class _MLflow(Record):
    """A run of MLflow. Its parameters never change; one that does in a resumed run becomes a tag."""

    def begin(self, start: Start) -> str | None:
        client, run = self.logger.experiment, self.logger.run_id
        client.update_run(run, "RUNNING")
        client.log_text(run, start.text, "configuration.yaml")
        known = client.get_run(run).data.params
        safe = {mlflow_name(name): str(value)[:6000] for name, value in start.parameters.items()}
        for name, value in safe.items():
            if name not in known:
                client.log_param(run, name, value)
            elif known[name] != value:
                client.set_tag(run, f"resumed.{name}", value)
        return str(run)

    def image(self, name: str, image: Image, step: int) -> None:
        self.logger.experiment.log_image(self.logger.run_id, image, key=mlflow_name(name), step=step, synchronous=True)

    def finish(self, parameters: Mapping[str, Any], metrics: Mapping[str, float], step: int, folder: Path) -> None:
        self.logger.log_metrics(metrics, step)
        client, run = self.logger.experiment, self.logger.run_id
        for path in files(folder):
            parent = path.relative_to(folder).parent.as_posix()
            client.log_artifact(run, str(path), None if parent == "." else parent.removeprefix("."))
        client.set_tag(run, "mlflow.note.content", (folder / "README.md").read_text(encoding="utf-8"))
        client.set_terminated(run, "FINISHED")

    def opened_with(self, folder: Path) -> str:
        return f"mlflow ui --backend-store-uri {self.logger.experiment.tracking_uri}"


class _Wandb(Record):
    """A run of Weights & Biases."""

    draws_histograms = True

    def begin(self, start: Start) -> str | None:
        self.logger.log_hyperparams({**start.parameters, "configuration": start.config})
        for path in Path(self.logger.experiment.dir).parent.rglob("*"):
            if path.is_symlink():  # to its log elsewhere: a run folder with a link that leads out is not resumed
                path.unlink()
        return str(self.logger.version)

    def image(self, name: str, image: Image, step: int) -> None:
        self.logger.log_image(name, [image], step)

    def histogram(self, name: str, values: Any, step: int) -> None:
        import wandb

        self.logger.log_metrics({name: wandb.Histogram(values)}, step)

    def finish(self, parameters: Mapping[str, Any], metrics: Mapping[str, float], step: int, folder: Path) -> None:
        self.logger.log_metrics(metrics, step)
        run = self.logger.experiment
        run.summary.update(dict(metrics))
        for path in files(folder):  # copies: what is saved from elsewhere would be linked
            copy = Path(run.dir) / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            run.save(str(copy), base_path=run.dir, policy="now")

    def close(self) -> None:
        import wandb

        if wandb.run is not None:
            wandb.run.finish()

    def opened_with(self, folder: Path) -> str:
        run = self.logger.experiment
        return f"wandb sync {folder / 'wandb'}/offline-run-*" if run.offline else str(run.url)


class _Files(Record):
    """A table, and images beside it; the other files are in the run folder already."""

    def begin(self, start: Start) -> str | None:
        write_text(self.logger.folder / "configuration.yaml", start.text)
        self.logger.log_hyperparams(start.parameters)
        return None

    def image(self, name: str, image: Image, step: int) -> None:
        path = self.logger.folder / "images" / name / f"{step:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, image)

    def opened_with(self, folder: Path) -> str:
        return str(self.logger.folder / "metrics.csv")


KINDS: dict[type, tuple[str, type[Record]]] = {
    TensorBoardLogger: ("tensorboard", _TensorBoard),
    MLFlowLogger: ("mlflow", _MLflow),
    WandbLogger: ("wandb", _Wandb),
    CSVLogger: ("csv", _Files),
}


def records(trainer: Trainer) -> dict[str, Record]:
    """Of the loggers that are known here, by their names; none in a process that does not write."""
    found = {}
    for logger in trainer.loggers if trainer.is_global_zero else ():
        for kind, (name, record) in KINDS.items():
            if isinstance(logger, kind):
                found[name] = record(logger)
    return found


def layout(objects: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """TensorBoard's page of custom scalars: a category, its charts, and expressions for the curves in them."""
    pages = {
        "losses": {"loss": ["Multiline", ["train/loss$", "val/loss$"]]},
        "IoU by class": {
            "mean": ["Multiline", ["train/iou$", "val/iou$"]],
            "validation": ["Multiline", ["val/iou/.+"]],
        },
        "learning rate and speed": {
            "learning rate": ["Multiline", ["lr-.+"]],
            "images a second": ["Multiline", ["speed/images_per_second"]],
        },
    }
    if objects:
        pages["object recall"] = {"validation": ["Multiline", [f"{re.escape(name)}$" for name in objects]]}
    return pages


def files(folder: Path) -> list[Path]:
    """The report in a run folder."""
    return [path for pattern in FILES for path in sorted(folder.glob(pattern))]
