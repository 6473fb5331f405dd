"""Masks whose class stands in their path: a folder a class, each with black-and-white masks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnet.data import grouping
from segnet.data.masks import Threshold
from segnet.errors import UserError
from segnet.settings import Text


@dataclass(frozen=True, kw_only=True)
class ByPath(Threshold):
    """Black-and-white masks, each of the one class that its path names; a black mask shows none, whatever it names.

    Args:
        pattern: regular expression on a mask's path, whose first group (or whole match) is the name of the class. Where
            it matches more than once, the last counts, so that folders above the data set do not matter.
        classes: names in order, the background first, which no path needs to name.
        above: as in `Threshold`.
    """

    pattern: Text
    classes: Sequence[Text]

    def __post_init__(self) -> None:
        grouping.check("data.mask.pattern", self.pattern)
        if len(self.classes) < 2:
            raise UserError(
                f"data.mask.classes={list(self.classes)}: must name the background and the classes of the paths, such "
                f"as 'data.classes=[background,crack,stain]'; one class needs data/mask=threshold"
            )

    def __call__(self, raw: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        """Stored (H, W) grey values to class indices: 0, and that of the path where the mask is white.

        Raises:
            UserError: the mask shows something, and its path names no class; or as `Threshold`.
        """
        shown = super().__call__(raw, path)
        if not shown.any():
            return shown
        found = [match.group(bool(match.re.groups)) or "" for match in re.finditer(self.pattern, path.as_posix())]
        known = list(self.classes[1:])
        if not found or found[-1] not in known:
            named = repr(found[-1]) if found else "nothing"
            raise UserError(
                f"{path}: its path names {named} by data.mask.pattern={self.pattern!r}"
                f", and the classes are {', '.join(known)}; add it to data.classes, or correct the pattern"
            )
        return shown * np.uint8(1 + known.index(found[-1]))
