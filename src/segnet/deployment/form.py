"""What an exported file takes and gives: sizes, type and order of its tensors, and how images become that."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segnet.data.images import resize, resize_exact
from segnet.networks.segnet import SMALLEST

SURE = 1e-7  # from 0 and 1, where float32 probabilities end and logits would be infinite


@dataclass(frozen=True)
class Form:
    """The tensors of an exported file.

    Args:
        size: height and width that it takes; None for any.
        batch: images that it takes at once; None for any number.
        preprocessing: ``inside`` the file are resizing and normalisation, so that images in 0..255 go in and
            probabilities of their size come out; or ``outside``: normalised images of the network's size go in.
        layout: ``nchw`` or ``nhwc``, of images and probabilities.
        input: ``uint8`` or ``float32``; outside always the latter.

    Raises:
        ValueError: no such form.
    """

    size: tuple[int, int] | None = None
    batch: int | None = None
    preprocessing: str = "inside"
    layout: str = "nchw"
    input: str = "uint8"

    def __post_init__(self) -> None:
        sides = (*(self.size or ()), *(() if self.batch is None else (self.batch,)))
        words = (self.preprocessing, self.layout, self.input)
        known = (("inside", "outside"), ("nchw", "nhwc"), ("uint8", "float32"))
        if any(word not in choices for word, choices in zip(words, known, strict=True)):
            raise ValueError(f"{', '.join(map(str, words))} is no form of an exported file")
        if any(type(side) is not int or side < 1 for side in sides) or len(self.size or (1, 1)) != 2:
            raise ValueError(f"size {self.size} and batch {self.batch} are no positive integers")
        if self.outside and (self.input != "float32" or self.size is None):
            raise ValueError("preprocessing outside takes float32 images of one size")

    @property
    def outside(self) -> bool:
        """Whether images are resized and normalised before they go in."""
        return self.preprocessing == "outside"

    def stored(self) -> dict[str, Any]:
        """For the metadata; `read` is its inverse."""
        return {**asdict(self), "size": list(self.size) if self.size else None}

    @staticmethod
    def read(stored: dict[str, Any]) -> "Form":
        """Of metadata; an empty one is that of files before there were several forms."""
        return Form(**{**stored, "size": tuple(stored["size"]) if stored.get("size") else None})

    def example(self, height: int, width: int) -> Tensor:
        """Zeros for an exporter, of odd sizes near these and two images where any will do."""
        h, w = self.size or (height + 3, width + 5)
        shape = (self.batch or 2, 3, h, w) if self.layout == "nchw" else (self.batch or 2, h, w, 3)
        return torch.zeros(shape, dtype=torch.uint8 if self.input == "uint8" else torch.float32)

    def dynamic(self) -> dict[int, Any]:
        """For `torch.export`: the dimensions that may have any size."""
        height, width = (2, 3) if self.layout == "nchw" else (1, 2)
        dims = {} if self.batch else {0: torch.export.Dim("batch")}
        return dims if self.size else dims | {height: torch.export.Dim("height"), width: torch.export.Dim("width")}

    def shape(self, images: Tensor, classes: int) -> tuple[int, ...]:
        """Of the probabilities of what `batches` gives."""
        if self.layout == "nchw":
            return (images.shape[0], classes, *images.shape[2:])
        return (*images.shape[:3], classes)

    def batches(self, images: Tensor, mean: Tensor, std: Tensor) -> Iterator[Tensor]:
        """uint8 RGB (N, 3, H, W) of any size as the file takes them; a last batch is filled up with its last image.

        Of another size than the file's, uint8 images are resized with rounding, as for training; float32 without.
        """
        size = self.size or (images.shape[-2], images.shape[-1])
        x = resize(images, size) if self.input == "uint8" else resize_exact(images, size)
        x = (x / 255 - mean.to(x.device)) / std.to(x.device) if self.outside else x
        x = x if self.layout == "nchw" else x.permute(0, 2, 3, 1)
        for part in torch.split(x, self.batch or len(x)):
            missing = 0 if self.batch is None else self.batch - len(part)
            yield torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]).contiguous() if missing else part

    def probabilities(self, found: list[Tensor], count: int, size: tuple[int, int]) -> Tensor:
        """What came of `batches` as (N, C, H, W) of ``count`` images of ``size``; logits are resized to it."""
        p = torch.cat(found)[:count]
        p = p if self.layout == "nchw" else p.permute(0, 3, 1, 2)
        if p.shape[-2:] == size:
            return p.contiguous()
        p = p.clamp(SURE, 1 - SURE)
        binary = p.shape[1] == 1
        logits = F.interpolate(p.logit() if binary else p.log(), size, mode="bilinear")
        return logits.sigmoid() if binary else logits.softmax(1)


def parsed(size: str | None) -> tuple[int, int] | None:
    """``480x640``, height first, as two sides.

    Raises:
        ValueError: it is not of this form, or a side is below 32.
    """
    if size is None:
        return None
    height, _, width = size.partition("x")
    if not (height.isdecimal() and width.isdecimal()) or min(int(height), int(width)) < SMALLEST:
        raise ValueError(f"must be <height>x<width>, at least {SMALLEST} each, such as 480x480, or null")
    return int(height), int(width)
