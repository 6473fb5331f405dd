"""How a mask file says which class a pixel has: by threshold, by value or by colour.

Each encoding maps the stored array to uint8 class indices (H, W), ``IGNORE_INDEX`` where a pixel counts nowhere, and
says with ``kind`` what it wants to read. A value that it does not know is an error with file, value and remedy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from segnet.data.images import MaskKind
from segnet.errors import UserError

IGNORE_INDEX = 255


class Encoding(Protocol):
    """What a data module needs of a mask encoding."""

    kind: ClassVar[MaskKind]

    def __call__(self, raw: NDArray[np.integer], path: Path) -> NDArray[np.uint8]:
        """Stored values to class indices."""
        ...


@dataclass(frozen=True)
class Threshold:
    """Binary masks: class 1 where the grey value is above ``above`` (soft edges welcome)."""

    above: int = 127
    kind: ClassVar[MaskKind] = "grey"

    def __call__(self, raw: NDArray[np.integer], path: Path) -> NDArray[np.uint8]:
        """Stored (H, W) grey values to class indices 0 and 1."""
        return np.asarray(raw > self.above, np.uint8)


@dataclass(frozen=True)
class Values:
    """Grey values (or palette indices) to class indices.

    Args:
        num_classes: number of classes; a binary task stores background and class, that is two values.
        classes: stored value of every class in order, or None where the values are the indices themselves.
        ignore: stored values that count in no loss and no metric.
    """

    num_classes: int
    classes: Sequence[int] | None = None
    ignore: Sequence[int] = ()
    kind: ClassVar[MaskKind] = "index"

    def __call__(self, raw: NDArray[np.integer], path: Path) -> NDArray[np.uint8]:
        """Stored (H, W) values to class indices and `IGNORE_INDEX`."""
        known = self._known()
        if raw.size and (raw.min() < 0 or raw.max() > 65535):
            raise UserError(f"{path}: mask values must lie in 0..65535, found {raw.min()}..{raw.max()}")
        table = np.full(65536, -1, np.int16)
        table[known] = np.arange(len(known))
        table[list(self.ignore)] = IGNORE_INDEX
        indices = table[raw]
        if (indices < 0).any():
            unknown = sorted({int(v) for v in np.unique(raw[indices < 0])})
            raise UserError(
                f"{path}: unknown mask value(s) {_some(unknown)}; known are {_some(known)}, ignored "
                f"{list(self.ignore)}: add them to data.mask.ignore or data.mask.classes, "
                f"or correct data.num_classes={self.num_classes}"
            )
        return np.asarray(indices, np.uint8)

    def _known(self) -> list[int]:
        count = max(self.num_classes, 2)
        known = list(range(count)) if self.classes is None else list(self.classes)
        if len(known) != count:
            raise UserError(
                f"data.mask.classes={known}: needs {count} values for data.num_classes={self.num_classes}, "
                f"one per class (background first in a binary task)"
            )
        if count >= IGNORE_INDEX:
            raise UserError(f"data.num_classes={count}: must be below {IGNORE_INDEX}, which marks ignored pixels")
        both = [*known, *self.ignore]
        if len(set(both)) != len(both) or not all(0 <= value <= 65535 for value in both):
            raise UserError(
                f"data.mask.classes={_some(known)}, data.mask.ignore={list(self.ignore)}: must be different "
                f"values in 0..65535"
            )
        return known


@dataclass(frozen=True)
class Palette:
    """RGB colours to class indices.

    Args:
        colors: colour of every class in order, ``[r, g, b]`` in 0..255 (background first in a binary task).
        ignore: colours that count in no loss and no metric.
    """

    colors: Sequence[Sequence[int]]
    ignore: Sequence[Sequence[int]] = ()
    kind: ClassVar[MaskKind] = "rgb"

    def __post_init__(self) -> None:
        known = [tuple(color) for color in (*self.colors, *self.ignore)]
        if any(len(c) != 3 or not all(0 <= v <= 255 for v in c) for c in known) or len(set(known)) != len(known):
            raise UserError(f"data.mask colours {known}: must be different [r, g, b] with values in 0..255")

    def __call__(self, raw: NDArray[np.integer], path: Path) -> NDArray[np.uint8]:
        """Stored uint8 (H, W, 3) RGB to class indices and `IGNORE_INDEX`."""
        code = _pack(raw)
        out = np.full(code.shape, -1, np.int16)
        for color in self.ignore:
            out[code == _pack(np.asarray(color))] = IGNORE_INDEX
        for index, color in enumerate(self.colors):
            out[code == _pack(np.asarray(color))] = index
        if (out < 0).any():
            unknown = [tuple(int(c) for c in v) for v in np.unique(raw[out < 0], axis=0)[:5]]
            raise UserError(
                f"{path}: unknown mask colour(s) {unknown}; add them to data.mask.colors or data.mask.ignore"
            )
        return np.asarray(out, np.uint8)


def check_classes(classes: Sequence[str], num_classes: int, colors: Sequence[Sequence[int]] | None) -> None:
    """Refuse names and colours that do not agree with the number of classes, or a number that no mask can hold."""
    if type(num_classes) is not int or not 1 <= num_classes < IGNORE_INDEX:
        raise UserError(f"data.num_classes={num_classes}: must be an integer in 1..{IGNORE_INDEX - 1}")
    if len(classes) != num_classes:
        raise UserError(
            f"data.num_classes={num_classes}, but data.classes names {len(classes)}: {list(classes)}; they must agree "
            f"(a binary task has one)"
        )
    if colors is not None and len(colors) != num_classes:
        raise UserError(f"data.colors has {len(colors)} colours for {num_classes} classes; name one for each")


def _pack(rgb: NDArray[np.integer]) -> NDArray[np.int64]:
    r, g, b = (rgb[..., i].astype(np.int64) for i in range(3))
    return (r << 16) | (g << 8) | b


def _some(values: Sequence[int]) -> str:
    return str(list(values[:8])) + (" …" if len(values) > 8 else "")
