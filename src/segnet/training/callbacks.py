"""What a run shows while it trains: a table of epochs, and panels in its loggers."""

import csv
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from segnet.data.dataset import Batch
from segnet.files import write_csv
from segnet.settings import NotNegative, PathText, Positive
from segnet.training import progress, recording
from segnet.training.dashboard import is_due_in_validation
from segnet.training.module import SegmentationModule
from segnet.training.panels import draw_reviews
from segnet.training.progress import limit
from segnet.visualization.figures import confusion_figure, drawn


class EpochTable(Callback):
    """Keeps ``metrics.csv``: one row an epoch, rewritten whole so that a kill leaves the old or the new table.

    Lightning's CSVLogger deletes earlier rows when a run resumes in its folder; this one continues.
    """

    def __init__(self, path: PathText) -> None:
        self.path = Path(str(path))
        self.rows: list[dict[str, str]] = []
        self._start = 0.0
        self._seconds = 0.0
        self._images = 0
        self._validated = False
        self._durations: list[float] = []  # of whole epochs, with validation

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue the table of a resumed run."""
        self._read(trainer)
        self._durations = []

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have it for the report too where the run was stopped after its last epoch, and there was nothing to train."""
        if not self.rows:
            self._read(trainer)

    def _read(self, trainer: Trainer) -> None:
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            self.rows = [row for row in rows if int(row["epoch"]) < trainer.current_epoch]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start, self._seconds, self._images = time.perf_counter(), 0.0, 0
        self._validated = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count images; validation that follows is not training time."""
        self._images += len(batch["image"]) * trainer.world_size
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self._seconds = time.perf_counter() - self._start  # of every batch: trainer.max_time may make it the last

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning keeps the figures of an earlier validation; this epoch has its own."""
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the row; validation columns stay empty in an epoch without one."""
        stages = ("train/", "val/") if self._validated else "train/"
        metrics = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith(stages)}
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {"seconds": round(self._seconds, 3)}
        row |= {"images_per_second": round(self._images / max(self._seconds, 1e-9), 2)}
        row |= {"lr": trainer.optimizers[0].param_groups[0]["lr"]}
        row |= {name: metrics[name] for name in sorted(metrics)}
        self.rows.append({key: str(value) for key, value in row.items()})
        for logger in trainer.loggers:
            logger.log_metrics({"speed/images_per_second": row["images_per_second"]}, trainer.global_step - 1)
        self._durations.append(time.perf_counter() - self._start)
        if trainer.is_global_zero:
            chooses = getattr(trainer.checkpoint_callback, "monitor", None)
            tqdm.write(progress.line(trainer, metrics, chooses, row["images_per_second"], self._durations))
            sys.stdout.flush()
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            write_csv(self.path, self.rows)


class ReestimateBatchNorm(Callback):
    """Recomputes the statistics of batch norms before the test, with the final weights.

    In training they are running means of a changing network (SegNet authors' ``compute_bn_statistics.py``).
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pass the training images, unflipped, through the network once; keep the result as a checkpoint."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, SegmentationModule)
        if data is None:
            return
        images = (batch["image"].to(pl_module.device) for batch in data.loader("train", augment=False))
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            update_bn((pl_module.normalise(image) for image in images), pl_module.net)
        pl_module.eval()
        if trainer.checkpoint_callback is not None:
            folder = Path(trainer.checkpoint_callback.dirpath)  # type: ignore[attr-defined]
            trainer.save_checkpoint(folder / "reestimated.ckpt", weights_only=True)


class Forecast(Callback):
    """Prints the speed, memory and expected end of a long run after its first steps.

    The time of the first steps is added if it is long: ``model.compile`` compiles there.

    Args:
        steps: to measure over, after as many to warm up.
        minutes: shorter runs are not worth a line.
    """

    def __init__(self, steps: Positive = 10, minutes: NotNegative = 2.0) -> None:
        self.steps, self.minutes = steps, minutes
        self._start, self._done, self._first = 0.0, 0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the first steps."""
        self._first = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Start the clock of the others, and stop it."""
        self._done += 1
        if self._done not in (self.steps, 2 * self.steps):
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        if self._done == self.steps:
            self._start = time.perf_counter()
            self._first = self._start - self._first
            return
        seconds = (time.perf_counter() - self._start) / self.steps
        epochs = (trainer.max_epochs or 0) - trainer.current_epoch
        batches = epochs * trainer.num_training_batches if epochs >= 0 else math.inf
        if trainer.max_steps >= 0:
            batches = min(batches, (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
            epochs = math.ceil(batches / trainer.num_training_batches)
        left = min(batches * seconds, limit(trainer))
        if math.isinf(batches) or left < 60 * self.minutes:
            return
        rate = len(batch["image"]) * trainer.world_size / seconds
        end = time.strftime("%a %H:%M", time.localtime(time.time() + left))
        if not trainer.is_global_zero:
            return
        tqdm.write(
            f"forecast: {rate:.3g} images/s, {_peak(pl_module.device):.1f} GB at most so far, {epochs} epochs of "
            f"{trainer.num_training_batches * seconds:.0f} s (validation not counted): done about {end}"
            + (
                f"; the first {self.steps} steps took {self._first:.0f} s"
                if self._first > 10 * self.steps * seconds
                else ""
            )
        )


def _peak(device: torch.device) -> float:
    """Greatest memory in 10⁹ bytes: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def batch_size(batch: Batch) -> int:
    """Images of a batch, for Lightning's `ThroughputMonitor`."""
    return len(batch["image"])


class Panels(Callback):
    """Sends fixed validation images with truth and prediction, and the confusion matrix, to the loggers.

    Args:
        every_n_epochs: how often; the last validation always counts.
        images: how many, spread over the validation split.
    """

    def __init__(self, every_n_epochs: Positive = 5, images: Positive = 4) -> None:
        self.every_n_epochs, self.images = every_n_epochs, images

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, on the first process only (callbacks come before the module counts in ``on_validation_epoch_end``)."""
        if not is_due_in_validation(trainer, self.every_n_epochs) or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, SegmentationModule)
        data = trainer.datamodule  # type: ignore[attr-defined]
        for i, shown in enumerate(draw_reviews(pl_module, data, "val", self.images)):
            recording.show_image(trainer, f"val/{i}", shown)
        confusion = confusion_figure(pl_module.counts["val"][0], pl_module.classes)
        recording.show_image(trainer, "val/confusion", drawn(confusion))
