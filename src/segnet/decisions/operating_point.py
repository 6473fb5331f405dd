"""The operating point: by which thresholds, areas and temperature probabilities become a mask and a verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnet.decisions.regions import Regions, regions, without_holes
from segnet.errors import UserError

VERSION = 1  # of the form in checkpoints, exported files and operating_point.json
DEPTH, ENTRIES, TEXT = 8, 10_000, 1_000_000  # of a record: nested containers, values and keys, their characters
VERDICTS = ("good", "defective")


@dataclass(frozen=True)
class OperatingPoint:
    """How an image's probabilities become objects: for a binary task the defect's, else those of class 1, 2, ….

    The first of several classes is what a good part shows. A pixel can belong to the most probable of the others, and
    of each: where its probability exceeds ``low``, pixels join to regions (8-connectivity; holes are filled if so set,
    where no other class has a region); a region is an object if its greatest probability exceeds ``thresholds`` and it
    has ``min_area`` pixels. An image with an object is defective. Probabilities are those after the temperature.

    Attributes:
        thresholds: above which an object must come, one for each kind of defect, in [0, 1).
        low: above which pixels belong to it, at most the threshold (hysteresis: Canny 1986, section VIII); equal to the
            threshold without.
        min_area: pixels at the image's own size, at least 1.
        fill_holes: whether holes belong to their region.
        temperature: that logits are divided by (Guo et al., ICML 2017, section 4.2), above 0.
        record: where it comes from: target, images, rates with their intervals, what the demo needs (see
            docs/decisions.md); JSON's values, bounded in size.
    """

    thresholds: tuple[float, ...]
    low: tuple[float, ...]
    min_area: tuple[int, ...]
    fill_holes: bool = False
    temperature: float = 1.0
    record: dict[str, Any] = field(default_factory=dict, compare=False)

    def calibrated(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities float32 (C, H, W) after the temperature."""
        return at_temperature(probabilities, self.temperature)

    def mask(self, probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Class indices uint8 (H, W) of probabilities (C, H, W) after the temperature."""
        return self.decided(probabilities)[0]

    def score(self, probabilities: NDArray[np.float32]) -> float:
        """The greatest probability of a region that has the area: above the threshold, the image is defective.

        0 without such a region. With several kinds of defects it is the greatest of them.
        """
        return self.decided(probabilities)[1]

    def decided(
        self, probabilities: NDArray[np.float32], known: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.uint8], float]:
        """`mask` and `score`, whose regions are looked for once.

        Args:
            probabilities: (C, H, W) after the temperature.
            known: (H, W), the pixels that count: a region without any is none of the score. None: all.
        """
        mask = np.zeros(probabilities.shape[1:], np.uint8)
        best = 0.0
        for number, (found, greatest) in enumerate(self.candidates(probabilities)):
            large = found.areas >= self.min_area[number]
            counted = large if known is None else large & np.isin(1 + np.arange(len(found)), found.labels[known])
            best = max(best, float(greatest[counted].max(initial=0)))
            mask[found.keep(large & (greatest > self.thresholds[number]))] = number + 1
        return mask, best

    def candidates(self, probabilities: NDArray[np.float32]) -> list[tuple[Regions, NDArray[np.float64]]]:
        """Of each kind of defect the regions above ``low``, and the greatest probability in each."""
        maps = defect_maps(probabilities)
        above = [single > low for single, low in zip(maps, self.low, strict=True)]
        if self.fill_holes:
            taken = np.any(above, 0)
            for number, part in enumerate(above):  # a hole in two regions is filled once
                filled = without_holes(part) & ~taken
                above[number], taken = part | filled, taken | filled
        found = [regions(part) for part in above]
        return [(part, part.greatest(single)) for part, single in zip(found, maps, strict=True)]

    def stored(self) -> dict[str, Any]:
        """Plain containers, as they lie in checkpoints and operating_point.json."""
        content = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"version": VERSION, **content}

    @classmethod
    def read(cls, content: Any, classes: Sequence[str], source: str) -> "OperatingPoint":
        """What `stored` gave, checked, for a network of these classes.

        Raises:
            UserError: it is not one, or one for other classes; the message begins with ``source``.
        """
        kinds = max(len(classes) - 1, 1)
        try:
            return cls._checked(content, kinds)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"{source}: no operating point for {', '.join(classes)} ({reason}); run calibrate.py, or leave it out "
                f"with operating_point=none"
            ) from error

    @classmethod
    def _checked(cls, content: Any, kinds: int) -> "OperatingPoint":
        if not isinstance(content, Mapping):
            raise TypeError("not a mapping")
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']!r:.20}, this program knows {VERSION}")
        for name in ("thresholds", "low", "min_area"):
            values = content[name]
            if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != kinds:
                raise ValueError(f"{name} must have {kinds} values")
        thresholds, low = (tuple(_number(name, v) for v in content[name]) for name in ("thresholds", "low"))
        if not all(0 <= a <= b < 1 for a, b in zip(low, thresholds, strict=True)):
            raise ValueError("0 <= low <= thresholds < 1 must hold")
        if any(type(area) is not int or not 1 <= area < 2**31 for area in content["min_area"]):
            raise ValueError("min_area must be pixels, at least 1")
        if type(content["fill_holes"]) is not bool:
            raise TypeError("fill_holes must be true or false")
        temperature = _number("temperature", content["temperature"])
        if not 0 < temperature < 1e6:
            raise ValueError("temperature must be above 0")
        record = content.get("record", {})
        if not isinstance(record, Mapping):
            raise TypeError("record must be a mapping")
        areas = tuple(content["min_area"])
        return cls(thresholds, low, areas, content["fill_holes"], temperature, _plain(record))


def defect_maps(probabilities: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Of each kind of defect the probabilities (H, W), 0 where another kind is more probable (of equal ones the first).

    Args:
        probabilities: (C, H, W); of a binary task (1, H, W), of others the first class is no defect.
    """
    if len(probabilities) == 1:
        return [probabilities[0]]
    best = probabilities[1:].argmax(0)
    return [np.where(best == i, part, np.float32(0)) for i, part in enumerate(probabilities[1:])]


def at_temperature(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Probabilities (C, H, W) whose logits are divided by ``temperature``; bit-equal at 1."""
    if temperature == 1:
        return probabilities
    p = probabilities.astype(np.float64).clip(0, 1)  # a mean may be a rounding beside, and has no root there
    if len(p) == 1:
        first, second = p ** (1 / temperature), (1 - p) ** (1 / temperature)
        return np.asarray(first / (first + second), np.float32)
    p = p ** (1 / temperature)
    return np.asarray(p / p.sum(0), np.float32)


def verdict(mask: NDArray[np.uint8]) -> str:
    """``defective`` if a mask of class indices shows an object, else ``good``."""
    return VERDICTS[bool(mask.any())]


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise TypeError(f"{name} must be numbers")
    return float(value)


def _plain(record: Mapping[Any, Any]) -> dict[str, Any]:
    """A copy of a record, which holds nothing but JSON's containers and values; what is not finite becomes None."""
    entries, text = ENTRIES, TEXT

    def copy(value: Any, depth: int) -> Any:
        nonlocal entries, text
        entries -= 1
        text -= len(value) if isinstance(value, str) else 0
        if depth > DEPTH or min(entries, text) < 0:
            raise ValueError("its record is too deep or too large")
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                raise TypeError("its record has a key that is no text")
            return {copy(key, depth + 1): copy(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [copy(entry, depth + 1) for entry in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if value is None or isinstance(value, bool | float | str) or (isinstance(value, int) and abs(value) < 2**63):
            return value
        raise TypeError(f"its record holds a {type(value).__name__}")

    copied: dict[str, Any] = copy(record, 0)
    return copied
