"""Confusion matrices of single images, by which a test ranks them and runs are compared in pairs."""

from itertools import chain
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from segnet.data.dataset import Batch
from segnet.training.metrics import Counts

T = TypeVar("T")


class ImageCounts(Callback):
    """Counts every image of a test by itself, and brings the counts of all processes together.

    It reads ``logits`` (N, C, H, W) of what ``test_step`` returns, or the ``confusion`` (K, K) of a single image.

    Attributes:
        found: index and confusion matrix int64 (K, K) on the CPU of each image of the last test, see `Counts`.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = Counts(num_classes)
        self.found: list[tuple[int, Tensor]] = []

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier test."""
        self.found = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the images of a batch."""
        if "confusion" in outputs:
            self.found.append((int(batch["index"]), outputs["confusion"].cpu()))
            return
        logits, masks = outputs["logits"], batch["mask"]
        for i, index in enumerate(batch["index"].tolist()):
            confusion, _ = self.counts.count(logits[i : i + 1], masks[i : i + 1])
            self.found.append((index, confusion.cpu()))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the processes' shares, in order."""
        self.found = gathered(trainer, self.found)


def gathered(trainer: Trainer, found: list[tuple[int, T]]) -> list[tuple[int, T]]:
    """What all processes have found, each of its own images, in the order of these: their index comes first."""
    if trainer.world_size == 1:
        return found
    parts: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(parts, found)
    return sorted(chain(*parts), key=lambda image: image[0])
