"""Callbacks that show more of a network while it trains: precision and recall, weights and gradients."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from segnet import terminal
from segnet.data.masks import IGNORE_INDEX
from segnet.settings import Positive
from segnet.training import recording
from segnet.training.metrics import frequencies
from segnet.training.module import SegmentationModule

THRESHOLDS = 127


def is_due(trainer: Trainer, every_n_epochs: int, step: int = 1) -> bool:
    """Whether something shows what it does every few epochs, and at the end.

    Args:
        trainer: says the epoch.
        every_n_epochs: how often.
        step: epochs from one occasion to the next; what falls due between two comes at the second.
    """
    epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
    return bool(trainer.loggers) and (
        epoch // every_n_epochs > (epoch - step) // every_n_epochs or 0 < epochs < epoch + step
    )


def is_due_in_validation(trainer: Trainer, every_n_epochs: int) -> bool:
    """`is_due` of what needs a validation, which not every epoch may have."""
    return is_due(trainer, every_n_epochs, trainer.check_val_every_n_epoch or 1) and not trainer.sanity_checking


class PrecisionRecall(Callback):
    """Draws precision against recall of each class over all validation pixels, at thresholds from 0 to 1.

    Args:
        every_n_epochs: how often; the last validation always counts.
    """

    def __init__(self, every_n_epochs: Positive = 5) -> None:
        self.every_n_epochs = every_n_epochs
        self.counts: Tensor | None = None  # int64 (classes, 2, THRESHOLDS)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, in an epoch that is drawn."""
        assert isinstance(pl_module, SegmentationModule)
        due = is_due_in_validation(trainer, self.every_n_epochs)
        size = len(pl_module.classes), 2, THRESHOLDS
        self.counts = torch.zeros(size, dtype=torch.int64, device=pl_module.device) if due else None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the pixels of a batch."""
        if self.counts is None:
            return
        assert isinstance(pl_module, SegmentationModule)
        found = outputs.get("probabilities")
        found = pl_module.probabilities(outputs["logits"].float()) if found is None else found
        mask = batch["mask"]
        known, first = mask != IGNORE_INDEX, len(pl_module.classes) == 1
        bins = (found * (THRESHOLDS - 1)).long().clamp(0, THRESHOLDS - 1)  # also where it is NaN
        for i, counts in enumerate(self.counts):
            counts += frequencies((mask == i + first) * THRESHOLDS + bins[:, i], known, 2 * THRESHOLDS).view_as(counts)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        if self.counts is None:
            return
        assert isinstance(pl_module, SegmentationModule)
        total = trainer.strategy.reduce(self.counts, reduce_op="sum").cpu().numpy()
        for name, counts in zip(pl_module.classes, total, strict=True):
            recording.show_curve(trainer, f"val/{name}", counts)


class Histograms(Callback):
    """Draws histograms of the network's weights, and of the gradients of an epoch's last step.

    Args:
        every_n_epochs: how often; the last epoch always counts.
    """

    def __init__(self, every_n_epochs: Positive = 5) -> None:
        self.every_n_epochs = every_n_epochs

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say who draws none."""
        if left := recording.without_histograms(trainer):
            terminal.info(f"histograms: {', '.join(left)} draws none; logger=tensorboard and logger=wandb do")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Draw; values that are not finite belong to no bin."""
        if not trainer.is_last_batch or not is_due(trainer, self.every_n_epochs):
            return
        assert isinstance(pl_module, SegmentationModule)
        for name, weight in pl_module.net.named_parameters():
            for kind, values in (("weights", weight), ("gradients", weight.grad)):
                if values is not None and (finite := values.detach()[values.detach().isfinite()]).numel():
                    recording.show_histogram(trainer, f"{kind}/{name}", finite.double().cpu().numpy())
