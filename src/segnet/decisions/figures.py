"""The figures of a split: objects found and missed, images that escape or are rejected, each with its interval."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.data import grouping
from segnet.decisions import boundaries, rates
from segnet.decisions.objects import Curves, Judged
from segnet.decisions.overlap_curve import OverlapCurve

SIZES = 4  # quarters of the objects of the truth, by area
RESAMPLES = 1000
DRAWS_OF_CURVES = 400
ALONE = ("boundary_iou", "boundary_f", "pro", "aupro")  # means over the kinds of defects; drawn anew for the interval


class Figure(NamedTuple):
    """A figure with its 95 % interval; nan where it is undefined.

    ``hits`` of ``total`` are what a rate is made of: objects, images or parts; None for what is no rate.
    """

    value: float
    low: float
    high: float
    hits: int | None = None
    total: int | None = None


Figures = dict[str, Figure]


def flat(figures: Figures) -> dict[str, float]:
    """As numbers: ``escape_rate``, with ``escape_rate_low`` and ``escape_rate_high`` beside it."""
    return {
        f"{name}{end}": value
        for name, figure in figures.items()
        for end, value in zip(("", "_low", "_high"), figure[:3], strict=True)
    }


class Unit(NamedTuple):
    """What a decision is made on: an image, or a part of several (``data.parts``), defective if one of them is."""

    defective: bool
    called: bool
    score: float
    kinds: frozenset[str]  # of its defective images; of all where there is none


@dataclass
class Tally:
    """What is kept of the images of a split, one after the other; `figures` are counted at the end.

    Args:
        classes: of the network.
        kinds: ``data.kinds``, or None.
        parts: ``data.parts``, or None.
    """

    classes: Sequence[str]
    kinds: str | None = None
    parts: str | None = None
    files: list[str] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    curves: list[OverlapCurve] = field(default_factory=list)

    @property
    def defects(self) -> list[str]:
        """Names of the kinds of defects among the classes."""
        return list(self.classes[1:] if len(self.classes) > 1 else self.classes)

    def add(self, file: str, judged: Judged, curves: Curves) -> None:
        """Add an image by its path relative to the root."""
        self.files.append(file)
        self.judged.append(judged)
        self.curves = self.curves or [OverlapCurve() for _ in curves]
        for curve, part in zip(self.curves, curves, strict=True):
            curve.add(part)

    def named(self) -> list[str]:
        """The kind of each image by ``kinds``; empty without."""
        return [] if self.kinds is None else [grouping.kind_of(self.kinds, file) for file in self.files]

    def units(self) -> list[Unit]:
        """The images, or with ``parts`` the parts."""
        groups: dict[str, list[int]] = {}
        for i, file in enumerate(self.files):
            groups.setdefault(grouping.part_of(self.parts, file), []).append(i)
        named, found = self.named(), []
        for members in groups.values():
            images = [self.judged[i] for i in members]
            bad = [i for i in members if self.judged[i].defective]
            kinds = frozenset(named[i] for i in bad or members) if named else frozenset()
            called, greatest = any(one.called for one in images), max(one.score for one in images)
            found.append(Unit(bool(bad), called, greatest, kinds))
        return found

    def edges(self) -> list[float]:
        """The quartiles of the areas of the objects of the truth, in pixels; empty without any."""
        areas = np.concatenate([one.areas for one in self.judged] or [np.zeros(0, np.int64)])
        return np.quantile(areas, np.arange(1, SIZES) / SIZES).tolist() if len(areas) else []

    def figures(self) -> Figures:
        """All of them by name, such as ``object_recall/kind/Crack``."""
        return _objects(self) | _masks(self) | _units(self.units(), sorted(set(self.named())))

    def described(self) -> dict[str, Any]:
        """What the figures were counted over, for results.json."""
        units = self.units()
        bad = sum(unit.defective for unit in units)
        without = {"images_without_kind": self.named().count(grouping.NO_KIND)} if self.kinds is not None else {}
        alone = sum(grouping.group(self.parts, file) is None for file in self.files) if self.parts else 0
        parts = {"images_without_part": alone} if self.parts is not None else {}
        objects = {"true": int(sum(len(one.areas) for one in self.judged))}
        objects["predicted"] = int(sum(one.predicted[:, 0].sum() for one in self.judged))
        return {
            "unit": "image" if self.parts is None else "part", "images": len(self.files),
            "defective": bad, "good": len(units) - bad, "objects": objects, "area_edges": self.edges(),
            **without, **parts,
        }  # fmt: skip


def _objects(tally: Tally) -> Figures:
    """Recall and precision of objects, by both rules, class, kind and size."""
    found: Figures = {}
    images, defects, named = tally.judged, tally.defects, tally.named()
    for rule, end in enumerate(("", "_iou50")):
        found[f"object_recall{end}"] = _recall(images, rule, lambda one: np.ones(len(one.areas), np.bool_))
        found[f"object_precision{end}"] = _precision(images, rule, slice(None))
    for k, name in enumerate(defects):
        found[f"object_recall/{name}"] = _recall(images, 0, lambda one, k=k: one.kinds == k)  # type: ignore[misc]
        found[f"object_precision/{name}"] = _precision(images, 0, slice(k, k + 1))
    for kind in sorted(set(named)):
        chosen = [one for one, own in zip(images, named, strict=True) if own == kind]
        found[f"object_recall/kind/{kind}"] = _recall(chosen, 0, lambda one: np.ones(len(one.areas), np.bool_))
    edges = tally.edges()
    for i in range(SIZES):
        found[f"object_recall/size/{i + 1}"] = _recall(
            images,
            0,
            lambda one, i=i: np.searchsorted(edges, one.areas) == i,  # type: ignore[misc]
        )
    counts = [int((one.predicted[:, 0] - one.predicted[:, 1]).sum()) for one in images]
    mean = sum(counts) / len(counts) if counts else math.nan
    found["false_alarms_per_image"] = Figure(mean, *rates.counted_interval(counts), sum(counts), len(counts))
    return found


def _recall(images: Sequence[Judged], rule: int, chosen: Callable[[Judged], NDArray[np.bool_]]) -> Figure:
    picked = [one.found[chosen(one), rule] for one in images]
    return object_rate([int(part.sum()) for part in picked], [len(part) for part in picked])


def _precision(images: Sequence[Judged], rule: int, kinds: slice) -> Figure:
    picked = [one.predicted[kinds] for one in images]
    return object_rate([int(part[:, 1 + rule].sum()) for part in picked], [int(part[:, 0].sum()) for part in picked])


def object_rate(hits: Sequence[int], counts: Sequence[int]) -> Figure:
    """A rate of objects, from those of each image."""
    total = sum(counts)
    value = sum(hits) / total if total else math.nan
    return Figure(value, *rates.clustered_interval(hits, counts), sum(hits), total)


def _masks(tally: Tally) -> Figures:
    """Figures of `ALONE`: means over the kinds of defects that occur, and those of each kind where there are several.

    Without an object of the truth they are undefined. The interval draws the images anew; of a single image there is
    none.
    """
    images, kinds = tally.judged, len(tally.defects)
    if not images:
        return {name: Figure(math.nan, math.nan, math.nan) for name in ALONE}
    numbers = np.stack([np.bincount(one.kinds, minlength=kinds) for one in images])
    table = np.concatenate(
        [np.stack([one.boundaries for one in images]), np.stack([one.covered for one in images])[..., None],
         numbers[..., None]], 2,
    )  # fmt: skip
    draws = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), RESAMPLES)
    drawn = np.tensordot(draws, table, 1)
    occurs = numbers.any(0)
    whole = table.sum(0)
    ways: dict[str, Callable[[NDArray[Any]], NDArray[np.float64]]] = {
        "boundary_iou": boundaries.iou,
        "boundary_f": boundaries.f_score,
        "pro": _covered,
    }
    sides = {name: (way(whole), way(drawn)) for name, way in ways.items()}
    areas = np.array([curve.area() for curve in tally.curves])
    sides["aupro"] = areas, np.stack([curve.drawn(DRAWS_OF_CURVES, 0) for curve in tally.curves], 1)
    found: Figures = {}
    for name, (values, others) in sides.items():
        values, others = np.where(occurs, values, np.nan), np.where(occurs, others, np.nan)
        found[name] = _drawn(_mean(values[None])[0], _mean(others), len(images))
        if kinds > 1:
            each = zip(tally.defects, values, others.T, strict=True)
            found |= {f"{name}/{one}": _drawn(value, part, len(images)) for one, value, part in each}
    return found


def _covered(table: NDArray[np.float64]) -> NDArray[np.float64]:
    return boundaries.ratio(table[..., -2], table[..., -1])


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis, of what is defined."""
    known = ~np.isnan(values)
    return boundaries.ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def _drawn(value: float, others: NDArray[np.float64], images: int) -> Figure:
    others = others[~np.isnan(others)]
    if math.isnan(value) or images < 2 or not len(others):
        return Figure(float(value), math.nan, math.nan)
    low, high = np.quantile(others, [0.025, 0.975])
    return Figure(float(value), float(low), float(high))


def _units(units: Sequence[Unit], kinds: Sequence[str]) -> Figures:
    """Escapes, overkills, and how well the scores tell good from defective."""
    bad, good = ([unit for unit in units if unit.defective is wanted] for wanted in (True, False))
    found = {"escape_rate": _share(bad, False), "overkill_rate": _share(good, True)}
    for kind in kinds:
        found[f"escape_rate/kind/{kind}"] = _share([unit for unit in bad if kind in unit.kinds], False)
        found[f"overkill_rate/kind/{kind}"] = _share([unit for unit in good if kind in unit.kinds], True)
    scores, positive = np.array([u.score for u in units], np.float64), np.array([u.defective for u in units], np.bool_)
    area, precision = rates.auroc(scores, positive), rates.average_precision(scores, positive)
    found["image_auroc"] = Figure(area, *rates.auroc_interval(area, len(bad), len(good)))
    if not good:
        precision = math.nan  # 1, whatever the scores
    interval = rates.average_precision_interval(precision, len(bad)) if good else (math.nan, math.nan)
    found["image_average_precision"] = Figure(precision, *interval)
    return found


def _share(units: Sequence[Unit], called: bool) -> Figure:
    """Of units, those that are called so."""
    return unit_rate(sum(unit.called is called for unit in units), len(units))


def unit_rate(hits: int, count: int) -> Figure:
    """A rate of images or parts."""
    return Figure(hits / count if count else math.nan, *rates.exact_interval(hits, count), hits, count)
