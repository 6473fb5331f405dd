"""The loader of a split: its order, its processes, its share of a run's ranks."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from segnet.data import cache
from segnet.data.dataset import Batch, Loader, processes
from segnet.errors import UserError


def ranks(trainer: Trainer | None) -> tuple[int, int]:
    """Rank of the process, and how many there are."""
    return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


def check_ranks(split: str, count: int, world: int) -> None:
    """Refuse a split of ``count`` images that leaves a process without one."""
    if count < world:
        raise UserError(
            f"data.split gives {count} image(s) to {split}, fewer than the {world} processes; use fewer "
            f"(trainer.devices, trainer.num_nodes)"
        )


def workers(wanted: int | Literal["auto"], trainer: Trainer | None, resident: bool, train: bool) -> int:
    """How many loader processes ``data.num_workers`` means.

    ``auto`` is none on a CPU (the cache outruns the step), up to 8 beside a GPU, and at most 2 where the images are
    kept there: drawing takes 0.1 ms an image, which a GPU should not wait for.
    """
    if wanted != "auto":
        return wanted
    on_cpu = trainer is None or trainer.strategy.root_device.type == "cpu"
    auto = 0 if on_cpu else min(8, max(1, (os.cpu_count() or 1) - 1))
    if not resident:
        return auto
    warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
    return min(2, auto) if train else 0


def shows(load: Callable[[int], cache.Pair], indices: Sequence[int]) -> NDArray[np.bool_]:
    """(len(indices),): which images show the class of a binary task."""
    return np.array([(load(index)[1] == 1).any() for index in indices], np.bool_)


def make(
    samples: Dataset[Batch],
    sampler: Sampler[Any],
    batch_size: int,
    count: int,
    collate: Callable[[Sequence[Batch]], Batch] | None,
    drop_last: bool = False,
) -> DataLoader[Batch]:
    """A loader with ``count`` processes."""
    return Loader(
        samples,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_last,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else every epoch would draw from the generator that dropout draws from
        **processes(count),
    )
