"""What a sweep has reached so far: a table and a plot in its folder, rewritten after every job."""

import fcntl
import io
import json
import os
import tempfile
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from segnet.errors import UserError, explain
from segnet.files import atomic_write, write_csv, write_json, write_text
from segnet.runs.record import recorded
from segnet.runs.stopping import stop_with_parent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from segnet.runs.finished import Run

FAILURE = "failure.json"  # in the folder of a job that failed
_claimed: list[int] = []  # locks of this process's GPU


class Leaderboard(Callback):  # type: ignore[misc]
    """Hydra calls it around every job of a sweep, in whatever process the launcher runs the job."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Give jobs that run side by side on one machine a GPU, or a share of the cores, each; none goes on alone."""
        launcher = config.hydra.launcher
        if config.hydra.mode.name == "MULTIRUN" and "joblib" in launcher._target_:
            jobs = (os.cpu_count() or 1) if launcher.n_jobs == -1 else launcher.n_jobs
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
            stop_with_parent()
            claim_gpu()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note a failure, and write the table."""
        if config.hydra.mode.name != "MULTIRUN":
            return
        sweep = Path(config.hydra.sweep.dir)
        if job_return.status == JobStatus.FAILED:
            error = _failure(job_return)
            note = {"error": explain(error) or f"{type(error).__name__}: {error}"}
            folder = sweep / config.hydra.sweep.subdir
            write_json(folder / FAILURE, note)
        write(sweep)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Say where the table is."""
        sweep = Path(config.hydra.sweep.dir)
        if (sweep / "leaderboard.md").is_file():
            write(sweep)  # of two jobs that end together each may have missed the other
            print((sweep / "leaderboard.md").read_text(encoding="utf-8"))
            print(f"leaderboard {sweep / 'leaderboard.md'}")


def _failure(job: JobReturn) -> Exception:
    """What ended a failed job, which Hydra raises on access and says so; it says so once more at the sweep's end."""
    with redirect_stderr(io.StringIO()):
        try:
            _ = job.return_value
        except Exception as error:
            return error
    raise AssertionError("the job has not failed")


def claim_gpu() -> None:
    """Let this process see one GPU that no other job on this machine has claimed; it keeps it to its end."""
    import torch

    count = torch.cuda.device_count()
    if _claimed or count < 2:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    for gpu in visible:
        file = (
            Path(tempfile.gettempdir()) / f"segnet-gpu-{os.getuid()}-{gpu}.lock"
        )  # of another user it cannot be opened
        lock = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        _claimed.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        return
    raise UserError(f"all {count} GPUs are taken by other jobs; set hydra.launcher.n_jobs={count}")


def write(sweep: Path) -> None:
    """Write leaderboard.md, .csv and .png of the jobs that have ended; the best first, failures last."""
    from segnet import tables
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
    # Jobs may end at the same time.
    write_csv(sweep / "leaderboard.csv", rows, shared=True)
    write_text(sweep / "leaderboard.md", tables.markdown(rows) + "\n", shared=True)
    if runs:
        with atomic_write(sweep / "leaderboard.png", shared=True) as part:
            _figure(runs).savefig(part, format="png", dpi=110)


def _figure(runs: "list[Run]") -> "Figure":
    """The monitor of every job, labelled with what sets the job apart."""
    from segnet.runs.comparison import differing, short
    from segnet.visualization.figures import bars

    keys = differing(runs)
    labels = []
    for run in runs:
        parts = [f"{name}={run.config.get(key)}" for key, name in zip(keys, short(keys), strict=True)]
        labels.append(f"{run.folder.name}: {' '.join(parts)}"[:70])
    return bars(labels, [run.metric(run.monitor) for run in runs], f"best {runs[0].monitor}")
