"""Every threshold beside the chosen one: what would escape, what would be rejected, which objects would be found."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segnet.decisions.choosing import Option
from segnet.decisions.sweeps import NEVER, Floats, Scale, Verdicts, above, images, intervals, truth_scores, upto
from segnet.decisions.tables import Table, Tables


class Row(NamedTuple):
    """One setting of the thresholds and its counts; those of objects are None where they are not known.

    Attributes:
        thresholds: of each kind.
        escapes: defective images, or parts, called good.
        overkills: good ones called defective.
        found: defects of the truth.
        shown: objects.
        true: of these.
    """

    thresholds: tuple[float, ...]
    escapes: int
    overkills: int
    found: int | None = None
    shown: int | None = None
    true: int | None = None


def curve(tables: Tables, verdicts: Verdicts, option: Option) -> list[Row]:
    """All thresholds with different counts, rising, with the form and the smallest area of a choice.

    A choice of one threshold and nothing else changes the form with it: its objects are known at the thresholds that
    have been tried as the lower one.
    """
    scale = Scale.of(tables.peaks[~verdicts.defective[verdicts.part]])
    if option.form is not None:
        return _rows(tables, tables.forms[option.form], verdicts, scale, option)
    image, kind = np.indices(tables.peaks.shape).reshape(2, -1)
    scores = verdicts.greatest(image, scale.scores(kind, tables.peaks.ravel()))
    swept = images(scores, verdicts.defective)
    rows = [
        Row(scale.thresholds(start), escapes, overkills)
        for start, escapes, overkills in zip(
            swept.starts.tolist(), swept.escapes.tolist(), swept.overkills.tolist(), strict=True
        )
    ]
    lows = [] if scale.knots else [(low, table) for (low, fill), table in tables.forms.items() if not fill]
    for low, table in lows:
        plain = option._replace(low=(low,), thresholds=(low,), form=(low, False))
        rows.append(_rows(tables, table, verdicts, scale, plain)[0])
    return sorted(rows, key=lambda row: row.thresholds)


def _rows(tables: Tables, table: Table, verdicts: Verdicts, scale: Scale, option: Option) -> list[Row]:
    kept = table.area >= option.area
    scores = scale.scores(table.kind, table.greatest)
    parts = verdicts.greatest(table.image[kept], scores[kept])
    starts, _ = intervals(scores[kept], NEVER if scale.knots else option.low[0])
    reached = truth_scores(table, len(tables.truth), kept, scores)
    groups: Sequence[Floats] = (parts[~verdicts.defective], reached, scores[kept], scores[kept & table.true])
    counts = [upto(parts[verdicts.defective], starts), *(above(group, starts) for group in groups)]
    return [
        Row(tuple(max(low, t) for low, t in zip(option.low, scale.thresholds(max(start, 0.0)), strict=True)), *numbers)
        for start, *numbers in zip(starts.tolist(), *(count.tolist() for count in counts), strict=True)
    ]


def scores(tables: Tables, verdicts: Verdicts, option: Option) -> Floats:
    """Of every image, or part, and kind (n, kinds) the score: it is called defective by it where that is above.

    It is the greatest probability of a region that has the form and the smallest area of a choice; of one threshold and
    nothing else that of a pixel, at any lower threshold. 0 without any.
    """
    if option.form is None:
        image, kind = np.indices(tables.peaks.shape).reshape(2, -1)
        greatest = tables.peaks.ravel()
    else:
        table = tables.forms[option.form]
        kept = table.area >= option.area
        image, kind, greatest = table.image[kept], table.kind[kept], table.greatest[kept]
    found = [verdicts.greatest(image[kind == k], greatest[kind == k]) for k in range(tables.kinds)]
    return np.maximum(np.stack(found, 1), 0)
