"""ClassMix: half of the classes of one image are pasted onto the next image of the batch.

Source: Olsson et al., "ClassMix: Segmentation-Based Data Augmentation for Semi-Supervised Learning", WACV 2021, section
3.1, with the true masks instead of predicted ones.
"""

import os
import zlib

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from segnet.data.dataset import Batch
from segnet.settings import Share
from segnet.training.module import SegmentationModule


class ClassMix(Callback):
    """Pastes, in training batches, half of the classes that another image has, with their pixels and mask.

    Each image gets those of the one before it in the batch, at the same place. Draws follow from seed, epoch, process
    and batch, so a resumed run mixes what the whole one would have.

    Args:
        share: of the images that are mixed.
    """

    def __init__(self, share: Share = 0.5) -> None:
        self.share = share

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Mix the batch in its place."""
        assert isinstance(pl_module, SegmentationModule)
        seed = os.environ.get("PL_GLOBAL_SEED", "0")
        drawn = zlib.crc32(f"{seed} {trainer.current_epoch} {trainer.global_rank} {batch_idx} mix".encode())
        given, classes = batch["mask"], max(2, len(pl_module.classes))
        random = torch.rand(len(given), classes + 1, generator=torch.Generator().manual_seed(drawn))
        random = random.to(given.device, non_blocking=True)  # else every step waits for the GPU
        taken = pasted(given.roll(1, 0), random[:, :-1], random[:, -1] < self.share)
        batch["image"] = torch.where(taken[:, None], batch["image"].roll(1, 0), batch["image"])
        batch["mask"] = torch.where(taken, given.roll(1, 0), given)


def pasted(mask: Tensor, random: Tensor, mixed: Tensor) -> Tensor:
    """(N, H, W) bool: the pixels of half of the classes (rounded up) that each mask has.

    Args:
        mask: (N, H, W) class indices; ignored pixels are never pasted.
        random: (N, C) in 0..1, one number a class; the classes with the smallest are pasted.
        mixed: (N,) bool, of the images of which anything is pasted.
    """
    classes = random.shape[1]
    known = (mask >= 0) & (mask < classes)
    index = torch.where(known, mask, classes).long().flatten(1)
    present = torch.zeros(len(mask), classes + 1, dtype=torch.bool, device=mask.device).scatter(1, index, True)[:, :-1]
    rank = torch.where(present, random, 2.0).argsort(1).argsort(1)
    chosen = (rank < (present.sum(1, keepdim=True) + 1) // 2) & present & mixed[:, None]
    none = torch.zeros_like(chosen[:, :1])
    return torch.cat([chosen, none], 1).gather(1, index).view(mask.shape)
