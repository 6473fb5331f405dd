"""Rows of a comparison as a table for people and for programs."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segnet.files import cells

Row = dict[str, Any]


def markdown(rows: Sequence[Row]) -> str:
    """A table with one line a row."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([_shown(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """The same table for programs."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows(cells(line) for line in [columns, *([row.get(name, "") for name in columns] for row in rows)])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4f}" if abs(value) < 10 else f"{value:.0f}"
    return str(value)
