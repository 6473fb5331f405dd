"""Images and masks at their own size, or at a scale of it, of which crops are read."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnet import terminal
from segnet.data import cache, flat_cache
from segnet.data.decoded import Decoded
from segnet.data.decoding import header
from segnet.data.flat_cache import Content, Look, look
from segnet.data.images import resize_mask
from segnet.data.masks import IGNORE_INDEX, Encoding
from segnet.data.pairs import Pair
from segnet.networks.window import Corner, Size, reflect, size_at


class Native(Decoded):
    """The arrays of all pairs of a data set, each of its own size times ``scale``; the others as in `Decoded`.

    Args:
        pairs: files.
        encoding: of the masks.
        num_classes: 1 is a binary task, whose masks hold 0 and 1.
        crop: (height, width) of what is read of them in training.
        scale: of an image's height and width.
    """

    def __init__(self, pairs: Sequence[Pair], encoding: Encoding, num_classes: int, crop: Size, scale: float) -> None:
        super().__init__(pairs, encoding, num_classes, crop)
        self.scale, self.classes = scale, max(num_classes, 2)
        self.content: Content | None = None
        self._looks: dict[int, Look] = {}

    def use_cache(self, folder: Path, limit_gb: float) -> None:
        """Map the cache of these files, building it first where it is missing."""
        sizes = [self.size_at(index) for index in range(len(self.pairs))]
        store = flat_cache.Flat(self._decode, sizes, self.classes)
        self.content = cache.kept(folder, self._key(["scale", self.scale, self.classes]), store, store.need(), limit_gb)
        if self.content is None:
            terminal.warn(
                f"{len(self.pairs)} images at scale {self.scale:g} take {store.need() / 1e9:.3g} GB, which exceeds "
                f"data.cache_gb={limit_gb}; each is decoded anew for every crop"
            )

    def size_at(self, index: int) -> Size:
        """(height, width) of a pair at the scale."""
        return self.content.sizes[index] if self.content else size_at(header(self.pairs[index].image)[:2], self.scale)

    def _target(self, index: int) -> Size | None:
        return None if self.scale == 1 else self.size_at(index)

    def __getitem__(self, index: int) -> cache.Pair:
        """Image uint8 (H, W, 3) and mask uint8 (H, W) of a pair."""
        return self._decode(index) if self.content is None else self.content[index]

    def look(self, index: int) -> Look:
        """How many pixels of each class a mask has, and where some of them are."""
        if self.content is not None:
            return self.content.look(index)
        if index not in self._looks:
            mask = self.pairs[index].indices(self.encoding)
            self._check(mask, self.pairs[index])
            self._looks[index] = look(resize_mask(mask, self.size_at(index)), self.classes)
        return self._looks[index]

    def shows(self, index: int) -> bool:
        """Whether the mask of a pair shows more than the first class: of a binary task the defect."""
        return bool(self.look(index).counts[1:].any())

    def absent(self, indices: Sequence[int]) -> list[int]:
        """Classes that no mask of these pairs shows."""
        if self.content is None:
            return super().absent(indices)
        shown = self.content.counts[list(indices)].sum(0) > 0
        return [int(label) for label in np.flatnonzero(~shown)]

    def frequencies(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """Pixels (2 or num_classes, 2) of these pairs: of each class, and of the images in which it occurs."""
        if self.content is None and (unread := set(indices) - self._looks.keys()):
            terminal.info(
                f"data.crop: reading {len(unread)} masks once, because no data.cache_dir keeps what they show"
            )
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(self.look, unread))
        counts = np.array([self.look(index).counts for index in indices], np.int64).reshape(-1, self.classes)
        shown = (counts > 0) * counts.sum(1, keepdims=True)
        return np.stack([counts.sum(0), shown.sum(0)], 1)

    def crop(self, index: int, corner: Corner, size: Size) -> cache.Pair:
        """What a pair shows at (top, left); see `cut`."""
        return cut(self[index], corner, size)


def cut(pair: cache.Pair, corner: Corner, size: Size) -> cache.Pair:
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
