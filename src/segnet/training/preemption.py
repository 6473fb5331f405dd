"""What lets a run survive being stopped: checkpoints that are whole or not there, and an orderly end on a signal."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from segnet import terminal
from segnet.data.dataset import Batch
from segnet.files import atomic_write


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints so that a kill leaves the old one or the new one, whole.

    Lightning's own way goes through the system's temporary folder, from where a move may be a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write it in one piece; torch's own writer hides why it fails, and may end the process."""
        content = BytesIO()
        torch.save(checkpoint, content)
        content.seek(0)
        with atomic_write(Path(path)) as part, part.open("wb") as file:
            shutil.copyfileobj(content, file)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load, with the folders that `ModelCheckpoint` remembers made this one: a run folder may have been moved."""
        content: dict[str, Any] = super().load_checkpoint(path, *args, **kwargs)
        here = Path(path).resolve().parent
        for state in content.get("callbacks", {}).values():
            if isinstance(state, dict) and "dirpath" in state:
                state["dirpath"] = str(here)
                for name in ("best_model_path", "last_model_path", "kth_best_model_path"):
                    state[name] = str(here / Path(state[name]).name) if state[name] else ""
                state["best_k_models"] = {str(here / Path(k).name): v for k, v in state["best_k_models"].items()}
        return content


class Stopped(BaseException):
    """A signal stopped the training; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stopping() -> Iterator[None]:
    """Raise `Stopped` at once on the signals of `StopOnSignal`: for work between trainings, which is done anew."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in StopOnSignal.SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopOnSignal(Callback):
    """Ends training, or the test, after the batch in hand on SIGTERM, SIGUSR1 (a scheduler's warning) or Ctrl-C.

    A second signal ends it at once.

    Raises:
        Stopped: after that batch. ``last.ckpt`` is of the last whole epoch; a resumed run repeats the interrupted one.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._before[number])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over (from Lightning, which would exit silently)."""
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}

    on_test_start = on_train_start

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Stop here."""
        self.stop()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Stop here."""
        self.stop()

    on_test_batch_end = on_validation_batch_end

    def stop(self) -> None:
        """Stop if a signal has come, such as one after the last batch."""
        if self.received is not None:
            raise Stopped(self.received)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class ValidateAtTheStop(Callback):
    """Validates the epoch in which ``trainer.max_time`` ends a run, whichever epochs are validated otherwise."""

    def __init__(self) -> None:
        self._told = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning validates at once where a run should stop, in an epoch that has a validation."""
        if trainer.should_stop:
            trainer.check_val_every_n_epoch = 1
            if not self._told:
                terminal.info("trainer.max_time is over: this epoch is validated, and training ends")
            self._told = True
