"""How a mask file says which class a pixel has: by threshold, by value or by colour.

Each encoding maps the stored array to uint8 class indices (H, W), ``IGNORE`` where a pixel counts nowhere.
A value that the encoding does not know is an error with file, value and remedy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IGNORE = 255


@dataclass(frozen=True)
class Threshold:
    """Binary masks: class 1 where the grey value is above ``above`` (soft edges welcome)."""

    above: int = 127

    def __call__(self, raw: NDArray[np.integer], path: Path) -> NDArray[np.uint8]:
        """Stored (H, W) grey values to class indices 0 and 1."""
        return np.asarray(_grey(raw, path) > self.above, np.uint8)


@dataclass(frozen=True)
class Values:
    """Grey values (or palette indices) to class indices.

    Args:
        classes: stored value of every class in order, or None where the values are the indices themselves.
        ignore: stored values that count in no loss and no metric.
        num_classes: number of classes; a binary task stores background and class, that is two values.
    """

    num_classes: int
    classes: Sequence[int] | None = None
    ignore: Sequence[int] = ()

    def __call__(self, raw: NDArray[np.integer], path: Path) -> NDArray[np.uint8]:
        """Stored (H, W) values to class indices and `IGNORE`."""
        grey = _grey(raw, path)
        count = max(self.num_classes, 2)
        known = list(range(count)) if self.classes is None else list(self.classes)
        if len(known) != count:
            raise ValueError(
                f"data.mask.classes={known}: needs {count} values for data.num_classes={self.num_classes}, "
                f"one per class (background first in a binary task)"
            )
        if grey.size and (grey.min() < 0 or grey.max() > 65535):
            raise ValueError(f"{path}: mask values must lie in 0..65535, found {grey.min()}..{grey.max()}")
        table = np.full(65536, -1, np.int16)
        table[known] = np.arange(count)
        table[list(self.ignore)] = IGNORE
        indices = table[grey]
        if (indices < 0).any():
            unknown = sorted({int(v) for v in np.unique(grey[indices < 0])})
            raise ValueError(
                f"{path}: unknown mask value(s) {_some(unknown)}; known are {_some(known)}, ignored "
                f"{list(self.ignore)}: add them to data.mask.ignore or data.mask.classes, "
                f"or correct data.num_classes={self.num_classes}"
            )
        return np.asarray(indices, np.uint8)


@dataclass(frozen=True)
class Palette:
    """RGB colours to class indices.

    Args:
        colors: colour of every class in order, ``[r, g, b]`` in 0..255 (background first in a binary task).
        ignore: colours that count in no loss and no metric.
    """

    colors: Sequence[Sequence[int]]
    ignore: Sequence[Sequence[int]] = ()

    def __call__(self, raw: NDArray[np.integer], path: Path) -> NDArray[np.uint8]:
        """Stored (H, W, 3) RGB (or grey, read as r = g = b) to class indices and `IGNORE`."""
        rgb = raw if raw.ndim == 3 else np.repeat(raw[..., None], 3, axis=2)
        code = _pack(rgb)
        out = np.full(code.shape, -1, np.int16)
        for color in self.ignore:
            out[code == _pack(np.asarray(color))] = IGNORE
        for index, color in enumerate(self.colors):
            out[code == _pack(np.asarray(color))] = index
        if (out < 0).any():
            unknown = [tuple(int(c) for c in v) for v in np.unique(rgb[out < 0], axis=0)[:5]]
            raise ValueError(
                f"{path}: unknown mask colour(s) {unknown}; add them to data.mask.colors or data.mask.ignore"
            )
        return out.astype(np.uint8)


def _pack(rgb: NDArray[np.integer]) -> NDArray[np.int64]:
    r, g, b = (rgb[..., i].astype(np.int64) for i in range(3))
    return (r << 16) | (g << 8) | b


def _grey(raw: NDArray[np.integer], path: Path) -> NDArray[np.integer]:
    if raw.ndim != 2:
        raise ValueError(
            f"{path}: the mask is in colour, but data.mask expects grey values; "
            f"set data.mask._target_=segnet.masks.Palette with data.mask.colors"
        )
    return raw


def _some(values: Sequence[int]) -> str:
    return str(list(values[:8])) + (" …" if len(values) > 8 else "")
