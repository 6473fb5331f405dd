"""What an operating point is chosen for, and whether so few images can say that it is reached."""

import math
import re
import shlex
from dataclasses import dataclass
from typing import Literal

from segnet.decisions.rates import enough
from segnet.errors import UserError

Kind = Literal["escape", "overkill", "cost", "f1"]
FORMS = "'target=escape<=0.05', 'target=overkill<=0.05', target=cost=10:1 or target=f1"
_NUMBER = r"(\d+\.?\d*(?:e-?\d+)?|\.\d+)"
_RATE = re.compile(rf"(escape|overkill)\s*<=\s*{_NUMBER}")
_COST = re.compile(rf"cost\s*=\s*{_NUMBER}\s*:\s*{_NUMBER}")
NAMES = {"escape": "defective", "overkill": "good"}  # of which images a rate is


@dataclass(frozen=True)
class Target:
    """What is asked for.

    Attributes:
        text: as it was written.
        kind: ``escape`` or ``overkill``: this rate is at most ``rate`` and the other as low as can be; ``cost``: the
            sum of what escapes and overkills cost is the least; ``f1``: that of the objects is the greatest.
        rate: of ``escape`` or ``overkill``, above 0 and below 1.
        cost: of one escape and of one overkill, above 0.
    """

    text: str
    kind: Kind
    rate: float = math.nan
    cost: tuple[float, float] = (1.0, 1.0)


def parse(text: str) -> Target:
    """A target as written: ``escape<=0.01``, ``overkill<=0.02``, ``cost=10:1``, ``f1``; spaces do not matter.

    Raises:
        UserError: it is none of them; with forms that can be pasted into a shell.
    """
    plain = text.strip().lower()
    if plain == "f1":
        return Target(text, "f1")
    if (found := _COST.fullmatch(plain)) and min(cost := (float(found[1]), float(found[2]))) > 0:
        return Target(text, "cost", cost=cost)
    if (found := _RATE.fullmatch(plain)) and 0 < float(found[2]) < 1:
        kind: Kind = "escape" if found[1] == "escape" else "overkill"
        return Target(text, kind, float(found[2]))
    rule = "a rate must lie between 0 and 1, both excluded" if _RATE.fullmatch(plain) else "must be one of the forms"
    rule = "costs must be above 0" if _COST.fullmatch(plain) else rule
    raise UserError(f"target={text}: {rule}; write {FORMS} (in quotes: a shell reads < as its own)")


def require(target: Target, defective: int, good: int, where: str, what: str = "images") -> None:
    """Refuse a target of which so few images can say nothing.

    A rate needs as many images that even one wrong one does not exceed it.

    Args:
        target: what is asked for.
        defective: how many are.
        good: how many are.
        where: the data, such as ``split=val``.
        what: is counted, ``images`` or ``parts``.

    Raises:
        UserError: with how many there are, how many it takes, and what can be asked instead.
    """
    begin = f"target={target.text}: {where} has {defective} defective and {good} good {what}"
    if not defective:
        raise UserError(f"{begin}, and without defective ones there is nothing to choose by; name another split=")
    if target.kind == "f1":
        return
    if not good:
        raise UserError(
            f"{begin}, and without good ones no rate of overkill; name another split=, or write target=f1, which needs "
            f"defects only"
        )
    if target.kind == "cost":
        return
    count = defective if target.kind == "escape" else good
    if count * target.rate >= 1 - 1e-9:
        return
    possible = math.ceil(100 / count - 1e-9) / 100
    instead = [shlex.quote(f"target={target.kind}<={possible:g}")] if possible < 1 else []
    raise UserError(
        f"{begin}; one of {count} is a rate of {1 / count:.3g} already: the target takes at least "
        f"{math.ceil(1 / target.rate - 1e-9)} {NAMES[target.kind]} ones, and {enough(target.rate)} without a wrong one "
        f"prove it (95 %); write {' or '.join([*instead, 'target=cost=10:1'])}, or add images"
    )
