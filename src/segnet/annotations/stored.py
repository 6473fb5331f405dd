"""What the values of mask files mean, found out from all of them together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segnet.annotations.records import Choices
from segnet.data.decoding import LOSSY, MAX_PIXELS, check_regular
from segnet.data.images import read_raw_mask
from segnet.data.masks import WHITE, Threshold
from segnet.errors import UserError

FEW = 32  # values, or colours, that may be classes; more are soft edges
VOID = 255


@dataclass(frozen=True)
class Kind:
    """How mask files say the class: ``yes`` or no, integer ``values``, or ``colors``.

    Attributes:
        kind: one of these.
        several: they are the objects of an image.
        ignored: the value that counts nowhere.
    """

    kind: Literal["yes", "values", "colors"]
    several: bool = False
    ignored: int | None = None

    @property
    def said(self) -> str:
        """For people."""
        return {
            "yes": "black and white",
            "values": "with a value for each class",
            "colors": "with a colour for each class",
        }[self.kind]

    def label(self, value: int) -> str:
        """The label of a value: the number itself, or a colour such as ``#ff0000``."""
        return f"#{value:06x}" if self.kind == "colors" else str(value)


def read_values(path: Path, kind: Kind) -> NDArray[Any]:
    """(H, W) of a mask: 0 and 1, integer values, or colours as 24-bit numbers.

    Raises:
        UserError: it holds something else.
    """
    if kind.kind == "colors":
        raw = read_raw_mask(path, "rgb").astype(np.int64)
        return np.asarray(raw[..., 0] << 16 | raw[..., 1] << 8 | raw[..., 2])
    raw = _raw(path, kind.several)
    if kind.kind == "values":
        return raw
    return raw.astype(np.uint8) if raw.dtype == np.bool_ else Threshold()(raw, path)


def labels_of(paths: Sequence[Path], choices: Choices, told: list[str]) -> tuple[Kind, list[str]]:
    """What the masks mean, one for an image each, and the labels that they hold.

    Raises:
        UserError: their values may be read in two ways.
    """
    values: set[int] = set()
    colored, graded, plain = [], [], True
    for path in paths:
        try:
            raw = _raw(path)
        except UserError:
            colors = np.unique(read_values(path, Kind("colors")))  # raises where it is unreadable
            colored.append(path)
            values.update(colors.tolist())
            continue
        found = np.unique(raw)
        if raw.dtype == np.bool_:
            continue
        if any(set(found.tolist()) <= {0, white} for white in WHITE):
            values.update(found.tolist())
        elif path.suffix.lower() in LOSSY or len(found) > FEW:
            graded.append(path)
        else:
            plain = False
            values.update(int(v) for v in found.tolist())
    if colored:
        return _colors(paths, colored, values)
    if graded and not plain:
        raise UserError(f"{graded[0]}: has soft edges, and other masks have a value for each class; give them alike")
    if plain:
        return Kind("yes"), ["1"]
    return _values(values, choices, told)


def _values(values: set[int], choices: Choices, told: list[str]) -> tuple[Kind, list[str]]:
    named = [v for v in sorted(values) if v and str(v) not in choices.ignore]
    if VOID in named and str(VOID) not in choices.named:
        others = [v for v in named if v != VOID]
        if others != list(range(1, len(others) + 1)) or len(others) < 2:
            first = ",".join(map(str, others))
            raise UserError(
                f"the masks hold {', '.join(map(str, sorted(values)))}, and 255 may be a class or be ignored: "
                f"'ignore=[255]' ignores it, 'ignore=[{first}]' ignores the others, and "
                f"'classes={{a:[{others[0] if others else 1}],b:[255]}}' makes them classes (a and b are names)"
            )
        told.append("the mask value 255 is ignored, as usual; 'classes={a:[255]}' makes it a class")
        return Kind("values", ignored=VOID), [str(v) for v in others]
    return Kind("values"), [str(v) for v in sorted(values) if v]


def _colors(paths: Sequence[Path], colored: Sequence[Path], values: set[int]) -> tuple[Kind, list[str]]:
    values = values | {
        v for path in paths if path not in set(colored) for v in np.unique(read_values(path, Kind("colors"))).tolist()
    }
    if len(values) > FEW:
        raise UserError(
            f"{colored[0]}: the masks hold {len(values)} colours, more than classes; are they overlays or blended edges? "
            f"Give masks of one colour for each class"
        )
    kind = Kind("colors")
    return kind, [kind.label(v) for v in sorted(values) if v]


def _raw(path: Path, several: bool = False) -> NDArray[Any]:
    """(H, W) bool, integer or floating-point values of a file."""
    if path.suffix.lower() != ".npy":
        raw = read_raw_mask(path, "index")
    else:
        raw = _array(path, several)
    if raw.dtype.kind == "f":
        if not np.isfinite(raw).all():
            raise UserError(f"{path}: holds values that are not finite; correct it")
        if raw.size and raw.min() >= 0 and raw.max() <= 1:
            return np.asarray(raw > 0.5)
        if not (raw == np.round(raw)).all():
            raise UserError(
                f"{path}: holds {raw.min():g}..{raw.max():g}; floating-point masks are probabilities in 0..1, or whole numbers"
            )
        raw = raw.astype(np.int64)
    if raw.size and (raw.min() < 0 or raw.max() > 65535):
        raise UserError(f"{path}: holds {raw.min()}..{raw.max()}; mask values must lie in 0..65535")
    return raw


def _array(path: Path, several: bool) -> NDArray[Any]:
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
            f"{path}: has shape {mapped.shape}; a mask has (height, width), and at most {MAX_PIXELS:,} pixels"
        )
    return np.asarray(mapped).reshape(shape)
