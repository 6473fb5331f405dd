"""Images and masks as arrays: decoded at every access, or once into a cache."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnet import terminal
from segnet.data import cache
from segnet.data.decoding import MAX_PIXELS, header
from segnet.data.flat_cache import POSITIONS, Content, Flat, Look, kept, look
from segnet.data.images import resize_mask
from segnet.data.masks import IGNORE_INDEX, Encoding
from segnet.data.pairs import Pair
from segnet.errors import UserError
from segnet.networks.segnet import SMALLEST
from segnet.networks.window import Size, size_at


class Decoded:
    """The arrays of all pairs of a data set.

    Args:
        pairs: files.
        encoding: of the masks.
        num_classes: 1 is a binary task, whose masks hold 0 and 1.
        size: (height, width) that all are resized to, or of the crops that are read of them.
        scale: of the height and width of images of which crops are read; None resizes them to ``size``.

    Attributes:
        classes: how many the masks hold: two of a binary task.
        positions: that are kept of each class in an image, for crops around them.
        content: the open cache, after `use_cache`; None if it does not fit.
    """

    def __init__(
        self, pairs: Sequence[Pair], encoding: Encoding, num_classes: int, size: Size, scale: float | None = None
    ) -> None:
        self.pairs, self.encoding, self.num_classes = pairs, encoding, num_classes
        self.size, self.scale = size, scale
        self.classes, self.positions = max(num_classes, 2), 0 if scale is None else POSITIONS
        self.content: Content | None = None
        self._looks: dict[int, Look] = {}

    @property
    def cached(self) -> cache.Arrays | None:
        """Images (count, H, W, 3) and masks (count, H, W), uint8, of the cache; None if there is none."""
        if self.content is None:
            return None
        return self.content.images.reshape(-1, *self.size, 3), self.content.masks.reshape(-1, *self.size)

    def use_cache(self, folder: Path, limit_gb: float) -> None:
        """Map the cache of these files, building it first where it is missing; of no files there is none."""
        if not self.pairs:
            return
        store = Flat(self._decode, list(map(self.size_at, range(len(self.pairs)))), self.classes, self.positions)
        files = [file for pair in self.pairs for file in (pair.image, pair.mask, *pair.more)]
        read = sorted({repr((pair.drawn, pair.bits)) for pair in self.pairs})
        sizing = [self.size if self.scale is None else self.scale, self.classes]
        self.content = kept(folder, cache.key_of(files, sizing, (self.encoding, read)), store, limit_gb)
        if self.content is None and self.scale is None:
            terminal.warn(
                f"{len(self.pairs)} images at {self.size[0]}×{self.size[1]} exceed data.cache_gb={limit_gb}; they are "
                f"decoded anew in every epoch"
            )
        elif self.content is None:
            terminal.warn(
                f"{len(self.pairs)} images at scale {self.scale:g} take {store.need() / 1e9:.3g} GB, which exceeds "
                f"data.cache_gb={limit_gb}; each is decoded anew for every crop"
            )

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
        missing = set(range(self.classes))
        for index in indices:
            if not missing:
                break
            if self.content is None:
                missing -= set(np.unique(self.pairs[index].indices(self.encoding)).tolist())
            else:
                missing -= set(np.flatnonzero(self.content.counts[index]).tolist())
        return sorted(missing)

    def __getitem__(self, index: int) -> cache.Arrays:
        """Image uint8 (H, W, 3) and mask uint8 (H, W) of a pair."""
        return self._decode(index) if self.content is None else self.content[index]

    def size_at(self, index: int) -> Size:
        """(height, width) of the arrays of a pair."""
        if self.scale is None:
            return self.size
        return self.content.sizes[index] if self.content else size_at(header(self.pairs[index].image)[:2], self.scale)

    def look(self, index: int) -> Look:
        """How many pixels of each class a mask has, and where some of them are."""
        if self.content is not None:
            return self.content.look(index)
        if index not in self._looks:
            mask = self.pairs[index].indices(self.encoding)
            self._check(mask, self.pairs[index])
            self._looks[index] = look(resize_mask(mask, self.size_at(index)), self.classes, self.positions)
        return self._looks[index]

    def shows(self, index: int) -> bool:
        """Whether the mask of a pair shows more than the first class: of a binary task the defect."""
        return bool(self.look(index).counts[1:].any())

    def frequencies(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """Pixels (2 or num_classes, 2) of these pairs: of each class, and of the images in which it occurs.

        Ignored pixels count in neither.
        """
        unread = set() if self.content else set(indices) - self._looks.keys()
        if unread and self.scale is not None:
            terminal.info(
                f"data.crop: reading {len(unread)} masks once, because no data.cache_dir keeps what they show"
            )
        with ThreadPoolExecutor(2) as pool:
            looks = list(pool.map(self.look, indices))
        counts = np.array([look.counts for look in looks], np.int64).reshape(-1, self.classes)
        shown = (counts > 0) * counts.sum(1, keepdims=True)
        return np.stack([counts.sum(0), shown.sum(0)], 1)

    def _decode(self, index: int) -> cache.Arrays:
        pair = self.pairs[index]
        image, mask = pair.load(self.encoding, None if self.scale == 1 else self.size_at(index))
        self._check(mask, pair)
        return image, mask

    def _check(self, mask: NDArray[np.uint8], pair: Pair) -> None:
        top = int(mask[mask != IGNORE_INDEX].max(initial=0))
        if top >= self.classes:
            raise UserError(
                f"{pair.mask}: holds class {top}, but data.num_classes={self.num_classes}; correct it or data.mask"
            )


def size_of(value: int | Sequence[int], key: str = "data.image_size") -> tuple[int, int]:
    """(height, width) that a setting says: one side, or both.

    Raises:
        UserError: it says something else, a side is too small for the networks, or there are too many pixels.
    """
    sides = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(sides) == 2 and all(type(side) is int and side >= SMALLEST for side in sides):
        if sides[0] * sides[1] > MAX_PIXELS:
            raise UserError(
                f"{key}={value}: {sides[0]}×{sides[1]} are more than the limit of {MAX_PIXELS:,} pixels; set a "
                f"smaller size, such as {key}=480"
            )
        return sides[0], sides[1]
    raise UserError(f"{key}={value}: must be one side or [height, width], at least {SMALLEST} pixels each")
