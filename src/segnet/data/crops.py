"""Crops of images larger than the network's input: which are drawn in an epoch, and where."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnet.data import cache
from segnet.data.dataset import Ranked, Samples, seed_of
from segnet.data.decoded import Decoded, size_of
from segnet.data.masks import IGNORE_INDEX
from segnet.errors import UserError
from segnet.networks.window import Corner, Size, reflect, shown

DEFAULT_SIZE = 480  # of images, where neither data.image_size nor data.crop is given
EPOCH = 1000  # crops of an epoch at most, unless there are more images or data.crops_per_epoch says otherwise
ANYWHERE = -1  # in the place of the class around which a crop is drawn


@dataclass(frozen=True)
class Plan:
    """How training draws crops.

    Attributes:
        size: (height, width) of a crop.
        scale: of the images that it is cut from.
        share: of crops around a pixel of a rare class.
        count: of an epoch; None goes by the area of the images.
    """

    size: Size
    scale: float
    share: float
    count: int | None

    def __str__(self) -> str:
        return shown(self.size, self.scale)


def plan(
    crop: int | Sequence[int] | None,
    scale: float,
    share: float,
    count: int | None,
    image_size: int | Sequence[int] | None,
    positive_share: float | None,
    device_cache: object,
) -> tuple[Plan | None, Size]:
    """The plan that the settings of the data describe, None without ``data.crop``, and the network's input size.

    Raises:
        UserError: they contradict each other.
    """
    if crop is None:
        for key, value, default in (("scale", scale, 1), ("crops_per_epoch", count, None)):
            if value != default:
                raise UserError(f"data.{key}={value} without data.crop: add data.crop={DEFAULT_SIZE}, or leave it out")
        return None, size_of(DEFAULT_SIZE if image_size is None else image_size)
    size = size_of(crop, "data.crop")
    if image_size is not None and size_of(image_size) != size:
        raise UserError(
            f"data.image_size={image_size} beside data.crop={crop}: crops are not resized, so the network gets them as "
            f"they are; leave data.image_size out"
        )
    if positive_share is not None:
        raise UserError(
            f"data.positive_share={positive_share} beside data.crop={crop}: data.crop_share says how many crops show "
            f"the class; set data.positive_share=null"
        )
    if device_cache is True:
        raise UserError(
            f"data.device_cache=true beside data.crop={crop}: images of different sizes stay with the loader's "
            f"workers, which cut the crops; set data.device_cache=auto"
        )
    return Plan(size, scale, share, count), size


def rare(counts: NDArray[np.int64], num_classes: int) -> list[int]:
    """Classes around which crops are drawn: of a binary task the class, of K those below half of an equal share.

    Args:
        counts: (K,) pixels of each class in the training images.
        num_classes: 1 is a binary task.
    """
    if num_classes == 1:
        return [1] if counts[1] else []
    return [int(label) for label in np.flatnonzero((counts > 0) & (counts < counts.sum() / (2 * num_classes)))]


def epoch_length(sizes: Sequence[Size], plan: Plan | None) -> int:
    """How many crops an epoch draws of images of these sizes; without a plan, each image once.

    As many as would cover their area once, but no fewer than there are images, and of few images no more than `EPOCH`.
    """
    if plan is None or plan.count is not None:
        return len(sizes) if plan is None else plan.count or 0
    return int(np.clip(round(areas(sizes, plan.size).sum()), len(sizes), max(len(sizes), EPOCH)))


def areas(sizes: Sequence[Size], crop: Size) -> NDArray[np.float64]:
    """(len(sizes),): areas of images in crops; one that is smaller than a crop counts as one."""
    sides = np.maximum(np.array(sizes, np.float64).reshape(-1, 2), crop)
    covered: NDArray[np.float64] = sides.prod(1) / (crop[0] * crop[1])
    return covered


def cut(pair: cache.Arrays, corner: Corner, size: Size) -> cache.Arrays:
    """A crop: image uint8 (h, w, 3) and mask uint8 (h, w).

    Where the image ends before the crop does, it continues as its mirror image, whose pixels are ignored in the mask.
    """
    (top, left), (height, width) = corner, size
    image, mask = (array[top : top + height, left : left + width] for array in pair)
    own = mask.shape
    if own != size:
        image = image[reflect(own[0], height)][:, reflect(own[1], width)]
        mask = np.pad(mask, [(0, height - own[0]), (0, width - own[1])], constant_values=IGNORE_INDEX)
    return image, mask


class CropSamples(Samples):
    """Crops by ``(epoch, image, draw, class)``, then transformed; what is drawn depends on these and the seed only.

    Args:
        arrays: images and masks at a scale.
        indices: of the split, into them.
        size: (height, width) of a crop.
        augment: transforms (`segnet.data.transforms`).
        seed: of positions and transforms.
    """

    def __init__(
        self, arrays: Decoded, indices: Sequence[int], size: Size, augment: Sequence[Any] = (), seed: int = 0
    ) -> None:
        super().__init__(arrays.__getitem__, indices, augment, seed)
        self.arrays, self.size = arrays, size

    def pair(self, epoch: int, i: int, draw: int, label: int = ANYWHERE) -> cache.Arrays:
        """A crop of image ``i`` of the split: around a pixel of a class that it shows, or anywhere."""
        index = self.indices[i]
        rng = np.random.default_rng((seed_of(self.seed, epoch, i, draw), 1))  # not that of the transforms
        return cut(self.arrays[index], self.corner(rng, index, label), self.size)

    def corner(self, rng: np.random.Generator, index: int, label: int) -> Corner:
        """(top, left) of a crop: every place where it fits is as likely as any other.

        Around a pixel of a class: the pixel is drawn from those that show it, then its place in the crop; where the
        crop would go over an edge of the image it is moved back.
        """
        sides = self.arrays.size_at(index)
        slack = [max(0, side - own) for side, own in zip(sides, self.size, strict=True)]
        if label == ANYWHERE:
            top, left = (int(rng.integers(space + 1)) for space in slack)
            return top, left
        found = self.arrays.look(index).positions[label]
        at = divmod(int(found[rng.integers(len(found))]), sides[1])
        top, left = (
            int(np.clip(pixel - rng.integers(own), 0, space))
            for pixel, own, space in zip(at, self.size, slack, strict=True)
        )
        return top, left


class CropSampler(Ranked):
    """Draws ``(epoch, image, draw, class)``, shuffled by seed and epoch.

    Args:
        weights: (n,) of the images: how much of them there is to see.
        showing: of each rare class the images that show it, by their place in the split.
        classes: those classes.
        length: crops of an epoch, in all processes together.
        share: of crops around a rare class; classes have equal parts of it, and so have the images of a class. The
            others are shared out in proportion to the weights, and lie anywhere.
        seed: as of `Ranked`, and so are the others.
    """

    def __init__(
        self,
        weights: NDArray[np.float64],
        showing: Sequence[NDArray[np.int64]],
        classes: Sequence[int],
        length: int,
        share: float,
        seed: int,
        rank: int = 0,
        world: int = 1,
        epoch: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(seed, rank, world, epoch)
        self.weights, self.showing, self.classes, self.length = weights, showing, classes, length
        self.share = share if classes else 0.0

    def __len__(self) -> int:
        return max(1, self.length // self.world)

    def order(self, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """Image and class of every crop."""
        chosen = [*self._rare(rng, round(self.share * self.length))]
        chosen += [(image, ANYWHERE) for image in self._anywhere(rng, self.length - len(chosen))]
        return (chosen[at] for at in rng.permutation(len(chosen)).tolist())

    def _rare(self, rng: np.random.Generator, count: int) -> Iterator[tuple[int, int]]:
        """Image and class of ``count`` crops: classes in turns, and of each its images in turns."""
        if not count:
            return
        order = rng.permutation(len(self.classes))
        for turn, at in enumerate(order.tolist()):
            images = self.showing[at]
            crops = len(range(turn, count, len(order)))
            turns = [rng.permutation(images) for _ in range(-(-crops // len(images)))]
            for image in np.concatenate([*turns, np.zeros(0, np.int64)])[:crops].tolist():
                yield int(image), self.classes[at]

    def _anywhere(self, rng: np.random.Generator, count: int) -> list[int]:
        """Images of ``count`` crops: each as often as its share of the weights says, rounded up or down by chance."""
        order = rng.permutation(len(self.weights))
        ends = np.cumsum(self.weights[order])
        points = (np.arange(count) + rng.random()) / max(count, 1) * ends[-1]
        return [int(order[min(i, len(order) - 1)]) for i in np.searchsorted(ends, points, side="right")]
