"""A finished run, read from its folder: configuration, figures, epochs, test images."""

import csv
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from segnet.errors import UserError
from segnet.old_names import update_targets
from segnet.runs.record import configuration


@dataclass(frozen=True)
class Run:
    """A finished training run; ``name`` is its folder below what all compared runs share.

    Raises:
        UserError: on reading, a file is damaged.
    """

    folder: Path
    name: str

    @cached_property
    def results(self) -> dict[str, Any]:
        """The content of results.json."""
        with _whole(path := self.folder / "results.json"):
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            numbers = [*found["metrics"].values(), *(found[key] for key in ("epochs", "parameters", "seconds"))]
            if not isinstance(found["monitor"], str) or not all(isinstance(v, int | float | None) for v in numbers):
                raise TypeError("other content than a run writes")
        return found

    @cached_property
    def config(self) -> dict[str, str]:
        """The configuration as composed, flat: ``model.optimizer.lr`` to its value as text."""
        loaded = configuration(self.folder)
        update_targets(loaded)  # or every name would differ between an old run and a new one
        return dict(_flat(OmegaConf.to_container(loaded)))

    @property
    def binary(self) -> bool:
        """Whether one class is told from the background."""
        return self.config.get("data.num_classes", "1") == "1"

    @cached_property
    def epochs(self) -> list[dict[str, str]]:
        """The rows of metrics.csv."""
        with _whole(path := self.folder / "metrics.csv"):
            rows = _rows(path)
            for row in rows:
                int(row["epoch"])
                list(map(float, filter(None, row.values())))
        return rows

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The rows of images.csv: one a test image."""
        path = self.folder / "images.csv"
        if not path.is_file():
            path = self.folder / "pictures.csv"  # its name until version 0.1.0
        with _whole(path):
            rows = _rows(path)
            for row in rows:
                list(map(int, (value for name, value in row.items() if ">" in name)))
        return rows

    @cached_property
    def images(self) -> dict[str, NDArray[np.int64]]:
        """Confusion matrix, flat, of each test image by its file."""
        return {row["file"]: np.array([int(v) for k, v in row.items() if ">" in k]) for row in self.rows}

    @property
    def monitor(self) -> str:
        """The metric that chose its best checkpoint."""
        return str(self.results["monitor"])

    @property
    def sign(self) -> int:
        """1 where a greater value of the monitor is better, -1 for losses."""
        return 1 if self.config.get("mode") == "max" else -1

    def metric(self, name: str) -> float:
        """A metric of the best checkpoint; NaN where it is unknown."""
        value = self.results["metrics"].get(name)
        return math.nan if value is None else float(value)

    def with_interval(self, name: str) -> str:
        """A rate with its 95 % interval, such as ``0.3117 (0.2108 to 0.4275)``; a dash where it is unknown."""
        value, low, high = (self.metric(name + end) for end in ("", "_low", "_high"))
        return "–" if math.isnan(value) else f"{value:.4f} ({low:.4f} to {high:.4f})"


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Around the reading of a run's file: what is wrong with a damaged one, in one line."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(
            f"{path}: is damaged ({error!r:.120}), so its run cannot be compared; restore it, or move the run away"
        ) from error


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if None in row or None in row.values():
            raise ValueError("a row has other columns than the header")
    return rows


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [pair for k, v in value.items() for pair in _flat(v, f"{key}.{k}" if key else str(k))]
    return [(key, str(value))]
