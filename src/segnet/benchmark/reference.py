"""The original project's training step and data path, written as plainly as theirs: what the benchmark divides by."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnet.networks.segnet import UnpoolingNetwork


class StockNetwork(nn.Module):
    """The same layers and weights with torch's own pooling: int64 indices, one per maximum."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        assert isinstance(net, UnpoolingNetwork)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) float to (N, num_classes, H, W) logits."""
        memory = []
        for stage in self.net.encoder:
            x = _plainly(stage, x)
            size = x.shape[-2:]
            x, index = F.max_pool2d(x, 2, return_indices=True)
            memory.append((index, size))
        x = _plainly(self.net.middle, x)
        for stage in self.net.decoder:
            index, size = memory.pop()
            x = _plainly(stage, F.max_unpool2d(x, index, (2, 2), output_size=size))
        out: Tensor = self.net.classifier(x)
        return out


def _plainly(stage: nn.Module, x: Tensor) -> Tensor:
    """Every layer by itself: torch's own batch norm and ReLU on a GPU, too."""
    for layer in stage.children():
        x = layer(x)
    return x


def read_batch(pairs: Sequence[tuple[Path, Path]], size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Decode, resize, flip, normalise and stack as in every epoch of the original: float32 (N, 3, H, W), (N, H, W)."""
    images, masks = [], []
    for image_file, mask_file in pairs:
        image = cv2.cvtColor(cv2.imread(str(image_file)), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
        grey = cv2.imread(str(mask_file), cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        image = cv2.resize(image, (size, size))
        grey = cv2.resize(grey, (size, size), interpolation=cv2.INTER_NEAREST)
        if rng.random() < 0.5:
            image, grey = image[:, ::-1], grey[:, ::-1]
        images.append(np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / 255)
        masks.append(np.ascontiguousarray(grey > 127).astype(np.float32))
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))
