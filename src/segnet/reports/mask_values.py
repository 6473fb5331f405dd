"""The values or colours that mask files hold, and what they may mean."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnet.data.images import MaskKind
from segnet.data.masks import IGNORE_INDEX, Encoding
from segnet.data.values import counted, packed, typed, unpacked

MOST = 32  # different values of a file that are told


class Noting:
    """An encoding that notes what the files of a mask hold on their way, so that none is decoded twice.

    Attributes:
        values: the least `MOST` of the different values (or colours, as lists); None before a mask has been read.
        greatest: the greatest value; 0 of colours.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.kind: MaskKind = encoding.kind
        self.values: list[Any] | None = None
        self.greatest: float = 0

    def __call__(self, raw: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        """What the encoding makes of the stored values."""
        found = distinct(raw)
        values = found[:MOST].tolist()
        if self.values is not None:  # a further file of the same mask
            values = sorted([*self.values, *(value for value in values if value not in self.values)])[:MOST]
        self.values = values
        if found.ndim == 1 and len(found):
            self.greatest = max(self.greatest, float(found[-1]))
        return self.encoding(raw, path)


class ValueTable:
    """The values of each image's mask by its index, each list of values kept once."""

    def __init__(self, count: int) -> None:
        self._lists: list[list[Any]] = []
        self._places: dict[str, int] = {}
        self._of = np.full(count, -1, np.int32)

    def put(self, index: int, values: list[Any] | None) -> None:
        """Keep what the mask of an image holds; None: it has none, or cannot be read."""
        if values is None:
            return
        place = self._places.setdefault(str(values), len(self._lists))
        if place == len(self._lists):
            self._lists.append(values)
        self._of[index] = place

    def __getitem__(self, index: int) -> list[Any] | None:
        place = int(self._of[index])
        return None if place < 0 else self._lists[place]

    def union(self) -> list[Any]:
        """Every value that a mask holds, in order."""
        found = {tuple(v) if isinstance(v, list) else v for values in self._lists for v in values}
        return [list(v) if isinstance(v, tuple) else v for v in sorted(found)]

    def everywhere(self) -> dict[str, int]:
        """The `MOST` most frequent values, as text, and in how many masks each occurs."""
        counts: Counter[str] = Counter()
        files = np.bincount(self._of[self._of >= 0], minlength=len(self._lists))
        for values, count in zip(self._lists, files.tolist(), strict=True):
            for value in values:
                counts[str(value)] += count
        return dict(counts.most_common(MOST))


def distinct(raw: NDArray[Any]) -> NDArray[Any]:
    """The different values (n,) of an array (H, W), or the colours (n, 3) of uint8 (H, W, 3), in ascending order."""
    return unpacked(counted(packed(raw))[0]) if raw.ndim == 3 else counted(raw)[0]


def guess(values: Sequence[Any] | None) -> str:
    """What a mask with these values may be, as a hint behind an error."""
    if not values or values == [0]:
        return ""
    if isinstance(values[0], list):
        known = f" with 'data.mask.colors={typed(values)}'" if len(values) < MOST else ""
        return f" (it holds {len(values)}{' or more' * (not known)} colours: data/mask=palette{known})"
    if set(values) <= {0, 255}:
        return f" (it holds {' and '.join(map(str, values))}: data/mask=threshold)"
    if set(values) <= {0, 1}:
        return " (it holds 0 and 1: data/mask=threshold or data/mask=values, or data.mask.above=0)"
    labels = sorted(set(values) - {IGNORE_INDEX})
    labels = [0, *labels] if len(labels) == 1 else labels
    number = f"data.num_classes={len(labels) if len(labels) > 2 else 1}"
    if len(values) < MOST and labels == list(range(len(labels))):
        return f" (it holds {values}: data/mask=values with {number})"
    if len(values) < MOST and max(values) <= IGNORE_INDEX:
        shown = f"'data.mask.classes={typed(labels)}', {number}"
        return f" (it holds {values}: data/mask=values with {shown})"
    return " (it holds many grey values: a soft or JPEG-compressed mask? data/mask=threshold takes those)"
