"""How a mask and the prediction of a network that never saw its image contradict each other.

After Northcutt et al., "Confident Learning" (JAIR 2021), but of whole objects, because a blurred boundary is no label
error: each object (connected component) of one side is asked how much of it the other side lacks, and how sure the
network is there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from segnet.data.masks import IGNORE_INDEX
from segnet.decisions.regions import Regions, regions

FAINT = 0.1  # evidence below which an object is not told
KEPT = 4  # objects of an image and kind that may be its worst
REACH = 0.006  # of the image's diagonal: how far a boundary may be off
SIDE = 512  # pixels at which displacements are looked for
ALIKE = 0.6  # IoU from which two masks show the same

Mask = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Suspicion:
    """What may be wrong with a mask.

    Attributes:
        kind: missing, shifted, swapped or spurious.
        evidence: in 0..1, how much speaks for it.
        detail: what and where, for people.
        group: whose objects say how reliable the network is here; None: it does not matter.
        area: pixels of the object, None where it is about the whole mask.
    """

    kind: str
    evidence: float
    detail: str
    group: str | None = None
    area: int | None = None


@dataclass
class Judgement:
    """Of one image.

    Attributes:
        suspicions: the strongest ones; none where mask and prediction agree.
        area: median of the mask's objects in pixels; 0 without any.
        groups: of each group, how many objects there are and how many of them the other side has, too.
    """

    suspicions: list[Suspicion] = field(default_factory=list)
    area: float = 0.0
    groups: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Object:
    evidence: float
    area: int
    shape: Bools  # within its box
    x: int
    y: int

    @property
    def where(self) -> str:
        height, width = self.shape.shape
        return f"{self.area} pixels at x={self.x}..{self.x + width - 1}, y={self.y}..{self.y + height - 1}"


def judge(
    truth: Mask, predicted: Mask, confidence: Floats, binary: bool, background: bool, classes: Sequence[str]
) -> Judgement:
    """Compare the mask of an image with its out-of-fold prediction.

    Args:
        truth: class indices (H, W), `IGNORE_INDEX` where a pixel counts nowhere.
        predicted: class indices (H, W).
        confidence: (H, W) in 0..1, that of the class decided for; of a binary task that of class 1.
        binary: whether it is one.
        background: whether the first class is one, on which objects can be missing or spurious.
        classes: names, by index.
    """
    sure = np.where(predicted == 1, confidence, 1 - confidence) if binary else confidence
    sure = np.clip(2 * sure - 1, 0, 1).astype(np.float32)  # 0: undecided
    known = truth != IGNORE_INDEX
    first = 1 if background else 0
    drawn, seen = (truth >= first) & known, (predicted >= first) & known
    out = Judgement()
    lost: list[_Object] = []
    extra: list[_Object] = []
    if background:
        lost = _lone(out, "spurious", drawn, seen, sure)
        extra = _lone(out, "missing", seen, drawn, sure)
        out.suspicions += [Suspicion("spurious", o.evidence, o.where, "spurious", o.area) for o in lost]
        out.suspicions += [Suspicion("missing", o.evidence, o.where, "missing", o.area) for o in extra]
    if not binary:
        out.suspicions += _confused(out, truth, predicted, sure, first, classes)
    if out.suspicions and drawn.any() and seen.any():
        certain = float(sure[seen].mean())
        if binary and _iou(known & ~drawn, seen) >= ALIKE and _iou(drawn, seen) < 1 - ALIKE:
            told = "the mask marks what the network takes for background, and nothing else"
            out.suspicions.append(Suspicion("swapped", certain * _iou(known & ~drawn, seen), told))
        else:
            whole = _moved(truth, predicted, known, first, certain)
            out.suspicions += [whole] if whole else _moved_objects(lost, extra)
    return out


def _lone(out: Judgement, group: str, objects: Bools, other: Bools, sure: Floats) -> list[_Object]:
    """Objects that the other side lacks, the most evident first; counts all of them in ``out.groups``."""
    reach = max(1, round(REACH * float(np.hypot(*objects.shape))))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    lone = objects & ~cv2.dilate(other.astype(np.uint8), disc).astype(np.bool_)
    found = regions(objects)
    share, evidence = _shares(found, lone, sure)
    if group == "spurious":
        out.area = float(np.median(found.areas)) if len(found) else 0.0
    else:  # the network's doubtful objects say nothing
        share = share[found.mean(sure) >= 0.5]
    out.groups[group] = len(share), int((share < 0.5).sum())
    return list(_strongest(found, evidence))


def _confused(
    out: Judgement, truth: Mask, predicted: Mask, sure: Floats, first: int, classes: Sequence[str]
) -> Iterator[Suspicion]:
    """Objects of one class that the network takes for another."""
    for index in range(first, len(classes)):
        objects = truth == index
        if not objects.any():
            continue
        other = objects & (predicted != index) & (predicted >= first)
        found = regions(objects)
        share, evidence = _shares(found, other, sure)
        group = f"swapped {index}"
        out.groups[group] = len(share), int((share < 0.5).sum())
        for one in _strongest(found, evidence):
            height, width = one.shape.shape
            box = predicted[one.y : one.y + height, one.x : one.x + width][one.shape]
            taken = int(np.bincount(box[(box != index) & (box >= first)], minlength=len(classes)).argmax())
            told = f"{classes[index]} looks like {classes[taken]}: {one.where}"
            yield Suspicion("swapped", one.evidence, told, group, one.area)


def _shares(objects: Regions, where: Bools, sure: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each object the share of it that is ``where``, and that squared times the certainty there."""
    share, certain = objects.mean(where.astype(np.float32)), objects.mean(np.where(where, sure, 0))
    return share, share * certain


def _strongest(objects: Regions, evidence: NDArray[np.float64]) -> Iterator[_Object]:
    for place in np.argsort(-evidence * objects.areas, kind="stable")[:KEPT].tolist():
        if evidence[place] >= FAINT:
            x, y, width, height = objects.boxes[place].tolist()
            shape = objects.labels[y : y + height, x : x + width] == place + 1
            yield _Object(float(evidence[place]), int(objects.areas[place]), shape, x, y)


def _moved(truth: Mask, predicted: Mask, known: Bools, first: int, certain: float) -> Suspicion | None:
    """Whether the whole mask fits the prediction when it is moved, or mirrored."""
    scale = min(1.0, SIDE / max(truth.shape))
    size = max(1, round(truth.shape[1] * scale)), max(1, round(truth.shape[0] * scale))
    # 0 is nothing, on both sides.
    a, b = (np.where(known & (m >= first), m - first + 1, 0).astype(np.uint8) for m in (truth, predicted))
    a, b = (np.asarray(cv2.resize(m, size, interpolation=cv2.INTER_NEAREST), np.uint8) for m in (a, b))
    height, width = a.shape
    overlap = np.zeros((2 * height, 2 * width))
    for index in np.intersect1d(np.unique(a), np.unique(b)):
        if index:
            spectra = [np.fft.rfft2(m == index, overlap.shape) for m in (a, b)]
            overlap += np.fft.irfft2(spectra[0].conj() * spectra[1], overlap.shape)
    place = np.unravel_index(int(overlap.argmax()), overlap.shape)
    y, x = (int(p) - side if p >= side // 2 else int(p) for p, side in zip(place, overlap.shape, strict=True))
    now = _agreement(a, b)
    kept = a[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    met = b[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
    whole = min((part > 0).sum() / max((all_ > 0).sum(), 1) for part, all_ in ((kept, a), (met, b)))
    moved = _agreement(kept, met) if whole >= 0.5 else 0.0
    if np.hypot(x, y) > max(1.0, REACH * np.hypot(height, width)) and (gain := _gain(now, moved)):
        across = f"{abs(x) / scale:.0f} pixels to the {'left' if x > 0 else 'right'}"
        down = f"{abs(y) / scale:.0f} {'up' if y > 0 else 'down'}"
        return Suspicion("shifted", certain * gain, f"the mask lies {across} and {down} of what the network sees")
    for told, mirrored in (("left to right", a[:, ::-1]), ("upside down", a[::-1]), ("by half a turn", a[::-1, ::-1])):
        if gain := _gain(now, _agreement(mirrored, b)):
            return Suspicion("shifted", certain * gain, f"the mask is turned {told}")
    return None


def _gain(now: float, then: float) -> float:
    """How much of what is missing to an IoU of 1 a change wins back; 0 where that is too little."""
    gain = (then - now) / max(1 - now, 1e-9)
    return gain if then >= ALIKE and gain >= 0.5 else 0.0


def _moved_objects(lost: Sequence[_Object], extra: Sequence[_Object]) -> list[Suspicion]:
    """Single objects of the mask that have the shape of one that the network sees elsewhere."""
    found = []
    for one in lost:
        for other in extra:
            size = tuple(np.maximum(one.shape.shape, other.shape.shape).tolist())
            if _iou(_centred(one.shape, size), _centred(other.shape, size)) >= ALIKE:
                told = f"{one.where}, where the network sees it {other.where.partition(' at ')[2]}"
                area = max(one.area, other.area)
                found.append(Suspicion("shifted", max(one.evidence, other.evidence), told, "spurious", area))
    return found[:1]


def _centred(shape: Bools, size: tuple[int, ...]) -> Bools:
    out = np.zeros(size, np.bool_)
    top, left = ((whole - part) // 2 for whole, part in zip(size, shape.shape, strict=True))
    out[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
    return out


def _iou(a: Bools, b: Bools) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def _agreement(a: Mask, b: Mask) -> float:
    """IoU of masks of several classes, 0 being none."""
    return float(((a == b) & (a > 0)).sum() / max(((a > 0) | (b > 0)).sum(), 1))
