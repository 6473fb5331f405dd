"""Where images and masks are in a folder, from the names of its files: one rule leads from each image to its mask.

Files whose names share a part vote for rules (another folder, other words in the name, another suffix); a rule counts
if it leads from nearly all images, or to nearly all masks, and the files at its end look like masks.
"""

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from posixpath import splitext
from typing import TypeVar

import numpy as np

from segnet.data.decoding import EXTENSIONS, header
from segnet.data.listing import files_below
from segnet.data.looks import like_a_mask
from segnet.data.naming import Change, File, Parts, Rule, between, holding, keys, may_hold_labels
from segnet.errors import UserError

VOTERS, CROWD, RULES = 80, 60, 40  # files that vote, files that share a name's part at most, rules that are looked at
FEW = 20  # a rule with fewer than one vote for so many of the leading one is chance
NEARLY = 0.9  # of all images, or of all masks
LOOKED_AT = 5  # files of each side
MASK_WORDS = re.compile(
    r"mask|label|lbl|annot|anno|ground.?truth|(?<![a-z])gt(?![a-z])|seg|target|manual|trimap|truth|class", re.IGNORECASE
)

Index = dict[tuple[Parts, str], list[File]]
T = TypeVar("T")


def in_folders(files: Iterable[File]) -> dict[Parts, list[File]]:
    """The files in each folder."""
    found: dict[Parts, list[File]] = {}
    for file in files:
        found.setdefault(file.folder, []).append(file)
    return found


class Names:
    """The image files of a folder, and what they are found by."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shut: list[str] = []  # folders that cannot be read
        below = files_below(root, shut=self.shut)
        self.files = [File.of(path) for path in sorted(below) if splitext(path)[1].lower() in EXTENSIONS]
        stems = {file.stem for file in self.files}
        self.labels = sorted(path for path in below if may_hold_labels(File.of(path), stems))
        self.index: Index = defaultdict(list)
        self.inside = in_folders(self.files)
        for file in self.files:
            self.index[file.folder, file.stem].append(file)
        self.paths = {file.path for file in self.files}
        self._looked: dict[File, bool | None] = {}
        self._by_stem: dict[Parts, list[File]] = {}

    def like_a_mask(self, file: File) -> bool | None:
        """Whether a file looks like a mask, None if it cannot be read; it is read once."""
        if file not in self._looked:
            self._looked[file] = like_a_mask(self.root / file.path)
        return self._looked[file]

    def follow(self, rule: Rule, files: Mapping[Parts, Sequence[File]]) -> Iterator[tuple[File, list[File]]]:
        """The files, by their folders, of which a rule says where the mask is; each with those that are there."""
        for here in files.values():
            folder = rule.folder(here[0])
            for file in here:
                if rule.name is None:
                    folder = rule.folder(file)
                start = "" if rule.name is None else rule.name(file.stem)
                if folder is not None and start is not None:
                    found = [] if rule.suffixes and file.suffix != rule.suffixes[0] else self._at(rule, folder, start)
                    yield file, [f for f in found if f != file and (not rule.suffixes or f.suffix == rule.suffixes[1])]

    def _at(self, rule: Rule, folder: Parts, start: str) -> Sequence[File]:
        """The files in a folder whose names, or beginnings of names, a rule gives."""
        if rule.name is None:
            return self.inside.get(folder, [])
        return self._numbered(folder, start) if rule.many else self.index.get((folder, start), [])

    def _numbered(self, folder: Parts, start: str) -> list[File]:
        """The files in a folder that are called so, and a number behind it."""
        if folder not in self._by_stem:
            self._by_stem[folder] = sorted(self.inside.get(folder, []), key=lambda file: file.stem)
        there, found = self._by_stem[folder], []
        for i in range(bisect_left(there, start, key=lambda file: file.stem), len(there)):
            if not there[i].stem.startswith(start):
                break
            found += [there[i]] if there[i].stem[len(start) :].isdecimal() else []
        return found


@dataclass(frozen=True)
class Reading:
    """A rule and what it says of the files: each image with its masks, and the images that have none."""

    rule: Rule
    pairs: dict[File, list[File]]
    alone: list[File]

    @cached_property
    def masks(self) -> set[File]:
        """Those of all images."""
        return {mask for found in self.pairs.values() for mask in found}

    @cached_property
    def folders_shared(self) -> int:
        """How many names the folders of each image and its masks share: one of images/bent/ and masks/bent/."""
        both = ((image.folder, mask.folder) for image, masks in self.pairs.items() for mask in masks)
        return min((len({*home} & {*other}) * (home != other) for home, other in both), default=0)


def spread(items: Sequence[T], count: int) -> list[T]:
    """So many of these at most, from all over them."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, count).astype(int))] if items else []


def readings(names: Names, images: Sequence[File] | None = None) -> list[Reading]:
    """The readings that fit, the one with the most pairs first.

    Args:
        names: of the files.
        images: which of them are the images, where that is known.
    """
    found: list[Reading] = []
    grouped = names.inside if images is None else in_folders(images)
    for rule in _voted(names, images):
        reading = _read(names, rule, grouped, images is not None)
        if reading is None or any(_same(reading, other) for other in found):
            continue
        found = [other for other in found if not _same(other, reading)] + [reading]
    found = sorted(found, key=lambda reading: (-len(reading.pairs), -reading.folders_shared))
    found = [one for i, one in enumerate(found) if not any(_within(one, other) for other in found[:i])]
    found = [reading for reading in found if _looks_right(names, reading)]
    masks = {mask for reading in found for mask in reading.masks}
    true = [reading for reading in found if not masks & reading.pairs.keys()] or found
    return [reading for reading in true if _fits(names, reading)] or true if len(true) > 1 else true


def _fits(names: Names, reading: Reading) -> bool:
    """Whether images and masks are of equal sizes, as those of thumbnails are not."""
    images = list(reading.pairs)
    pairs = [(image, reading.pairs[image][0]) for image in images[:: max(1, len(images) // LOOKED_AT)]]
    try:
        sizes = [[sorted(header(names.root / file.path)[:2]) for file in pair] for pair in pairs]
    except UserError:
        return False
    return all(one == other for one, other in sizes)


def _same(one: Reading, other: Reading) -> bool:
    """Whether one says nothing that the other does not."""
    return all(set(masks) <= set(other.pairs.get(image, ())) for image, masks in one.pairs.items())


def _within(one: Reading, other: Reading) -> bool:
    """Whether the other has an image for each mask of the one, and more of them or in folders called more alike."""
    more = len(one.pairs) < len(other.pairs) or one.folders_shared < other.folders_shared
    return more and one.masks <= other.masks


def _voted(names: Names, images: Sequence[File] | None) -> list[Rule]:
    """Rules that lead from some files to others, those with the most votes first."""
    voters = spread(names.files if images is None else images, VOTERS)
    wanted = {key for voter in voters for key in keys(voter.stem)}
    called: dict[str, list[File]] = defaultdict(list)
    for file in names.files:
        called[file.stem].append(file)
    sharing: dict[str, list[File]] = defaultdict(list)
    for stem, files in called.items():
        for key in wanted.intersection(keys(stem)):
            sharing[key] += files
    holders: dict[str, list[File]] = defaultdict(list)  # files in a folder that is called like an image
    stems = {voter.stem for voter in voters}
    for file in names.files:
        for part in stems.intersection(file.folder):
            holders[part].append(file)
    repeated = Counter(file.stem for file in names.files)
    votes: Counter[Rule] = Counter()
    for voter in voters:
        rules = set()
        seen: set[File] = {voter}
        for key in sorted(keys(voter.stem), key=lambda key: -len(key)):
            if len(sharing[key]) <= CROWD:
                rules |= {rule for other in sharing[key] if other not in seen for rule in between(voter, other, key)}
                seen.update(sharing[key])
        if repeated[voter.stem] > 1 and not any(map(str.isdigit, voter.stem)):  # image.png and mask.png in each folder
            near = [other for other in names.inside[voter.folder][:CROWD] if repeated[other.stem] > 1]
            rules |= {Rule(name=Change((voter.stem, other.stem))) for other in near if other.stem != voter.stem}
        rules |= {holding(voter, other) for other in holders[voter.stem][:CROWD] if other.stem != voter.stem}
        votes.update(rules)
    top = max(votes.values(), default=0)
    found = sorted(votes.items(), key=lambda item: (-item[1], str(item[0])))[:RULES]
    return [rule for rule, count in found if FEW * count >= top]


def _read(names: Names, rule: Rule, files: Mapping[Parts, Sequence[File]], known: bool) -> Reading | None:
    """What a rule says of files; None where it does not lead from nearly all images, or to nearly all masks.

    The files are by their folders; where they are known to be the images, no mask is among them.
    """
    pairs: dict[File, list[File]] = {}
    bare = list[File]()
    taken: dict[File, tuple[Parts, str, list[File]]] = {}
    for file, masks in names.follow(rule, files):
        # Of a.jpg and a.png both may have the mask a: who reads them tells.
        one = file.folder, file.stem, masks
        if any(taken.setdefault(mask, one) != one for mask in masks):
            return None  # at the first mask of two images: rules that lead nowhere soon end here
        if masks:
            pairs[file] = masks
        else:
            bare.append(file)
    if not known:
        pairs = {image: masks for image, masks in pairs.items() if image not in taken}
    if not pairs or (rule.many and max(map(len, pairs.values())) < 2):
        return None
    suffixes = {image.suffix for image in pairs}
    alone = [file for file in bare if file not in taken and file.suffix in suffixes]
    if len(pairs) >= NEARLY * (len(pairs) + len(alone)):
        return Reading(rule, pairs, alone)
    folders = {mask.folder for mask in taken}
    kinds = {(mask.suffix, _ending(rule, mask)) for mask in taken}
    others = sum(
        (f.suffix, _ending(rule, f)) in kinds and f not in pairs for folder in folders for f in names.inside[folder]
    )
    return Reading(rule, pairs, alone) if len(taken) >= NEARLY * others else None


def _ending(rule: Rule, mask: File) -> bool:
    """Whether a file's name ends as the rule's masks do."""
    return rule.name is None or rule.many or mask.stem.endswith(rule.name.end[1])


def _looks_right(names: Names, reading: Reading) -> bool:
    """Whether the masks look like masks and the images do not; where both do, the words of their names decide."""
    some = spread(list(reading.pairs), LOOKED_AT)
    masks = [names.like_a_mask(reading.pairs[image][0]) for image in some]
    if LOOKED_AT * masks.count(False) > len(some):  # one of five may be in the wrong place
        return False
    if 2 * [names.like_a_mask(image) for image in some].count(True) < len(some):
        return True
    image, mask = some[0], reading.pairs[some[0]][0]
    return bool(MASK_WORDS.search(mask.path)) and not MASK_WORDS.search(image.path)
