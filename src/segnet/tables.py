"""Tables and figures for people."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def markdown(rows: Sequence[Row]) -> str:
    """A table with one line a row."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([_shown(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def escaped(text: str) -> str:
    """A name from files or settings, as it is to be read in a table of a Markdown page."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 10 else figure(value)
    return str(value)


def figure(value: float | None) -> str:
    """A figure with four digits behind the point; a dash where it is undefined: None, or not a number."""
    return "–" if value is None or math.isnan(value) else f"{value:.4f}"


def spread(values: Sequence[float], of: str, form: str = ".4f") -> str:
    """Mean ± standard deviation of a sample; a single value as it is.

    Args:
        values: those that are not a number are left out, which is told: ``0.5000 (1 of 3 seeds)``; a dash without any.
        of: what each is of, such as ``seeds``.
        form: of the numbers.
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "–"
    deviation = f" ± {statistics.stdev(known):{form}}" if len(known) > 1 else ""
    left_out = "" if len(known) == len(values) else f" ({len(known)} of {len(values)} {of})"
    return f"{statistics.fmean(known):{form}}{deviation}{left_out}"
