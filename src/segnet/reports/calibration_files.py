"""What a calibration leaves behind: the operating point, a checkpoint that carries it, curves, contact sheets."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from segnet.decisions import OperatingPoint, moved, rates
from segnet.decisions.curves import Row
from segnet.decisions.operating_point import at_temperature
from segnet.environment import commit, surroundings
from segnet.files import csv_file, write_json
from segnet.reports.calibration import Calibration, Judged, confirmed
from segnet.reports.decided import known
from segnet.reports.subsets import Source
from segnet.reports.wrong_verdicts import write_sheet
from segnet.runs.record import recorded
from segnet.training.checkpoint import write_calibrated
from segnet.training.published import sha256, weights
from segnet.visualization.figures import decision_figure


def write(found: Calibration, cfg: DictConfig, source: Source) -> OperatingPoint:
    """Write everything into ``output_dir``; the operating point with its record.

    Args:
        found: the calibration.
        cfg: of the command.
        source: of the predictions of the last of its splits, which the contact sheets show.
    """
    folder, path = Path(cfg.output_dir), Path(str(cfg.ckpt_path))
    point = replace(found.point, record=record(found, path))
    stored = point.stored()
    write_json(folder / "operating_point.json", stored)
    results = {
        "metrics": {k: v for one in found.splits for k, v in _named(one, one.after).items()},
        "before": {k: v for one in found.splits for k, v in _named(one, one.before).items()},
        "operating_point": stored,
        "checkpoint": str(cfg.ckpt_path),
        "overrides": recorded(folder),
        **surroundings(source.device, "32-true"),
    }
    write_calibrated(path, folder / "calibrated.ckpt", point)
    write_curves(folder / "curves.csv", found, source.module.classes)
    decision_figure(*_curves(found)).savefig(folder / "curves.png", dpi=120)
    write_sheets(folder, found.splits[-1], point, source, cfg.worst)
    write_json(folder / "results.json", results)
    return point


def record(found: Calibration, checkpoint: Path) -> dict[str, Any]:
    """Where an operating point comes from, for people and for the card."""
    return {
        "target": found.target.text,
        "chosen_on": found.splits[0].subset.name,
        "confirmed_on": found.splits[1].subset.name if len(found.splits) > 1 else None,
        "confirmed": confirmed(found),
        "counted": found.splits[0].subset.what,
        "images": {
            one.subset.name: {"defective": one.subset.counts[0], "good": one.subset.counts[1]} for one in found.splits
        },
        "rates": {k: v for one in found.splits for k, v in _named(one, one.after).items()},
        "curve": _curve(found),
        "scores": moved.stored(found.scores, found.splits[0].subset.verdicts.defective),
        "calibration_error_own_size_before": known(
            {one.subset.name: one.before["calibration_error_own_size"] for one in found.splits}
        ),
        "checkpoint": checkpoint.name,
        "sha256": sha256(weights(checkpoint)),
        "commit": commit(),
    }


def _curve(found: Calibration) -> dict[str, Any] | None:
    """For `moved.rates`: at most `moved.POINTS` thresholds and the chosen one; None of several kinds."""
    rows, chosen = found.rows, found.point.thresholds[0]
    if len(found.point.thresholds) > 1 or not rows:
        return None
    own = sum(row.thresholds[0] <= chosen for row in rows) - 1
    spread = np.linspace(0, len(rows) - 1, min(len(rows), moved.POINTS - 1)).round().astype(int)
    kept = sorted({max(own, 0), *spread.tolist()})
    defective, good = found.splits[0].subset.counts

    def rate(hits: int, count: int) -> list[float | None]:
        return [hits / count, *rates.exact_interval(hits, count)] if count else [None] * 3

    return {
        "threshold": [rows[i].thresholds[0] for i in kept],
        "escape": [rate(rows[i].escapes, defective) for i in kept],
        "overkill": [rate(rows[i].overkills, good) for i in kept],
    }


def _named(one: Judged, figures: dict[str, float]) -> dict[str, float | None]:
    return known({f"{one.subset.name}/{name}": value for name, value in figures.items()})


def write_curves(path: Path, found: Calibration, classes: Sequence[str]) -> None:
    """A row a threshold of the split that it was chosen on: counts and rates, those of images with their intervals."""
    defective, good = found.splits[0].subset.counts
    header = [f"threshold/{kind}" for kind in classes[1:]] or ["threshold"]
    for name in ("escape", "overkill"):
        header += [f"{name}s", f"{name}_rate", f"{name}_rate_low", f"{name}_rate_high"]
    header += ["defects_found", "objects_shown", "objects_true"]
    with csv_file(path) as write_row:
        write_row(header)
        for row in found.rows:
            both = [(row.escapes, defective), (row.overkills, good)]
            shown = [
                [f"{value:.6f}" for value in (h / n, *rates.exact_interval(h, n))] if n else [""] * 3 for h, n in both
            ]
            values = [*(f"{value:.9g}" for value in row.thresholds), row.escapes, *shown[0], row.overkills, *shown[1]]
            write_row(values + ["" if n is None else n for n in row[3:]])


def _curves(
    found: Calibration,
) -> tuple[list[tuple[float, float]], list[tuple[float, float]], dict[str, dict[str, float]], str]:
    """For `decision_figure`."""
    (defective, good), defects = found.splits[0].subset.counts, found.defects
    images = [(row.overkills / good, row.escapes / defective) for row in found.rows] if good else []
    rows: list[Row] = [row for row in found.rows if row.shown]
    objects = [((row.found or 0) / defects, (row.true or 0) / (row.shown or 1)) for row in rows]
    return images, objects, {one.subset.name: one.after for one in found.splits}, found.target.text


def write_sheets(folder: Path, one: Judged, point: OperatingPoint, source: Source, count: int) -> None:
    """``escapes.png`` and ``overkills.png``: the worst, and how far off each is."""
    for name, defective in (("escapes", True), ("overkills", False)):
        worst = [(i, far) for i, far in zip(one.wrong, one.far, strict=True) if one.subset.defective[i] == defective]
        worst = worst[:count]
        samples = source(one.subset, [i for i, _ in worst])
        rows = (
            (
                f"{one.subset.files[i]}  {abs(far):.4f} {'above' if far > 0 else 'below'} the threshold",
                one.subset.pairs[i],
                point.mask(at_temperature(p, point.temperature)),
            )
            for (i, far), (p, _) in zip(worst, samples, strict=True)
        )
        write_sheet(folder / f"{name}.png", rows, source.data, source.module.classes)
