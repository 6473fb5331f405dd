"""Images and masks at their own size, or at a scale of it, of which crops are read."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segnet import terminal
from segnet.data.decoded import Decoded
from segnet.data.decoding import header
from segnet.data.flat_cache import POSITIONS
from segnet.data.masks import Encoding
from segnet.data.pairs import Pair
from segnet.networks.window import Size, size_at


class Native(Decoded):
    """The arrays of all pairs of a data set, each of its own size times ``scale``; the others as in `Decoded`.

    Args:
        pairs: files.
        encoding: of the masks.
        num_classes: 1 is a binary task, whose masks hold 0 and 1.
        crop: (height, width) of what is read of them in training.
        scale: of an image's height and width.
    """

    positions = POSITIONS

    def __init__(self, pairs: Sequence[Pair], encoding: Encoding, num_classes: int, crop: Size, scale: float) -> None:
        super().__init__(pairs, encoding, num_classes, crop)
        self.scale = scale

    def size_at(self, index: int) -> Size:
        """(height, width) of a pair at the scale."""
        return self.content.sizes[index] if self.content else size_at(header(self.pairs[index].image)[:2], self.scale)

    def frequencies(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """As of `Decoded`; where that takes reading the masks, it is told."""
        if self.content is None and (unread := set(indices) - self._looks.keys()):
            terminal.info(
                f"data.crop: reading {len(unread)} masks once, because no data.cache_dir keeps what they show"
            )
        return super().frequencies(indices)

    def _target(self, index: int) -> Size | None:
        return None if self.scale == 1 else self.size_at(index)

    def _sizing(self) -> Sequence[object]:
        return "scale", self.scale

    def _too_large(self, need_gb: float, limit_gb: float) -> str:
        return (
            f"{len(self.pairs)} images at scale {self.scale:g} take {need_gb:.3g} GB, which exceeds "
            f"data.cache_gb={limit_gb}; each is decoded anew for every crop"
        )
