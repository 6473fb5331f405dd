"""One data module for every data set: patterns say where pictures and masks are, Lightning gets loaders."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from segnet.data import cache
from segnet.data.dataset import Batch, EpochSampler, Pair, Samples, collate
from segnet.data.images import EXTENSIONS
from segnet.data.masks import IGNORE, Encoding
from segnet.data.splits import SPLITS, Split
from segnet.errors import UserError
from segnet.networks.segnet import SMALLEST

if TYPE_CHECKING:
    from segnet.data.on_device import Resident


class SegmentationDataModule(LightningDataModule):
    """Pictures and masks of a folder, resized to one size, in three splits.

    Args:
        root: folder of the data set.
        images: glob or globs below ``root`` that find the pictures.
        masks: where a picture's mask is, relative to ``root``; ``{stem}`` and ``{name}`` are the picture's
            name without and with suffix, ``{dir}`` its folder relative to the root, ``{parent}`` that
            folder's last part.
        mask: encoding of the mask files, see `segnet.data.masks`.
        classes: class names in order (one name for a binary task).
        num_classes: how many; 1 is a binary task with one logit.
        split: see `segnet.data.splits`.
        missing_mask: a picture without a mask is an ``error``, or its mask is ``empty``.
        defect_free: glob on the relative path of pictures that have no mask by design.
        image_size: side in pixels, or [height, width]; at least 32.
        augment: albumentations transforms for training, after the resizing; they may crop.
        positive_share: of pictures that show the class in a training epoch, which keeps its length; in 0..1. Null
            draws every picture once. Binary tasks only.
        batch_size: pictures per step and process.
        num_workers: loader processes; ``auto`` is 0 on a CPU (the cache outruns the step) and up to 8 beside a GPU.
        cache_dir: folder of the decoded pictures, null to decode in every epoch.
        cache_gb: bound of that folder in 10⁹ bytes.
        device_cache: keep the decoded images on the training device and transform them there, with the same draws;
            ``auto`` does so on a GPU that can do every transform, if the training split takes at most a quarter of its
            free memory.
        prepare: called with ``root`` where the root does not exist (a downloader, the renderer).
        seed: of order and random transforms.
        colors: RGB of each class in overlays; null draws from a fixed palette.
    """

    def __init__(
        self,
        root: str,
        images: str | Sequence[str],
        masks: str,
        mask: Encoding,
        classes: Sequence[str],
        num_classes: int,
        split: Callable[[Path, Sequence[str]], Split],
        missing_mask: Literal["error", "empty"] = "error",
        defect_free: str | None = None,
        image_size: int | Sequence[int] = 480,
        augment: Sequence[Any] = (),
        positive_share: float | None = None,
        batch_size: int = 4,
        num_workers: int | Literal["auto"] = "auto",
        cache_dir: str | None = None,
        cache_gb: float = 20.0,
        device_cache: bool | Literal["auto"] = "auto",
        prepare: Callable[..., Any] | None = None,
        seed: int = 0,
        colors: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.images = [images] if isinstance(images, str) else list(images)
        self.masks, self.mask, self.split = masks, mask, split
        self.classes, self.num_classes = list(classes), num_classes
        self.missing_mask, self.defect_free = missing_mask, defect_free
        self.image_size = _size(image_size)
        self.augment, self.batch_size, self.seed = list(augment), batch_size, seed
        self.num_workers, self.positive_share = num_workers, positive_share
        self.cache_dir, self.cache_gb, self.device_cache = cache_dir, cache_gb, device_cache
        self.prepare, self.colors = prepare, colors
        self._check()
        self.pairs: list[Pair] = []
        self.indices: dict[str, list[int]] = {}
        self._cached: cache.Pair | None = None
        self._resident: Resident | None = None

    def _check(self) -> None:
        if type(self.batch_size) is not int or self.batch_size < 1:
            raise UserError(f"data.batch_size={self.batch_size}: must be an integer of at least 1")
        if self.num_workers != "auto" and (type(self.num_workers) is not int or self.num_workers < 0):
            raise UserError(f"data.num_workers={self.num_workers}: must be 'auto' or at least 0")
        if self.device_cache != "auto" and type(self.device_cache) is not bool:
            raise UserError(f"data.device_cache={self.device_cache}: must be 'auto', true or false")
        if self.positive_share is not None:
            if not 0 < self.positive_share < 1:
                raise UserError(f"data.positive_share={self.positive_share}: must lie between 0 and 1, or be null")
            if self.num_classes > 1:
                raise UserError(
                    f"data.positive_share={self.positive_share} with {self.num_classes} classes: it is for binary "
                    f"tasks; set it to null"
                )
        if self.missing_mask not in ("error", "empty"):
            raise UserError(f"data.missing_mask={self.missing_mask}: must be 'error' or 'empty'")
        if not 1 <= self.num_classes < IGNORE:
            raise UserError(f"data.num_classes={self.num_classes}: must lie in 1..{IGNORE - 1}")
        if len(self.classes) != self.num_classes:
            raise UserError(
                f"data.num_classes={self.num_classes}, but data.classes names {len(self.classes)}: "
                f"{self.classes}; they must agree (a binary task has one)"
            )
        if self.colors is not None and len(self.colors) != self.num_classes:
            raise UserError(
                f"data.colors has {len(self.colors)} colours for {self.num_classes} classes; name one for each"
            )

    # -- what is on disk -------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Make or download the data where it is missing, and fill the cache; Lightning calls it once."""
        if self.prepare is not None and not self.root.exists():
            self.prepare(root=str(self.root))
        self.find()

    def setup(self, stage: str | None = None) -> None:
        """Find the pairs, split them and map the cache, in every process."""
        if not self.pairs:
            self.find()
        if stage == "fit" and self._cached is not None and self.num_classes > 1:
            absent = [n for n, (pixels, _) in zip(self.classes, self.class_frequencies(), strict=True) if pixels == 0]
            if absent:
                rank_zero_warn(f"data: no training picture shows {', '.join(absent)}; check_data.py tells more")
        if stage == "fit" and self.trainer is not None:
            self._resident = None  # frees an earlier one's memory first
            self._resident = self._upload(self.trainer.strategy.root_device)

    def find(self) -> None:
        """Fill ``pairs`` and ``indices`` (of each split); open or build the cache."""
        if not self.root.is_dir():
            raise UserError(f"data.root={self.root}: no such folder; set data.root to the folder of the data set")
        images = sorted(set(self._images()))
        if not images:
            raise UserError(f"data.root={self.root}: nothing matches data.images={self.images}")
        split = self.split(self.root, images)
        used = sorted({image for part in split.values() for image in part})
        self.pairs = [Pair(self.root / image, self._mask_of(image)) for image in used]
        if used and all(pair.mask is None for pair in self.pairs):
            raise UserError(
                f"data.masks={self.masks!r}: not one of {len(used)} pictures has a mask; correct the pattern"
            )
        where = {image: i for i, image in enumerate(used)}
        self.indices = {name: [where[image] for image in split[name]] for name in SPLITS}
        if empty := [name for name in SPLITS if not self.indices[name]]:
            raise UserError(
                f"data.split gives no picture to {', '.join(empty)} out of {len(images)}; correct data.split"
            )
        if leaked := sorted(set(split["train"]) & {*split["val"], *split["test"]}):
            raise UserError(f"data.split puts {leaked[0]} ({len(leaked)} in all) into train and val or test")
        self._cached = self._open_cache()
        if self._cached is not None and self.num_classes == 1 and not (self._cached[1] == 1).any():
            raise UserError(
                f"data.mask={self.mask}: not one pixel of {len(self.pairs)} masks is {self.classes[0]}; "
                f"masks that hold 0 and 1 need data/mask=values or data.mask.above=0"
            )

    def _images(self) -> Iterator[str]:
        for pattern in self.images:
            if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                raise UserError(f"data.images={pattern!r}: must be a pattern below data.root")
            for path in self.root.glob(pattern):
                if path.suffix.lower() in EXTENSIONS:
                    yield path.relative_to(self.root).as_posix()

    def _mask_of(self, image: str) -> Path | None:
        if self.defect_free is not None and fnmatchcase(image, self.defect_free):
            return None
        path = Path(image)
        try:
            name = self.masks.format(
                stem=path.stem, name=path.name, dir=path.parent.as_posix(), parent=path.parent.name
            )
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UserError(
                f"data.masks={self.masks!r}: wrong placeholder ({error}); use {{stem}}, {{name}}, {{dir}}, {{parent}}"
            ) from error
        mask = self.root / name
        if mask.is_file():
            return mask
        if self.missing_mask == "error":
            raise UserError(
                f"{self.root / image}: its mask {mask} is missing; add it, or set data.missing_mask=empty "
                f"(no mask means no defect) or data.defect_free=<pattern>"
            )
        return None

    def _open_cache(self) -> cache.Pair | None:
        if self.cache_dir is None:
            return None
        files = [file for pair in self.pairs for file in (pair.image, pair.mask)]
        key = cache.key_of(files, self.image_size, self.mask)
        count = len(self.pairs)
        opened = cache.open_or_build(Path(self.cache_dir), key, self._decode, count, self.image_size, self.cache_gb)
        if opened is None:
            rank_zero_warn(
                f"{count} pictures at {self.image_size[0]}×{self.image_size[1]} exceed data.cache_gb="
                f"{self.cache_gb}; they are decoded anew in every epoch"
            )
        return opened

    def _decode(self, index: int) -> cache.Pair:
        pair = self.pairs[index]
        picture, mask = pair.load(self.mask, self.image_size)
        top = int(mask[mask != IGNORE].max(initial=0))
        if top >= max(self.num_classes, 2):
            raise UserError(
                f"{pair.mask}: holds class {top}, but data.num_classes={self.num_classes}; correct it or data.mask"
            )
        return picture, mask

    def load(self, index: int) -> cache.Pair:
        """Picture uint8 (H, W, 3) and mask uint8 (H, W) of ``pairs[index]`` at ``image_size``."""
        if self._cached is None:
            return self._decode(index)
        return self._cached[0][index], self._cached[1][index]

    # -- what the trainer gets -------------------------------------------------------------------

    def _upload(self, device: torch.device) -> "Resident | None":
        """Put the decoded images on the device, as ``device_cache`` says: every split, or the training split alone."""
        if self.device_cache is False or (self.device_cache == "auto" and device.type != "cuda"):
            return None
        from segnet.data.on_device import Resident, supported

        if self._cached is None:
            refused = "nothing is cached; set data.cache_dir, and data.cache_gb large enough"
        elif reason := supported(self.augment, self.image_size):
            refused = f"data.augment: {reason}"
        else:
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
            image = 4 * self.image_size[0] * self.image_size[1]  # bytes, with the mask
            train = image * len(self.indices["train"])
            share, part = (free / 4, "a quarter of ") if self.device_cache == "auto" else (free, "")
            if train <= share:
                if self.num_workers == "auto":  # few suffice, see `loader`
                    warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
                everything = image * len(self.pairs) <= free / 4
                indices = self.indices if everything else {"train": self.indices["train"]}
                return Resident(self._cached, indices, self.augment, self.seed, device)
            refused = (
                f"the training split takes {train / 1e9:.3g} GB, over {part}the {free / 1e9:.3g} GB free on {device}"
            )
        if self.device_cache is True:
            raise UserError(f"data.device_cache=true: {refused}; or set data.device_cache=auto")
        rank_zero_info(f"data.device_cache=auto: images stay with the loader's workers: {refused}")
        return None

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Lightning's hook: make images and masks where the loader gave their rows on the device only."""
        if self._resident is None or "row" not in batch:
            return batch
        return self._resident(batch)

    def samples(self, split: str, augment: bool = True) -> Samples:
        """The data set of a split; only ``train`` is augmented."""
        transforms = self.augment if split == "train" and augment else ()
        return Samples(self.load, self.indices[split], transforms, self.seed)

    def loader(self, split: str, augment: bool = True, resident: bool = False) -> DataLoader[Batch]:
        """The loader of a split; ``train`` is shuffled and augmented, the others come in order of their names.

        With ``resident``, where the split is kept on the device, its batches are what `on_after_batch_transfer` makes
        whole.
        """
        kept = self._resident if resident and self._resident and split in self._resident.indices else None
        samples = kept.draws(split, augment and split == "train") if kept else self.samples(split, augment)
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if len(samples) < world:
            raise UserError(
                f"data.split gives {len(samples)} picture(s) to {split}, fewer than the {world} processes; use fewer "
                f"(trainer.devices, trainer.num_nodes)"
            )
        train, workers = split == "train", self._workers()
        if kept and self.num_workers == "auto":  # drawing takes 0.1 ms an image, which a GPU should not wait for
            workers = min(2, workers) if train else 0
        positive = self._positive() if train and self.positive_share is not None else None
        share = self.positive_share or 0.0
        return DataLoader(
            samples,
            batch_size=self.batch_size,
            sampler=EpochSampler(len(samples), self.seed, train, rank, world, positive, share),  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=None if kept else collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else every epoch would draw from the generator that dropout draws from
        )

    def _positive(self) -> NDArray[np.bool_]:
        """Which training pictures show the class."""
        found = np.array([(self.load(index)[1] == 1).any() for index in self.indices["train"]], np.bool_)
        if found.all() or not found.any():
            raise UserError(
                f"data.positive_share={self.positive_share}: {found.sum()} of {len(found)} training pictures show "
                f"{self.classes[0]}, so there is nothing to balance; set it to null"
            )
        return found

    def _workers(self) -> int:
        if self.num_workers != "auto":
            return self.num_workers
        on_cpu = self.trainer is None or self.trainer.strategy.root_device.type == "cpu"
        return 0 if on_cpu else min(8, max(1, (os.cpu_count() or 1) - 1))

    def train_dataloader(self) -> DataLoader[Batch]:
        """See `loader`."""
        return self.loader("train", resident=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """See `loader`."""
        return self.loader("val", resident=True)

    def test_dataloader(self) -> DataLoader[Batch]:
        """See `loader`."""
        return self.loader("test", resident=True)

    def class_frequencies(self) -> NDArray[np.int64]:
        """Count of pixels (2 or num_classes, 2) over the training split: of the class, and of the pictures
        in which the class occurs. Ignored pixels count in neither.
        """
        count = max(self.num_classes, 2)
        totals = np.zeros((count, 2), np.int64)
        for index in self.indices["train"]:
            pixels = np.bincount(self.load(index)[1].ravel(), minlength=IGNORE + 1)[:count]
            totals[:, 0] += pixels
            totals[:, 1] += pixels.sum() * (pixels > 0)
        return totals


def _size(value: int | Sequence[int]) -> tuple[int, int]:
    sides = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(sides) != 2 or any(type(side) is not int or side < SMALLEST for side in sides):
        raise UserError(
            f"data.image_size={value}: must be one side or [height, width], at least {SMALLEST} pixels each"
        )
    return sides[0], sides[1]
