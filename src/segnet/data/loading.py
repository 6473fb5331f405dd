"""What a loader draws: the order of a split, and by how many processes."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch.utils.data import Sampler

from segnet.data import cache
from segnet.data.crops import ANYWHERE, CropSampler, CropSamples, Plan, areas, epoch_length, rare
from segnet.data.dataset import EpochSampler
from segnet.data.decoded import Decoded

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def workers(wanted: int | Literal["auto"], trainer: "Trainer | None", resident: bool, train: bool) -> int:
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


def sampler(
    arrays: Decoded,
    indices: Sequence[int],
    plan: Plan | None,
    share: float | None,
    seed: int,
    shuffle: bool,
    rank: int,
    world: int,
    epoch: Callable[[], int] | None,
) -> Sampler[Any]:
    """The order of a split.

    Args:
        arrays: images and masks.
        indices: of the split, into them.
        plan: draw crops so; where some are to show rare classes, every mask is looked at. None: whole images.
        share: of whole images that show more than the first class; None draws each once.
        seed: of the order.
        shuffle: draw it anew in every epoch.
        rank: of this process.
        world: how many processes there are.
        epoch: as in `EpochSampler`.
    """
    if plan is None:
        positive = None if share is None else np.array([arrays.shows(index) for index in indices], np.bool_)
        return EpochSampler(len(indices), seed, shuffle, rank, world, positive, share or 0.0, epoch)
    sizes = [arrays.size_at(index) for index in indices]
    classes = rare_classes(arrays, indices) if plan.share else []
    masks = [arrays.look(index).counts for index in indices] if classes else []
    showing = [np.array([i for i, counts in enumerate(masks) if counts[label]], np.int64) for label in classes]
    length = epoch_length(sizes, plan)
    return CropSampler(areas(sizes, plan.size), showing, classes, length, plan.share, seed, rank, world, epoch)


def rare_classes(arrays: Decoded, indices: Sequence[int]) -> list[int]:
    """Those of `segnet.data.crops.rare`."""
    return rare(arrays.frequencies(indices)[:, 0], arrays.num_classes)


def example(arrays: Decoded, index: int, plan: Plan | None, seed: int) -> cache.Arrays:
    """A pair as the network gets it: of large images a crop, around the least frequent class but the first, if any."""
    if plan is None:
        return arrays[index]
    counts = arrays.look(index).counts
    shown = [label for label in np.argsort(counts, kind="stable").tolist() if label and counts[label]]
    return CropSamples(arrays, [index], plan.size, seed=seed).pair(0, 0, 0, shown[0] if shown else ANYWHERE)


def told(arrays: Decoded, indices: Sequence[int], plan: Plan, classes: Sequence[str]) -> str:
    """How an epoch draws crops, for people."""
    names = ["background", *classes] if arrays.num_classes == 1 else classes
    count = epoch_length([arrays.size_at(index) for index in indices], plan)
    around = [names[label] for label in rare_classes(arrays, indices)] if plan.share else []
    shown = f"{plan.share:.0%} around {', '.join(around)}" if around else "anywhere"
    if plan.share and not around:
        shown += " (no class is rare)"
    return f"data.crop: an epoch draws {count} crops of {plan}, {shown}"
