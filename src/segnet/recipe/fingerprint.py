"""What a data set is like, in figures: what the rules of a recipe look at; `segnet.recipe.survey` takes them."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fingerprint:
    """A data set in figures. Lengths are in pixels of the images as they are.

    Attributes:
        images: of the splits ``train``, ``val`` and ``test``.
        looked: images of the training split that the other figures come from.
        height: median over the sample.
        width: median over the sample.
        one_size: whether all of the sample have one size.
        largest: pixels of the largest.
        classes: names; one is a binary task, whose class 1 it is.
        shares: of each class in all pixels that count, the background of a binary task first.
        shown: share of images that show each class.
        empty: share of images with no class but the first.
        thickness: of each class, the median over the images of 2 · area / length of its border, which is the width of
            a line; NaN for a class of no image. Borders of the image do not count.
        objects: connected parts of all classes but the first, median of an image that has any.
        object_side: 10th, 50th and 90th percentile of the square roots of their areas.
        grey: share of images whose three channels are equal.
        neighbours: difference of images that follow each other by name over that of images at random, medians of
            small grey copies; about 1 for single images, less for frames of a video.
        vertical: how steadily a class lies above or below the middle: greatest over the classes of mean / deviation of
            the height of its pixels over the images, less twice its own error. Above 1 in street scenes; NaN where no
            class is in five images.
        horizontal: the same from left to right.
        lying: how steadily the borders of a class run from left to right, or from top to bottom: greatest |mean| over
            the classes of their difference over their sum, less twice its own error; 0..1.
        decode: seconds of a processor that an image and its mask take to be read.
    """

    images: dict[str, int]
    looked: int
    height: int
    width: int
    one_size: bool
    largest: int
    classes: list[str]
    shares: list[float]
    shown: list[float]
    empty: float
    thickness: list[float]
    objects: float
    object_side: list[float]
    grey: float
    neighbours: float
    vertical: float
    horizontal: float
    lying: float
    decode: float = field(compare=False)

    @property
    def area(self) -> int:
        """Pixels of the median image."""
        return self.height * self.width

    def foreground(self) -> list[int]:
        """Indices of the classes that the sample shows, without a background."""
        named = len(self.classes) > 1 and self.classes[0].lower() not in ("background", "bg", "_background_")
        return [i for i, share in enumerate(self.shown) if share > 0 and (i > 0 or named)]

    def figures(self) -> dict[str, Any]:
        """Everything as plain containers, rounded."""
        return {key: _rounded(value) for key, value in asdict(self).items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.4g}")
    return value
