"""The operating point that the user names instead of the model's own."""

import json
import stat
from collections.abc import Sequence
from pathlib import Path

from segnet.decisions.operating_point import OperatingPoint
from segnet.errors import UserError

KEY = "operating_point"  # of commands
NONE = "none"
BYTES = 10_000_000  # of a file


def chosen(given: object, own: OperatingPoint | None, classes: Sequence[str]) -> OperatingPoint | None:
    """The operating point that a command applies.

    Args:
        given: its key ``operating_point``: None for the model's own, ``none`` for the most probable class (binary:
            above 0.5), or a file that calibrate.py wrote. The file may be a stranger's: it is read within bounds, and
            nothing of it is run.
        own: the model's, if it carries one.
        classes: of the model.

    Raises:
        UserError: the file is not there, or holds no operating point for these classes.
    """
    if given is None:
        return own
    if given == NONE:
        return None
    path = Path(str(given))
    source = f"{KEY}={given}"
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{source}: no file; give the operating_point.json that calibrate.py wrote, or {NONE}")
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
    except FileNotFoundError:
        raise UserError(
            f"{source}: no such file; give the operating_point.json that calibrate.py wrote, or {NONE}"
        ) from None
    if len(content) > BYTES:
        raise UserError(f"{source}: larger than {BYTES:,} bytes, so no operating point; give what calibrate.py wrote")
    try:
        stored = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: is no JSON ({reason}); give the file that calibrate.py wrote") from None
    return OperatingPoint.read(stored, classes, source)


def told(point: OperatingPoint | None, classes: Sequence[str]) -> str:
    """In words, how the model's probabilities become masks."""
    if point is None:
        return "no operating point: " + ("probability above 0.5" if len(classes) == 1 else "the most probable class")
    names = classes[1:] or classes
    kinds = []
    for name, threshold, low, area in zip(names, point.thresholds, point.low, point.min_area, strict=True):
        joined = f" (pixels above {low:g} join)" if low < threshold else ""
        kinds.append(f"{name} above {threshold:g}{joined}{f', at least {area} pixels' if area > 1 else ''}")
    more = ["holes filled"] * point.fill_holes + [f"temperature {point.temperature:g}"] * (point.temperature != 1)
    return f"operating point: {'; '.join([*kinds, *more])}"
