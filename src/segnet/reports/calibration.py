"""Chooses an operating point on one split, confirms it on another, and says what that is worth."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from segnet.decisions import OperatingPoint
from segnet.decisions.choosing import Choice, choose
from segnet.decisions.curves import Row, curve, scores
from segnet.decisions.operating_point import at_temperature
from segnet.decisions.tables import Sample, tables
from segnet.decisions.targets import Target
from segnet.decisions.temperature import LEAST, Pixels
from segnet.deployment.prediction import Prediction
from segnet.reports.outcomes import RATES, Outcomes
from segnet.reports.subsets import Kept, Source, Subset
from segnet.tables import figure

LEVEL = 1 / 510  # half a grey level of the confidences that a run with folds stores
Figures = dict[str, float]


@dataclass(frozen=True)
class Judged:
    """How a split comes out.

    Attributes:
        subset: its images.
        before: figures without an operating point: the most probable class, of a binary task above 0.5.
        after: figures with it.
        wrong: int64 (n,), images that it takes for what they are not, the worst first.
        far: float64 (n,), how far the greatest probability of each is from the threshold.
    """

    subset: Subset
    before: Figures
    after: Figures
    wrong: NDArray[np.int64]
    far: NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """All that `calibrate` has found.

    Attributes:
        target: what was asked for.
        choice: the setting.
        point: the same, as the network applies it; its record is empty.
        rows: every threshold beside the chosen one.
        scores: float64 (n, kinds) of the images, or parts, that it was chosen on, see `curves.scores`.
        splits: that it was chosen on, and that it was confirmed on, if any.
        defects: in the truth of the split that it was chosen on.
    """

    target: Target
    choice: Choice
    point: OperatingPoint
    rows: list[Row]
    scores: NDArray[np.float64]
    splits: list[Judged]
    defects: int


def calibrate(
    source: Source,
    chosen_on: Subset,
    confirmed: tuple[Subset, Source] | None,
    target: Target,
    scratch: Path,
    temperature: bool,
) -> Calibration:
    """Choose on one subset, and judge that choice and the default on it and on another; each image is predicted once.

    Args:
        source: of the predictions to choose by.
        chosen_on: the images to choose on.
        confirmed: others, and the source of their predictions.
        target: what to choose for.
        scratch: a folder in which predictions lie while they are needed.
        temperature: fit it; else it is 1.
    """
    classes = len(source.module.classes)
    with TemporaryDirectory(prefix=".predictions-", dir=scratch) as folder:
        kept, before = Kept(Path(folder)), Outcomes(classes)
        pixels = Pixels(len(chosen_on.pairs), LEVEL if source.run else LEAST)
        for p, truth in source(chosen_on):
            kept.add((p, truth))
            pixels.add(p, truth)
            before.add(p, truth, _default(p))
        fitted = pixels.fitted() if temperature else 1.0
        found = tables(kept.at(fitted), classes)
        choice = choose(found, chosen_on.verdicts, target)
        point = choice.point(fitted)
        own = _judged(chosen_on, kept.at(1.0), point, classes, before)
        rows = curve(found, chosen_on.verdicts, choice.option)
        scored = scores(found, chosen_on.verdicts, choice.option)
    splits = [own]
    if confirmed is not None:
        subset, other = confirmed
        splits.append(_judged(subset, other(subset), point, classes, None))
    return Calibration(target, choice, point, rows, scored, splits, len(found.truth))


def _default(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    return Prediction(torch.from_numpy(probabilities)).mask()


def _judged(
    subset: Subset, samples: Iterable[Sample], point: OperatingPoint, classes: int, before: Outcomes | None
) -> Judged:
    """With the point, and without it where that has not been counted yet."""
    default, after, far = before or Outcomes(classes), Outcomes(classes), np.zeros(len(subset.pairs))
    for i, (p, truth) in enumerate(samples):
        if before is None:
            default.add(p, truth, _default(p))
        scaled = at_temperature(p, point.temperature)
        after.add(scaled, truth, point.mask(scaled))
        if subset.defective[i] != after.called[i]:
            far[i] = margin(point, scaled)
    failed = after.wrong(subset.verdicts)[subset.verdicts.part] & (subset.defective != np.array(after.called))
    wrong = np.flatnonzero(failed)
    wrong = wrong[np.argsort(-np.abs(far[wrong]), kind="stable")]
    return Judged(subset, default.figures(subset.verdicts), after.figures(subset.verdicts), wrong, far[wrong])


def margin(point: OperatingPoint, probabilities: NDArray[np.float32]) -> float:
    """How far the greatest probability of a region that has the area lies above its threshold; below it, negative."""
    kinds = zip(point.candidates(probabilities), point.min_area, point.thresholds, strict=True)
    return max(float(greatest[part.areas >= area].max(initial=0)) - limit for (part, greatest), area, limit in kinds)


def confirmed(found: Calibration) -> bool | None:
    """Whether the other split allows for the target: it is not below the interval; None without one, or a rate."""
    low = _of_target(found, "_low")
    return None if math.isnan(low) else found.target.rate >= low


def _of_target(found: Calibration, what: str = "") -> float:
    if len(found.splits) < 2 or math.isnan(found.target.rate):
        return math.nan
    return found.splits[1].after[f"{found.target.kind}_rate{what}"]


def told(found: Calibration) -> list[str]:
    """The summary for people, a line each; no rate without its interval."""
    point, option = found.point, found.choice.option
    own = found.splits[0].subset
    lines = [f"chosen on {own}, for {found.target.text}: the best of {found.choice.tried} settings at all thresholds"]
    lines += [f"confirmed on {other.subset}" for other in found.splits[1:]]
    lower = "the same" if not option.hysteresis else _listed(point.low)
    lines.append(
        f"threshold {_listed(point.thresholds)}, lower threshold {lower}, at least {option.area} "
        f"pixel{'s' * (option.area > 1)}, holes {'filled' if point.fill_holes else 'as they are'}, "
        f"temperature {point.temperature:g}"
    )
    heads = [(one, when) for one in found.splits for when in ("before", "after")]
    lines.append(f"{'':28s}" + "".join(f"{f'{one.subset.name}, {when}':26s}" for one, when in heads).rstrip())
    for name in (*RATES, "calibration_error_own_size"):
        values = [shown(getattr(one, when), name) for one, when in heads]
        lines.append(f"{name:28s}" + "".join(f"{value:26s}" for value in values).rstrip())
    lines.append("before: the most probable class, of a binary task above 0.5; in brackets the interval (95 %)")
    return lines + verdict(found)


def verdict(found: Calibration) -> list[str]:
    """Whether the target is confirmed, and whether the choice looked better than it is."""
    target, splits = found.target, found.splits
    if len(splits) < 2:
        return [
            "not confirmed on other images (confirm=null): the rates above have chosen the setting, so they flatter it"
        ]
    own, other = splits
    lines = []
    if (held := confirmed(found)) is not None:
        name = f"{target.kind}_rate"
        low, high = (other.after[f"{name}{end}"] for end in ("_low", "_high"))
        what = f"{other.after[name]:.4f} on {other.subset.name}, interval {low:.4f} to {high:.4f}"
        if held and target.rate >= high:
            lines.append(f"confirmed: {target.text} lies above the whole interval ({what})")
        elif held:
            lines.append(f"confirmed: {target.text} lies within the interval ({what}); fewer images cannot prove more")
        else:
            lines.append(f"NOT confirmed: {target.text} lies below the whole interval ({what})")
    for name in ("escape_rate", "overkill_rate"):
        then, now = own.after[name], other.after[name]
        if other.after[f"{name}_low"] > then:  # less is chance
            lines.append(
                f"{own.subset.name} was optimistic, {name}: {then:.4f} there, {now:.4f} on {other.subset.name}"
            )
    return lines


def shown(figures: Figures, name: str) -> str:
    """Such as ``0.0390 [0.0081, 0.1097]``; – where it is undefined."""
    if math.isnan(figures[name]) or f"{name}_low" not in figures:
        return figure(figures[name])
    return f"{figures[name]:.4f} [{figures[f'{name}_low']:.4f}, {figures[f'{name}_high']:.4f}]"


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
