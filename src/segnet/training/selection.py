"""Choosing the best epoch, and when to stop, by a metric that may be undefined: NaN is not divergence, nor a bad value.

A metric of a class is NaN where no pixel of its split shows the class and none is predicted, and zero where some are
predicted: neither tells one epoch from another.
"""

import torch
from lightning.pytorch import LightningModule, Trainer, callbacks
from torch import Tensor

from segnet import terminal
from segnet.training.module import SegmentationModule


def _unseen(module: LightningModule, monitor: str | None) -> str | None:
    return module.unseen(monitor) if monitor and isinstance(module, SegmentationModule) else None


def undefined(trainer: Trainer, monitor: str | None) -> bool:
    """Whether the metric says nothing in this epoch. A loss that is NaN does: training has diverged."""
    value = trainer.callback_metrics.get(monitor or "")
    if value is None:  # nothing was validated
        return True
    if monitor is None or monitor.endswith("/loss"):
        return False
    return bool(torch.isnan(value)) or _unseen(trainer.lightning_module, monitor) is not None


class BestCheckpoint(callbacks.ModelCheckpoint):
    """Keeps the best epoch; the last one where the metric cannot compare them, which it says once."""

    _told = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say it after the first validation."""
        missing = None if self._told or trainer.sanity_checking else _unseen(pl_module, self.monitor)
        self._told |= not trainer.sanity_checking
        if missing:
            terminal.info(
                f"monitor={self.monitor}: {missing}, so it cannot tell which epoch is best: best.ckpt is the last one, "
                f"and nothing stops early; use monitor=val/loss mode=min, or another split"
            )
        super().on_validation_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether this epoch is to be kept."""
        if current is not None and _unseen(trainer.lightning_module, self.monitor):
            return True
        return super().check_monitor_top_k(trainer, current)


class EarlyStopping(callbacks.EarlyStopping):
    """Stops when a metric has not improved for a while; epochs in which it is undefined do not count."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, where the metric says something."""
        if not undefined(trainer, self.monitor):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, where the metric says something."""
        if not undefined(trainer, self.monitor):
            super().on_validation_end(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say why it has stopped."""
        if self.stopping_reason_message:
            terminal.info(f"stopped early: {' '.join(self.stopping_reason_message.split())}")
