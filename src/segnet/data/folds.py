"""Cross-validation: which image is validated in which fold, alike in what their masks show."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from segnet import terminal
from segnet.data import division
from segnet.data.flat_cache import look
from segnet.data.segmentation_data import SegmentationData
from segnet.data.splits import ByGroup, ByHash, Split, draw
from segnet.errors import UserError
from segnet.settings import Count, Folds, Text

LETTERS = ascii_lowercase  # of the folds, in `ByFold.assignment`
TEST, UNUSED = "T", "X"  # there: a test image kept apart, and an image in no split
EVERY = ""  # the label that every image has


@dataclass(frozen=True)
class ByFold:
    """One fold of a cross-validation that `divide` has drawn: its images validate, those of the other folds train.

    Args:
        folds: how many there are.
        fold: which one, from 0. Null is the ensemble of all: it has the test images that were kept apart; ``train`` and
            ``val`` are those of fold 0, though its networks were trained on both (see ``caveat``).
        assignment: a letter for each image in the order of their names: ``a`` is validated in fold 0, ``b`` in fold 1;
            ``T`` is a test image, ``X`` in no split.
        names: `digest` of the images that it was drawn for.

    Raises:
        UserError: there are other images now.
    """

    folds: Folds
    fold: Count | None
    assignment: Text
    names: Text

    def __call__(self, root: Path, images: Sequence[str]) -> Split:
        """Relative image paths by split."""
        images = sorted(images)
        if digest(images) != self.names or len(images) != len(self.assignment):
            raise UserError(
                f"data.split: its folds were drawn for {len(self.assignment)} images, and the {len(images)} in {root} "
                f"are not these; put the images back as they were, or evaluate all that are there: split=all"
            )
        own = LETTERS[self.fold or 0]
        folded = [(image, letter) for image, letter in zip(images, self.assignment, strict=True) if letter in LETTERS]
        train = [image for image, letter in folded if letter != own]
        val = [image for image, letter in folded if letter == own]
        if self.fold is not None:
            return {"train": train, "val": val, "test": []}
        test = [image for image, letter in zip(images, self.assignment, strict=True) if letter == TEST]
        return {"train": train, "val": val, "test": test}

    @property
    def caveat(self) -> str | None:
        """What to say of figures on other images than those of the test; None where they are as they should be."""
        if self.fold is not None:
            return None
        return (
            f"all {self.folds} networks of the ensemble but one were trained on each of these images, so the figures "
            f"are optimistic; look at those out of fold (results.json), or at a test split that was kept apart"
        )


def digest(images: Sequence[str]) -> str:
    """What changes with the names of the images."""
    text = "\n".join(sorted(images)).encode(errors="surrogateescape")
    return f"sha256:{hashlib.sha256(text).hexdigest()[:16]}"


def divide(data: SegmentationData, folds: int, keep_test: bool) -> ByFold:
    """Divide all images of the data's splits into folds, and print how.

    Folds hold as many images, and as many of each class, as can be: a binary task's images with a defect are alike in
    the size of the defect too. Images of a group (`ByHash`, `ByGroup`) stay together. The same images are divided the
    same way.

    Args:
        data: after ``setup``; its masks are read once.
        folds: at least 2.
        keep_test: leave the images of the test split out; they belong to no fold.

    Raises:
        UserError: there are fewer images (or groups) than folds, or the defect shows in one only.
    """
    names = [pair.image.relative_to(data.root).as_posix() for pair in data.pairs]
    test = set(data.indices["test"]) if keep_test else set()
    folded = [i for i in range(len(names)) if i not in test]
    division.require_masks(data.pairs, str(data.layout.masks))
    terminal.info(f"folds={folds}: reading {len(folded)} masks, so that every fold is like the others")
    classes = max(data.num_classes, 2)
    counts = [look(data.pairs[i].indices(data.mask), classes, 0).counts for i in folded]
    areas = np.array(counts, np.int64).reshape(-1, classes)
    key: Callable[[str], str] = data.split.key if isinstance(data.split, ByHash | ByGroup) else str
    salt = data.split.salt if isinstance(data.split, ByHash | ByGroup) else ""
    groups = [key(names[i]) for i in folded]
    _check(groups, areas, data.classes, folds)
    found = assign(groups, labels([names[i] for i in folded], areas, folds, salt), folds, salt)
    letters = {names[i]: LETTERS[fold] for i, fold in zip(folded, found, strict=True)} | {names[i]: TEST for i in test}
    images = sorted(data.layout.list_images())
    sizes = ", ".join(str(found.count(fold)) for fold in range(folds))
    terminal.info(f"folds={folds}: {sizes} of {len(images)} images; {len(test) or 'no'} test images kept apart")
    return ByFold(folds, None, "".join(letters.get(image, UNUSED) for image in images), digest(images))


def _check(groups: Sequence[str], areas: NDArray[np.int64], classes: Sequence[str], folds: int) -> None:
    count = len(set(groups))
    what = "image" if count == len(groups) else "group"
    if count < folds:
        fewer = f"use at most folds={count}, or " * (count > 1)
        raise UserError(f"folds={folds}: there are only {count} {what}s to divide; {fewer}add some")
    known = ["background", *classes] if len(classes) == 1 else classes
    shown = [len({g for g, there in zip(groups, areas[:, i] > 0, strict=True) if there}) for i in range(len(known))]
    if len(classes) == 1 and shown[1] == 1:
        raise UserError(
            f"folds={folds}: {classes[0]} shows in one {what} only, and the fold that validates it would have none to "
            f"learn from; add {what}s that show it"
        )
    few = [f"{name} in {n}" for name, n in zip(known, shown, strict=True) if n < folds]
    if few:
        terminal.info(
            f"folds={folds}: shown by fewer {what}s than there are folds: {', '.join(few)}; folds without it have no "
            f"figure of it"
        )


def labels(names: Sequence[str], areas: NDArray[np.int64], folds: int, salt: str = "") -> list[set[str]]:
    """What is to be balanced, of each image: the classes it shows; of a binary task whether, and how much of, a defect.

    Images with a defect, sorted by its area, are cut into bins of as many as there are folds: one for each.

    Args:
        names: of the images.
        areas: pixels (images, classes) of each class; two of a binary task.
        folds: how many.
        salt: another text draws otherwise.
    """
    found = [{EVERY, *(f"class {i}" for i in np.flatnonzero(row).tolist())} for row in areas]
    if areas.shape[1] > 2:
        return found
    share = areas[:, 1] / np.maximum(areas.sum(1), 1)
    shows = sorted(np.flatnonzero(share).tolist(), key=lambda i: (share[i], draw(names[i], salt)))
    for rank, i in enumerate(shows):
        found[i].add(f"area {rank // folds}")
    return found


def assign(groups: Sequence[str], labels: Sequence[set[str]], folds: int, salt: str = "") -> list[int]:
    """The fold of each image; its group stays together, and folds hold as equal numbers of each label as can be.

    Greedy, rarest label first: a group goes to the fold that holds the fewest of its rarest label, of those to the one
    with the fewest of the next (after Sechidis et al., "On the Stratification of Multi-label Data", ECML 2011). An
    empty fold therefore comes first.

    Args:
        groups: of each image.
        labels: of each image, `EVERY` among them.
        folds: at most as many as there are groups.
        salt: another text breaks ties otherwise.
    """
    totals = Counter(label for own in labels for label in own)
    held: dict[str, Counter[str]] = {}
    for group, own in zip(groups, labels, strict=True):
        held.setdefault(group, Counter()).update(own)

    def rarest_first(counts: Mapping[str, int]) -> list[str]:
        return sorted(counts, key=lambda label: (totals[label], label))

    def rank(group: str) -> tuple[int, str, int, float]:
        label = rarest_first(held[group])[0]
        return totals[label], label, -held[group][label], draw(group, salt)

    filled = [Counter[str]() for _ in range(folds)]
    home: dict[str, int] = {}
    for group in sorted(held, key=rank):
        order = rarest_first(held[group])
        home[group] = min(range(folds), key=lambda fold: [filled[fold][label] for label in order])
        filled[home[group]].update(held[group])
    return [home[group] for group in groups]
