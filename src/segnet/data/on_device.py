"""The decoded images of a data set on the device, where batches are gathered and transformed."""

from collections.abc import Sequence
from math import inf
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from segnet import terminal
from segnet.data.cache import Arrays
from segnet.data.dataset import Batch, seed_of
from segnet.data.device_transforms import DeviceTransforms, supported
from segnet.errors import UserError
from segnet.networks.replay import Replay


class Draws(Dataset[Batch]):
    """What `Resident` makes a batch of: rows of its tensors and what was drawn, by ``(epoch, index, draw)``."""

    def __init__(self, first: int, length: int, transforms: DeviceTransforms | None, seed: int) -> None:
        self.first, self.length, self.transforms, self.seed = first, length, transforms, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int, int] | int) -> Batch:
        epoch, i, draw = key if isinstance(key, tuple) else (0, key, 0)
        item = {"index": torch.tensor(i), "row": torch.tensor(self.first + i)}
        if self.transforms is not None:
            item["parameters"] = self.transforms.draw(seed_of(self.seed, epoch, i, draw))
        return item


class Resident:
    """Decoded images and masks of some splits, kept on a device.

    Args:
        cached: images (count, H, W, 3) and masks (count, H, W), uint8.
        indices: of each split to keep, into ``cached``.
        transforms: of the training split, each `supported`.
        seed: of the random transforms.
        device: where.
    """

    def __init__(
        self,
        cached: Arrays,
        indices: dict[str, list[int]],
        transforms: Sequence[Any],
        seed: int,
        device: torch.device,
    ) -> None:
        size = (cached[0].shape[1], cached[0].shape[2])
        self.transforms = DeviceTransforms(transforms, size) if transforms else None
        self.indices, self.seed = indices, seed
        rows = [row for part in indices.values() for row in part]
        self.images, self.masks = (_upload(array, rows, device) for array in cached)
        self._transformed = Replay(self._gather_and_transform)

    def draws(self, split: str, augment: bool) -> Draws:
        """The data set of a split, for a loader; its batches become whole by calling this."""
        names = list(self.indices)
        first = sum(len(self.indices[name]) for name in names[: names.index(split)])
        return Draws(first, len(self.indices[split]), self.transforms if augment else None, self.seed)

    def __call__(self, batch: Batch) -> Batch:
        """{image, mask, index} as the other loader's, of {index, row} and perhaps {parameters} on the device."""
        given = [batch[name] for name in ("row", "parameters") if name in batch]
        images, masks = self._transformed(*given)
        return {"image": images, "mask": masks, "index": batch["index"]}

    def _gather_and_transform(self, row: Tensor, parameters: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images, masks = self.images.index_select(0, row).permute(0, 3, 1, 2), self.masks.index_select(0, row)
        if parameters is None:
            return images, masks
        assert self.transforms is not None
        return self.transforms(images, masks, parameters)


def keep(
    wanted: bool | Literal["auto"],
    cached: Arrays | None,
    indices: dict[str, list[int]],
    transforms: Sequence[Any],
    seed: int,
    device: torch.device,
) -> Resident | None:
    """Put decoded images on the device: every split, or where memory is short the training split alone.

    Args:
        wanted: ``data.device_cache``; ``auto`` is for a GPU of which the training split takes at most a quarter, of all
            its memory: what is free may be less when the run is resumed, and the transforms would round otherwise.
        cached: the whole data set, None where nothing is cached.
        indices: of each split, into ``cached``.
        transforms: of the training split.
        seed: of the random transforms.
        device: where.

    Returns:
        None where the images stay with the loader's workers; with ``auto`` a line says why.

    Raises:
        UserError: they cannot be kept, and ``wanted`` is True.
    """
    if wanted is False or (wanted == "auto" and device.type != "cuda"):
        return None
    if cached is None:
        refused = "nothing is cached; set data.cache_dir, and data.cache_gb large enough"
    elif reason := supported(transforms, (cached[0].shape[1], cached[0].shape[2])):
        refused = f"data.augment: {reason}"
    else:
        free, memory = torch.cuda.mem_get_info(device) if device.type == "cuda" else (inf, inf)
        image = cached[0][0].nbytes + cached[1][0].nbytes
        train = image * len(indices["train"])
        bounds = [(free, f"the {free / 1e9:.3g} GB free on")]
        if wanted == "auto":
            bounds.append((memory / 4, f"a quarter of the {memory / 1e9:.3g} GB of"))
        most, part = min(bounds)
        if train <= most:
            everything = image * len(cached[0]) <= min(free, memory / 4)
            return Resident(cached, indices if everything else {"train": indices["train"]}, transforms, seed, device)
        refused = f"the training split takes {train / 1e9:.3g} GB, over {part} {device}"
    if wanted is True:
        raise UserError(f"data.device_cache=true: {refused}; or set data.device_cache=auto")
    terminal.info(f"data.device_cache=auto: images stay with the loader's workers: {refused}")
    return None


def _upload(array: NDArray[np.uint8], rows: list[int], device: torch.device) -> Tensor:
    """Rows of a memory map as one tensor, in parts, so that the main memory need not hold them all."""
    out = torch.empty((len(rows), *array.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(rows), 64):
        part = torch.from_numpy(array[rows[start : start + 64]])
        part = part.pin_memory() if device.type == "cuda" else part
        out[start : start + 64].copy_(part, non_blocking=True)
    return out
