"""A network and what it needs to turn images into decisions: its classes, the size and the scale of its input."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from segnet.data.images import resize_exact
from segnet.decisions import OperatingPoint
from segnet.networks import window
from segnet.networks.segnet import enable_mc_dropout


class Segmenter(LightningModule):
    """Predicts with any network that maps (N, 3, H, W) to logits (N, num_classes, H, W).

    Args:
        net: the network.
        classes: class names; one name is a binary task.
        image_size: (height, width) that images get in `forward`, or that crops have, as in training.
        mean: of the RGB channels in 0..1, for normalisation on the device.
        std: of the same.
        channels_last: keep weights and activations in the layout that fast convolutions want.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        classes: Sequence[str],
        image_size: int | Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        channels_last: bool,
    ) -> None:
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last) if channels_last else net  # type: ignore[call-overload]
        self.classes = list(classes)
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self._config: dict[str, Any] = {}
        self.operating_point: OperatingPoint | None = None  # that calibrate.py has chosen for these weights

    @property
    def config(self) -> dict[str, Any]:
        """What rebuilds this module: plain containers, numbers and strings, kept in its checkpoints; empty at first."""
        return self._config

    @config.setter
    def config(self, config: dict[str, Any]) -> None:
        _check_plain(config)
        self._config = config

    @property
    def colors(self) -> list[list[int]] | None:
        """RGB of each class in overlays, as the data it was trained on says; None for the standard palette."""
        found: list[list[int]] | None = self.config.get("data", {}).get("colors")
        return found

    @property
    def bits(self) -> int | None:
        """Bits in use in 16-bit images, as the data it was trained on says; None decides by each image's values."""
        found: int | None = self.config.get("data", {}).get("bits")
        return found

    @property
    def on_crops(self) -> bool:
        """Whether it was trained on crops of ``image_size``, by which it then slides over images."""
        return self.config.get("data", {}).get("crop") is not None

    @property
    def scale(self) -> float:
        """Of images whose crops it was trained on."""
        return float(self.config.get("data", {}).get("scale", 1.0))

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 (N, C, H, W) of uint8 RGB images (N, 3, H, W) of any size.

        Images are resized to ``image_size`` as in training, the logits back to the images' own size.
        """
        height, width = images.shape[-2:]
        logits = self.logits(resize_exact(images, self.image_size))
        if (height, width) != self.image_size:
            logits = F.interpolate(logits, (height, width), mode="bilinear")
        return logits

    def logits(self, images: Tensor) -> Tensor:
        """Logits float32 (N, C, H, W) of RGB images (N, 3, H, W) in 0..255, uint8 or float, H and W unchanged."""
        out: Tensor = self.net(self.normalise(images))
        return out.float()

    def normalise(self, images: Tensor) -> Tensor:
        """What the network gets, float32 (N, 3, H, W), of RGB images in 0..255."""
        return images.to(torch.float32, copy=True).div_(255).sub_(self.mean).div_(self.std)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities (N, C, H, W) in 0..1: sigmoid of one logit, softmax of several."""
        return logits.sigmoid() if len(self.classes) == 1 else logits.softmax(1)

    def decide(self, logits: Tensor) -> Tensor:
        """Class indices (N, H, W) int64; 0 and 1 for a binary task."""
        return (logits[:, 0] > 0).long() if len(self.classes) == 1 else logits.argmax(1)

    def slide(
        self, image: Tensor, samples: int = 0, seen: Callable[[Tensor, Sequence[window.Corner]], None] | None = None
    ) -> Tensor:
        """Class probabilities float32 (C, H, W) of an image (1, 3, H, W), blended over windows of ``image_size``.

        Args:
            image: RGB in 0..255, at the scale of the training.
            samples: as in `mean_of_samples`; 0 for one pass.
            seen: gets the logits (N, C, h, w) of windows, and where these lie.
        """

        def run(windows: Sequence[Tensor], corners: Sequence[window.Corner]) -> Tensor:
            batch = torch.cat(list(windows)).contiguous(memory_format=torch.channels_last)
            logits = self.mean_of_samples(batch, samples) if samples else self.logits(batch)
            if seen is not None:
                seen(logits, corners)
            return self.probabilities(logits)

        height, width = image.shape[-2:]
        blended = window.slide(window.padded(image, self.image_size), self.image_size, run, len(self.classes))
        return blended[:, :height, :width]

    def decided(self, image: Tensor) -> Tensor:
        """Class indices (H, W) int64 of an image (1, 3, H, W) as the data give it: at ``image_size``, or by windows."""
        if not self.on_crops:
            return self.decide(self.logits(image))[0]
        probabilities = self.slide(image)
        return (probabilities[0] > 0.5).long() if len(self.classes) == 1 else probabilities.argmax(0)

    def mean_of_samples(self, images: Tensor, count: int) -> Tensor:
        """Logits of the mean probabilities over ``count`` samples of the dropout (Bayesian SegNet, section 3)."""
        enable_mc_dropout(self.net)
        samples = (self.probabilities(self.logits(images)) for _ in range(count))
        mean = torch.stack(list(samples)).mean(0).clamp(1e-7, 1 - 1e-7)
        return mean.logit() if len(self.classes) == 1 else mean.log()


def _check_plain(value: Any) -> None:
    """Refuse what ``torch.load(weights_only=True)`` would."""
    if isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_plain(part)
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise TypeError(f"a checkpoint cannot hold {value!r} as configuration: only containers, numbers and strings")
