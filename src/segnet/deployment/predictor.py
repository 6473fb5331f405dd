"""From images of any size to class probabilities: whole or in overlapping tiles, averaged over mirror images, scales
and Monte-Carlo samples on request.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from segnet import environment
from segnet.data.images import resize_exact
from segnet.decisions import given
from segnet.deployment import verified
from segnet.deployment.exported_model import ExportedModel
from segnet.deployment.formats import SUFFIXES
from segnet.deployment.prediction import Prediction
from segnet.errors import UserError
from segnet.networks.replay import Replay
from segnet.networks.segnet import SMALLEST, enable_mc_dropout
from segnet.networks.window import BATCH, OVERLAP, Size, padded, size_at, slide
from segnet.settings import Flips
from segnet.training.checkpoint import load_module
from segnet.training.module import SegmentationModule

FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-1, -2))
HOW_MANY: dict[bool | str, int] = {False: 1, "horizontal": 2, True: 4}  # of these
FORMS = 8  # sizes of batches whose CUDA graphs are kept: several scales, each with a last batch of its own
SHARE = 1 / 32  # of a GPU's memory that the sums of a batch may take; adding to them takes four times as much again


class Predictor:
    """Runs a trained network over images.

    On a GPU the network is replayed from a CUDA graph (`segnet.networks.replay`); images go there once, and what is
    summed over mirror images, scales, samples and tiles comes back once, unless it is too large (see `SHARE`): then the
    sums are kept on the CPU. What fits is decided by the card, not by what is free, so a rerun decides the same.
    One thread at a time.

    Args:
        model: a module in evaluation mode on its device, or an exported model.
        precision: Lightning's name; ``bf16-mixed`` and ``16-mixed`` compute in autocast.
        tile: side of the sliding window in pixels; null as in training: whole images resized, or the window of a
            network's crops, at the scale of its training.
        overlap: share of a window that the next one covers again, in [0, 1).
        flips: average over mirror images; ``horizontal`` over the one from left to right.
        scales: average over the image at these multiples of its usual size.
        mc_samples: average over so many passes with dropout active (Bayesian SegNet), 0 for one without.
        batch_size: images or windows at a time.
    """

    def __init__(
        self,
        model: SegmentationModule | ExportedModel,
        precision: str = "32-true",
        tile: int | None = None,
        overlap: float = OVERLAP,
        flips: Flips = False,
        scales: Sequence[float] = (1.0,),
        mc_samples: int = 0,
        batch_size: int = BATCH,
    ) -> None:
        if tile is not None and (type(tile) is not int or tile < SMALLEST):
            raise UserError(f"tile={tile}: must be null or a side of at least {SMALLEST} pixels")
        if not 0 <= overlap < 1:
            raise UserError(f"overlap={overlap}: must lie in [0, 1), such as 0.25")
        if type(batch_size) is not int or batch_size < 1:
            raise UserError(f"batch_size={batch_size}: must be an integer of at least 1")
        if type(mc_samples) is not int or mc_samples < 0 or mc_samples == 1:
            raise UserError(f"mc_samples={mc_samples}: must be 0, or at least 2 to have a variance")
        if flips not in (False, True, "horizontal"):
            raise UserError(f"flips={flips}: must be true, false or horizontal")
        if not scales or min(scales) <= 0:
            raise UserError(f"scales={list(scales)}: must be positive factors, such as [0.75,1,1.25]")
        if isinstance(model, ExportedModel):
            self._check_exported(model, tile, scales, mc_samples)
        elif mc_samples and enable_mc_dropout(model.net) == 0:
            raise UserError(
                f"mc_samples={mc_samples}: the network has no dropout to sample from; train with "
                f"model=bayesian_segnet (or model.net.dropout=0.5)"
            )
        self.model, self.overlap, self.point = model, overlap, model.operating_point
        trained = model.image_size if model.on_crops else None
        self.window: Size | None = trained if tile is None else (tile, tile)
        self.flips = FLIPS[: HOW_MANY[flips]]
        self.scales, self.mc_samples, self.batch_size = tuple(scales), mc_samples, batch_size
        self.precision = precision
        self._logits = (
            None if isinstance(model, ExportedModel) else Replay(lambda x: [model.logits(x)], FORMS, False, model)
        )

    @staticmethod
    def _check_exported(exported: ExportedModel, tile: int | None, scales: Sequence[float], mc_samples: int) -> None:
        if mc_samples or tuple(scales) != (1.0,):
            raise UserError(
                f"{exported.path}: an exported model has one scale and no dropout; use a checkpoint for "
                f"mc_samples and scales"
            )
        if tile is not None and (tile, tile) != exported.image_size:
            raise UserError(
                f"tile={tile}: {exported.path} takes {exported.image_size[0]}×{exported.image_size[1]}; set tile to "
                f"its size or leave it out"
            )

    @torch.no_grad()
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Predict uint8 (H, W, 3) RGB images."""
        if self._logits is not None:
            self._logits.check()
        tensors = [
            torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None] for image in images
        ]
        found: list[Prediction | None] = [None] * len(tensors)
        window = None if self.window is None or self.model.on_crops else self.window[0]
        whole = [i for i, t in enumerate(tensors) if self.window is None or (window and max(t.shape[-2:]) <= window)]
        for start in range(0, len(whole), self.batch_size):
            part = whole[start : start + self.batch_size]
            there = self._given([tensors[i] for i in part])
            for i, moments in zip(part, self._moments(there, self.model.image_size), strict=True):
                found[i] = self._prediction(moments)
        return [
            self._prediction(self._slid(*self._given([t]))) if f is None else f
            for f, t in zip(found, tensors, strict=True)
        ]

    def _given(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Images (1, 3, H, W) on the device where their sums are kept: the GPU where they fit."""
        device = self.model.device
        if device.type != "cuda":
            return tensors
        values = sum(t.shape[-2] * t.shape[-1] for t in tensors) * self._channels
        if 4 * values > SHARE * torch.cuda.get_device_properties(device).total_memory:
            return tensors
        return [t.pin_memory().to(device, non_blocking=True) for t in tensors]

    @property
    def _channels(self) -> int:
        """Values summed for a pixel: first moments, with samples second ones too."""
        return len(self.model.classes) * (2 if self.mc_samples else 1)

    def _prediction(self, moments: Tensor) -> Prediction:
        mean, *square = torch.split(moments, len(self.model.classes))
        variance = (square[0] - mean.square()).clamp(min=0).mean(0).cpu() if square else None
        if self.point is None:
            return Prediction(mean.cpu(), variance)
        return Prediction(torch.from_numpy(self.point.calibrated(mean.cpu().numpy())), variance, self.point)

    def _moments(self, tensors: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """First moment of the probabilities, with samples the second below it: (C or 2 C, H, W) of each (1, 3, H, W).

        Images are resized to ``size`` (times each scale) for the network, its logits back to their own size. The
        moments are where the images are.
        """
        if not self.mc_samples:
            return self._probabilities(tensors, size)
        sums = [torch.zeros(()) for _ in tensors]
        for _ in range(self.mc_samples):
            for i, p in enumerate(self._probabilities(tensors, size)):
                sums[i] = sums[i] + torch.cat([p, p.square()])
        return [total / self.mc_samples for total in sums]

    def _probabilities(self, tensors: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """One pass: mean over mirror images and scales."""
        views = len(self.flips) * len(self.scales)
        if views == 1:  # without copies, which matter for images of 100 megapixels
            return [p.to(t.device) for p, t in zip(self._view(tensors, size, self.scales[0]), tensors, strict=True)]
        sums = [torch.zeros(()) for _ in tensors]
        for flip in self.flips:
            for scale in self.scales:
                for i, p in enumerate(self._view([t.flip(flip) for t in tensors], size, scale)):
                    sums[i] = sums[i] + p.flip(flip).to(tensors[i].device) / views
        return [total.clamp_(max=1) for total in sums]  # twenty times a twentieth is more

    def _view(self, tensors: Sequence[Tensor], size: tuple[int, int], scale: float) -> list[Tensor]:
        """Probabilities (C, H, W) of images (1, 3, H, W) of any sizes, in one batch."""
        if isinstance(self.model, ExportedModel):
            return [self.model(t)[0] for t in tensors]
        assert self._logits is not None
        device = self.model.device
        height, width = (max(SMALLEST, round(side * scale)) for side in size)
        batch = torch.cat([resize_exact(t.to(device), (height, width)) for t in tensors])
        with environment.autocast(device.type, self.precision):
            (logits,) = self._logits(batch.contiguous(memory_format=torch.channels_last))
        out = []
        for single, tensor in zip(torch.split(logits, 1), tensors, strict=True):
            own = (tensor.shape[-2], tensor.shape[-1])
            back = single if single.shape[-2:] == own else F.interpolate(single, own, mode="bilinear")
            out.append(self.model.probabilities(back)[0])
        return out

    def _slid(self, tensor: Tensor) -> Tensor:
        """Moments of an image (1, 3, H, W) from a window that slides over it, at its own scale or that of training.

        Of a network trained on crops the window has its full size everywhere, as in training; else it is as small as
        the image along a side.
        """
        assert self.window is not None
        own = tensor.shape[-2:]
        size = size_at(own, self.model.scale) if self.model.on_crops else (own[0], own[1])
        image = tensor if size == own else resize_exact(tensor, size)
        image = padded(image, self.window) if self.model.on_crops else image

        def run(windows: Sequence[Tensor], corners: object) -> list[Tensor]:
            return self._moments(windows, (windows[0].shape[-2], windows[0].shape[-1]))

        found = slide(image, self.window, run, self._channels, self.overlap, self.batch_size)[:, : size[0], : size[1]]
        return found if size == own else F.interpolate(found[None], own, mode="bilinear")[0]


def of_command(cfg: DictConfig) -> Predictor:
    """The predictor of ``predict.py`` or ``demo.py``, seeded for Monte-Carlo samples; tells that a file is unverified.

    Raises:
        UserError: there is no such device, model or operating point, or a setting does not fit the model.
    """
    environment.keep_freed_memory()
    device = environment.device_of(cfg.device)
    precision = environment.precision_of(cfg.precision, device)
    torch.manual_seed(cfg.seed)
    model = load_model(str(cfg.ckpt_path), device, cfg.trust, precision)
    verified.tell(model)
    model.operating_point = given.chosen(cfg.operating_point, model.operating_point, model.classes)
    views = {key: cfg[key] for key in ("flips", "scales") if key in cfg}
    return Predictor(
        model, precision, cfg.tile, cfg.overlap, mc_samples=cfg.mc_samples, batch_size=cfg.batch_size, **views
    )


def load_model(
    path: str, device: str, trusted: bool = False, precision: str = "32-true"
) -> SegmentationModule | ExportedModel:
    """What a prediction runs: an exported model (`segnet.deployment.formats`), or the module of a checkpoint."""
    if Path(path).suffix in SUFFIXES:
        return ExportedModel(path, device, trusted, precision)
    return load_module(path, trusted).to(device)
