"""A cache of decoded images, one behind the other, so that a crop reads its own rows and nothing else.

``images.npy`` (pixels, 3) and ``masks.npy`` (pixels,) hold the images row by row as uint8; every worker maps them into
memory. ``cache.json`` says where each begins, and how many pixels of each class there are; ``positions.npy`` holds, per
image and class, a bounded random sample of the pixels that show the class, where crops are to be drawn around them.
"""

import json
import os
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segnet.data import cache
from segnet.data.cache import Arrays
from segnet.errors import UserError
from segnet.files import locked
from segnet.networks.window import Size

POSITIONS = 4096  # of a class in an image, at most
THREADS = min(8, os.cpu_count() or 1)
TRIES = 8  # to put a cache into its place, where no lock keeps others away (a network file system)


@dataclass(frozen=True)
class Look:
    """What is known of a mask before it is read again.

    Attributes:
        counts: int64 (K,), pixels of each class; ignored ones count nowhere.
        positions: of each class uint32 (n,), n ≤ `POSITIONS`: places in the flattened mask, drawn at random.
    """

    counts: NDArray[np.int64]
    positions: Sequence[NDArray[np.uint32]]


def look(mask: NDArray[np.uint8], classes: int, most: int = POSITIONS) -> Look:
    """Count a mask (H, W), and draw so many positions of each class; the same mask always gives the same."""
    flat = mask.ravel()
    counts = np.bincount(flat, minlength=classes)[:classes].astype(np.int64)
    rng = np.random.default_rng(0)
    positions = []
    for label in range(classes):
        found = np.flatnonzero(flat == label) if most and counts[label] else np.zeros(0, np.int64)
        positions.append((found if len(found) <= most else rng.choice(found, most, False)).astype(np.uint32))
    return Look(counts, positions)


@dataclass(frozen=True)
class Content:
    """The open cache; its arrays are read-only memory maps."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    flat: NDArray[np.uint32]
    sizes: Sequence[Size]
    counts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @cached_property
    def _first(self) -> NDArray[np.int64]:
        return _firsts(self.sizes)

    @cached_property
    def _first_position(self) -> NDArray[np.int64]:
        return np.cumsum([0, *self.lengths.ravel()])

    def __getitem__(self, index: int) -> Arrays:
        """Image (H, W, 3) and mask (H, W), of which nothing is read yet."""
        first = self._first[index : index + 2]
        size = self.sizes[index]
        return self.images[first[0] : first[1]].reshape(*size, 3), self.masks[first[0] : first[1]].reshape(size)

    def look(self, index: int) -> Look:
        """What `look` says of a mask."""
        classes = self.counts.shape[1]
        at = self._first_position[index * classes : (index + 1) * classes + 1]
        return Look(self.counts[index], [self.flat[at[i] : at[i + 1]] for i in range(classes)])


@dataclass(frozen=True)
class Flat:
    """Writes and opens such a cache.

    Args:
        load: image uint8 (H, W, 3) and mask uint8 (H, W) of one index.
        sizes: (height, width) that it gives for each.
        classes: how many the masks hold.
        most: positions of a class in an image.
    """

    load: Callable[[int], Arrays]
    sizes: Sequence[Size]
    classes: int
    most: int = POSITIONS

    def need(self) -> int:
        """Bytes that it takes at most."""
        pixels = [height * width for height, width in self.sizes]
        return sum(4 * count + 4 * self.classes * min(count, self.most) for count in pixels)

    def open(self, folder: Path, verify: bool) -> Content | None:
        """The content; None where a file is missing, or with ``verify`` where an image is not what was written.

        A crash of the machine or a bad disk leaves zeros instead.
        """
        try:
            noted = json.loads((folder / "cache.json").read_text(encoding="utf-8"))
            arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "masks", "positions")]
            counts, lengths = (np.array(noted[name], np.int64) for name in ("counts", "lengths"))
            shape = (len(self.sizes), self.classes)
            pixels = int(_firsts(self.sizes)[-1])
            shapes = [(pixels, 3), (pixels,), (int(lengths.sum()),)]
            whole = [array.shape for array in arrays] == shapes and counts.shape == lengths.shape == shape
            if not whole or noted["sizes"] != [list(size) for size in self.sizes]:
                return None
            content = Content(arrays[0], arrays[1], arrays[2], self.sizes, counts, lengths)
            if verify and zlib.crc32(np.ascontiguousarray(arrays[2]).data) != noted["positions"]:
                return None
            found = noted["checksums"]
            if verify:
                with ThreadPoolExecutor(THREADS) as pool:
                    found = list(pool.map(lambda i: _checksum(*content[i]), range(len(self.sizes))))
            return content if found == noted["checksums"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def fill(self, folder: Path) -> None:
        """Decode everything; a thread holds one image at a time and writes it itself."""
        first = _firsts(self.sizes)
        images = _reserve(folder / "images.npy", (int(first[-1]), 3))
        masks = _reserve(folder / "masks.npy", (int(first[-1]),))

        def write(index: int) -> tuple[int, Look]:
            image, mask = self.load(index)
            if mask.shape != self.sizes[index]:
                raise UserError(f"image {index}: decodes to {mask.shape}, its header says {self.sizes[index]}")
            images[first[index] : first[index + 1]] = image.reshape(-1, 3)
            masks[first[index] : first[index + 1]] = mask.ravel()
            return _checksum(image, mask), look(mask, self.classes, self.most)

        with ThreadPoolExecutor(THREADS) as pool:
            results = pool.map(write, range(len(self.sizes)))
            done = list(tqdm(results, "decode once", len(self.sizes), unit="image", leave=False, disable=None))
        images.flush()
        masks.flush()
        looks = [found for _, found in done]
        flat = np.concatenate([np.zeros(0, np.uint32), *(part for found in looks for part in found.positions)])
        np.save(folder / "positions.npy", flat)
        content = {
            "format": cache.FORMAT,
            "sizes": self.sizes,
            "checksums": [value for value, _ in done],
            "positions": zlib.crc32(flat.data),
            "counts": [found.counts.tolist() for found in looks],
            "lengths": [[len(part) for part in found.positions] for found in looks],
        }
        (folder / "cache.json").write_text(json.dumps(content), encoding="utf-8")


def _firsts(sizes: Sequence[Size]) -> NDArray[np.int64]:
    """The first pixel of each image, and behind them how many pixels there are."""
    return np.cumsum([0, *(height * width for height, width in sizes)])


def kept(folder: Path, key: str, store: Flat, limit_gb: float) -> Content | None:
    """The content of the cache ``key`` below ``folder``, built first where it is missing; None if over the bound.

    Args:
        folder: where caches live, in a folder of their own.
        key: from `segnet.data.cache.key_of`.
        store: writes and reads it.
        limit_gb: bound of all of them; the longest unused caches make room. Where one data set alone is larger, nothing
            is cached.

    Raises:
        UserError: the disk is full, or another folder is in its place.
    """
    folder, need = folder / cache.HOME, store.need()
    target = folder / key
    found = store.open(target, verify=True)
    if found is None:
        if need > limit_gb * 1e9:
            return None
        if cache.is_whole(target):
            warnings.warn(f"{target}: damaged since it was built; it is built anew", stacklevel=2)
        try:
            found = _build(folder, target, store, int(limit_gb * 1e9) - need)
        except OSError as error:
            if error.errno not in cache.FULL:
                raise
            raise UserError(
                f"data.cache_dir={folder.parent}: no room for {need / 1e9:.3g} GB of images ({error.strerror}); "
                f"name a folder on another disk, or set data.cache_dir=null, which decodes them in every epoch"
            ) from error
    with suppress(OSError):  # a shared cache may be read-only
        os.utime(target)  # marks it as used
    return found


def _build(folder: Path, target: Path, store: Flat, allowed: int) -> Content | None:
    """Write the cache ``target`` beside at most ``allowed`` bytes of others and open it; the first of several stays."""
    part = folder / f"{target.name}.{uuid4().hex}{cache.PART}"
    with ExitStack() as stack:
        with cache.writable(folder), cache.alone(folder):
            cache.make_room(folder, allowed)
            part.mkdir()
            stack.enter_context(locked(part / cache.MARKER))
        try:
            store.fill(part)
            made = store.open(part, verify=False)  # what is open stays readable wherever it is moved
            with cache.alone(folder):
                for _ in range(TRIES):
                    if (found := store.open(target, verify=True)) is not None:
                        return found  # another process finished the same cache first
                    cache.remove(target)  # damaged, or what a killed deletion left
                    with suppress(OSError):
                        part.rename(target)  # atomic: a killed build leaves only a *.part folder
                        return made
            raise UserError(f"{target}: is no cache of this program; move it, or set data.cache_dir")
        finally:
            cache.remove(part)


def _checksum(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> int:
    """By which a damaged image or mask is noticed."""
    return zlib.crc32(np.ascontiguousarray(mask).data, zlib.crc32(np.ascontiguousarray(image).data))


def _reserve(path: Path, shape: tuple[int, ...]) -> "np.memmap[Any, np.dtype[np.uint8]]":
    """A new array in a file whose space is taken at once: to write to a map for which the disk is full is a SIGBUS."""
    array: np.memmap[Any, np.dtype[np.uint8]] = np.lib.format.open_memmap(path, "w+", np.uint8, shape)  # type: ignore[no-untyped-call]
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
