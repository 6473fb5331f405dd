"""Runs side by side, read from their folders: what differs, what they reached, and whether that is chance."""

import glob
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnet.errors import UserError
from segnet.runs.finished import Run
from segnet.tables import Row, spread

DECISIONS = ("test/escape_rate", "test/overkill_rate", "test/object_recall")


def find(given: Sequence[str]) -> list[Run]:
    """Finished training runs in and below the folders and globs, the best first.

    Raises:
        UserError: a part of ``given`` holds none.
    """
    folders: set[Path] = set()
    for part in given:
        roots = [Path(part)] if Path(part).is_dir() else [Path(p) for p in glob.glob(part)]  # noqa: PTH207 (may be absolute)
        here = {file.parent.resolve() for root in roots for file in root.rglob("results.json")}
        here = {folder for folder in here if (folder / "metrics.csv").is_file()}
        if not here:
            raise UserError(
                f"runs={part}: no finished training run there; give the folder of a run or sweep, with results.json"
            )
        folders |= {folder for folder in here if here.isdisjoint(folder.parents)}  # not the folds of one
    shared = os.path.commonpath([folder.parent for folder in folders])
    runs = [Run(folder, folder.relative_to(shared).as_posix()) for folder in sorted(folders)]
    values = {run.folder: run.sign * run.metric(run.monitor) for run in runs}
    return sorted(runs, key=lambda run: (math.isnan(values[run.folder]), -values[run.folder]))


def table(runs: Sequence[Run]) -> list[Row]:
    """One row a run: what differs, best and final validation, test, parameters and time."""
    keys = differing(runs)
    names = short(keys)
    rows = []
    for run in runs:
        row: Row = {"run": run.name} | {name: run.config.get(key, "") for key, name in zip(keys, names, strict=True)}
        row[f"best {run.monitor}"] = run.metric(run.monitor)
        row[f"final {run.monitor}"] = float(run.epochs[-1].get(run.monitor) or math.nan) if run.epochs else math.nan
        row |= {name: run.metric(name) for name in ("val/loss", "test/iou", "test/loss")}
        row |= {name: run.with_interval(name) for name in DECISIONS if known(runs, name)}
        row |= {"epochs": run.results["epochs"], "parameters": run.results["parameters"]}
        rows.append(row | {"seconds": run.results["seconds"]})
    return rows


def over_seeds(runs: Sequence[Run]) -> list[Row]:
    """Mean ± standard deviation of runs that differ in nothing but the seed; empty if there are none."""
    keys, groups = by_seed(runs)
    if all(len(group) == 1 for group in groups.values()):
        return []
    rows = []
    for values, group in groups.items():
        row: Row = dict(zip(keys, values, strict=True)) | {"seeds": len(group)}
        decisions = [name for name in DECISIONS if known(runs, name)]
        for name in dict.fromkeys((group[0].monitor, "test/iou", "test/loss", *decisions)):
            row[name] = spread([run.metric(name) for run in group], "seeds")
        rows.append(row)
    return rows


def by_seed(runs: Sequence[Run]) -> tuple[list[str], dict[tuple[str, ...], list[Run]]]:
    """Runs that differ in nothing but the seed, by the values of what differs beside it, whose names come first."""
    keys = [key for key in differing(runs) if key != "seed"]
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.config.get(key, "") for key in keys), []).append(run)
    return short(keys), groups


def known(runs: Sequence[Run], name: str) -> bool:
    """Whether any of the runs has the metric."""
    return any(not math.isnan(run.metric(name)) for run in runs)


def paired_bootstraps(runs: Sequence[Run], resamples: int, seed: int) -> list[Row]:
    """The first run against every other: difference of the test IoU, its 95 % interval, and the chance to be better.

    Test images are drawn anew with replacement, the same ones for both runs; each draw's IoU comes from its summed
    confusion matrices. The interval covers the choice of images, not that of the seed.
    """
    rows = []
    for run in runs[1:]:
        first, second = runs[0].images, run.images
        files = sorted(first)
        row: Row = {"against": run.name}
        alike = files == sorted(second) and files and len(first[files[0]]) == len(second[files[0]])
        if not alike:
            told = "other test images or classes" if first and second else "no test images (data.split.test)"
            rows.append(row | {"difference": told, "95 %": "", "better in": ""})
            continue
        sides = [np.stack([side[file] for file in files]) for side in (first, second)]
        binary = run.binary
        differences = bootstrap(sides[0], sides[1], binary, resamples, seed)
        defined = differences[~np.isnan(differences)]  # a draw without a defect has no IoU
        whole = [iou(side.sum(0)[None], binary)[0] for side in sides]
        row["difference"] = f"{whole[0] - whole[1]:+.4f}"
        row["95 %"], row["better in"] = "–", "–"
        if len(defined):
            low, high = np.quantile(defined, [0.025, 0.975])
            row["95 %"] = f"{low:+.4f} to {high:+.4f}"
            row["better in"] = f"{(defined > 0).mean():.1%} of draws"
        rows.append(row)
    return rows


def bootstrap(
    first: NDArray[np.int64], second: NDArray[np.int64], binary: bool, resamples: int, seed: int
) -> NDArray[np.float64]:
    """Differences (resamples,) of IoU of two runs' confusion matrices (images, K · K), drawn in pairs."""
    draws = _draws(len(first), resamples, seed)
    return iou(draws @ first, binary) - iou(draws @ second, binary)


def interval(
    confusions: NDArray[np.int64], binary: bool, resamples: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % interval of the IoU of confusion matrices (images, K · K) over the choice of images.

    None where it is unknown: a single image, or no draw with a defect. Of few images it is too narrow.
    """
    if len(confusions) < 2:
        return None
    drawn = iou(_draws(len(confusions), resamples, seed) @ confusions, binary)
    drawn = drawn[~np.isnan(drawn)]
    return (float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))) if len(drawn) else None


def _draws(count: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """How often each of ``count`` images is drawn, (resamples, count)."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)


def iou(confusions: NDArray[np.int64], binary: bool) -> NDArray[np.float64]:
    """IoU (N,) of confusion matrices (N, K · K): the defect's of a binary task, else the mean of classes that occur."""
    classes = math.isqrt(confusions.shape[1])
    matrix = confusions.reshape(-1, classes, classes).astype(np.float64)
    hit = matrix.diagonal(axis1=1, axis2=2)
    union = matrix.sum(1) + matrix.sum(2) - hit
    each = np.divide(hit, union, out=np.full_like(hit, np.nan), where=union > 0)
    one: NDArray[np.float64] = each[:, 1]
    return one if binary else np.nanmean(each, 1)


def differing(runs: Sequence[Run]) -> list[str]:
    """Keys of the configuration that are not alike in all runs."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    left = ("output_dir", "data.split.assignment")  # a letter an image
    return [key for key in keys if key not in left and len({run.config.get(key) for run in runs}) > 1]


def short(keys: Sequence[str]) -> list[str]:
    """The shortest end of each key that no other key has: ``lr``, ``optimizer.lr``."""
    out = []
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        out.append(next(t for t in tails if sum(k == t or k.endswith("." + t) for k in keys) == 1 or t == key))
    return out
