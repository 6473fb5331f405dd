"""What int8 is chosen by: training images, and what it costs on validation images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segnet.deployment.form import Form
from segnet.training.metrics import Counts, scores
from segnet.training.module import SegmentationModule

Array = NDArray[np.generic]
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class Calibration:
    """Images for a quantiser.

    Args:
        module: the trained module that is quantised.
        form: what the file takes.
        images: uint8 (H, W, 3) training images, from which the ranges of the activations come.
        examples: validation images with their masks, by which layers are chosen that stay in float32.
        max_drop: of the examples' IoU that int8 may cost.
    """

    module: SegmentationModule
    form: Form
    images: Sequence[NDArray[np.uint8]]
    examples: Sequence[Pair]
    max_drop: float

    def inputs(self) -> Iterator[Array]:
        """The images as the file takes them."""
        for image in self.images:
            yield from (batch.numpy() for batch in self.given(image))

    def given(self, image: NDArray[np.uint8]) -> Iterator[Tensor]:
        """One image as the file takes it."""
        batch = torch.tensor(image).permute(2, 0, 1)[None]
        return self.form.batches(batch, self.module.mean, self.module.std)

    def iou(self, run: Callable[[Array], Array], examples: Iterable[Pair] | None = None) -> float:
        """Of a model, which maps what the file takes to what it gives, over the examples or some; NaN of none."""
        if examples is None and not self.examples:
            return nan
        classes = self.module.classes
        counts = Counts(len(classes))
        for image, mask in self.examples if examples is None else examples:
            found = [torch.from_numpy(np.asarray(run(batch.numpy()))) for batch in self.given(image)]
            (probabilities,) = self.form.probabilities(found, 1, mask.shape)  # type: ignore[arg-type]
            counts.update(*counts.count_probabilities(probabilities, torch.tensor(mask)))
        return scores(*counts.compute(), classes)["iou"].item()

    def costly(self, layers: Sequence[str], quantized: Callable[[Sequence[str]], float], plain: float) -> Sequence[str]:
        """The layers that stay in float32, those first without which int8 has the greatest IoU, until it holds.

        Args:
            layers: that may.
            quantized: the IoU with some of them in float32; called last with those that are returned.
            plain: the IoU in float32.
        """
        kept: list[str] = []
        if plain - quantized(kept) > self.max_drop:
            for layer in sorted(layers, key=lambda layer: -quantized([layer])):
                kept.append(layer)
                if plain - quantized(kept) <= self.max_drop:
                    break
        return kept


def report(calibration: Calibration, method: str, kept: dict[str, str]) -> dict[str, Any]:
    """For ``verification.json``: how the file was quantised, and which layers stayed in float32 and why."""
    return {"method": method, "images": len(calibration.images), "max_drop": calibration.max_drop, "float32": kept}


def convolution(number: int, count: int, weights: Sequence[int]) -> str:
    """What a report calls the ``number``-th of ``count`` convolutions, of weights with this shape."""
    return f"convolution {number} of {count} ({weights[1]} to {weights[0]} channels)"
