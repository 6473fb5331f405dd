"""A data set as Lightning trains on it: the loaders of its splits."""

from functools import partial
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from segnet import terminal
from segnet.data import crops, division, loading
from segnet.data.dataset import Batch, Loader, Samples, collate, epoch_of, processes
from segnet.data.segmentation_data import SegmentationData
from segnet.data.splits import SPLITS
from segnet.errors import UserError, printable

if TYPE_CHECKING:
    from segnet.data.on_device import Resident


class SegmentationDataModule(SegmentationData, LightningDataModule):
    """Batches of a data set, for training and evaluation; the arguments are those of `SegmentationData`.

    Attributes:
        drop_single: whether training leaves out a last batch that is not full, see `segnet.training.batches`.
    """

    drop_single = False
    _told = False
    _resident: "Resident | None" = None

    def setup(self, stage: str | None = None) -> None:
        """As of `SegmentationData`; Lightning calls it in every process, and with a stage people are told what is used.

        Args:
            stage: ``fit``, ``validate`` or ``test`` is refused where its splits are empty; None asks for nothing.
        """
        super().setup(stage)
        if stage is not None and not self._told:
            self._told = True
            self._tell_passed_over()
        if stage == "fit":
            division.require_masks(self.pairs, self.layout.masks)
            terminal.info(self.used(*SPLITS))
            self.arrays.tell_absent(self.indices, self.classes)
            if self.plan:
                terminal.info(loading.told(self.arrays, self.indices["train"], self.plan, self.classes))
            if self.trainer is not None:
                self._resident = None  # frees an earlier one's memory first
                self._resident = self._keep(self.trainer.strategy.root_device)

    @rank_zero_only
    def _tell_passed_over(self) -> None:
        if told := self.layout.passed_over():
            terminal.info(printable(f"data.root={self.root}: {'; '.join(told)}"))

    def _keep(self, device: torch.device) -> "Resident | None":
        from segnet.data import on_device

        if self.plan is None:
            given = self.arrays.cached, self.indices, self.augment, self.seed
            return on_device.keep(self.device_cache, *given, device)
        if self.device_cache and device.type == "cuda":
            terminal.info("data.device_cache=auto: images stay with the loader's workers, which cut the crops")
        return None

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Lightning's hook: make images and masks where the loader gave their rows on the device only."""
        return batch if self._resident is None or "row" not in batch else self._resident(batch)

    def samples(self, split: str, augment: bool = True, whole: bool = False) -> Samples:
        """The data set of a split; only ``train`` is augmented, and only of it crops are drawn, unless ``whole``.

        Raises:
            UserError: the split has no image.
        """
        self.require(split)
        transforms = self.augment if split == "train" and augment else ()
        if split == "train" and self.plan and not whole:
            return crops.CropSamples(self.arrays, self.indices[split], self.plan.size, transforms, self.seed)
        return Samples(self.load, self.indices[split], transforms, self.seed)

    def loader(
        self, split: str, augment: bool = True, resident: bool = False, whole: bool = False
    ) -> DataLoader[Batch]:
        """The loader of a split; ``train`` is shuffled and augmented, the others come in order of their names.

        With ``crop``, batches are crops of ``train``, and single images of the others, or where ``whole`` of it too.
        With ``resident``, where the split is kept on the device, its batches are what `on_after_batch_transfer` makes
        whole.

        Raises:
            UserError: the split has fewer images than there are processes.
        """
        self.require(split)
        train, count = split == "train" and not whole, len(self.indices[split])
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if count < world:
            raise UserError(
                f"data.split gives {count} image(s) to {split}, fewer than the {world} processes; use fewer "
                f"(trainer.devices, trainer.num_nodes)"
            )
        kept = self._resident if resident and self._resident and split in self._resident.indices else None
        samples = kept.draws(split, augment and train) if kept else self.samples(split, augment and train, whole)
        epoch = partial(epoch_of, self.trainer) if resident and self.trainer else None
        share = self.positive_share if train else None
        draws = self.seed, train, rank, world, epoch
        sampler = loading.sampler(self.arrays, self.indices[split], self.plan if train else None, share, *draws)
        workers = loading.workers(self.num_workers, self.trainer, kept is not None, train)
        return Loader(
            samples,
            batch_size=self.batch_size if train or not self.plan else 1,
            sampler=sampler,
            drop_last=train and self.drop_single,
            collate_fn=None if kept else collate,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else every epoch would draw from the generator that dropout draws from
            **processes(workers),
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """See `loader`."""
        return self.loader("train", resident=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """See `loader`."""
        return self.loader("val", resident=True)

    def test_dataloader(self) -> DataLoader[Batch]:
        """See `loader`."""
        return self.loader("test", resident=True)
