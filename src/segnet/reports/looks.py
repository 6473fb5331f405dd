"""What is seen of each image of a data set, and what is kept of all: files are decoded once, in blocks."""

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segnet.data.decoding import header
from segnet.data.images import read_image, resize_pair
from segnet.data.masks import IGNORE_INDEX, WHITE
from segnet.data.segmentation_data import SegmentationData
from segnet.data.splits import SPLITS
from segnet.deployment.pipeline import READ_AHEAD, THREADS, ahead, threads
from segnet.errors import UserError
from segnet.reports.duplicates import Fingerprints, difference_hash, grey, thumbnail
from segnet.reports.mask_values import Noting, ValueTable, guess
from segnet.visualization.overlays import overlay, palette

TILE = 156  # pixels of a thumbnail's side on the contact sheet
Tile = NDArray[np.uint8]


@dataclass
class Look:
    """What is seen of one image and its mask; small, whatever their size.

    Attributes:
        error: what is wrong with it, for people; empty where nothing is.
        size: [width, height]; None where the image cannot be read.
        values: see `segnet.reports.mask_values.Noting`.
        white: the greatest grey value of the mask where that is a kind of white, else 0.
        bits: in use in the image.
        pixels: int64 (K,) of each class.
        ignored: whether some pixels count nowhere.
        fingerprint: arguments of `Fingerprints.put`.
        tile: the mask over the image, (`TILE`, `TILE`, 3), if it was asked for.
    """

    pixels: NDArray[np.int64]
    error: str = ""
    size: list[int] | None = None
    values: list[Any] | None = None
    white: int = 0
    bits: int = 0
    ignored: bool = False
    fingerprint: tuple[bytes, NDArray[np.bool_], NDArray[np.uint8]] | None = None
    tile: Tile | None = None


class Observer(Protocol):
    """Who else wants to see some of the images and masks, so that none is decoded twice."""

    def wants(self, index: int) -> bool:
        """Whether it wants the image."""
        ...

    def see(self, index: int, image: NDArray[np.uint8], mask: NDArray[np.uint8], seconds: float) -> None:
        """An image uint8 (H, W, 3), its mask uint8 (H, W), and how long reading took; any thread calls it."""
        ...


@dataclass
class Seen:
    """What is kept of all images: arrays by their index, and sums."""

    count: int
    classes: int
    errors: list[str] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)
    tiles: list[Tile] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = ValueTable(self.count)
        self.prints = Fingerprints(self.count)
        self.pixels = {split: np.zeros(self.classes, np.int64) for split in SPLITS}
        self.white, self.bits = (np.zeros(self.count, np.int32) for _ in range(2))
        self.empty, self.hidden = (np.zeros(self.count, np.bool_) for _ in range(2))
        self.share = np.zeros(self.count, np.float32)  # of the pixels that are of a class but the first

    def put(self, index: int, look: Look, splits: Sequence[str]) -> None:
        """Keep what matters of the look at an image of these splits; val and test may share some."""
        self.errors += [look.error] if look.error else []
        self.sizes.update(["×".join(map(str, look.size))] if look.size else ())
        self.tiles += [look.tile] if look.tile is not None else []
        self.values.put(index, look.values)
        for split in splits:
            self.pixels[split] += look.pixels
        self.white[index], self.bits[index] = look.white, look.bits
        self.empty[index] = not look.error and not look.pixels[1:].any()
        self.hidden[index] = look.ignored and self.empty[index]
        self.share[index] = look.pixels[1:].sum() / max(1, look.pixels.sum())
        if look.fingerprint:
            self.prints.put(index, *look.fingerprint)


def see(data: SegmentationData, contact: int = 0, observers: Sequence[Observer] = ()) -> Seen:
    """Look at every file of the data set, and draw ``contact`` thumbnails spread over it.

    What can be read is shown to the ``observers`` too.

    What is kept of an image is a third of a kilobyte.
    """
    parts = {name: set(data.indices[name]) for name in SPLITS}
    seen = Seen(len(data.pairs), max(data.num_classes, 2))
    drawn = set(np.linspace(0, len(data.pairs) - 1, min(contact, len(data.pairs))).round().astype(int).tolist())
    with threads(THREADS) as pool:
        begun = partial(_look, data, observers)
        tasks = ((peak_bytes(pair.image), partial(begun, i, i in drawn)) for i, pair in enumerate(data.pairs))
        looks = ahead(pool, tasks, 2 * THREADS, READ_AHEAD)
        for i, look in enumerate(tqdm(looks, "check", len(data.pairs), unit="image", leave=False, disable=None)):
            seen.put(i, look, [name for name, part in parts.items() if i in part])
    return seen


def peak_bytes(path: Path) -> int:
    """What looking at an image and its mask takes at its peak; an unreadable one takes nothing."""
    try:
        height, width, _ = header(path)
    except UserError:
        return 0
    return 16 * height * width


def _look(data: SegmentationData, observers: Sequence[Observer], index: int, draw: bool) -> Look:
    pair, mask = data.pairs[index], Noting(data.mask)
    count = max(data.num_classes, 2)
    look = Look(np.zeros(count, np.int64))
    try:
        start = time.thread_time()
        image, look.bits = read_image(pair.image, bits=pair.bits)
        seconds = time.thread_time() - start
        look.size = [image.shape[1], image.shape[0]]
        levels = grey(image)
        same = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).digest()
        look.fingerprint = same, difference_hash(levels), thumbnail(levels)
        start = time.thread_time()
        indices = pair.indices(mask, image.shape[:2])
        seconds += time.thread_time() - start
        found = np.bincount(indices.ravel(), minlength=IGNORE_INDEX + 1)
        if found[count:IGNORE_INDEX].any():
            top = int(np.flatnonzero(found[:IGNORE_INDEX])[-1])
            raise UserError(f"{pair.mask}: holds class {top}, but data.num_classes={data.num_classes}")
        look.pixels, look.ignored = found[:count], bool(found[IGNORE_INDEX])
        if draw:
            table = palette(data.num_classes, data.colors)
            look.tile = overlay(*resize_pair(image, indices, (TILE, TILE)), table, data.num_classes == 1)
        for observer in observers:
            if observer.wants(index):
                observer.see(index, image, indices, seconds)
    except (ValueError, OSError) as error:
        look.error = str(error) if "data/mask=" in str(error) else f"{error}{guess(mask.values)}"
    look.values = mask.values
    look.white = int(mask.greatest) if mask.kind == "grey" and mask.greatest in WHITE else 0
    return look
