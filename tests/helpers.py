"""What tests share besides fixtures."""

import csv
import importlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Small and quiet; every test of a command adds its own overrides.
SMALL = ("trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "~callbacks.progress")
SMALL += ("trainer.enable_model_summary=false", "data.image_size=32")


def call_main(name: str, *arguments: str) -> int:
    """Run the command's ``main`` in this process, as ``python src/<name>.py`` would; its exit code."""
    before = sys.argv, dict(os.environ)
    sys.argv = [f"{name}.py", *arguments]
    try:
        importlib.import_module(f"segnet.commands.{name}").main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        import torch

        torch.use_deterministic_algorithms(False)  # the trainer sets it for the whole process
        sys.argv = before[0]
        os.environ.clear()
        os.environ.update(before[1])
    return 0


# Libraries are imported once; a process that is forked from there starts in a tenth of a second, not in eight.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["lightning.pytorch", "albumentations", "matplotlib.figure", "tensorboard"])


def start(name: str, *arguments: str, log: Path) -> ForkServerProcess:
    """Run a command in a process of its own, to be killed for real; what it prints goes to ``log``."""
    process = FORKS.Process(target=_run, args=(name, arguments, log))
    process.start()
    return process


def _run(name: str, arguments: tuple[str, ...], log: Path) -> None:
    os.setpgid(0, 0)  # a group of its own, to be signalled as a whole
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(call_main(name, *arguments))


def rows(folder: Path) -> list[dict[str, str]]:
    """Those of a run's table of epochs so far."""
    try:
        with (folder / "metrics.csv").open() as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def wait_for(what: Callable[[], bool], process: ForkServerProcess, log: Path) -> None:
    """Until it is so; fail if the process ends before."""
    end = time.monotonic() + 90
    while not what():
        assert process.exitcode is None, log.read_text()
        assert time.monotonic() < end
        time.sleep(0.0005)


def write_run(
    folder: Path, metrics: Mapping[str, float | None], images: Mapping[str, Sequence[int]], final: float = 0.0,
    monitor: str = "val/iou", mode: str = "max", lr: float = 0.1, seed: int = 0,
) -> None:  # fmt: skip
    """What the comparison reads of a finished run: its figures, the confusion of each test image, two epochs."""
    (folder / ".hydra").mkdir(parents=True)
    config = {"seed": seed, "monitor": monitor, "mode": mode, "model": {"optimizer": {"lr": lr}}}
    (folder / ".hydra" / "config.yaml").write_text(json.dumps(config | {"output_dir": str(folder)}))
    results = {"monitor": monitor, "metrics": metrics, "epochs": 2, "parameters": 1234, "seconds": 5.5}
    (folder / "results.json").write_text(json.dumps(results))
    rows = [["epoch", "train/loss", "val/loss", monitor], [0, 0.9, 0.8, 0.125], [1, 0.5, 0.6, final]]
    size = round(len(next(iter(images.values()), ())) ** 0.5)
    cells = [f"{i}>{j}" for i in range(size) for j in range(size)]
    tables = {"metrics": rows, "images": [["file", "iou", *cells], *([f, "", *c] for f, c in images.items())]}
    for name, table in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(table)
