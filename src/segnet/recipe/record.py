"""A recipe as it is told, and as it stands beside a run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segnet.command_line import command_line
from segnet.files import atomic_write
from segnet.recipe.budget import Speed
from segnet.recipe.fingerprint import Fingerprint
from segnet.recipe.plan import Choice, Plan
from segnet.tables import escaped

NAME = "recipe.json"


@dataclass(frozen=True)
class Recipe:
    """What was chosen, for what, and why.

    Attributes:
        data: fingerprint.
        choices: of the rules.
        plan: their figures.
        named: what the user has set, which holds.
        speed: as measured; None without ``minutes``.
        minutes: that the whole command may take.
        spent: seconds until the decision.
        given: the user's own overrides, which come behind those of the rules.
    """

    data: Fingerprint
    choices: Sequence[Choice]
    plan: Plan
    named: Mapping[str, Any]
    speed: Speed | None = None
    minutes: float | None = None
    spent: float = 0.0
    given: Sequence[str] = ()

    @property
    def overrides(self) -> list[str]:
        """Groups first, so that they do not undo the keys below them."""
        return sorted((c.override for c in self.choices if c.override), key=lambda o: "." in o.partition("=")[0])

    def summary(self) -> str:
        """The data in a line."""
        data = self.data
        size = f"{data.height}×{data.width}{'' if data.one_size else ' in the median, sizes differ'}"
        counts = ", ".join(f"{count} {name}" for name, count in data.images.items())
        widths = [data.thickness[i] for i in data.foreground() if data.thickness[i] == data.thickness[i]]
        thin = f", {min(widths):.2g} pixels wide{' where thinnest' * (len(widths) > 1)}" if widths else ""
        empty = f", {data.empty:.0%} of the images empty" if len(data.classes) == 1 else ""
        classes = f"{', '.join(data.classes[:4])}{' …' if len(data.classes) > 4 else ''}"
        return f"{counts} images of {size}; {classes}{thin}{empty}"

    def lines(self) -> list[str]:
        """For the terminal."""
        told = [f"recipe: {self.summary()} ({self.data.looked} training images looked at)"]
        if self.speed is not None and self.plan.length is not None:
            rate = self.plan.batch / (self.plan.pixels * self.speed.pixel + self.speed.step)
            told.append(
                f"recipe: {rate:.3g} images/s at {self.plan.input[0]}×{self.plan.input[1]} in a few steps here; "
                f"{self.spent:.0f} s of {60 * (self.minutes or 0):.0f} s until now, training and validation about "
                f"{self.plan.length.seconds or 0:.0f} s"
            )
        told += [f"recipe: {choice.override or '(no change)'}: {choice.reason}" for choice in self.choices]
        if self.named:
            told.append(f"recipe: named, so it holds: {', '.join(self.named)}")
        return told

    @property
    def command(self) -> str:
        """What trains by this recipe without ``experiment=auto``, to be pasted."""
        return command_line("train", [*self.overrides, *self.given])

    def write(self, folder: Path) -> None:
        """``recipe.json`` and ``recipe.md`` in a folder."""
        content = {
            "data": self.data.figures(), "choices": [choice._asdict() for choice in self.choices],
            "named": sorted(self.named), "minutes": self.minutes, "speed": self.speed and asdict(self.speed),
            "length": self.plan.length and asdict(self.plan.length),
        }  # fmt: skip
        with atomic_write(folder / NAME) as part:
            part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        with atomic_write(folder / "recipe.md") as part:
            part.write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """The page, with the command that trains the same without ``experiment=auto``."""
        rows = "\n".join(f"| {_code(choice.override)} | {escaped(choice.reason)} |" for choice in self.choices)
        return f"""# Recipe

{self.summary()}.

| override | reason |
|---|---|
{rows}

The same training without `experiment=auto`:

```
{self.command}
```
"""


def _code(override: str) -> str:
    return f"`{override}`" if override else "–"


def recorded(folder: Path) -> list[dict[str, str]]:
    """The choices that a run was trained with, ``override`` and ``reason``; none where no recipe was chosen."""
    path = folder / NAME
    return list(json.loads(path.read_text(encoding="utf-8"))["choices"]) if path.is_file() else []
