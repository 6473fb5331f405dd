"""Images that are in two splits of a data set: the same pixels, or nearly the same."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

CLOSE = 5  # grey levels
BLOCK = 2048  # images whose hashes are compared with as many others at a time: 16 MB
LISTED = 10_000  # pairs of each kind; all images of a set may be alike, and their pairs fill no memory
SIDE = 16  # of a thumbnail

Pairs = list[tuple[int, int]]


@dataclass
class Twins:
    """Pairs of images in different splits.

    Attributes:
        exact: the first `LISTED` with equal pixels.
        near: `LISTED` at most with nearly equal ones.
        cut: whether there may be more of these.
        exact_found: how many exact pairs there are by the two splits, the earlier one first.
    """

    exact: Pairs
    near: Pairs
    cut: bool
    exact_found: dict[tuple[str, str], int]


class Fingerprints:
    """What is kept of each image to find it again: 330 bytes."""

    def __init__(self, count: int) -> None:
        self._first: dict[bytes, int] = {}
        self._identity = np.full(count, -1, np.int32)
        self._hash = np.zeros((count, 8), np.uint8)
        self._thumb = np.zeros((count, SIDE * SIDE), np.uint8)

    def put(self, index: int, digest: bytes, bits: NDArray[np.bool_], thumb: NDArray[np.uint8]) -> None:
        """Keep an image: hash of its pixels, `difference_hash`, `thumbnail`."""
        self._identity[index] = self._first.setdefault(digest, index)
        self._hash[index], self._thumb[index] = np.packbits(bits), thumb.ravel()

    def twins(self, split_of: Mapping[int, str], near: int) -> Twins:
        """Pairs of images in different splits whose pixels are equal, or nearly so.

        Nearly: the hashes differ in at most ``near`` bits, and the thumbnails by less than `CLOSE` grey levels on
        average (images with little structure have similar hashes).

        Args:
            split_of: the split of each image by its index; the pairs come in this order.
            near: in 0..64.
        """
        used = np.array([i for i in split_of if self._identity[i] >= 0], np.int64)
        names = list(dict.fromkeys(split_of.values()))
        split = np.array([names.index(split_of[int(i)]) for i in used], np.int8)
        identity = self._identity[used]
        groups = [g for g in _groups(identity) if len(set(split[g].tolist())) > 1]
        exact = list(islice((pair for group in groups for pair in _across(group, split)), LISTED))
        found: dict[tuple[str, str], int] = {}
        for group in groups:
            counts = np.bincount(split[group], minlength=len(names))
            for a in range(len(names)):
                for b in range(a + 1, len(names)):
                    key = (names[a], names[b])
                    found[key] = found.get(key, 0) + int(counts[a] * counts[b])
        alike = list(islice(self._near(used, split, identity, near), LISTED))

        def indices(places: Pairs) -> Pairs:
            return [(int(used[a]), int(used[b])) for a, b in sorted(places)]

        return Twins(
            indices(exact), indices(alike), len(alike) == LISTED, {k: count for k, count in found.items() if count}
        )

    def _near(
        self, used: NDArray[np.int64], split: NDArray[np.int8], identity: NDArray[np.int32], near: int
    ) -> Iterator[tuple[int, int]]:
        """Places in ``used``; every pair of blocks is compared by a matrix product, so the result is exact."""
        signs = np.unpackbits(self._hash[used], axis=1).astype(np.float32) * 2 - 1
        thumbs = self._thumb[used]
        mean = thumbs.mean(1, dtype=np.float32)
        for top in range(0, len(used), BLOCK):
            rows = slice(top, top + BLOCK)
            for left in range(top, len(used), BLOCK):
                columns = slice(left, left + BLOCK)
                # Of two vectors of signs: product = 64 - 2 · differing bits.
                a, b = np.nonzero(signs[rows] @ signs[columns].T >= 64 - 2 * near)
                a, b = a + top, b + left
                # As far apart as their means, thumbnails are at least: what cannot be close needs no comparison.
                keep = (a < b) & (split[a] != split[b]) & (identity[a] != identity[b])
                keep &= np.abs(mean[a] - mean[b]) < CLOSE + 0.01
                a, b = a[keep], b[keep]
                for start in range(0, len(a), BLOCK):
                    i, j = a[start : start + BLOCK], b[start : start + BLOCK]
                    far = np.abs(thumbs[i].astype(np.int16) - thumbs[j]).mean(1)
                    yield from zip(i[far < CLOSE].tolist(), j[far < CLOSE].tolist(), strict=True)


def _groups(identity: NDArray[np.int32]) -> list[NDArray[np.int64]]:
    """Places of equal values, of those that occur twice or more."""
    order = np.argsort(identity, kind="stable")
    ends = np.flatnonzero(np.diff(identity[order])) + 1
    return [group for group in np.split(order, ends) if len(group) > 1]


def _across(group: NDArray[np.int64], split: NDArray[np.int8]) -> Iterator[tuple[int, int]]:
    """Pairs of a group that are in different splits."""
    for k, a in enumerate(group.tolist()):
        rest = group[k + 1 :]
        yield from ((a, b) for b in rest[split[rest] != split[a]].tolist())


def difference_hash(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """64 bits: whether a cell of the image, shrunk to 8 × 9 in grey, is brighter than the one to its right.

    Args:
        image: uint8, RGB (H, W, 3) or grey (H, W).
    """
    small = _shrunk(image, (9, 8))
    bits: NDArray[np.bool_] = (small[:, 1:] > small[:, :-1]).ravel()
    return bits


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image, RGB (H, W, 3) or grey (H, W), in `SIDE` × `SIDE` grey levels."""
    return _shrunk(image, (SIDE, SIDE))


def grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The grey levels (H, W) of RGB (H, W, 3)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _shrunk(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    levels = grey(image) if image.ndim == 3 else image
    return np.asarray(cv2.resize(levels, size, interpolation=cv2.INTER_AREA), np.uint8)
