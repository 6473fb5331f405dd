"""From pictures of any size to class probabilities: whole or in overlapping tiles, with mirror images on request."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from segnet.images import resize
from segnet.module import SegmentationModule

FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-1, -2))


class Predictor:
    """Runs a trained module over pictures.

    Args:
        module: in evaluation mode, on its device.
        precision: Lightning's name; ``bf16-mixed`` and ``16-mixed`` compute in autocast.
        tile: side of the sliding window in pixels, null to resize whole pictures as in training.
        overlap: share of a window that the next one covers again, in [0, 1).
        flips: average over mirror images.
        batch_size: pictures or windows at a time.
    """

    def __init__(
        self,
        module: SegmentationModule,
        precision: str = "32-true",
        tile: int | None = None,
        overlap: float = 0.25,
        flips: bool = False,
        batch_size: int = 4,
    ) -> None:
        if tile is not None and (type(tile) is not int or tile < 32):
            raise ValueError(f"tile={tile}: must be null or a side of at least 32 pixels")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap={overlap}: must lie in [0, 1), such as 0.25")
        if type(batch_size) is not int or batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be an integer of at least 1")
        self.module, self.tile, self.overlap, self.flips = module, tile, overlap, flips
        self.batch_size = batch_size
        self.dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)

    @torch.no_grad()
    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Probabilities float32 (C, H, W) of each uint8 (H, W, 3) RGB picture, on the CPU."""
        tensors = [torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] for picture in pictures]
        found: list[Tensor | None] = [None] * len(tensors)
        whole = [i for i, t in enumerate(tensors) if self.tile is None or max(t.shape[-2:]) <= self.tile]
        for i, out in zip(whole, self._whole([tensors[i] for i in whole]), strict=True):
            found[i] = out
        return [self._tiled(tensors[i]) if out is None else out for i, out in enumerate(found)]

    def _whole(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Resize to the training size, run in batches, resize the logits back as `SegmentationModule.forward` does."""
        out = []
        for start in range(0, len(tensors), self.batch_size):
            part = tensors[start : start + self.batch_size]
            small = torch.cat([resize(t, self.module.image_size) for t in part])
            for logits, tensor in zip(torch.split(self._logits(small), 1), part, strict=True):
                size = (tensor.shape[-2], tensor.shape[-1])
                if size != self.module.image_size:
                    logits = F.interpolate(logits, size, mode="bilinear")
                out.append(self.module.probabilities(logits)[0].cpu())
        return out

    def _tiled(self, tensor: Tensor) -> Tensor:
        """Slide a window over (1, 3, H, W) at its own scale and blend with a pyramid of weights."""
        assert self.tile is not None
        height, width = tensor.shape[-2:]
        tops, lefts = self._starts(height), self._starts(width)
        ramp = torch.linspace(-1, 1, self.tile + 2)[1:-1].abs().neg().add(1)
        total: Tensor = torch.zeros(len(self.module.classes), height, width)
        weights = torch.zeros(height, width)
        places = [(top, left) for top in tops for left in lefts]
        for start in range(0, len(places), self.batch_size):
            part = places[start : start + self.batch_size]
            windows = [tensor[..., t : t + self.tile, s : s + self.tile] for t, s in part]
            probabilities = self.module.probabilities(self._logits(torch.cat(windows))).cpu()
            for (t, s), values in zip(part, probabilities, strict=True):
                h, w = values.shape[-2:]
                weight = ramp[:h, None] * ramp[None, :w]
                total[:, t : t + h, s : s + w] += values * weight
                weights[t : t + h, s : s + w] += weight
        return total / weights

    def _starts(self, side: int) -> list[int]:
        """First pixels of the windows along a side, evenly spread, the last one flush with the end."""
        assert self.tile is not None
        if side <= self.tile:
            return [0]
        step = max(1, int(self.tile * (1 - self.overlap)))
        count = -(-(side - self.tile) // step) + 1
        return [round(i * (side - self.tile) / (count - 1)) for i in range(count)]

    def _logits(self, pictures: Tensor) -> Tensor:
        """Logits float32 of uint8 (N, 3, H, W) pictures; with ``flips`` the mean over mirror images."""
        pictures = pictures.to(self.module.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(pictures.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            parts = [
                self.module.logits(pictures.flip(flip)).flip(flip) if flip else self.module.logits(pictures)
                for flip in (FLIPS if self.flips else FLIPS[:1])
            ]
        return torch.stack(parts).mean(0)
