"""Choosing an operating point: the best of many settings, the simplest of those that are as good.

Of each form of objects (`segnet.decisions.tables`) and each smallest area, every threshold is judged. What is
complicated fits the images that it is chosen on, so it has to earn it: hysteresis, filled holes and a smallest area are
each taken only where they better the result by more than one image (for f1 by more than one defect).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.decisions.operating_point import OperatingPoint
from segnet.decisions.sweeps import Floats, Objects, Scale, Verdicts, images, objects
from segnet.decisions.tables import Form, Table, Tables
from segnet.decisions.targets import Target
from segnet.errors import UserError

QUANTILES = (0.01, 0.05, 0.1, 0.25)  # of the areas of defects, that are tried as the smallest
FALSE_QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)  # of those of false objects


class Option(NamedTuple):
    """A setting and how good it is; of two the lesser one is better, and then the simpler, and then the safer."""

    loss: float
    second: float
    hysteresis: bool
    fill: bool
    area: int
    narrow: float  # minus the width of the thresholds with this result
    low: tuple[float, ...]
    thresholds: tuple[float, ...]
    form: Form | None  # None: the lower threshold is the upper one, whichever that is

    @property
    def level(self) -> int:
        """How complicated it is."""
        return self.hysteresis + self.fill + (self.area > 1)


@dataclass(frozen=True)
class Choice:
    """What has been chosen.

    Attributes:
        option: the setting.
        tried: how many settings, thresholds not counted.
    """

    option: Option
    tried: int

    def point(self, temperature: float) -> OperatingPoint:
        """As the network applies it."""
        chosen = self.option
        areas = (chosen.area,) * len(chosen.thresholds)
        return OperatingPoint(chosen.thresholds, chosen.low, areas, chosen.fill, temperature)


def choose(found: Tables, verdicts: Verdicts, target: Target) -> Choice:
    """The setting that serves the target best on these images.

    Raises:
        UserError: no setting reaches the target.
    """
    good = ~verdicts.defective[verdicts.part]
    scale = Scale.of(found.peaks[good])
    by_image = (_plain(found, verdicts, scale, target), _by_images(found, verdicts, scale, target))
    options = list(_by_objects(found)) if target.kind == "f1" else [one for part in by_image for one in part]
    if not options:
        raise UserError(f"target={target.text}: no threshold reaches it on these images; allow more")
    margin = 1 / len(found.truth) if target.kind == "f1" else max(target.cost)
    best: Option | None = None
    for level in range(4):
        here = [option for option in options if option.level == level]
        if here and (best is None or min(option.loss for option in here) < best.loss - margin * (1 + 1e-9)):
            best = _first(here)
    assert best is not None
    return Choice(best, len(options))


def _first(options: Sequence[Option]) -> Option:
    """The best; of single thresholds of the grid that are as good, the one in the middle."""
    best = min(options, key=lambda option: option[:8])
    alike = sorted((o for o in options if o[:6] == best[:6] and not o.hysteresis), key=lambda option: option.low)
    return alike[len(alike) // 2] if best.narrow == 0 and alike else best


def settings(found: Tables) -> Iterator[tuple[Form, Table, int]]:
    """Every form with every smallest area that is tried: quantiles of defects' areas and of false objects'."""
    true = np.quantile(found.truth_area, QUANTILES) if len(found.truth_area) else np.zeros(0)
    for form, table in found.forms.items():
        false = table.area[~table.true]
        tried = np.concatenate([true, np.quantile(false, FALSE_QUANTILES) + 1 if len(false) else []])
        for area in sorted({1, *(int(value) for value in tried if value >= 1)}):
            yield form, table, area


def _plain(found: Tables, verdicts: Verdicts, scale: Scale, target: Target) -> Iterator[Option]:
    """One threshold and nothing else: an image's score is its peak, whatever shapes the threshold gives."""
    image, kind = np.indices(found.peaks.shape).reshape(2, -1)
    scores = verdicts.greatest(image, scale.scores(kind, found.peaks.ravel()))
    for loss, second, start, end in _best(scores, verdicts, target, 0.0):
        thresholds = scale.thresholds(between(start, end))
        yield Option(loss, second, False, False, 1, start - end, thresholds, thresholds, None)


def _by_images(found: Tables, verdicts: Verdicts, scale: Scale, target: Target) -> Iterator[Option]:
    for form, table, area in settings(found):
        low, fill = form
        kept = table.area >= area
        scores = verdicts.greatest(table.image[kept], scale.scores(table.kind, table.greatest)[kept])
        begin = 0.0 if scale.knots else low
        same = (low,) * found.kinds
        escapes, overkills = _at_least(scores, verdicts)
        plain = _losses(np.array([escapes]), np.array([overkills]), verdicts, target)
        if len(plain):
            yield Option(float(plain[0, 0]), float(plain[0, 1]), False, fill, area, 0.0, same, same, form)
        for loss, second, start, end in _best(scores, verdicts, target, begin):
            upper = tuple(max(low, value) for value in scale.thresholds(between(start, end)))
            yield Option(loss, second, True, fill, area, start - end, same, upper, form)


def _at_least(scores: Floats, verdicts: Verdicts) -> tuple[int, int]:
    """Escapes and overkills where every object counts."""
    called = scores >= 0
    return int((~called & verdicts.defective).sum()), int((called & ~verdicts.defective).sum())


def _best(scores: Floats, verdicts: Verdicts, target: Target, low: float) -> list[tuple[float, float, float, float]]:
    """Loss, second loss, and the interval of thresholds, of the best; empty if the target is not reached."""
    swept = images(scores, verdicts.defective, low)
    losses = _losses(swept.escapes, swept.overkills, verdicts, target)
    if not len(losses):
        return []
    index = losses[:, 2].astype(int)
    width = (swept.ends - swept.starts)[index]
    first = np.lexsort((-width, losses[:, 1], losses[:, 0]))[0]
    return [(*losses[first, :2].tolist(), float(swept.starts[index[first]]), float(swept.ends[index[first]]))]


def _losses(
    escapes: NDArray[np.int64], overkills: NDArray[np.int64], verdicts: Verdicts, target: Target
) -> NDArray[np.float64]:
    """Loss, second loss and index (m, 3) of the outcomes (n,) that reach the target."""
    defective = int(verdicts.defective.sum())
    wrong = {"escape": escapes, "overkill": overkills}
    reached = np.ones(len(escapes), bool)
    loss, second = escapes * target.cost[0] + overkills * target.cost[1], escapes
    if target.kind in wrong:
        of = defective if target.kind == "escape" else len(verdicts.defective) - defective
        reached = wrong[target.kind] <= target.rate * of + 1e-9
        loss, second = wrong["overkill" if target.kind == "escape" else "escape"], wrong[target.kind]
    return np.stack([loss, second, np.arange(len(loss))], 1).astype(np.float64)[reached]


def _by_objects(found: Tables) -> Iterator[Option]:
    """Of each form and area the threshold of each kind that gives its own objects the best f1, and the form's own."""
    for form, table, area in settings(found):
        low, fill = form
        swept = [objects(table, found, kind, area, low) for kind in range(found.kinds)]
        truth = [int((found.truth[:, 1] == kind).sum()) for kind in range(found.kinds)]
        values = [
            _f1(*counts, of) for counts, of in zip(((s.found, s.shown, s.true) for s in swept), truth, strict=True)
        ]
        same = (low,) * found.kinds
        picks = [0] * found.kinds
        yield Option(_pooled(swept, picks, truth), 0.0, False, fill, area, 0.0, same, same, form)
        widths = [s.ends - s.starts for s in swept]
        picks = [int(np.lexsort((-width, -value))[0]) for width, value in zip(widths, values, strict=True)]
        upper = tuple(between(float(s.starts[i]), float(s.ends[i])) for s, i in zip(swept, picks, strict=True))
        narrow = -float(min(width[i] for width, i in zip(widths, picks, strict=True)))
        yield Option(_pooled(swept, picks, truth), 0.0, True, fill, area, narrow, same, upper, form)


def _pooled(swept: Sequence[Objects], picks: Sequence[int], truth: Sequence[int]) -> float:
    """Minus the f1 of the objects of all kinds."""
    picked = np.array([(s.found[i], s.shown[i], s.true[i]) for s, i in zip(swept, picks, strict=True)])
    found, shown, true = picked.sum(0, keepdims=True).T
    return -float(_f1(found, shown, true, sum(truth))[0])


def _f1(found: NDArray[np.int64], shown: NDArray[np.int64], true: NDArray[np.int64], truth: int) -> Floats:
    """Of objects (n,), the harmonic mean of recall and precision; of a kind that never occurs, less where more show."""
    if not truth:
        return -shown.astype(np.float64)
    recall, precision = found / truth, true / np.maximum(shown, 1)
    total = recall + precision
    return np.where(total > 0, 2 * recall * precision / np.where(total > 0, total, 1), 0.0)


def between(start: float, end: float) -> float:
    """A number in the middle half of [start, end), with as few digits as can be; ``start`` where there is no room."""
    width = end - start
    middle = start + width / 2
    for digits in range(2, 8):
        value = round(middle, digits)
        if abs(value - middle) <= width / 4 and start < np.float32(value) < end and start < value < end:
            return value
    return start
