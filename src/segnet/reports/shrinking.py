"""What becomes of small objects when large images are resized to the network's input."""

from collections.abc import Sequence
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

from segnet.data.masks import IGNORE_INDEX
from segnet.data.segmentation_data import SegmentationData
from segnet.decisions import regions
from segnet.networks.window import Size

LARGER = 2.0  # times the network's input, from which on images count as much larger
THIN = 3.0  # pixels that an object should keep to be seen at all
LOOKED_AT = 24  # masks, spread over the training split


def width(mask: NDArray[np.bool_]) -> float | None:
    """Pixels across the thinnest of the objects (connected parts) of a mask (H, W), None without any.

    An object is as wide as twice the greatest distance of its pixels to the next pixel outside, less one.
    """
    objects = regions(mask)
    if not len(objects):
        return None
    inside = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return max(1.0, 2 * float(objects.greatest(np.asarray(inside, np.float32)).min()) - 1)


def warning(sizes: Sequence[Size], widths: Sequence[float], input_size: Size) -> str | None:
    """What a data audit says where resizing makes small objects vanish; None where it does not.

    Args:
        sizes: (height, width) of images.
        widths: of the thinnest object of each image that has any, in its own pixels, see `width`.
        input_size: (height, width) that images are resized to.
    """
    factors = [max(own / side for own, side in zip(size, input_size, strict=True)) for size in sizes]
    if not factors or not widths or median(factors) < LARGER:
        return None
    thinnest = float(np.quantile(widths, 0.1))
    left = thinnest / median(factors)
    if left >= THIN:
        return None
    size = "×".join(str(round(median(side))) for side in zip(*sizes, strict=True))
    return (
        f"images of {size} are resized to {'×'.join(map(str, input_size))}, where the smallest objects, {thinnest:.0f} "
        f"pixels across, become {left:.1f}; data.crop={input_size[0]} trains on crops at the images' own resolution "
        f"(docs/large_images.md)"
    )


class Widths:
    """The warning for a data set, from some of its training masks; none with ``data.crop``."""

    def __init__(self, data: SegmentationData) -> None:
        train = [] if data.plan else data.indices["train"]
        places = np.unique(np.linspace(0, len(train) - 1, min(LOOKED_AT, len(train))).round().astype(int))
        self._chosen = {train[place] for place in places}
        self._input_size = data.image_size
        self._seen: dict[int, tuple[Size, float | None]] = {}

    def wants(self, index: int) -> bool:
        """Whether the image is one of those looked at."""
        return index in self._chosen

    def see(self, index: int, image: NDArray[np.uint8], mask: NDArray[np.uint8], seconds: float) -> None:
        """Look at an image of ``data.pairs``, uint8 (H, W, 3), and its mask, uint8 (H, W); see `looks.Observer`."""
        size = mask.shape[0], mask.shape[1]
        large = warning([size], [1.0], self._input_size) is not None
        self._seen[index] = size, width((mask > 0) & (mask < IGNORE_INDEX)) if large else None

    def warnings(self) -> list[str]:
        """What all that it has seen tells."""
        sizes, widths = [size for size, _ in self._seen.values()], [w for _, w in self._seen.values() if w is not None]
        told = warning(sizes, widths, self._input_size)
        return [told] if told else []
