"""How uncertain an IoU is, given how few images it comes from: 95 % intervals by drawing the images anew."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from numpy.typing import NDArray

from segnet.data.datamodule import SegmentationDataModule
from segnet.reports.tested import Confusions, confusion
from segnet.runs.comparison import interval
from segnet.training.module import SegmentationModule
from segnet.training.panels import answer

FEW = 5  # images, below which a figure says little, and its interval too
Intervals = dict[str, list[float]]
NAMES = {"val/iou": "validation", "test/iou": "test", "test/iou_own_size": "test, images' own size"}


def found(split: str, module: SegmentationModule, own: Confusions | None) -> Intervals:
    """Intervals of ``<split>/iou`` and ``<split>/iou_own_size`` of the last test, see `interval`; those there are.

    Args:
        split: its name.
        module: the tested one.
        own: confusion matrices at the images' own size, or None.
    """
    sides = {"iou": [matrix.numpy() for _, matrix in module.image_counts.found], "iou_own_size": own or []}
    return _some({f"{split}/{name}": matrices for name, matrices in sides.items()}, module)


def of_validation(trainer: Trainer, module: SegmentationModule, data: SegmentationDataModule) -> Intervals:
    """The interval of ``val/iou``: the weights as they are once more over the validation images.

    None of it where training has left some of these out.
    """
    if not validates_all(trainer):
        return {}
    size = max(len(module.classes), 2)
    was_training, matrices = module.training, []
    module.eval()
    for index in data.indices["val"]:
        _, mask, guess = answer(module, data, index)
        matrices.append(confusion(mask, guess, size))
    module.train(was_training)
    return _some({"val/iou": matrices}, module)


def validates_all(trainer: Trainer) -> bool:
    """Whether training uses all validation images: a share of 1.0 of them, and not 1 batch."""
    limit = trainer.limit_val_batches
    return isinstance(limit, float) and limit == 1


def _some(sides: dict[str, Sequence[NDArray[np.int64]]], module: SegmentationModule) -> Intervals:
    binary = len(module.classes) == 1
    bounds = {name: interval(np.stack(part).reshape(len(part), -1), binary) for name, part in sides.items() if part}
    return {name: list(limits) for name, limits in bounds.items() if limits}


def lines(results: dict[str, Any]) -> list[str]:
    """What a model card says of the figures in the content of results.json."""
    told = []
    for name, label in NAMES.items():
        if results["metrics"].get(name) is not None:
            limits = results["intervals"].get(name)
            split = name.partition("/")[0]
            images = results["tested"] if split == "test" else results["images"][split]
            told.append(f"{label} {note(limits, images)}")
    return told


def note(limits: Sequence[float] | None, images: int) -> str:
    """Such as ``0.61 to 0.72 (25 images)``."""
    if limits is None:
        return f"unknown ({images} image{'s' * (images != 1)}: the figure says little)"
    few = ": so few say little" if images < FEW else ""
    return f"{limits[0]:.4f} to {limits[1]:.4f} ({images} images{few})"
