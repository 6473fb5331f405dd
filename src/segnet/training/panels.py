"""Panels of a network's answers: image, truth, prediction and errors side by side."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from segnet.data.datamodule import SegmentationDataModule
from segnet.data.decoding import header
from segnet.data.images import resize_mask, resize_pair
from segnet.training.module import SegmentationModule
from segnet.visualization.overlays import drawn_at, palette, panel
from segnet.visualization.review import review


def draw_panels(
    module: SegmentationModule, data: SegmentationDataModule, split: str, count: int
) -> list[NDArray[np.uint8]]:
    """Panels of ``count`` images spread over a split, foreground first where a binary task has any."""
    table = palette(len(module.classes), data.colors)
    return _each(module, data, split, count, lambda index: draw_panel(module, data, index, table))


def draw_reviews(
    module: SegmentationModule, data: SegmentationDataModule, split: str, count: int
) -> list[NDArray[np.uint8]]:
    """As `draw_panels`, each with titles and legend in the proportions of its file, see `review`."""
    table = palette(len(module.classes), data.colors)

    def draw(index: int) -> NDArray[np.uint8]:
        return review(*answer(module, data, index), table, module.classes, header(data.pairs[index].image)[:2])

    return _each(module, data, split, count, draw)


def _each(
    module: SegmentationModule,
    data: SegmentationDataModule,
    split: str,
    count: int,
    draw: Callable[[int], NDArray[np.uint8]],
) -> list[NDArray[np.uint8]]:
    """What ``draw`` makes of ``count`` images spread over a split, foreground first in a binary task."""
    indices = data.indices[split]
    order = list(range(len(indices)))
    if len(module.classes) == 1:  # an image without a defect shows little
        order = [i for i in order if data.arrays.shows(indices[i])] or order
    picks = [order[i] for i in np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]
    was_training = module.training
    module.eval()
    panels = [draw(indices[i]) for i in dict.fromkeys(picks)]
    module.train(was_training)
    return panels


def answer(
    module: SegmentationModule, data: SegmentationDataModule, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Image (H, W, 3), truth and prediction (H, W) of ``data.pairs[index]``."""
    image, mask = data.load(index)
    tensor = torch.tensor(image).permute(2, 0, 1)[None].to(module.device)
    with torch.no_grad(), module.trainer.precision_plugin.forward_context():
        return image, mask, module.decided(tensor).byte().cpu().numpy()


def draw_panel(
    module: SegmentationModule, data: SegmentationDataModule, index: int, table: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Image, truth, prediction and errors of ``data.pairs[index]``, see `panel`; a large image is drawn smaller."""
    image, mask, guess = answer(module, data, index)
    if module.on_crops:
        size = drawn_at(mask.shape)
        image, mask, guess = *resize_pair(image, mask, size), resize_mask(guess, size)
    return panel(image, mask, guess, table, binary=len(module.classes) == 1)
