"""What the values of mask files mean, found out from all of them together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segnet.annotations.records import Choices
from segnet.data.decoding import MAX_PIXELS, check_regular, header, mode
from segnet.data.images import read_raw_mask
from segnet.data.masks import WHITE, Threshold
from segnet.data.values import RGB, packed
from segnet.errors import UserError

COLORS = 64  # at most; more are blended edges
VOID = 255
SAID = {"yes": "black and white", "values": "a value for each class", "colors": "a colour for each class"}


@dataclass(frozen=True)
class Kind:
    """How mask files say the class: ``yes`` or no, integer ``values``, or ``colors``.

    Attributes:
        kind: one of these.
        palette: files with a palette mean its indices, and not the grey values that it shows.
        ignored: the value that counts nowhere.
    """

    kind: Literal["yes", "values", "colors"]
    palette: bool = False
    ignored: int | None = None

    @property
    def said(self) -> str:
        """For people."""
        return SAID[self.kind]

    def label(self, value: int) -> str:
        """The label of a value: the number itself, or a colour such as ``#ff0000``."""
        return f"#{value:06x}" if self.kind == "colors" else str(value)


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of a mask, by its header."""
    return _array(path).shape if path.suffix.lower() == ".npy" else header(path)[:2]  # type: ignore[return-value]


def read_values(path: Path, kind: Kind) -> NDArray[Any]:
    """(H, W) of a mask: 0 and 1, integer values, or colours as 24-bit numbers.

    Raises:
        UserError: it holds something else.
    """
    if kind.kind == "colors":
        return packed(read_raw_mask(path, "rgb")) & RGB
    if kind.kind == "values":
        raw = _raw(path, kind.palette)
        return raw.astype(np.uint8) if raw.dtype == np.bool_ else raw
    try:
        raw = _raw(path, kind.palette)
    except UserError:
        colors = read_values(path, Kind("colors"))
        if np.count_nonzero(np.unique(colors)) > 1:
            raise
        return np.asarray(colors != 0, np.uint8)  # one colour on black
    if (found := _yes(raw, path)) is None:
        raise UserError(f"{path}: holds {_some(np.unique(raw))}, and black and white is expected; correct it")
    return found


def labels_of(paths: Sequence[Path], choices: Choices, told: list[str]) -> tuple[Kind, list[str]]:
    """What the masks mean, one for an image each, and the labels that they hold.

    Raises:
        UserError: their values may be read in two ways.
    """
    for palette in (False, True):
        try:
            return _levels(paths, palette, choices, told)
        except _Colored:
            continue
    kind, values = Kind("colors"), set[int]()
    for path in paths:
        values.update(np.unique(read_values(path, kind)).tolist())
        if len(values) > COLORS:
            raise UserError(
                f"{path}: the masks hold more than {COLORS} colours, more than classes; are they overlays, or are "
                f"their edges blended? Give masks of one colour for each class"
            )
    return kind, [kind.label(v) for v in sorted(values) if v]


class _Colored(Exception):  # noqa: N818
    """A mask is in colour."""


def _levels(paths: Sequence[Path], palette: bool, choices: Choices, told: list[str]) -> tuple[Kind, list[str]]:
    """As `labels_of`, of masks in grey or with a palette."""
    values: set[int] = set()
    soft, flat = None, None
    for path in paths:
        try:
            raw = _raw(path, palette)
        except UserError:
            if path.suffix.lower() == ".npy":
                raise
            raise _Colored from None  # or it is damaged, which reading its colours will say
        found = np.unique(raw)
        if raw.dtype == np.bool_ or any(set(found.tolist()) <= {0, white} for white in WHITE):
            values.update(map(int, found.tolist()))
        elif _yes(raw, path) is not None:
            soft = path
        else:
            flat = path
            values.update(found.tolist())
    if flat is None:
        return Kind("yes", palette), ["1"]
    if soft is not None:
        raise UserError(f"{soft}: has soft edges, and {flat} holds values of classes; give masks of one kind")
    return _values(values, flat, palette, choices, told)


def _values(values: set[int], path: Path, palette: bool, choices: Choices, told: list[str]) -> tuple[Kind, list[str]]:
    there = [v for v in sorted(values) if v]
    others = [v for v in there if v != VOID]
    if (
        VOID not in there
        or {str(VOID)} & {*choices.ignore, *choices.named}
        or set(map(str, others)) <= set(choices.ignore)
    ):
        return Kind("values", palette), [str(v) for v in there]
    if len(others) < 2 or others != list(range(1, len(others) + 1)):
        shown = ",".join(map(str, others))
        raise UserError(
            f"{path}: the masks hold {_some(np.array(sorted(values)))}, and 255 may be a class or void: 'ignore=[255]' "
            f"ignores it, 'ignore=[{shown}]' the others, and 'classes={{a:[{others[0]}],b:[255]}}' makes both classes, "
            f"called a and b"
        )
    told.append("the mask value 255 is ignored, as usual; 'classes={<name>:[255],…}' would make it a class")
    return Kind("values", palette, VOID), [str(v) for v in others]


def _yes(raw: NDArray[Any], path: Path) -> NDArray[np.uint8] | None:
    """0 and 1 of a mask in black and white, with soft edges or not; None where it is something else."""
    if raw.dtype == np.bool_:
        return raw.astype(np.uint8)
    try:
        return Threshold()(raw, path)
    except UserError:
        return None


def _raw(path: Path, palette: bool) -> NDArray[Any]:
    """(H, W) bool, integer or floating-point values of a file."""
    if path.suffix.lower() == ".npy":
        raw = _array(path)
    else:
        raw = read_raw_mask(path, "index" if palette else "grey")
        raw = raw.astype(np.bool_) if mode(path) == "1" else raw  # one bit has no 255
    if raw.dtype.kind == "f":
        if not np.isfinite(raw).all():
            raise UserError(f"{path}: holds values that are not finite; correct it")
        if raw.size and raw.min() >= 0 and raw.max() <= 1:
            return np.asarray(raw > 0.5)
        if not (raw == np.round(raw)).all():
            raise UserError(
                f"{path}: holds {raw.min():g}..{raw.max():g}; floating-point masks hold probabilities in 0..1, or "
                f"whole numbers"
            )
        raw = raw.astype(np.int64)
    if raw.size and (raw.min() < 0 or raw.max() > 65535):
        raise UserError(f"{path}: holds {raw.min()}..{raw.max()}; mask values must lie in 0..65535")
    return raw


def _array(path: Path) -> NDArray[Any]:
    """A NumPy file; objects in it, which could run code, are refused, and so is what is larger than an image."""
    check_regular(path)
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise UserError(f"{path}: is no NumPy array of numbers ({error}); save it with numpy.save") from None
    if not isinstance(mapped, np.ndarray) or mapped.dtype.kind not in "biuf":
        raise UserError(f"{path}: holds no array of numbers; save it with numpy.save")
    shape = tuple(side for side in mapped.shape if side != 1) if mapped.ndim == 3 else mapped.shape
    if len(shape) != 2 or mapped.size > MAX_PIXELS:
        raise UserError(
            f"{path}: has the shape {mapped.shape}; a mask has (height, width), and at most {MAX_PIXELS:,} pixels"
        )
    return np.asarray(mapped).reshape(shape)


def _some(values: NDArray[Any]) -> str:
    return ", ".join(f"{v:g}" for v in values[:8].tolist()) + (" …" if len(values) > 8 else "")
