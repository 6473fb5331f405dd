"""The formats of a checkpoint side by side, as Markdown and as bars."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from omegaconf import DictConfig

from segnet.benchmark.runtimes import SideBySide

SPREAD = "p50 ms"  # the figure whose least and greatest are told
FIRST = "PyTorch, float32"  # what others are compared with


def lines(found: SideBySide, cfg: DictConfig) -> list[str]:
    """A table for each number of threads, and what was left out; nothing where nothing was measured."""
    told = []
    for threads in dict.fromkeys(row["threads"] for row in found.rows):
        rows = [row for row in found.rows if row["threads"] == threads]
        columns = list(dict.fromkeys(name for row in rows for name in row if name not in ("runtime", "threads")))
        first = next((row[SPREAD]["median"] for row in rows if row["runtime"] == FIRST), None)
        title = f"{threads} thread{'s' * (threads > 1)}"
        told += ["", f"| {title} | {' | '.join(columns)} | faster |", f"|---{'|---:' * (len(columns) + 1)}|"]
        for row in rows:
            cells = [_cell(name, row.get(name)) for name in columns]
            times = "–" if first is None else f"{first / row[SPREAD]['median']:.2f}×"
            told.append(f"| {row['runtime']} | {' | '.join(cells)} | {times} |")
    if told:
        images = f"decisions and IoU on {found.images} validation images" if found.images else "no images to decide on"
        told += [
            "", f"At {found.size[0]}×{found.size[1]}. Medians of {cfg.repeats} rounds "
            f"(with least and greatest); p50 and p95 of single images; images/s "
            f"in batches of {cfg.runtimes.batch} where a file takes them; start-up until the first result, and peak "
            f"memory of the process; {images}; faster than {FIRST}, by p50.",
        ]  # fmt: skip
    return told + [f"Left out: {name}: {reason}" for name, reason in found.left_out.items()]


def _cell(name: str, figure: dict[str, float] | None) -> str:
    if figure is None:
        return "–"
    digits = {"decisions": ".5f", "IoU": ".4f"}.get(name, ".3g" if figure["median"] < 100 else ".0f")
    spread = f" ({figure['least']:{digits}} to {figure['greatest']:{digits}})" if name == SPREAD else ""
    return f"{figure['median']:{digits}}{spread}"


def bars(found: SideBySide) -> Figure:
    """Latency of every runtime with its spread, by number of threads; beside the bars the IoU."""
    threads = list(dict.fromkeys(row["threads"] for row in found.rows))
    names = list(dict.fromkeys(row["runtime"] for row in found.rows))
    chart = Figure(figsize=(9, 1.5 + 0.25 * len(found.rows)), layout="constrained")
    axes = chart.add_subplot()
    height = 0.8 / len(threads)
    for number, count in enumerate(threads):
        rows: list[dict[str, Any]] = [row for row in found.rows if row["threads"] == count]
        at = [names.index(row["runtime"]) + (number - (len(threads) - 1) / 2) * height for row in rows]
        middle, least, greatest = (
            np.array([row[SPREAD][key] for row in rows]) for key in ("median", "least", "greatest")
        )
        label = f"{count} thread{'s' * (count > 1)}"
        axes.barh(at, middle, 0.9 * height, xerr=[middle - least, greatest - middle], label=label)
    known = {row["runtime"]: row["IoU"]["median"] for row in found.rows if "IoU" in row}
    axes.set_yticks(range(len(names)), [f"{n}\nIoU {known[n]:.4f}" if n in known else n for n in names])
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds an image (median; least to greatest of the rounds)")
    axes.legend()
    return chart
