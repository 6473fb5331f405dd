"""Rules that lead from the name of an image to that of its mask: other folders, other words, another suffix."""

import re
from dataclasses import dataclass
from posixpath import splitext
from typing import NamedTuple

_TOKEN = re.compile(r"\d+|[^\W\d_]+|.", re.DOTALL)
Parts = tuple[str, ...]


class File(NamedTuple):
    """A file below the root: folders, name without and with its suffix."""

    folder: Parts
    stem: str
    suffix: str

    @classmethod
    def of(cls, path: str) -> "File":
        """Of a relative path."""
        *folder, name = path.split("/")
        return cls(tuple(folder), *splitext(name))

    @property
    def path(self) -> str:
        """Relative to the root."""
        return "/".join((*self.folder, self.stem + self.suffix))


@dataclass(frozen=True)
class Change:
    """How one text becomes another: what it begins and ends with gives way to something else."""

    begin: tuple[str, str] = ("", "")
    end: tuple[str, str] = ("", "")

    def __call__(self, text: str) -> str | None:
        """The changed text; None where it does not begin and end so."""
        (old, new), (last, other) = self.begin, self.end
        if not text or len(text) < len(old) + len(last) or not (text.startswith(old) and text.endswith(last)):
            return None
        return new + text[len(old) : len(text) - len(last)] + other


@dataclass(frozen=True)
class Rule:
    """From an image to its mask.

    Attributes:
        old: folders that give way to ``new``; none of them: ``new`` are put in.
        new: folders in their place.
        front: whether ``new`` are put in before all folders, and not behind them.
        within: how the last folder's own name changes instead; None: not.
        name: how the name without suffix changes; None: the mask's name is free (one file for each object).
        suffixes: of image and mask, where nothing else differs.
        many: digits at the end of the change of the name stand for any number: one file for each object.
    """

    old: Parts = ()
    new: Parts = ()
    front: bool = False
    within: Change | None = None
    name: Change | None = Change()
    suffixes: tuple[str, str] | None = None
    many: bool = False

    def folder(self, file: File) -> Parts | None:
        """Where the mask of a file is; None where the rule says nothing of it."""
        found: Parts | None = file.folder
        if self.within is not None:
            changed = self.within(file.folder[-1]) if file.folder else None
            found = None if changed is None else (*file.folder[:-1], changed)
        elif self.old:
            size = len(self.old)
            places = [i for i in range(len(file.folder)) if file.folder[i : i + size] == self.old]
            found = (*file.folder[: places[0]], *self.new, *file.folder[places[0] + size :]) if places else None
        elif self.new:
            found = (*self.new, *file.folder) if self.front else (*file.folder, *self.new)
        if found is None or self.name is not None:
            return found
        return tuple(file.stem if part == "{stem}" else part for part in found)


def keys(stem: str) -> set[str]:
    """The parts of a name that an image and its mask may share: some of its words left out at either end."""
    words = _TOKEN.findall(stem)
    spans = [words[i:j] for i in range(min(5, len(words))) for j in range(len(words), max(i, len(words) - 6), -1)]
    return {"".join(span) for span in spans if any(word.isalnum() for word in span)}


def between(image: File, mask: File, key: str) -> list[Rule]:
    """The rules that lead from one file to the other, whose names share ``key``."""
    before, after = image.stem.partition(key)[::2], mask.stem.partition(key)[::2]
    name = Change((before[0], after[0]), (before[1], after[1]))
    suffixes = (image.suffix, mask.suffix) if (image.folder, image.stem) == (mask.folder, mask.stem) else None
    places = _moves(image.folder, mask.folder)
    rules = [Rule(*place, name=name, suffixes=suffixes) for place in places]
    number = re.fullmatch(r"(.*?)\d+", after[1])
    if number and not before[1].endswith(number[0]):
        open_end = Change(name.begin, (before[1], number[1]))
        rules += [Rule(*place, name=open_end, many=True) for place in places if number[1] or place[:2] != ((), ())]
    return rules


def _moves(one: Parts, other: Parts) -> list[tuple[Parts, Parts, bool, Change | None]]:
    """How one folder becomes another."""
    if one == other:
        return [((), (), False, None)]
    lead = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    one, other = one[lead:], other[lead:]
    trail = 0
    while trail < min(len(one), len(other)) and one[-1 - trail] == other[-1 - trail]:
        trail += 1
    old, new = one[: len(one) - trail], other[: len(other) - trail]
    moves: list[tuple[Parts, Parts, bool, Change | None]] = []
    if old or lead == 0 or trail == 0:
        moves.append((old, new, not old and lead == 0 and trail > 0, None))
    if len(old) == len(new) == 1 and trail == 0 and (change := _reworded(old[0], new[0])):
        moves.append(((), (), False, change))
    return moves


def _reworded(old: str, new: str) -> Change | None:
    """How a folder's name becomes another that keeps a part of it; None where nothing is kept."""
    if new.startswith(old):
        return Change(end=("", new[len(old) :]))
    if new.endswith(old):
        return Change(begin=("", new[: -len(old)]))
    shared = sorted(keys(old) & keys(new), key=len)
    if not shared:
        return None
    before, after = old.partition(shared[-1])[::2], new.partition(shared[-1])[::2]
    return Change((before[0], after[0]), (before[1], after[1]))


def holding(image: File, mask: File) -> Rule:
    """One file for each object, in a folder that is called like the image."""
    folder = tuple("{stem}" if part == image.stem else part for part in mask.folder)
    own = tuple("{stem}" if part == image.stem else part for part in image.folder)
    old, new, front, _ = _moves(own, folder)[0] if _moves(own, folder) else ((), (), False, None)
    return Rule(
        tuple(image.stem if p == "{stem}" else p for p in old) if "{stem}" in old else old, new, front, name=None
    )


def may_hold_labels(file: File, stems: set[str]) -> bool:
    """Whether a file may hold labels in a format that `segnet.annotations` reads: YOLO's are called as their images."""
    kind = file.suffix.lower()
    return kind in (".json", ".xml") or (kind == ".txt" and file.stem in stems)
