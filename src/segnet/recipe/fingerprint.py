"""What a data set is like, seen in a bounded sample of its training images: what the rules of a recipe look at."""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segnet.data.decoding import header
from segnet.data.images import read_rgb
from segnet.data.pairs import Pair
from segnet.data.segmentation_data import SegmentationData

IMAGES = 160  # of the sample at most
PIXELS = 20_000_000  # that they hold together, but `FEWEST` images whatever their size
FEWEST = 12
BLOCK = 8  # images in memory at a time
THUMB = (24, 24)
Array = NDArray[np.float64]


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
            the height of its pixels over the images, less twice its own error. Above 1 in street scenes.
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
        return None if np.isnan(value) else float(f"{value:.4g}")
    return value


@dataclass
class _Look:
    """What one image and its mask tell."""

    size: tuple[int, int]
    pixels: NDArray[np.int64]
    figures: Array  # (4, classes): height and place of its pixels, direction of its borders, thickness
    sides: list[float]
    grey: bool
    seconds: float


def measure(data: SegmentationData) -> Fingerprint:
    """Look at a sample of the training images, which is the same at every call.

    Args:
        data: after its ``setup``.

    Raises:
        UserError: a file of the sample cannot be read, or image and mask do not fit.
    """
    chosen = _sample([data.pairs[i] for i in data.indices["train"]])
    count = max(data.num_classes, 2)
    looks: list[_Look] = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(chosen), BLOCK):
            looks += pool.map(lambda pair: _look(data, pair, count), chosen[start : start + BLOCK])
        neighbours = _neighbours(data, pool)
    pixels = np.stack([look.pixels for look in looks])
    present = pixels > 0
    sides = [side for look in looks for side in look.sides]
    sizes = np.array([look.size for look in looks])
    vertical, horizontal, lying, thickness = np.stack([look.figures for look in looks], 1)
    return Fingerprint(
        images={name: len(part) for name, part in data.indices.items()},
        looked=len(looks),
        height=int(np.median(sizes[:, 0])),
        width=int(np.median(sizes[:, 1])),
        one_size=len({look.size for look in looks}) == 1,
        largest=int(sizes.prod(1).max()),
        classes=list(data.classes),
        shares=(pixels.sum(0) / max(int(pixels.sum()), 1)).tolist(),
        shown=present.mean(0).tolist(),
        empty=float((~present[:, 1:].any(1)).mean()),
        thickness=[float(np.median(c[np.isfinite(c)])) if np.isfinite(c).any() else math.nan for c in thickness.T],
        objects=float(np.median([len(look.sides) for look in looks if look.sides] or [0])),
        object_side=[float(np.percentile(sides, q)) if sides else 0.0 for q in (10, 50, 90)],
        grey=float(np.mean([look.grey for look in looks])),
        neighbours=neighbours,
        vertical=_steadiness(vertical),
        horizontal=_steadiness(horizontal),
        lying=_lower(lying),
        decode=float(np.median([look.seconds for look in looks])),
    )


def _sample(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs spread evenly over the split, fewer where images are large; at least `FEWEST`."""
    order = np.unique(np.linspace(0, len(pairs) - 1, min(IMAGES, len(pairs))).round().astype(int))
    spread = [order[i] for i in np.random.default_rng(0).permutation(len(order))]
    chosen, total = list[int](), 0
    for i in spread:
        height, width = header(pairs[i].image)[:2]
        total += height * width
        if total > PIXELS and len(chosen) >= FEWEST:
            break
        chosen.append(i)
    return [pairs[i] for i in sorted(chosen)]


def _look(data: SegmentationData, pair: Pair, count: int) -> _Look:
    start = time.thread_time()
    image, mask = pair.load(data.mask, None)
    seconds = time.thread_time() - start
    rows, columns = _lines(mask), _lines(mask.T)  # (H, 256) and (W, 256): pixels of each class
    pixels = rows.sum(0)[:count]
    seen = np.flatnonzero(pixels)
    across, along = _borders(mask[1:], mask[:-1]), _borders(mask[:, 1:], mask[:, :-1])
    figures = np.full((4, count), np.nan)
    figures[0, seen] = _positions(len(rows)) @ rows[:, seen] / pixels[seen]
    figures[1, seen] = _positions(len(columns)) @ columns[:, seen] / pixels[seen]
    edged = seen[(across + along)[seen] > 0]
    borders = (across + along)[edged]
    figures[2, edged] = (along - across)[edged] / borders
    figures[3, edged] = 2 * pixels[edged] / borders
    sides: list[float] = []
    for name in seen[seen > 0]:
        stats = cv2.connectedComponentsWithStats((mask == name).view(np.uint8), connectivity=8)[2]
        sides += np.sqrt(stats[1:, cv2.CC_STAT_AREA]).tolist()
    grey = not np.ptp(image[::4, ::4], 2).any()
    return _Look(image.shape[:2], pixels, figures, sides, grey, seconds)


def _lines(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(rows, 256) how many pixels of each value every row has."""
    height = len(mask)
    found = np.bincount((mask + (np.arange(height, dtype=np.int64) * 256)[:, None]).ravel(), minlength=height * 256)
    return found.reshape(height, 256)


def _borders(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256,) of how many places, at which two neighbours differ, each value is on one side."""
    differ = first != second
    return np.bincount(first[differ], minlength=256) + np.bincount(second[differ], minlength=256)


def _positions(count: int) -> Array:
    """Of rows or columns, from -0.5 to 0.5."""
    positions: Array = (np.arange(count) + 0.5) / count - 0.5
    return positions


def _steadiness(values: Array) -> float:
    """Greatest over the columns of |mean| / deviation, less twice its own error; 0 at least."""
    # 0.02 is what the mean position of a large class varies by without any meaning.
    found = [(abs(v.mean()) / max(v.std(), 0.02), len(v)) for v in _known(values)]
    return max(0.0, *(float(effect - 2 / np.sqrt(count)) for effect, count in found), 0.0)


def _lower(values: Array) -> float:
    """Greatest over the columns of |mean|, less twice its own error; 0 at least."""
    return max(0.0, *(float(abs(v.mean()) - 2 * v.std() / np.sqrt(len(v))) for v in _known(values)), 0.0)


def _known(values: Array) -> list[Array]:
    """The values of each column that has at least five."""
    found = [column[np.isfinite(column)] for column in values.T]
    return [column for column in found if len(column) >= 5]


def _neighbours(data: SegmentationData, pool: ThreadPoolExecutor) -> float:
    """See `Fingerprint`; of at most 24 places in the order of the names of all images."""
    count = len(data.pairs)
    if count < 8:
        return 1.0
    many = 24 if header(data.pairs[0].image)[0] < 1500 else 8
    places = np.unique(np.linspace(0, count - 2, min(many, count - 1)).round().astype(int))
    read: Iterator[Array] = pool.map(lambda i: _thumb(data.pairs[i]), [j for i in places for j in (i, i + 1)])
    thumbs = np.stack(list(read)).reshape(len(places), 2, -1)
    near = np.abs(thumbs[:, 0] - thumbs[:, 1]).mean(1)
    far = np.abs(thumbs[:, 0] - np.roll(thumbs[:, 0], len(places) // 2, 0)).mean(1)
    return float(np.median(near) / max(float(np.median(far)), 1e-6))


def _thumb(pair: Pair) -> Array:
    grey = cv2.cvtColor(read_rgb(pair.image, bits=pair.bits), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, THUMB, interpolation=cv2.INTER_AREA), np.float64).ravel()
