"""What training shows on the screen: a line an epoch, and on a terminal a bar of the epoch in hand."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar, Timer
from tqdm import tqdm

from segnet.settings import Count
from segnet.tables import figure


class Progress(ProgressBar):
    """Shows how far an epoch or a test is, where stderr is a terminal; nothing of it stays on the screen.

    Args:
        refresh_rate: batches between two updates; 0 shows nothing.
    """

    def __init__(self, refresh_rate: Count = 5) -> None:
        super().__init__()
        self.refresh_rate = refresh_rate
        self.enabled = refresh_rate > 0
        self._bar: Any = None

    def disable(self) -> None:
        """Show nothing, as in all processes but the first."""
        self.enabled = False

    def enable(self) -> None:
        """Show it again."""
        self.enabled = self.refresh_rate > 0

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print a line above the bar."""
        tqdm.write(sep.join(map(str, args)), **kwargs)

    def _open(self, name: str, batches: float | Sequence[float]) -> None:
        self._close()
        total = sum(batches) if isinstance(batches, Sequence) else batches
        if self.enabled:
            self._bar = tqdm(
                desc=name, total=total if math.isfinite(total) else None, unit="batch", leave=False, disable=None,
                miniters=self.refresh_rate, dynamic_ncols=True
            )  # fmt: skip

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin with the batches of training."""
        self._open(of_epochs(trainer), trainer.num_training_batches)

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        """Go on with those of validation."""
        self._open(f"{of_epochs(trainer)}, validation", trainer.num_val_batches)

    def on_test_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin with the batches of the test."""
        self._open("test", trainer.num_test_batches)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Count a batch."""
        if self._bar is not None:
            self._bar.update()

    on_validation_batch_end = on_test_batch_end = on_train_batch_end

    def on_train_epoch_end(self, *_: Any, **__: Any) -> None:
        """Make room for lines: the epoch's, the report, or why it has failed."""
        self._close()

    on_validation_end = on_test_end = on_exception = on_train_epoch_end


def of_epochs(trainer: Trainer) -> str:
    """Such as ``epoch  3/24``; the first is 1."""
    epochs = trainer.max_epochs
    if epochs is None or epochs < 0:
        return f"epoch {trainer.current_epoch + 1}"
    return f"epoch {trainer.current_epoch + 1:{len(str(epochs))}}/{epochs}"


def line(
    trainer: Trainer, figures: Mapping[str, float], monitor: str | None, rate: float, durations: Sequence[float]
) -> str:
    """What an epoch reached, at which speed, and how long the others will take.

    Args:
        trainer: at the end of the epoch.
        figures: by their names, of this epoch; those of validation are missing where nothing was validated.
        monitor: the figure that chooses the best epoch, shown beside losses and IoU.
        rate: images a second, in training.
        durations: seconds of the epochs of this process, with validation.
    """
    names = ["train/loss", *(("val/loss", "val/iou") if "val/loss" in figures else ("train/iou",))]
    names += [monitor] if monitor in figures and monitor not in names else []
    shown = [f"{name} {figure(figures[name])}" for name in names if name in figures]
    left = _left(trainer, durations)
    ends = [f"{rate:.{0 if rate >= 10 else 1}f} images/s", *([f"{duration(left)} left"] if left else [])]
    return "  ".join([of_epochs(trainer), *shown, *ends])


def _left(trainer: Trainer, durations: Sequence[float]) -> float | None:
    """Seconds until the training ends, as far as its length is known; the first epoch counts if there is no other."""
    epochs = math.inf if (trainer.max_epochs or -1) < 0 else trainer.max_epochs - trainer.current_epoch - 1  # type: ignore[operator]
    if trainer.max_steps >= 0:
        steps = trainer.global_step / (trainer.current_epoch + 1)
        epochs = min(epochs, (trainer.max_steps - trainer.global_step) / max(steps, 1))
    left = epochs * statistics.fmean(durations[1:] or durations)
    left = min(left, limit(trainer))
    return left if math.isfinite(left) and left > 0 else None


def limit(trainer: Trainer) -> float:
    """Seconds that ``trainer.max_time`` still allows; infinite without it."""
    timers = [part.time_remaining() for part in trainer.callbacks if isinstance(part, Timer)]  # type: ignore[attr-defined]
    return min((seconds for seconds in timers if seconds is not None), default=math.inf)


def duration(seconds: float) -> str:
    """Such as ``45 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
