"""Panels of a network's answers: image, truth, prediction and errors side by side."""

import numpy as np
import torch
from numpy.typing import NDArray

from segnet.data.datamodule import SegmentationDataModule
from segnet.data.images import resize_mask, resize_pair
from segnet.training.module import SegmentationModule
from segnet.visualization.overlays import drawn_at, palette, panel


def draw_panels(
    module: SegmentationModule, data: SegmentationDataModule, split: str, count: int
) -> list[NDArray[np.uint8]]:
    """Panels of ``count`` images spread over a split, foreground first where a binary task has any."""
    indices = data.indices[split]
    order = list(range(len(indices)))
    binary = len(module.classes) == 1
    if binary:  # an image without a defect shows little
        order = [i for i in order if data.arrays.shows(indices[i])] or order
    picks = [order[i] for i in np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]
    table = palette(len(module.classes), data.colors)
    was_training = module.training
    module.eval()
    panels = [draw_panel(module, data, indices[i], table) for i in dict.fromkeys(picks)]
    module.train(was_training)
    return panels


def draw_panel(
    module: SegmentationModule, data: SegmentationDataModule, index: int, table: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Image, truth, prediction and errors of ``data.pairs[index]``, see `panel`; a large image is drawn smaller."""
    image, mask = data.load(index)
    tensor = torch.tensor(image).permute(2, 0, 1)[None].to(module.device)
    with torch.no_grad(), module.trainer.precision_plugin.forward_context():
        guess = module.decided(tensor).byte().cpu().numpy()
    if module.on_crops:
        size = drawn_at(mask.shape)
        image, mask, guess = *resize_pair(image, mask, size), resize_mask(guess, size)
    return panel(image, mask, guess, table, binary=len(module.classes) == 1)
