"""One interface to every logger: images, plots, curves, histograms, the configuration and the report.

Figures that are numbers go to all of them by Lightning's ``log``. A logger of a kind that `segnet.training.records`
does not know gets these alone, which is told once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from numpy.typing import NDArray

from segnet import terminal
from segnet.files import write_json
from segnet.training.loggers import IDS
from segnet.training.records import KINDS, Counts, Start, records
from segnet.visualization.overlays import Image


def begin(trainer: Trainer, start: Start, folder: Path) -> None:
    """Tell every logger what the run begins with, and keep in its folder what it is called in their stores."""
    if not trainer.is_global_zero:
        return
    others = [type(logger).__name__ for logger in trainer.loggers if not isinstance(logger, (*KINDS, DummyLogger))]
    if others:
        terminal.info(f"{', '.join(others)}: gets figures that are numbers, and no images, files or configuration")
    named = {name: record.begin(start) for name, record in records(trainer).items()}
    if named := {name: known for name, known in named.items() if known is not None}:
        write_json(folder / IDS, named)


def finish(trainer: Trainer, parameters: Mapping[str, Any], metrics: Mapping[str, float], folder: Path) -> None:
    """Give every logger the final figures, and the report in the run folder to those that keep files."""
    for record in records(trainer).values():
        record.finish(parameters, metrics, trainer.global_step, folder)


def close(trainer: Trainer) -> None:
    """End every record: the next run of this process has its own."""
    for record in records(trainer).values():
        record.close()


def show_image(trainer: Trainer, name: str, image: Image) -> None:
    """Send an image (H, W, 3) uint8 RGB to every logger, at the step of the epoch's figures."""
    for record in records(trainer).values():
        record.image(name, image, _step(trainer))


def show_curve(trainer: Trainer, name: str, counts: Counts) -> None:
    """Send precision and recall over N thresholds from 0 to 1.

    Args:
        trainer: that has the loggers.
        name: of the curve.
        counts: int64 (2, N) negatives and positives by probability: how many lie in [i / (N - 1), (i + 1) / (N - 1)).
    """
    for record in records(trainer).values():
        record.curve(name, counts, _step(trainer))


def show_histogram(trainer: Trainer, name: str, values: NDArray[np.float64]) -> None:
    """Send numbers to the loggers that draw histograms; in float64, as of some NumPy cannot divide a narrow range."""
    for record in records(trainer).values():
        if record.draws_histograms:
            record.histogram(name, values, _step(trainer))


def without_histograms(trainer: Trainer) -> list[str]:
    """Names of the loggers that draw none."""
    return [name for name, record in records(trainer).items() if not record.draws_histograms]


def opened_with(trainer: Trainer, folder: Path) -> list[str]:
    """For each logger what shows the run, such as a command."""
    return [record.opened_with(folder) for record in records(trainer).values()]


def _step(trainer: Trainer) -> int:
    """That of the epoch's figures: a resumed run drops what comes after its last checkpoint, and this came before."""
    return max(trainer.global_step - 1, 0)
