"""Which image belongs to training, validation and test: by folder, by list file, by group or by a stable hash.

Every split maps the images' paths (relative to the data root, posix) to ``{"train": [...], ...}``.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

from segnet.data import grouping, list_files
from segnet.errors import UserError
from segnet.settings import Label, Share, Text

SPLITS = ("train", "val", "test")
ALL = "all"  # every image, whatever split it belongs to
SMALL = 30  # images (or groups) up to which `ByHash` cuts at exact shares
Split = dict[str, list[str]]


@dataclass(frozen=True)
class ByPattern:
    """Each split is a glob on the relative path, such as ``train/*``, or null; a split may be named twice.

    A number for ``val`` or ``test`` is a share of the images of ``train``, which are drawn as by `ByHash`.
    """

    train: Text | None = None
    val: Text | Share | None = None
    test: Text | Share | None = None
    group: None = None  # stands in conf/data/default.yaml, for `ByHash`

    def __post_init__(self) -> None:
        _no_group(self.group)

    def __call__(self, root: Path, images: Sequence[str]) -> Split:
        """Relative image paths by split."""
        patterns = {name: getattr(self, name) for name in SPLITS}
        found = {n: [i for i in images if fnmatchcase(i, p)] if isinstance(p, str) else [] for n, p in patterns.items()}
        return _drawn(root, found, patterns)


@dataclass(frozen=True)
class All:
    """No split at all: every image once, under the name `ALL`."""

    def __call__(self, root: Path, images: Sequence[str]) -> Split:
        """Relative image paths."""
        return {ALL: list(images)}


@dataclass(frozen=True)
class ByList:
    """Each split is a text file below the root, one image a line: see `segnet.data.list_files`.

    A number for ``val`` or ``test`` is a share of the images of ``train``, as in `ByPattern`. A split may be null, and
    a folder that is evaluated may lack the lists of the others: a list that is not there holds no image.

    Raises:
        UserError: there is none of the lists, or a line names no image.
    """

    train: Text | None = None
    val: Text | Share | None = None
    test: Text | Share | None = None
    group: None = None  # stands in conf/data/default.yaml, for `ByHash`

    def __post_init__(self) -> None:
        _no_group(self.group)

    def __call__(self, root: Path, images: Sequence[str]) -> Split:
        """Relative image paths by split."""
        known = list_files.names(images)
        named = {name: getattr(self, name) for name in SPLITS}
        lists = {name: root / given for name, given in named.items() if given and isinstance(given, str)}
        if lists and not any(path.is_file() for path in lists.values()):
            raise UserError(f"{next(iter(lists.values()))}: list file of the split not found; correct data.split")
        found = {name: list_files.read(path, known, root) for name, path in lists.items() if path.is_file()}
        return _drawn(root, found, named)


def _drawn(root: Path, found: Split, named: Mapping[str, object]) -> Split:
    """The split with its shares of the training images, where numbers name such."""
    shares = {name: float(share) for name, share in named.items() if isinstance(share, int | float)}
    if not shares or "train" not in found:
        return found
    drawn = ByHash(1 - sum(shares.values()), shares.get("val", 0), shares.get("test", 0))(root, found["train"])
    return found | {name: drawn[name] for name in ("train", *shares)}


def _no_group(group: object) -> None:
    if group is not None:
        raise UserError(f"data.split.group={group!r}: only segnet.data.splits.ByHash keeps groups; leave it out")


@dataclass(frozen=True)
class ByHash:
    """Shares of the images, drawn by a hash of the name.

    More than `SMALL` images (or groups) are drawn one by one, so adding images moves no other between splits. Of fewer,
    chance could leave a split empty: they are ranked by their hashes and cut at exact shares (largest remainder, and at
    least one for each split where there are enough, in the order of `SPLITS`); there, adding images may move others.

    Args:
        train: share of the images; the three shares are 1 together. A share of 0 leaves its split out, and the others
            then share all images in their proportion.
        val: share of the images.
        test: share of the images.
        group: regular expression on the relative path; images whose first group (or whole match) is equal
            stay together, such as all images of one object.
        salt: another text draws another split.
    """

    train: Share
    val: Share
    test: Share
    group: Text | None = None
    salt: str = ""

    def __post_init__(self) -> None:
        grouping.check("data.split.group", self.group)

    def __call__(self, root: Path, images: Sequence[str]) -> Split:
        """Relative image paths by split."""
        shares = self._shares()
        keys = [self.key(image) for image in images]
        draws = {key: draw(key, self.salt) for key in keys}
        if len(draws) > SMALL:
            ends = [shares[0], shares[0] + shares[1] if shares[2] else 2.0]  # a draw may be 1 after rounding
            homes = {key: SPLITS[sum(draw >= end for end in ends)] for key, draw in draws.items()}
        else:
            names = [name for name, n in zip(SPLITS, _exact(shares, len(draws)), strict=True) for _ in range(n)]
            homes = dict(zip(sorted(draws, key=draws.__getitem__), names, strict=True))
        pairs = list(zip(images, keys, strict=True))
        return {name: [image for image, key in pairs if homes[key] == name] for name in SPLITS}

    def _shares(self) -> list[float]:
        shares = [self.train, self.val, self.test]
        total = sum(shares)
        if not all(0 <= share <= 1 for share in shares) or not (
            abs(total - 1) <= 1e-6 or (0 < total < 1 and min(shares) == 0)
        ):
            raise UserError(
                f"data.split shares {shares}: must not be negative and must add up to 1 (with a share of 0, such as "
                f"data.split.test=0, the others share all images in their proportion)"
            )
        return shares if abs(total - 1) <= 1e-6 else [share / total for share in shares]

    def key(self, image: str) -> str:
        """What stays together: the group of an image, without groups its path.

        Raises:
            UserError: the pattern does not match it.
        """
        return image if self.group is None else _group(self.group, image)


@dataclass(frozen=True)
class ByGroup:
    """Whole groups are held out by name, such as a drive, a patient or a batch, and all others train.

    With ``folds`` the groups are divided instead; as many folds as groups leave each out once.

    Args:
        group: regular expression on the relative path, whose first group (or whole match) names an image's group.
        train: null is every group that is not held out; or the names of those that train.
        val: name or names of the groups that validate, or null.
        test: the same; a group may be in both.
    """

    group: Text
    train: Label | Sequence[Label] | None = None
    val: Label | Sequence[Label] | None = None
    test: Label | Sequence[Label] | None = None
    salt: ClassVar[str] = ""  # of folds

    def __post_init__(self) -> None:
        grouping.check("data.split.group", self.group)

    def __call__(self, root: Path, images: Sequence[str]) -> Split:
        """Relative image paths by split.

        Raises:
            UserError: a name is no image's group, or the pattern does not match an image.
        """
        keys = [self.key(image) for image in images]
        known = Counter(keys)
        named = {name: self._named(name, known) for name in SPLITS}
        if self.train is None:
            named["train"] = set(known) - named["val"] - named["test"]
        return {name: [i for i, key in zip(images, keys, strict=True) if key in named[name]] for name in SPLITS}

    def key(self, image: str) -> str:
        """The group of an image.

        Raises:
            UserError: the pattern does not match it.
        """
        return _group(self.group, image)

    def _named(self, split: str, known: Counter[str]) -> set[str]:
        given = getattr(self, split)
        names = [] if given is None else [given] if isinstance(given, str | int) else given
        for name in map(str, names):
            if name not in known:
                there = ", ".join(f"{group} ({count} images)" for group, count in sorted(known.items())[:20])
                more = f" and {len(known) - 20} more" * (len(known) > 20)
                raise UserError(f"data.split.{split}={name}: no such group; there are {there or 'none'}{more}")
        return set(map(str, names))


def _group(pattern: str, image: str) -> str:
    if (found := grouping.group(pattern, image)) is None:
        raise UserError(f"data.split.group={pattern!r} does not match {image!r}; correct the pattern")
    return found


def draw(text: str, salt: str = "") -> float:
    """A number in 0..1 that depends on the two texts alone."""
    digest = hashlib.sha256((salt + text).encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _exact(shares: Sequence[float], count: int) -> list[int]:
    """Images of each split by largest remainder, at least one for a share; of too few the first splits get one each."""
    wanted = [i for i, share in enumerate(shares) if share]
    if count <= len(wanted):
        return [int(i in wanted[:count]) for i in range(len(shares))]
    quotas = [round(share * count, 9) for share in shares]
    found = [int(quota) for quota in quotas]
    by_remainder = sorted(wanted, key=lambda i: found[i] - quotas[i])
    for i in by_remainder[: count - sum(found)]:
        found[i] += 1
    for i in wanted:
        if not found[i]:
            found[found.index(max(found))] -= 1
            found[i] += 1
    return found
