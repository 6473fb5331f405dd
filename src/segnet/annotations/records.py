"""What every format is read to: images, and the labelled objects in each of them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from segnet.annotations.raster import FAR, Points, Shape
from segnet.errors import UserError

Split = Literal["train", "val", "test"]
IGNORE = "__ignore__"  # labelme's name for what counts nowhere; COCO's crowds and VOC's void get it too
BACKGROUND = ("background", "_background_", "__background__")  # what is named so is no object


class Object(NamedTuple):
    """One object: the name of its class, and which pixels it covers."""

    label: str
    shape: Shape


@dataclass(frozen=True)
class Annotated:
    """An image and what is said about it.

    Attributes:
        image: its file.
        objects: a function of the height and width on which they are drawn, that gives the objects in the order of
            drawing, later ones over earlier ones; None where nothing is said about the image.
        size: height and width that the annotation states.
        split: to which it belongs, by the source.
        content: the image itself, where it has no file; ``image`` then is the file that holds it.
    """

    image: Path
    objects: Callable[[int, int], Iterable[Object]] | None
    size: tuple[int, int] | None = None
    split: Split | None = None
    content: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Source:
    """All that was read.

    Attributes:
        images: in the order of the source.
        labels: names of classes in the order of the source, whether an object has them or not.
        told: lines for people: what was left out or decided, with numbers.
        named: whether the source names its classes; if not, ``labels`` are stored values.
    """

    images: Sequence[Annotated]
    labels: Sequence[str]
    told: list[str] = field(default_factory=list)
    named: bool = True


@dataclass(frozen=True)
class Choices:
    """What a reader is told to do where a format leaves it open; conf/import_labels.yaml says what they mean."""

    boxes: Literal["error", "fill", "skip"] = "error"
    line_width: float | None = None
    missing: Literal["error", "skip"] = "error"
    crowd: Literal["ignore", "object"] | None = None
    ignore: Sequence[str] = ()
    named: Sequence[str] = ()  # labels that classes names
    masks: str | None = None


def points(values: Any, where: str, least: int = 0) -> Points:
    """Coordinates [[x, y], …] or [x, y, x, y, …] as float64 (n, 2).

    Raises:
        UserError: they are no such list, too few, not finite, or further out than any image.
    """
    try:
        found = np.asarray(values, np.float64)
        found = found.reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: its points are no list of pairs of numbers; correct or remove it") from None
    if len(found) < least:
        raise UserError(f"{where}: has {len(found)} points, and needs {least} or more; correct or remove it")
    if not (np.abs(found) <= FAR).all():
        raise UserError(f"{where}: a coordinate is not finite, or beyond {FAR:.0e}; correct or remove it")
    return found


def size(given: Mapping[str, Any], where: str, keys: Sequence[str] = ("height", "width")) -> tuple[int, int] | None:
    """Height and width that an annotation states of an image; None where it does not.

    Raises:
        UserError: as `number`.
    """
    if any(given.get(key) in (None, "") for key in keys):
        return None
    height, width = (int(number(given[key], f"{where}: {key}")) for key in keys)
    return height, width


def number(value: Any, where: str) -> float:
    """A finite number, given as such or as text.

    Raises:
        UserError: it is none, or larger than any coordinate.
    """
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if isinstance(value, bool) or not abs(found) <= FAR:
        raise UserError(f"{where}={value!r}: must be a finite number below {FAR:.0e}; correct or remove it")
    return found
