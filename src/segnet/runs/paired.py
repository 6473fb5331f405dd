"""Do runs decide differently? Differences of escapes and overkills over the same images or parts, with intervals."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segnet.decisions.rates import paired_interval
from segnet.runs.comparison import by_seed
from segnet.runs.finished import Run
from segnet.tables import Row

RATES = {"escapes": "defective", "overkills": "good"}  # and of which images or parts they are
Errors = dict[str, NDArray[np.bool_]]  # by rate, whether each of its images, in the order of their names, is one


def errors(run: Run) -> tuple[dict[str, list[str]], Errors] | None:
    """The test images (or parts) that each rate is of, and which of them are wrong; None where that was not counted."""
    if not run.rows or "verdict" not in run.rows[0]:
        return None
    units: dict[str, tuple[bool, bool]] = {}
    for row in run.rows:
        name = row.get("part") or row["file"]
        defective, called = units.get(name, (False, False))
        units[name] = defective or row["truth"] == "defective", called or row["verdict"] == "defective"
    names = {rate: sorted(n for n, u in units.items() if u[0] is (of == "defective")) for rate, of in RATES.items()}
    return names, {rate: np.array([units[n][0] != units[n][1] for n in own], np.bool_) for rate, own in names.items()}


def paired_decisions(runs: Sequence[Run]) -> list[Row]:
    """The first run against every other: escapes and overkills of the test, less is better; empty if none has any.

    The interval of a difference is that of rates over the same images (`paired_interval`). It covers the choice of
    images, not that of the seed.
    """
    found = [errors(run) for run in runs]
    if found[0] is None or not any(found[1:]):
        return []
    names, first = found[0]
    rows = []
    for run, other in zip(runs[1:], found[1:], strict=True):
        row: Row = {"against": run.name}
        if other is None or other[0] != names:
            told = "not counted" if other is None else "other test images"
            rows.append(row | dict.fromkeys(_columns(), "") | {"escapes": told})
            continue
        for rate in RATES:
            one, two = first[rate], other[1][rate]
            alone = int((one & ~two).sum()), int((two & ~one).sum())
            low, high = paired_interval(*alone, len(one))
            row |= _cells(rate, (alone[0] - alone[1]) / max(len(one), 1), low, high, len(one))
        rows.append(row)
    return rows


def over_seeds(runs: Sequence[Run], resamples: int, seed: int) -> list[Row]:
    """The first run's settings against every other's, each with several seeds; empty if there are none.

    Rates are means over the seeds. The interval draws the images anew, the same ones for all, and the seeds of each
    side: it covers the choice of both.
    """
    keys, groups = by_seed(runs)
    found = {values: [errors(run) for run in group] for values, group in groups.items()}
    first = next(values for values, group in groups.items() if runs[0] in group)
    if all(len(group) == 1 for group in groups.values()) or len(groups) < 2 or any(e is None for e in found[first]):
        return []
    rows = []
    for values, others in found.items():
        if values == first:
            continue
        row: Row = {"against": " ".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))}
        sides = [[one for one in side if one is not None] for side in (found[first], others)]
        names = sides[0][0][0]
        if len(sides[1]) < len(others) or any(one[0] != names for side in sides for one in side):
            rows.append(row | dict.fromkeys(_columns(), "") | {"escapes": "not counted, or other test images"})
            continue
        row["seeds"] = f"{len(sides[0])} and {len(sides[1])}"
        for rate in RATES:
            one, two = (np.stack([each[1][rate] for each in side]) for side in sides)
            count = one.shape[1]
            drawn = _draw(one, two, resamples, seed) if count else np.full(1, np.nan)
            difference = one.mean() - two.mean() if count else np.nan
            low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
            row |= _cells(rate, float(difference), low, high, count)
        rows.append(row)
    return rows


def _draw(first: NDArray[np.bool_], second: NDArray[np.bool_], resamples: int, seed: int) -> NDArray[np.float64]:
    """Differences (resamples,) of mean rates of errors (seeds, images), images and seeds drawn anew."""
    rng = np.random.default_rng(seed)
    images = rng.multinomial(first.shape[1], np.full(first.shape[1], 1 / first.shape[1]), resamples) / first.shape[1]
    means = []
    for side in (first, second):
        seeds = rng.multinomial(len(side), np.full(len(side), 1 / len(side)), resamples) / len(side)
        means.append(((seeds @ side) * images).sum(1))
    drawn: NDArray[np.float64] = means[0] - means[1]
    return drawn


def _cells(rate: str, difference: float, low: float, high: float, count: int) -> Row:
    names = _columns(rate)
    if not count:
        return dict.fromkeys(names, "–")
    return dict(zip(names, (f"{difference:+.4f}", f"{low:+.4f} to {high:+.4f} ({count})"), strict=True))


def _columns(*rates: str) -> list[str]:
    return [name for rate in rates or RATES for name in (rate, f"{rate}, 95 % (of)")]
