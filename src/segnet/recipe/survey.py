"""How a data set's fingerprint is taken: image by image, from a bounded sample of its training images."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segnet.data.decoding import header
from segnet.data.images import read_rgb
from segnet.data.pairs import Pair
from segnet.data.segmentation_data import SegmentationData
from segnet.errors import UserError
from segnet.recipe.fingerprint import Fingerprint

IMAGES = 160  # of the sample at most
PIXELS = 20_000_000  # that they hold together, but `FEWEST` images whatever their size
FEWEST = 12
BLOCK = 8  # images in memory at a time
THUMB = (24, 24)
Array = NDArray[np.float64]


@dataclass
class _Look:
    """What one image and its mask tell."""

    size: tuple[int, int]
    pixels: NDArray[np.int64]
    figures: Array  # (4, classes): height and place of its pixels, direction of its borders, thickness
    sides: list[float]
    grey: bool
    seconds: float


class Survey:
    """The sample of a data set, seen image by image in any order and by any thread; it is the same at every call.

    Args:
        data: after its ``setup``.
    """

    def __init__(self, data: SegmentationData) -> None:
        self.data = data
        self._sample = _sample(data)
        self._places = _places(data)
        self._compared = {int(j) for i in self._places for j in (i, i + 1)}
        self._looks: dict[int, _Look] = {}
        self._thumbs: dict[int, Array] = {}

    def wants(self, index: int) -> bool:
        """Whether the image is one of the sample, or one that is compared with its neighbours."""
        return index in self._sample or index in self._compared

    def see(self, index: int, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None, seconds: float) -> None:
        """Look at an image that it wants.

        Args:
            index: of the image in ``data.pairs``.
            image: uint8 (H, W, 3).
            mask: uint8 (H, W), class indices; may be None where the image is none of the sample.
            seconds: of a processor that reading the two took.
        """
        if index in self._compared:
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            self._thumbs[index] = np.asarray(cv2.resize(grey, THUMB, interpolation=cv2.INTER_AREA), np.float64).ravel()
        if index in self._sample and mask is not None:
            self._looks[index] = _look(image, mask, max(self.data.num_classes, 2), seconds)

    def read(self) -> None:
        """See every image that it wants.

        Raises:
            UserError: one cannot be read, or image and mask do not fit.
        """
        wanted = sorted({*self._sample, *self._compared})
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(wanted), BLOCK):
                list(pool.map(self._read, wanted[start : start + BLOCK]))

    def _read(self, index: int) -> None:
        pair, start = self.data.pairs[index], time.thread_time()
        image = read_rgb(pair.image, bits=pair.bits)
        mask = pair.indices(self.data.mask, image.shape[:2]) if index in self._sample else None
        self.see(index, image, mask, time.thread_time() - start)

    def fingerprint(self) -> Fingerprint:
        """What all that it wanted, and has seen, tells."""
        data, looks = self.data, [self._looks[index] for index in self._sample]
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
            neighbours=self._neighbours(),
            vertical=_steadiness(vertical),
            horizontal=_steadiness(horizontal),
            lying=_lower(lying),
            decode=float(np.median([look.seconds for look in looks])),
        )

    def _neighbours(self) -> float:
        """See `Fingerprint`."""
        if not len(self._places):
            return 1.0
        here, following = (np.stack([self._thumbs[int(i) + step] for i in self._places]) for step in (0, 1))
        near = np.abs(here - following).mean(1)
        far = np.abs(here - np.roll(here, len(here) // 2, 0)).mean(1)
        return float(np.median(near) / max(float(np.median(far)), 1e-6))


def measure(data: SegmentationData) -> Fingerprint:
    """Look at a sample of the training images.

    Raises:
        UserError: a file of the sample cannot be read, or image and mask do not fit.
    """
    survey = Survey(data)
    survey.read()
    return survey.fingerprint()


def _sample(data: SegmentationData) -> list[int]:
    """Training images spread evenly over the split, fewer where they are large; at least `FEWEST`."""
    train = data.indices["train"]
    order = np.unique(np.linspace(0, len(train) - 1, min(IMAGES, len(train))).round().astype(int))
    spread = [order[i] for i in np.random.default_rng(0).permutation(len(order))]
    chosen, total = list[int](), 0
    for i in spread:
        height, width = _size(data.pairs[train[i]])
        total += height * width
        if total > PIXELS and len(chosen) >= FEWEST:
            break
        chosen.append(i)
    return [train[i] for i in sorted(chosen)]


def _places(data: SegmentationData) -> NDArray[np.int64]:
    """Images that are compared with the one that follows: at most 24 places in the order of the names of all."""
    count = len(data.pairs)
    if count < 8:
        return np.zeros(0, np.int64)
    many = 24 if _size(data.pairs[0])[0] < 1500 else 8
    return np.unique(np.linspace(0, count - 2, min(many, count - 1)).round().astype(np.int64))


def _size(pair: Pair) -> tuple[int, int]:
    """(height, width) of an image; of one that cannot be read, as will be said when it is, (0, 0)."""
    try:
        return header(pair.image)[:2]
    except UserError:
        return 0, 0


def _look(image: NDArray[np.uint8], mask: NDArray[np.uint8], count: int, seconds: float) -> _Look:
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
    """Greatest over the columns of |mean| / deviation, less twice its own error; 0 at least, NaN of too few images."""
    # 0.02 is what the mean position of a large class varies by without any meaning.
    found = [(abs(v.mean()) / max(v.std(), 0.02), len(v)) for v in _known(values)]
    return max(0.0, *(float(effect - 2 / np.sqrt(count)) for effect, count in found), 0.0) if found else math.nan


def _lower(values: Array) -> float:
    """Greatest over the columns of |mean|, less twice its own error; 0 at least, NaN of too few images."""
    found = [float(abs(v.mean()) - 2 * v.std() / np.sqrt(len(v))) for v in _known(values)]
    return max(0.0, *found, 0.0) if found else math.nan


def _known(values: Array) -> list[Array]:
    """The values of each column that has at least five."""
    found = [column[np.isfinite(column)] for column in values.T]
    return [column for column in found if len(column) >= 5]
