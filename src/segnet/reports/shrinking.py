"""What becomes of small objects when large images are resized to the network's input."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

from segnet.data.decoding import header
from segnet.data.pairs import Pair
from segnet.data.segmentation_data import SegmentationData
from segnet.errors import UserError
from segnet.networks.window import Size

LARGER = 2.0  # times the network's input, from which on images count as much larger
THIN = 3.0  # pixels that an object should keep to be seen at all
LOOKED_AT = 24  # masks, spread over the training split


def width(mask: NDArray[np.bool_]) -> float | None:
    """Pixels across the thinnest of the objects (connected parts) of a mask (H, W), None without any.

    An object is as wide as twice the greatest distance of its pixels to the next pixel outside, less one.
    """
    found, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    if found < 2:
        return None
    inside = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    greatest = np.zeros(found, np.float32)
    np.maximum.at(greatest, parts[mask].astype(np.int64), inside[mask])
    return max(1.0, 2 * float(greatest[1:].min()) - 1)


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


def found(data: SegmentationData) -> list[str]:
    """The warning for a data set, from some of its training masks; nothing with ``data.crop``."""
    pairs = [data.pairs[index] for index in data.indices["train"]]
    if data.plan or not pairs:
        return []
    chosen = [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, LOOKED_AT).round().astype(int))]
    with ThreadPoolExecutor(2) as pool:
        seen = [look for look in pool.map(lambda pair: _look(data, pair), chosen) if look is not None]
    told = warning([size for size, _ in seen], [least for _, least in seen if least is not None], data.image_size)
    return [told] if told else []


def _look(data: SegmentationData, pair: Pair) -> tuple[Size, float | None] | None:
    """Size of an image, and `width` of its mask, if it is large; None where it cannot be read, as the audit reports."""
    try:
        height, across, _ = header(pair.image)
        if warning([(height, across)], [1.0], data.image_size) is None:  # not that large: its mask need not be read
            return (height, across), None
        mask = pair.indices(data.mask)
    except (UserError, OSError):
        return None
    return (height, across), width((mask > 0) & (mask < 255))
