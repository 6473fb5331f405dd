"""Evaluating an image that is larger than the network's input as `predict.py` predicts it: by a sliding window."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.data.masks import IGNORE_INDEX
from segnet.networks.window import Corner
from segnet.training.metrics import Counts
from segnet.training.segmenter import Segmenter


def evaluate(
    module: Segmenter, loss: nn.Module, counts: Counts, image: Tensor, mask: Tensor, samples: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, probabilities float32 (C, H, W), confusion matrix and histogram of one image.

    The counts are of the blended probabilities, over every pixel once. The loss is the mean over windows, each a crop
    as in training, so that it compares with the training loss; where windows overlap, pixels count in each of them.

    Args:
        module: the network.
        loss: of logits (N, C, h, w) and masks (N, h, w).
        counts: what counts.
        image: uint8 (1, 3, H, W), at the scale of the training.
        mask: uint8 (1, H, W).
        samples: of dropout, whose mean probabilities are taken; 0 for one pass without.
    """
    height, width = module.image_size
    missing = [max(0, side - own) for side, own in zip((height, width), mask.shape[-2:], strict=True)]
    truth = F.pad(mask, (0, missing[1], 0, missing[0]), value=IGNORE_INDEX)
    losses: list[Tensor] = []

    def seen(logits: Tensor, corners: Sequence[Corner]) -> None:
        with torch.autocast(logits.device.type, enabled=False):
            losses.extend(
                loss(single, truth[:, top : top + height, left : left + width].long())
                for single, (top, left) in zip(torch.split(logits, 1), corners, strict=True)
            )

    probabilities = module.slide(image, samples, seen)
    return torch.stack(losses).mean(), probabilities, *counts.count_probabilities(probabilities, mask[0])
