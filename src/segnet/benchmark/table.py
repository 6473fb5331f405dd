"""What the benchmark leaves: rows as plain data, as Markdown, as bars."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from matplotlib.figure import Figure

from segnet import environment
from segnet.benchmark import runtimes_table
from segnet.benchmark.runtimes import SideBySide


@dataclass
class Row:
    """A measured figure: median, least and greatest of the rounds."""

    part: str
    name: str
    unit: str
    median: float
    least: float
    greatest: float
    ratio: float | None = None  # to the part's first row; greater is better
    note: str = ""


class Table:
    """Rows, and what they were measured on.

    Attributes:
        rows: in the order of measuring.
        side_by_side: the formats of a checkpoint, if they were measured.
        cfg: of the benchmark.
        device: that was measured.
        seconds: that measuring took.
    """

    rows: list[Row]
    side_by_side: SideBySide
    cfg: Any
    device: torch.device
    seconds: float

    def results(self) -> dict[str, Any]:
        """Rows and surroundings, plain."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "runtimes": asdict(self.side_by_side),
            "hardware": environment.hardware(self.device),
            "versions": environment.versions(),
            "commit": environment.commit(),
            "image_size": self.cfg.image_size,
            "batch_sizes": list(self.cfg.batch_sizes),
            "repeats": self.cfg.repeats,
            "seconds": round(self.seconds, 1),
        }

    def table(self) -> str:
        """Markdown."""
        where = f"{environment.hardware(self.device)}; torch {torch.__version__}; commit {environment.commit()}"
        size = f"{self.cfg.image_size}×{self.cfg.image_size}; " if self.rows else ""  # formats have their checkpoint's
        rounds = f"{self.cfg.repeats} rounds"
        lines = [f"{where}; {size}median (least to greatest) of {rounds}, {self.seconds:.0f} s in all"]
        part = ""
        for row in self.rows:
            if row.part != part:
                part = row.part
                lines += ["", f"| {part} | {row.unit} | spread | ratio | |", "|---|---:|---:|---:|---|"]
            spread = f"{figure(row.least)} to {figure(row.greatest)}"
            shown = f"{figure(row.median)} | {spread} | {row.ratio:.2f}× | {row.note} |"
            lines.append(f"| {row.name} | {shown}")
        return "\n".join([*lines, *runtimes_table.lines(self.side_by_side, self.cfg)])

    def bars(self) -> Figure:
        """Ratios of every part as bars."""
        rows = [row for row in self.rows if not row.part.startswith(("matrix product", "memory bandwidth"))]
        chart = Figure(figsize=(9, 1 + 0.28 * len(rows)), layout="constrained")
        axes = chart.add_subplot()
        axes.barh([f"{row.part}: {row.name}"[:80] for row in rows][::-1], [row.ratio or 0 for row in rows][::-1])
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(xlabel="times the part's first row; greater is better", xscale="log")
        axes.tick_params(axis="y", labelsize=7)
        return chart


def figure(value: float) -> str:
    """Three digits, or the whole number where it has more."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
