"""A cache of images of different sizes, one behind the other, so that a crop reads its own rows and nothing else.

``images.npy`` (pixels, 3) and ``masks.npy`` (pixels,) hold the images row by row; ``positions.npy`` holds, per image
and class, a bounded random sample of the pixels that show the class, for crops around them; ``cache.json`` says where
each begins, and how many pixels of each class there are.
"""

import json
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnet.data import cache
from segnet.data.cache import Pair
from segnet.errors import UserError
from segnet.networks.window import Size

POSITIONS = 4096  # of a class in an image, at most


@dataclass(frozen=True)
class Look:
    """What is known of a mask before it is read again.

    Attributes:
        counts: int64 (K,), pixels of each class; ignored ones count nowhere.
        positions: of each class uint32 (n,), n ≤ `POSITIONS`: places in the flattened mask, drawn at random.
    """

    counts: NDArray[np.int64]
    positions: Sequence[NDArray[np.uint32]]


def look(mask: NDArray[np.uint8], classes: int) -> Look:
    """Count a mask (H, W), and draw positions of each of its ``classes``; the same mask always gives the same."""
    flat = mask.ravel()
    counts = np.bincount(flat, minlength=classes)[:classes].astype(np.int64)
    rng = np.random.default_rng(0)
    positions = []
    for label in range(classes):
        found = np.flatnonzero(flat == label) if counts[label] else np.zeros(0, np.int64)
        positions.append((found if len(found) <= POSITIONS else rng.choice(found, POSITIONS, False)).astype(np.uint32))
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

    def __post_init__(self) -> None:
        pixels = [height * width for height, width in self.sizes]
        object.__setattr__(self, "_first", np.cumsum([0, *pixels]))
        object.__setattr__(self, "_positions", np.cumsum([0, *self.lengths.ravel()]))

    def __getitem__(self, index: int) -> Pair:
        """Image (H, W, 3) and mask (H, W), of which nothing is read yet."""
        first = self._first[index : index + 2]  # type: ignore[attr-defined]
        size = self.sizes[index]
        return self.images[first[0] : first[1]].reshape(*size, 3), self.masks[first[0] : first[1]].reshape(size)

    def look(self, index: int) -> Look:
        """What `look` says of a mask."""
        classes = self.counts.shape[1]
        at = self._positions[index * classes : (index + 1) * classes + 1]  # type: ignore[attr-defined]
        return Look(self.counts[index], [self.flat[at[i] : at[i + 1]] for i in range(classes)])


@dataclass(frozen=True)
class Flat:
    """Writes and opens such a cache.

    Args:
        load: image uint8 (H, W, 3) and mask uint8 (H, W) of one index.
        sizes: (height, width) that it gives for each.
        classes: how many the masks hold.
    """

    load: Callable[[int], Pair]
    sizes: Sequence[Size]
    classes: int

    def need(self) -> int:
        """Bytes that it takes at most."""
        pixels = [height * width for height, width in self.sizes]
        return sum(4 * count + 4 * self.classes * min(count, POSITIONS) for count in pixels)

    def open(self, folder: Path, verify: bool) -> Content | None:
        """The content, if every image is what was written."""
        try:
            noted = json.loads((folder / "cache.json").read_text(encoding="utf-8"))
            arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "masks", "positions")]
            counts, lengths = (np.array(noted[name], np.int64) for name in ("counts", "lengths"))
            shape = (len(self.sizes), self.classes)
            pixels = sum(height * width for height, width in self.sizes)
            shapes = [(pixels, 3), (pixels,), (int(lengths.sum()),)]
            whole = [array.shape for array in arrays] == shapes and counts.shape == lengths.shape == shape
            if not whole or noted["sizes"] != [list(size) for size in self.sizes]:
                return None
            content = Content(arrays[0], arrays[1], arrays[2], self.sizes, counts, lengths)
            if verify and zlib.crc32(np.ascontiguousarray(arrays[2]).data) != noted["positions"]:
                return None
            found = cache.checksums(content[i] for i in range(len(self.sizes))) if verify else noted["checksums"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return content if found == noted["checksums"] else None

    def fill(self, folder: Path) -> None:
        """Decode everything; a thread holds one image at a time and writes it itself."""
        pixels = [height * width for height, width in self.sizes]
        first = np.cumsum([0, *pixels])
        images = cache.reserve(folder / "images.npy", (int(first[-1]), 3))
        masks = cache.reserve(folder / "masks.npy", (int(first[-1]),))

        def write(index: int) -> tuple[int, Look]:
            image, mask = self.load(index)
            if mask.shape != self.sizes[index]:
                raise UserError(f"image {index}: decodes to {mask.shape}, its header says {self.sizes[index]}")
            images[first[index] : first[index + 1]] = image.reshape(-1, 3)
            masks[first[index] : first[index + 1]] = mask.ravel()
            return cache.checksum(image, mask), look(mask, self.classes)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            done = list(cache.progress(pool.map(write, range(len(pixels))), len(pixels)))
        images.flush()
        masks.flush()
        looks = [found for _, found in done]
        flat = (
            np.concatenate([part for found in looks for part in found.positions]) if looks else np.zeros(0, np.uint32)
        )
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
