"""What every threshold gives, exactly: counts over sorted scores, of images (or parts) and of objects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segnet.decisions.tables import Table, Tables

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
NEVER = -1.0  # the score of what no threshold shows


@dataclass(frozen=True)
class Verdicts:
    """Which part each image shows, and the truth of it; without parts each image is one.

    Attributes:
        part: int64 (images,), its number from 0.
        defective: bool (parts,), whether one of its images shows a defect.
    """

    part: NDArray[np.int64]
    defective: NDArray[np.bool_]

    @classmethod
    def of(cls, names: Sequence[str], defective: Sequence[bool]) -> "Verdicts":
        """From the name of each image's part, and whether the image shows a defect."""
        _, part = np.unique(np.array(names, object).astype(str), return_inverse=True)
        found = np.zeros(int(part.max(initial=-1)) + 1, bool)
        np.logical_or.at(found, part, np.array(defective, bool))
        return cls(part.astype(np.int64), found)

    def greatest(self, image: NDArray[np.int64], scores: Floats) -> Floats:
        """The greatest score of each part, of scores (n,) in images (n,); `NEVER` of none."""
        found = np.full(len(self.defective), NEVER)
        np.maximum.at(found, self.part[image], scores)
        return found


@dataclass(frozen=True)
class Scale:
    """One number for the thresholds of all kinds: the share of good images that the thresholds let pass, by peaks.

    Several kinds of defects have thresholds of their own, but one freedom: all let as many good images pass, between
    two of these in proportion. One kind has itself as the scale.

    Attributes:
        knots: of each kind, probabilities (n,) and shares (n,), both rising.
    """

    knots: tuple[tuple[Floats, Floats], ...]

    @classmethod
    def of(cls, peaks: Floats) -> "Scale":
        """From the peaks (images, kinds) of good images, see `Tables.peaks`."""
        if peaks.shape[1] == 1:
            return cls(())
        knots = []
        for kind in peaks.T:
            values, counts = np.unique(kind, return_counts=True)
            shares = dict.fromkeys((0.0, 1.0), 0.0)
            shares |= dict(zip(values.tolist(), (counts.cumsum() / (len(kind) + 1)).tolist(), strict=True))
            shares[1.0] = 1.0
            xs = sorted(shares)
            knots.append((np.array(xs), np.array([shares[x] for x in xs])))
        return cls(tuple(knots))

    def scores(self, kind: NDArray[np.int64], probabilities: Floats) -> Floats:
        """Probabilities (n,) of these kinds (n,) on the scale."""
        if not self.knots:
            return probabilities
        found = np.empty_like(probabilities)
        for i, (xs, shares) in enumerate(self.knots):
            found[kind == i] = np.interp(probabilities[kind == i], xs, shares)
        return found

    def thresholds(self, value: float) -> tuple[float, ...]:
        """Of each kind, where it is at this value of the scale."""
        return tuple(float(np.interp(value, shares, xs)) for xs, shares in self.knots) if self.knots else (value,)


@dataclass(frozen=True)
class Images:
    """Of rising intervals of the threshold [start, end) what is counted in each, int64 (n,)."""

    starts: Floats
    ends: Floats
    escapes: Counts
    overkills: Counts


@dataclass(frozen=True)
class Objects:
    """The same of objects: defects of the truth that are found, objects shown, and those of them that are true."""

    starts: Floats
    ends: Floats
    found: Counts
    shown: Counts
    true: Counts


def images(scores: Floats, defective: NDArray[np.bool_], low: float = 0.0) -> Images:
    """Of images, or parts, with these scores (n,); none is called defective by a score up to the threshold."""
    starts, ends = intervals(scores, low)
    return Images(starts, ends, upto(scores[defective], starts), above(scores[~defective], starts))


def objects(table: Table, found: Tables, kind: int, area: int, low: float) -> Objects:
    """Of the objects of a kind whose region has this area."""
    kept = (table.kind == kind) & (table.area >= area)
    starts, ends = intervals(table.greatest[kept], low)
    reached = truth_scores(table, len(found.truth), kept, table.greatest)[found.truth[:, 1] == kind]
    return Objects(
        starts,
        ends,
        above(reached, starts),
        above(table.greatest[kept], starts),
        above(table.greatest[kept & table.true], starts),
    )


def truth_scores(table: Table, count: int, kept: NDArray[np.bool_], scores: Floats) -> Floats:
    """Of each defect of the truth (count,) the greatest score of an object that is the same and kept."""
    found = np.full(count, NEVER)
    pairs = table.pairs[kept[table.pairs[:, 0]]]
    np.maximum.at(found, pairs[:, 1], scores[pairs[:, 0]])
    return found


def intervals(scores: Floats, low: float) -> tuple[Floats, Floats]:
    """Thresholds [start, end) from ``low`` to 1 within which nothing changes."""
    values = np.unique(scores)
    starts = np.concatenate([[low], values[(values > low) & (values < 1)]])
    return starts, np.append(starts[1:], 1.0)


def upto(scores: Floats, thresholds: Floats) -> Counts:
    """How many scores do not exceed each threshold."""
    return np.searchsorted(np.sort(scores), thresholds, "right").astype(np.int64)


def above(scores: Floats, thresholds: Floats) -> Counts:
    """How many scores exceed each threshold."""
    return len(scores) - upto(scores, thresholds)
