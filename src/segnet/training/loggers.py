"""Lightning's loggers as a run uses them: with one local record each, which a resumed run continues.

TensorBoard's logger is Lightning's own. `segnet.training.recording` sends images, curves and files to all of them.
"""

import csv
import json
import os
import posixpath
import re
import secrets
from argparse import Namespace
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from time import time
from typing import Any, Literal

import yaml
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, open_dict

from segnet import terminal
from segnet.errors import UserError
from segnet.files import csv_file, locked, write_text
from segnet.settings import Count, PathText, Text

IDS = "loggers.json"  # in a run folder: what the run is called in each store that gives it a name
STORE = Path("logs") / "mlflow.db"
_ID = re.compile(r"[0-9a-z]{8,32}")


class CSVLogger(Logger):
    """A row for every step at which something is logged, and images as files.

    Lightning's logger of this name deletes the rows of a run that resumes.

    Args:
        save_dir: where ``metrics.csv``, ``hparams.yaml``, ``configuration.yaml`` and ``images/`` are written.
        purge_step: rows from this step on are left out: the run resumes before them. None: all are new.
    """

    def __init__(self, save_dir: PathText, purge_step: Count | None = None) -> None:
        super().__init__()
        self.folder = Path(str(save_dir))
        self.rows: list[dict[str, Any]] = []
        file = self.folder / "metrics.csv"
        if purge_step is not None and file.is_file():
            with file.open(newline="", encoding="utf-8") as content:
                self.rows = [row for row in csv.DictReader(content) if int(row["step"]) < purge_step]

    @property
    def name(self) -> str:
        """Lightning asks for it."""
        return "csv"

    @property
    def version(self) -> str:
        """Lightning asks for it."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder."""
        return str(self.folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep a row; `save` writes it."""
        self.rows.append({"step": step or 0} | {name: float(value) for name, value in metrics.items()})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Write them."""
        values = params if isinstance(params, dict) else vars(params)
        write_text(self.folder / "hparams.yaml", yaml.safe_dump(values, allow_unicode=True, sort_keys=False))

    @rank_zero_only
    def save(self) -> None:
        """Write all rows; Lightning calls it every ``trainer.log_every_n_steps`` and after each epoch."""
        if not self.rows:
            return
        columns = ["step", *sorted({name for row in self.rows for name in row} - {"step"})]
        with csv_file(self.folder / "metrics.csv") as write:
            write(columns)
            for row in self.rows:
                write(row.get(name, "") for name in columns)

    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()


class MLflow(MLFlowLogger):
    """A run of MLflow, in a local SQLite store unless another ``tracking_uri`` is given.

    Args:
        save_dir: the run folder, whose `IDS` say which run of the store it is.
        experiment_name: of MLflow, which groups runs.
        run_name: of the run in it.
        tracking_uri: null: `STORE` below the working directory, its artifacts beside it in ``mlflow``.
        log_model: also copy the checkpoints there: true at the end, ``all`` whenever one is written.
    """

    def __init__(
        self,
        save_dir: PathText,
        experiment_name: Text = "segnet",
        run_name: PathText | None = None,
        tracking_uri: Text | None = None,
        log_model: bool | Literal["all"] = False,
    ) -> None:
        require("mlflow")
        # Before its import: it tells its makers that it is used, and the terminal how it makes tables.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient, MlflowException

        uri, artifacts = tracking_uri, None
        if uri is None:
            uri, artifacts = f"sqlite:///{STORE}", str(STORE.with_suffix(""))
            STORE.parent.mkdir(exist_ok=True)
        # Jobs side by side make its tables and the experiment once.
        with locked(STORE.with_suffix(".lock")) if tracking_uri is None else nullcontext():
            client = MlflowClient(uri)
            if client.get_experiment_by_name(experiment_name) is None:
                client.create_experiment(experiment_name, artifacts)
        known = identity(Path(str(save_dir)), "mlflow")
        try:
            active = known is not None and client.get_run(known).info.lifecycle_stage == "active"
        except MlflowException:
            active = False
        if known is not None and not active:
            terminal.info(f"mlflow: {uri} has no run {known}; what follows becomes a new run there")
        super().__init__(
            experiment_name,
            None if run_name is None else str(run_name),
            uri,
            log_model=log_model,
            artifact_location=artifacts,
            run_id=known if active else None,
        )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log under names that MLflow takes; Lightning would drop every letter that is not English from them."""
        from mlflow.entities import Metric

        now = int(time() * 1000)
        values = [Metric(mlflow_name(name), float(value), now, step or 0) for name, value in metrics.items()]
        self.experiment.log_batch(self.run_id, values)


class Wandb(WandbLogger):
    """A run of Weights & Biases, kept in the run folder until ``wandb sync`` is called.

    Args:
        save_dir: the run folder; the record is in its ``wandb/``.
        project: of Weights & Biases, which groups runs.
        name: of the run in it.
        offline: false sends everything to their server as it comes.
        log_model: false, or with ``offline=false`` as in Lightning: also send checkpoints.
    """

    def __init__(
        self,
        save_dir: PathText,
        project: Text = "segnet",
        name: PathText | None = None,
        offline: bool = True,
        log_model: bool | Literal["all"] = False,
    ) -> None:
        require("wandb")
        if offline:
            os.environ.setdefault("WANDB_SILENT", "true")  # before its import
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        wandb.setup()  # reads these, before Lightning gives it a setting that it warns about
        folder = Path(str(save_dir))
        super().__init__(
            None if name is None else str(name),
            folder,
            offline=offline,
            id=identity(folder, "wandb") or secrets.token_hex(4),
            project=project,
            log_model=log_model,
            # A run folder may be moved, so no links in it; and what is printed is the terminal's.
            settings={"symlink": False, "console": "off"},
            mode="offline" if offline else "online",
        )


def require(package: str) -> None:
    """Refuse a logger whose package is missing.

    Raises:
        UserError: with the command that installs it.
    """
    if find_spec(package) is None:
        raise UserError(f"logger={package}: {package} is not installed: pip install 'segnet-lightning[{package}]'")


def mlflow_name(name: str) -> str:
    """A name of a metric as MLflow takes it: ``@`` becomes ``_at_``, other letters that it refuses their code."""
    text = re.sub(r"[^\w/. :-]", lambda found: "_at_" if found[0] == "@" else f"_{ord(found[0]):x}_", name)
    parts = [part if part.strip(".") else "_" + part for part in text.split("/")]
    return posixpath.normpath("/".join(parts))


def identity(folder: Path, store: str) -> str | None:
    """What the run in this folder is called in a store; None of a new run."""
    try:
        found = json.loads((folder / IDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    value = found.get(store) if isinstance(found, dict) else None
    return value if isinstance(value, str) and _ID.fullmatch(value) else None


def continue_at(loggers: DictConfig | None, step: int) -> None:
    """Have the loggers of a resumed run drop what a killed one has logged from this step on, where they can."""
    for logger in (loggers or {}).values():
        if logger._target_.endswith(("TensorBoardLogger", f"{__name__}.{CSVLogger.__name__}")):
            with open_dict(logger):
                logger.purge_step = step
