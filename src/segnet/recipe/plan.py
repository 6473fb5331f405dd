"""What the rules of a recipe look at, and what they choose."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from segnet.recipe.budget import Budget, Length
from segnet.recipe.fingerprint import Fingerprint


class Choice(NamedTuple):
    """An override and why it was chosen; ``override`` is empty where a default stays, which has a reason too."""

    override: str
    reason: str


@dataclass(frozen=True)
class Case:
    """What a recipe is chosen for.

    Attributes:
        data: fingerprint of the data set.
        budget: time and speed.
        named: what the user sets, by its key, as composed.
        gpu: whether a GPU trains.
        by_hash: whether the split is drawn, and not given by folders or lists.
    """

    data: Fingerprint
    budget: Budget
    named: Mapping[str, Any] = field(default_factory=dict)
    gpu: bool = False
    by_hash: bool = True

    @property
    def binary(self) -> bool:
        """Whether there is one class beside the background."""
        return len(self.data.classes) == 1


@dataclass
class Plan:
    """What the rules have chosen so far, in figures.

    Attributes:
        size: (height, width) of the median image as training and validation see it, whole or in crops.
        crop: (height, width) of crops; None: whole images.
        part: (height, width) that a transform cuts out of whole images, or enlarges a part to; None: there is none.
        batch: images or crops of a step.
        views: images or crops of an epoch that shows all.
        length: epochs and validations.
    """

    size: tuple[int, int] = (0, 0)
    crop: tuple[int, int] | None = None
    part: tuple[int, int] | None = None
    batch: int = 0
    views: int = 0
    length: Length | None = None

    @property
    def input(self) -> tuple[int, int]:
        """What the network gets in training."""
        return self.crop or self.part or self.size

    @property
    def steps(self) -> int:
        """Of the run."""
        assert self.length is not None
        return self.length.epochs * (self.length.steps or math.ceil(self.views / self.batch))

    @property
    def pixels(self) -> int:
        """Of a training step."""
        return self.batch * self.input[0] * self.input[1]


def pair(value: Any) -> tuple[int, int]:
    """(height, width) of a setting that is one side or both."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def scaled(data: Fingerprint, scale: float) -> tuple[int, int]:
    """(height, width) of the median image at a scale, in multiples of 16."""
    return multiple(data.height * scale), multiple(data.width * scale)


def multiple(side: float) -> int:
    """The nearest multiple of 16, at least 32: five poolings halve it."""
    return max(32, 16 * round(side / 16))


def floor(side: int) -> int:
    """The next smaller multiple of 16, at least 32."""
    return max(32, side // 16 * 16)


def sides(key: str, size: tuple[int, int]) -> str:
    """The override of a setting of the data that is one side or both."""
    return f"data.{key}={size[0]}" if size[0] == size[1] else f"data.{key}=[{size[0]},{size[1]}]"


def shown(size: tuple[int, int]) -> str:
    """For people."""
    return f"{size[0]}×{size[1]}"
