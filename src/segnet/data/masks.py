"""How a mask file says which class a pixel has: by threshold, by value or by colour.

Each encoding maps the stored array to uint8 class indices (H, W), ``IGNORE_INDEX`` where a pixel counts nowhere, and
says with ``kind`` what it wants to read. A value that it does not know is an error with file, value and remedy.

Each file is judged by itself, by its own range and values, so that neither the cache nor the other files matter.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from segnet.data import edges
from segnet.data.decoding import is_lossy
from segnet.data.images import MaskKind
from segnet.data.values import RGB, packed, typed, unpacked
from segnet.errors import UserError
from segnet.settings import Colors, Count, Positive, Value

IGNORE_INDEX = 255
# What "white" is in files whose greatest value is one of these: 0/1 masks, 8 bits, and cameras' 10 to 14 in 16.
WHITE = (1, 255, 1023, 4095, 16383, 65535)
BETWEEN = 32  # of 255: how far a blended colour may lie from the line between two known ones
NAMED = 16  # values that a message proposes to name; more are no classes


class Encoding(Protocol):
    """What a data module needs of a mask encoding."""

    @property
    def kind(self) -> MaskKind:
        """How its files are read."""

    def __call__(self, raw: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        """Stored values (H, W), or colours (H, W, 3), to class indices."""
        ...


@dataclass(frozen=True)
class Threshold:
    """Binary masks, black and white: class 1 above half of the file's range, with soft edges.

    The range is 0 to the file's greatest value where that is 1, 255 or another of `WHITE`, else that of its type: 255,
    65535, or 1 for floating-point values. Grey levels in between must look like soft edges or like compression (see
    `segnet.data.edges`).

    Args:
        above: cut there instead, in the file's own units, and ask nothing; None decides as said. With 0 the numbers of
            objects are one class, be they grey values or the indices of a palette in colour.
    """

    above: float | None = None

    @property
    def kind(self) -> MaskKind:
        """Grey values; or numbers of objects, all of which are the class."""
        return "number" if self.above == 0 else "grey"

    def __call__(self, raw: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        """Stored (H, W) grey values to class indices 0 and 1."""
        if self.above is not None:
            return np.asarray(raw > self.above, np.uint8)
        if not raw.any():
            return np.zeros(raw.shape, np.uint8)
        least, greatest = raw.min(), raw.max()
        lossy = is_lossy(path)
        white = {"u1": 255.0, "u2": 65535.0, "f4": 1.0}.get(raw.dtype.str[1:], 0.0)
        white = float(greatest) if greatest in WHITE and not lossy else white
        if least >= 0 and white / 2 < greatest <= white:
            between = (raw > 0) & (raw < white)
            if edges.compressed(raw, white) if lossy else not between.any() or edges.soft(raw, between, white):
                return np.asarray(raw > white / 2, np.uint8)
        found = np.unique(raw)
        ways = "data.mask.above=<value> (what is above is the class)"
        if len(found) <= NAMED and found[0] >= 0 and np.issubdtype(raw.dtype, np.integer):
            own = found.tolist() if len(found) > 1 else [0, int(greatest)]
            own, odd = ([0, own[-1]], own[1:-1]) if own[0] == 0 and greatest in WHITE else (own, [])
            ways += f", or name them: data/mask=values 'data.mask.classes={typed(own)}' 'data.mask.ignore={typed(odd)}'"
        raise UserError(f"{path}: black and white is expected, but the mask holds {_some(found.tolist())}; set {ways}")


@dataclass(frozen=True)
class Values:
    """Grey values (or palette indices) to class indices.

    Args:
        num_classes: number of classes; a binary task stores background and class, that is two values.
        classes: stored value of every class in order, or None where the values are the indices themselves.
        ignore: stored values that count in no loss and no metric.
    """

    num_classes: Positive
    classes: Sequence[Value] | None = None
    ignore: Sequence[Value] = ()
    kind: ClassVar[MaskKind] = "index"

    def __call__(self, raw: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        """Stored (H, W) values to class indices and `IGNORE_INDEX`."""
        known = self._known()
        if not np.issubdtype(raw.dtype, np.integer):
            raise UserError(f"{path}: the mask holds floating-point values; save it with integers")
        if raw.size and raw.min() != raw.max() and is_lossy(path):
            raise UserError(
                f"{path}: its compression changes values, so it holds no class values; save it as PNG, or use "
                f"data/mask=threshold"
            )
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
        tolerance: a colour that is not listed counts as the nearest that is, if no channel differs by more; 0 allows
            none. None allows blended edges: colours within `BETWEEN` of a line between two listed ones, that look like
            soft edges (see `segnet.data.edges`).
    """

    colors: Colors
    ignore: Colors = ()
    tolerance: Count | None = None
    kind: ClassVar[MaskKind] = "rgb"

    def __post_init__(self) -> None:
        known = [tuple(color) for color in (*self.colors, *self.ignore)]
        if not self.colors:
            raise UserError("data.mask.colors=[]: must name a colour [r, g, b] for every class, the background first")
        if any(len(c) != 3 or not all(0 <= v <= 255 for v in c) for c in known) or len(set(known)) != len(known):
            raise UserError(f"data.mask colours {known}: must be different [r, g, b] with values in 0..255")
        if self.tolerance is not None and (type(self.tolerance) is not int or not 0 <= self.tolerance <= 255):
            raise UserError(f"data.mask.tolerance={self.tolerance}: must be null or an integer in 0..255")

    def __call__(self, raw: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        """Stored uint8 (H, W, 3) RGB to class indices and `IGNORE_INDEX`."""
        code = packed(raw)
        out = np.zeros(code.shape, np.uint8)
        unknown = np.ones(code.shape, np.bool_)
        known = np.array([*self.colors, *self.ignore], np.int64).reshape(-1, 3)
        index = np.array([*range(len(self.colors)), *[IGNORE_INDEX] * len(self.ignore)], np.uint8)
        for color, target in zip(packed(known.astype(np.uint8)), index, strict=True):
            here = code == color
            out[here] = target
            unknown &= ~here
        if unknown.any():
            colors, place = np.unique(code[unknown], return_inverse=True)
            rgb = unpacked(colors).astype(np.int64)
            distance = np.abs(rgb[:, None] - known[None]).max(2).min(1)
            if self.tolerance is None:
                taken = _on_lines(rgb, known) and edges.blended(code & RGB, out, unknown)
            else:
                taken = bool(distance.max() <= self.tolerance)
            if not taken:
                raise UserError(
                    f"{path}: unknown mask colour(s) {[tuple(c) for c in rgb[:5].tolist()]}"
                    f"{' …' if len(rgb) > 5 else ''}; add them to data.mask.colors or data.mask.ignore, or take the "
                    f"nearest one: data.mask.tolerance={distance.max()}"
                )
            out[unknown] = index[((rgb[:, None] - known[None]) ** 2).sum(2).argmin(1)][place]
        return out


def _on_lines(colors: NDArray[np.int64], known: NDArray[np.int64]) -> bool:
    """Whether each of these colours (n, 3) is nearly a mixture of two ``known`` ones."""
    off = np.full(len(colors), np.inf)
    for a, b in combinations(known, 2):
        along = np.clip((colors - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        off = np.minimum(off, np.linalg.norm(colors - a - along[:, None] * (b - a), axis=1))
    return bool((off <= BETWEEN).all())


def check_classes(classes: Sequence[str], num_classes: int, colors: Sequence[Sequence[int]] | None) -> None:
    """Refuse names and colours that do not agree with the number of classes, or a number that no mask can hold."""
    if type(num_classes) is not int or not 1 <= num_classes < IGNORE_INDEX:
        raise UserError(f"data.num_classes={num_classes}: must be an integer in 1..{IGNORE_INDEX - 1}")
    if len(classes) != num_classes:
        raise UserError(
            f"data.num_classes={num_classes}, but data.classes names {len(classes)}: {list(classes)}; they must agree "
            f"(a binary task has one)"
        )
    for name in classes:
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or set(name) & set("/\\"):
            raise UserError(f"data.classes={list(classes)}: {name!r} must be a text without '/' or control characters")
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise UserError(
            f"data.classes={list(classes)}: {twice[0]!r} is there twice; every class needs a name of its own"
        )
    if colors is not None and len(colors) != num_classes:
        raise UserError(f"data.colors has {len(colors)} colours for {num_classes} classes; name one for each")


def _some(values: Sequence[float]) -> str:
    return str(list(values[:8])) + (" …" if len(values) > 8 else "")
