"""The figures of a tested split: the module's, IoU at the images' own size, false alarms where nothing is defective."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor

from segnet.data.cache import Arrays
from segnet.data.decoding import header
from segnet.data.masks import IGNORE_INDEX, Encoding
from segnet.data.pairs import Pair
from segnet.deployment.pipeline import ahead, threads
from segnet.deployment.predictor import Prediction, Predictor
from segnet.deployment.writer import READ_AHEAD, THREADS, TOGETHER
from segnet.training.metrics import scores
from segnet.training.module import SegmentationModule

BATCH = 4  # images at a time, as conf/predict.yaml has it
# Figures that say nothing where no pixel shows a defect.
NEED_A_DEFECT = ("iou", "iou_own_size", "dice", "precision", "recall", "average_precision")
Confusions = list[NDArray[np.int64]]


def figures(module: SegmentationModule, split: str, trainer: Trainer, own: Confusions | None) -> dict[str, float]:
    """Every figure of the split that the trainer has just tested by its name, ``test/iou``; nan where it is undefined.

    ``iou`` is counted at the size that the network gets, ``iou_own_size`` at the images' own. Where no pixel shows
    anything but the first class, the figures are ``false_alarm_images`` (share of the images with one),
    ``false_alarm_pixels`` (of an image, on average) and ``false_alarm_area`` (share of the pixels).

    Args:
        module: the tested one.
        split: its name, which the figures get.
        trainer: what has tested it.
        own: confusion matrices of the images at their own size, or None.
    """
    logged = trainer.callback_metrics.items()
    found = {name.removeprefix("test/"): value.item() for name, value in logged if name.startswith("test/")}
    if own is not None:
        values = scores(torch.from_numpy(np.sum(own, 0)), torch.zeros(2, 1), module.classes)
        found |= {k.replace("iou", "iou_own_size", 1): v.item() for k, v in values.items() if k.startswith("iou")}
    matrices = [matrix for _, matrix in module.image_counts.found]
    # A small one may show at the images' own size only.
    if not any(matrix[1:].any() for matrix in (*matrices, *(own or ()))):
        found |= {name: math.nan for name in found if name.partition("/")[0] in NEED_A_DEFECT}
        found |= false_alarms(matrices)
    return {f"{split}/{name}": value for name, value in sorted(found.items())}


def false_alarms(matrices: Sequence[Tensor]) -> dict[str, float]:
    """Of images (their confusion matrices) without a defect: how many pixels are taken for one, and in how many."""
    wrong = [int(matrix[0, 1:].sum()) for matrix in matrices]
    pixels = sum(int(matrix.sum()) for matrix in matrices)
    return {
        "false_alarm_images": sum(count > 0 for count in wrong) / len(wrong),
        "false_alarm_pixels": sum(wrong) / len(wrong),
        "false_alarm_area": sum(wrong) / max(pixels, 1),
    }


def predicted(
    module: SegmentationModule, device: torch.device, pairs: Iterable[Pair], encoding: Encoding
) -> Iterator[tuple[NDArray[np.uint8], Prediction]]:
    """Mask (H, W) of class indices and prediction of each image, both at its own size.

    As with the defaults of conf/predict.yaml, the whole image goes through the network in float32, at the size that
    this was trained at.
    """
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # training and evaluation allow less
    try:
        with torch.inference_mode(False), threads(THREADS) as pool:  # Lightning may have switched it on
            model = module.to(device).float().eval()
            predictor = Predictor(model, mc_samples=module.mc_samples, batch_size=BATCH)
            tasks = ((_bytes(pair), partial(pair.load, encoding, None)) for pair in pairs)
            for batch in _batches(ahead(pool, tasks, 2 * BATCH, READ_AHEAD)):
                predictions = predictor([image for image, _ in batch])
                yield from zip((mask for _, mask in batch), predictions, strict=True)
    finally:
        torch.set_float32_matmul_precision(precision)


def _bytes(pair: Pair) -> int:
    """What decoding an image and its mask takes at its peak."""
    height, width, _ = header(pair.image)
    return 8 * height * width


def _batches(pairs: Iterable[Arrays]) -> Iterator[list[Arrays]]:
    """As many at a time as ``predict.py`` takes: `BATCH`, or fewer large ones."""
    batch: list[Arrays] = []
    for image, mask in pairs:
        if batch and (len(batch) == BATCH or sum(m.size for _, m in batch) + mask.size > TOGETHER):
            yield batch
            batch = []
        batch.append((image, mask))
    if batch:
        yield batch


def confusion(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], size: int) -> NDArray[np.int64]:
    """Pixels (size, size) by truth (rows) and prediction (columns) of two masks (H, W) of class indices."""
    known = truth != IGNORE_INDEX
    pairs = truth[known].astype(np.int64) * size + predicted[known]
    return np.bincount(pairs, minlength=size**2).reshape(size, size)
