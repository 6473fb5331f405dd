"""Every object that some threshold would show in a split, in flat tables: what an operating point is chosen from.

For one lower threshold, with holes filled or not, the regions of an image do not depend on the upper threshold and the
smallest area, which only keep some of them. So they are formed once, and their greatest probabilities and areas tell
the outcome of every setting.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segnet.data.masks import IGNORE_INDEX
from segnet.decisions import matching
from segnet.decisions.operating_point import OperatingPoint, defect_maps
from segnet.decisions.regions import Regions, regions

LOWS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # lower thresholds that are tried
Form = tuple[float, bool]  # a lower threshold, and whether holes are filled
Sample = tuple[
    NDArray[np.float32], NDArray[np.uint8]
]  # probabilities (C, H, W) at the temperature, and the mask (H, W)


@dataclass(frozen=True)
class Table:
    """The objects of all images for one `Form`, a row each.

    An object is what remains of a region without the ignored pixels: nothing, the region, or several pieces of it.

    Attributes:
        image: int64 (n,), which one it is in.
        kind: int64 (n,), of defect.
        area: int64 (n,) pixels of its region, ignored ones among them.
        greatest: float64 (n,) probability in its region.
        pairs: int64 (m, 2): an object and a defect of the truth that are the same.
    """

    image: NDArray[np.int64]
    kind: NDArray[np.int64]
    area: NDArray[np.int64]
    greatest: NDArray[np.float64]
    pairs: NDArray[np.int64]

    @property
    def true(self) -> NDArray[np.bool_]:
        """Whether an object is one of the truth (n,)."""
        found = np.zeros(len(self.image), bool)
        found[self.pairs[:, 0]] = True
        return found


@dataclass(frozen=True)
class Tables:
    """What is known of a split.

    Attributes:
        forms: a table for each.
        peaks: float64 (images, kinds): the greatest probability of a pixel that is not ignored.
        truth: int64 (t, 2): the image and the kind of each defect of the truth.
        truth_area: int64 (t,) pixels.
    """

    forms: dict[Form, Table]
    peaks: NDArray[np.float64]
    truth: NDArray[np.int64]
    truth_area: NDArray[np.int64]

    @property
    def kinds(self) -> int:
        """How many kinds of defects there are."""
        return int(self.peaks.shape[1])


def tables(samples: Iterable[Sample], classes: int, lows: Sequence[float] = LOWS) -> Tables:
    """Form the objects of every image, one image at a time.

    Args:
        samples: of each image.
        classes: of the network; 1 of a binary task.
        lows: lower thresholds to try, each with holes filled and not.
    """
    kinds = max(classes - 1, 1)
    forms = [(low, fill) for low in lows for fill in (False, True)]
    rows: dict[Form, list[tuple[float, ...]]] = {form: [] for form in forms}
    pairs: dict[Form, list[NDArray[np.int64]]] = {form: [] for form in forms}
    peaks, truth, areas = [], list[tuple[int, int]](), list[int]()
    for image, (probabilities, mask) in enumerate(samples):
        known = mask != IGNORE_INDEX
        maps = defect_maps(probabilities)
        peaks.append([float(single[known].max(initial=0)) for single in maps])
        true = [regions(mask == kind + 1) for kind in range(kinds)]
        first = np.cumsum([len(truth), *(len(part) for part in true)])
        for kind, part in enumerate(true):
            truth += [(image, kind)] * len(part)
            areas += part.areas.tolist()
        for form in forms:
            for kind, (found, greatest) in enumerate(candidates(probabilities, form)):
                parts = found if known.all() else regions((found.labels > 0) & known)
                parent = _parents(parts, found)
                columns = found.areas[parent].tolist(), greatest[parent].tolist()
                same = matching.pairs(true[kind], parts)[:, ::-1]
                pairs[form].append(same + np.array([len(rows[form]), first[kind]]))
                rows[form] += [(image, kind, *row) for row in zip(*columns, strict=True)]
    made = {form: _table(rows[form], pairs[form]) for form in forms}
    return Tables(
        made,
        np.array(peaks, np.float64).reshape(-1, kinds),
        np.array(truth, np.int64).reshape(-1, 2),
        np.array(areas, np.int64),
    )


def candidates(probabilities: NDArray[np.float32], form: Form) -> list[tuple[Regions, NDArray[np.float64]]]:
    """See `OperatingPoint.candidates`."""
    low, fill = form
    kinds = max(len(probabilities) - 1, 1)
    return OperatingPoint((low,) * kinds, (low,) * kinds, (1,) * kinds, fill).candidates(probabilities)


def _parents(parts: Regions, found: Regions) -> NDArray[np.int64]:
    """Which of ``found`` each of its pieces belongs to (n,)."""
    if parts is found:
        return np.arange(len(found))
    parent = np.zeros(len(parts) + 1, np.int64)
    parent[parts.labels] = found.labels  # every pixel of a piece says the same
    return parent[1:] - 1


def _table(rows: Sequence[tuple[float, ...]], pairs: Sequence[NDArray[np.int64]]) -> Table:
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    same = np.concatenate(pairs) if pairs else np.zeros((0, 2))
    image, kind, area = columns[:3].astype(np.int64)
    return Table(image, kind, area, columns[3], same.astype(np.int64).reshape(-1, 2))
