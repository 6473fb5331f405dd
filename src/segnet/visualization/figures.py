"""Plots of what a run has reached. Importing this module does not import torch."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

WRITTEN = 40  # classes at most whose shares are written into the confusion matrix


def loss_figure(rows: list[dict[str, str]], stage: str) -> Figure:
    """The loss of a stage over the epochs, and its IoU on a second axis."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    title = {"train": "training", "val": "validation"}[stage]
    for name, color, side in (
        (f"{stage}/loss", "tab:blue", axes),
        (f"{stage}/iou", "tab:orange", axes.twinx()),
    ):
        points = [(int(row["epoch"]) + 1, float(row[name])) for row in rows if row.get(name)]
        if points:
            side.plot(*zip(*points, strict=True), color=color, marker="." if len(points) < 30 else "")
        side.set_ylabel(name, color=color)
        side.set_ylim(bottom=0)
    axes.set(xlabel="epoch", title=f"{title} loss and IoU")
    axes.grid(alpha=0.3)
    return figure


def confusion_figure(confusion: "Tensor", classes: list[str]) -> Figure:
    """Row-normalised confusion matrix (share of each true class) as a figure; of many classes every n-th is named."""
    names = [_plain(name) for name in (["background", *classes] if len(classes) == 1 else classes)]
    matrix = confusion.double().cpu()
    share = (matrix / matrix.sum(1, keepdim=True).clamp(min=1)).numpy()
    side = 2.5 + 0.55 * min(len(names), WRITTEN)
    every = -(-len(names) // (2 * WRITTEN))
    figure = Figure(figsize=(side + 0.5, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(
        range(0, len(names), every), names[::every], rotation=45 if len(names) <= WRITTEN else 90, ha="right"
    )
    axes.set_yticks(range(0, len(names), every), names[::every])
    axes.set(xlabel="prediction", ylabel="truth")
    for (i, j), value in np.ndenumerate(share if len(names) <= WRITTEN else share[:0]):
        color = "white" if value > 0.5 else "black"
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    return figure


def reliability_figure(curve: "Tensor", error: float, classes: list[str]) -> Figure:
    """How often a probability comes true, and how many pixels have it.

    Args:
        curve: (3, bins) pixels, mean confidence and frequency of each bin, from `segnet.training.metrics.calibration`.
        error: the calibration error, for the title.
        classes: their names.
    """
    pixels, confidence, frequency = curve.cpu().numpy()
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.plot(confidence, frequency, marker="o")
    axes.set(ylabel="how often it came true", title=f"calibration error {error:.4f}")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    below.bar((np.arange(len(pixels)) + 0.5) / len(pixels), pixels / pixels.sum(), 0.9 / len(pixels))
    what = f"probability of {_plain(classes[0])}" if len(classes) == 1 else "probability of the class decided for"
    below.set(xlabel=what, ylabel="share of pixels", yscale="log")
    return figure


def precision_recall_figure(precision: NDArray[np.float64], recall: NDArray[np.float64], name: str) -> Figure:
    """Precision against recall at every threshold, the lowest on the right."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(recall, precision, marker=".", linewidth=1)
    axes.set(xlabel="recall", ylabel="precision", title=_plain(name), xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    return figure


def _plain(text: str) -> str:
    """A text for Matplotlib to show as it is; what stands between two dollars it reads as a formula."""
    return text.replace("$", r"\$")


def drawn(figure: Figure) -> NDArray[np.uint8]:
    """A plot as an image (H, W, 3) uint8 RGB."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def bars(labels: Sequence[str], values: Sequence[float], name: str) -> Figure:
    """A value for each label as a horizontal bar, the first on top; nan is drawn as 0."""
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh([_plain(label) for label in labels[::-1]], np.nan_to_num(values)[::-1])
    axes.set(xlabel=_plain(name))
    axes.grid(alpha=0.3, axis="x")
    return figure


def curves(runs: Mapping[str, Sequence[Mapping[str, str]]]) -> Figure:
    """Losses and validation IoU over the epochs, of the rows of metrics.csv of each run by its name."""
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    names = ("train/loss", "val/loss", "val/iou")
    for axes, name in zip(figure.subplots(1, 3), names, strict=True):
        for run, rows in runs.items():
            points = [(int(row["epoch"]) + 1, float(row[name])) for row in rows if row.get(name)]
            if points:
                axes.plot(*zip(*points, strict=True), label=_plain(run), marker="." if len(points) < 30 else "")
        axes.set(xlabel="epoch", title=name)
        axes.grid(alpha=0.3)
        if "loss" in name:
            axes.set_yscale("log")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def decision_figure(
    images: Sequence[tuple[float, float]],
    objects: Sequence[tuple[float, float]],
    chosen: Mapping[str, Mapping[str, float]],
    target: str,
) -> Figure:
    """Escape against overkill of every threshold, and precision against recall of the objects; the choice in both.

    Args:
        images: rates of overkill and of escape, of each threshold; empty where they are not known.
        objects: recall and precision.
        chosen: figures of each split at the chosen point, by its name, with ``_low`` and ``_high`` (95 %).
        target: that it was chosen for, for the title.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    if images:
        left.step(*zip(*sorted(images, key=lambda p: (p[0], -p[1])), strict=True), where="post", color="grey")
    if objects:
        right.plot(*zip(*objects, strict=True), color="grey", marker="." if len(objects) < 30 else "", linewidth=1)
    for axes, x, y in ((left, "overkill_rate", "escape_rate"), (right, "object_recall", "object_precision")):
        for number, (split, values) in enumerate(chosen.items()):
            place = [values[x], values[y]]
            ends = [[[abs(values[f"{n}{end}"] - values[n])] for end in ("_low", "_high")] for n in (x, y)]
            if np.isfinite([*place, *np.ravel(ends)]).all():
                color = ("tab:blue", "tab:orange")[number % 2]
                axes.errorbar(*place, yerr=ends[1], xerr=ends[0], fmt="o", capsize=3, color=color, label=split)
        axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
    left.set_title(f"{target}, 95 % intervals")
    left.legend(*left.get_legend_handles_labels())
    return figure
