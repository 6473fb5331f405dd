"""Images and masks as arrays of one size: decoded at every access, or once into a cache."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnet import terminal
from segnet.data import cache
from segnet.data.masks import IGNORE_INDEX, Encoding
from segnet.data.pairs import Pair
from segnet.errors import UserError
from segnet.networks.segnet import SMALLEST


class Decoded:
    """The arrays of all pairs of a data set.

    Args:
        pairs: files.
        encoding: of the masks.
        num_classes: 1 is a binary task, whose masks hold 0 and 1.
        size: (height, width) that all are resized to.

    Attributes:
        cached: images (count, H, W, 3) and masks (count, H, W), uint8, after `use_cache`; None if they do not fit.
    """

    def __init__(self, pairs: Sequence[Pair], encoding: Encoding, num_classes: int, size: tuple[int, int]) -> None:
        self.pairs, self.encoding, self.num_classes, self.size = pairs, encoding, num_classes, size
        self.cached: cache.Pair | None = None

    def use_cache(self, folder: Path, limit_gb: float) -> None:
        """Map the cache of these files, building it first where it is missing."""
        key = self._key(self.size)
        self.cached = cache.open_or_build(folder, key, self._decode, len(self.pairs), self.size, limit_gb)
        if self.cached is None:
            terminal.warn(
                f"{len(self.pairs)} images at {self.size[0]}×{self.size[1]} exceed data.cache_gb={limit_gb}; they are "
                f"decoded anew in every epoch"
            )

    def _key(self, size: object) -> str:
        """Of the cache of these files at a size."""
        files = [file for pair in self.pairs for file in (pair.image, pair.mask, *pair.more)]
        return cache.key_of(files, size, (self.encoding, {(pair.drawn, pair.bits) for pair in self.pairs}))

    def tell_absent(self, splits: dict[str, list[int]], classes: Sequence[str]) -> None:
        """Print the classes that no training or validation mask shows: their figures are missing or mean nothing.

        Raises:
            UserError: no training mask of a binary task shows the class.
        """
        names = ["background", *classes] if self.num_classes == 1 else classes
        for split in ("train", "val"):
            absent = [names[i] for i in self.absent(splits[split])]
            if split == "train" and self.num_classes == 1 and absent == list(classes):
                raise UserError(
                    f"data.mask={self.encoding}: no pixel of {len(splits[split])} training masks shows {classes[0]}; "
                    f"check_data.py with the same data=… says what they hold"
                )
            if absent:
                terminal.info(f"data: no {split} image shows {', '.join(absent)}; see check_data.py")

    def absent(self, indices: Sequence[int]) -> list[int]:
        """Classes that no mask of these pairs shows; without a cache it reads masks until all have been seen."""
        missing = set(range(max(self.num_classes, 2)))
        for index in indices:
            if not missing:
                break
            mask = self.pairs[index].indices(self.encoding) if self.cached is None else self.cached[1][index]
            missing -= set(np.unique(mask).tolist())
        return sorted(missing)

    def __getitem__(self, index: int) -> cache.Pair:
        """Image uint8 (H, W, 3) and mask uint8 (H, W) of a pair."""
        if self.cached is None:
            return self._decode(index)
        return self.cached[0][index], self.cached[1][index]

    def size_at(self, index: int) -> tuple[int, int]:
        """(height, width) of the arrays of a pair."""
        return self.size

    def shows(self, index: int) -> bool:
        """Whether the mask of a pair shows more than the first class: of a binary task the defect."""
        mask = self[index][1]
        return bool(((mask != 0) & (mask != IGNORE_INDEX)).any())

    def _decode(self, index: int) -> cache.Pair:
        pair = self.pairs[index]
        image, mask = pair.load(self.encoding, self._target(index))
        self._check(mask, pair)
        return image, mask

    def _target(self, index: int) -> tuple[int, int] | None:
        """Size that a pair is resized to; None keeps its own."""
        return self.size

    def _check(self, mask: NDArray[np.uint8], pair: Pair) -> None:
        top = int(mask[mask != IGNORE_INDEX].max(initial=0))
        if top >= max(self.num_classes, 2):
            raise UserError(
                f"{pair.mask}: holds class {top}, but data.num_classes={self.num_classes}; correct it or data.mask"
            )

    def frequencies(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """Pixels (2 or num_classes, 2) of these pairs: of each class, and of the images in which it occurs.

        Ignored pixels count in neither.
        """
        count = max(self.num_classes, 2)
        totals = np.zeros((count, 2), np.int64)
        for index in indices:
            pixels = np.bincount(self[index][1].ravel(), minlength=IGNORE_INDEX + 1)[:count]
            totals[:, 0] += pixels
            totals[:, 1] += pixels.sum() * (pixels > 0)
        return totals


def size_of(value: int | Sequence[int], key: str = "data.image_size") -> tuple[int, int]:
    """(height, width) that a setting says: one side, or both.

    Raises:
        UserError: it says something else, or a side is too small for the networks.
    """
    sides = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(sides) == 2 and all(type(side) is int and side >= SMALLEST for side in sides):
        return sides[0], sides[1]
    raise UserError(f"{key}={value}: must be one side or [height, width], at least {SMALLEST} pixels each")
