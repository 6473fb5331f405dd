"""What a sweep has reached so far: a table and a plot in its folder, rewritten after every job."""

import fcntl
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from segnet.errors import UserError, explain
from segnet.runs.resume import recorded

FAILURE = "failure.json"  # in the folder of a job that failed
_claimed: list[int] = []  # locks of this process's GPU


class Leaderboard(Callback):  # type: ignore[misc]
    """Hydra calls it around every job of a sweep, in whatever process the launcher runs the job."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Give jobs that run side by side on one machine a GPU, or a share of the cores, each."""
        launcher = config.hydra.launcher
        if config.hydra.mode.name == "MULTIRUN" and "joblib" in launcher._target_:
            jobs = (os.cpu_count() or 1) if launcher.n_jobs == -1 else launcher.n_jobs
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
            claim_gpu()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note a failure, and write the table."""
        if config.hydra.mode.name != "MULTIRUN":
            return
        sweep = Path(config.hydra.sweep.dir)
        if job_return.status == JobStatus.FAILED:
            error = job_return._return_value
            note = {"error": explain(error) or f"{type(error).__name__}: {error}"}
            folder = sweep / config.hydra.sweep.subdir
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FAILURE).write_text(json.dumps(note) + "\n", encoding="utf-8")
        write(sweep)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Say where the table is."""
        sweep = Path(config.hydra.sweep.dir)
        if (sweep / "leaderboard.md").is_file():
            print((sweep / "leaderboard.md").read_text(encoding="utf-8"))
            print(f"leaderboard {sweep / 'leaderboard.md'}")


def claim_gpu() -> None:
    """Let this process see one GPU that no other job on this machine has claimed; it keeps it to its end."""
    import torch

    count = torch.cuda.device_count()
    if _claimed or count < 2:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    for gpu in visible:
        lock = os.open(Path(tempfile.gettempdir()) / f"segnet-gpu-{gpu}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        _claimed.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        return
    raise UserError(f"{count} GPUs, all taken by other jobs: set hydra.launcher.n_jobs={count}")


def write(sweep: Path) -> None:
    """Write leaderboard.md, .csv and .png of the jobs that have ended; the best first, failures last."""
    from segnet.runs import comparison

    done = [job.parent for job in sweep.glob("*/results.json") if (job.parent / "metrics.csv").is_file()]
    runs = comparison.find([str(folder) for folder in done]) if done else []
    rows = []
    for run, row in zip(runs, comparison.table(runs), strict=True):
        rows.append({"job": run.folder.name} | {k: v for k, v in row.items() if k != "run"} | {"error": ""})
    for file in sorted(sweep.glob(f"*/{FAILURE}")):
        if file.parent in done:
            continue
        given = " ".join(recorded(file.parent))
        error = json.loads(file.read_text(encoding="utf-8"))["error"]
        rows.append({"job": file.parent.name, "error": f"{error} [{given}]"})
    part = sweep / f"leaderboard.{os.getpid()}.part"  # jobs may end at the same time
    comparison.write_csv(part, rows)
    part.replace(sweep / "leaderboard.csv")
    part.write_text(comparison.markdown(rows) + "\n", encoding="utf-8")
    part.replace(sweep / "leaderboard.md")
    if runs:
        _plot(runs).savefig(part, format="png", dpi=110)
        part.replace(sweep / "leaderboard.png")


def _plot(runs: list[Any]) -> Any:
    """The monitor of every job as a bar, labelled with what sets the job apart."""
    from matplotlib.figure import Figure

    from segnet.runs.comparison import differing, short

    keys = differing(runs)
    labels = []
    for run in runs:
        parts = [f"{name}={run.config.get(key)}" for key, name in zip(keys, short(keys), strict=True)]
        labels.append(f"{run.folder.name}: {' '.join(parts)}"[:70])
    values = [run.metric(run.monitor) for run in runs]
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(runs)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(labels[::-1], [0 if math.isnan(v) else v for v in values][::-1])
    axes.set(xlabel=f"best {runs[0].monitor}")
    axes.grid(alpha=0.3, axis="x")
    return figure
