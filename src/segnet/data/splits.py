"""Which image belongs to training, validation and test: by folder, by list file or by a stable hash.

Every split maps the images' paths (relative to the data root, posix) to ``{"train": [...], ...}``.
"""

import codecs
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from segnet.data.decoding import EXTENSIONS
from segnet.errors import UserError, printable

SPLITS = ("train", "val", "test")
Split = dict[str, list[str]]
HEADERS = {"image", "images", "image_id", "img", "file", "filename", "file_name", "name", "path", "id"}  # of a list


@dataclass(frozen=True)
class ByPattern:
    """Each split is a glob on the relative path, such as ``train/*``; a split may be named twice."""

    train: str
    val: str
    test: str
    group: None = None  # stands in conf/data/default.yaml, for `ByHash`

    def __post_init__(self) -> None:
        _no_group(self.group)

    def __call__(self, root: Path, images: Sequence[str]) -> Split:
        """Relative image paths by split."""
        return {name: [i for i in images if fnmatchcase(i, getattr(self, name))] for name in SPLITS}


@dataclass(frozen=True)
class ByList:
    """Each split is a text file below the root: one image a line, as relative path, file name or stem.

    Only the first column counts, and of an absolute path only as much of its end as is needed. Written by Windows or
    by a spreadsheet, with backslashes, quotes, a header or in UTF-16, it is the same list.
    """

    train: str
    val: str
    test: str
    group: None = None  # stands in conf/data/default.yaml, for `ByHash`

    def __post_init__(self) -> None:
        _no_group(self.group)

    def __call__(self, root: Path, images: Sequence[str]) -> Split:
        """Relative image paths by split."""
        known: dict[str, set[str]] = {}
        for image in images:
            path = Path(image)
            for key in {path.name, path.stem}:
                known.setdefault(key, set()).add(image)
        known |= {image: {image} for image in images}  # a whole path is never ambiguous
        return {name: self._read(root / getattr(self, name), known) for name in SPLITS}

    @staticmethod
    def _read(path: Path, known: dict[str, set[str]]) -> list[str]:
        if not path.is_file():
            raise UserError(f"{path}: list file of the split not found; correct data.split")
        found: dict[str, int] = {}
        again: list[str] = []
        header = True
        for number, line in enumerate(_text(path).splitlines(), 1):
            names = _names(line)
            match = next((known[name] for name in names if name in known), set())
            if not names:
                continue
            may_be_header, header = header, False
            if may_be_header and not match and names[1].lower() in HEADERS:
                continue
            if len(match) != 1:
                raise UserError(
                    f"{path}:{number}: {names[1]!r} names no image (or more than one) that "
                    f"data.images finds; write its path relative to data.root"
                )
            (image,) = match
            if image in found:
                again.append(f"{path.name}:{number} names {image} again, as line {found[image]} did")
            else:
                found[image] = number
        if again:
            rank_zero_info(printable(f"data.split: {len(again)} repeated line(s) count once: {again[0]}"))
        return list(found)


def _no_group(group: object) -> None:
    if group is not None:
        raise UserError(f"data.split.group={group!r}: only segnet.data.splits.ByHash keeps groups; leave it out")


def _text(path: Path) -> str:
    """A text in UTF-8 or UTF-16, with a byte order mark or without; other bytes are kept, as in file names."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content:  # UTF-16 of a Latin text, without a mark
        return content.decode("utf-16-le" if content[1:2] == b"\0" else "utf-16-be", errors="replace")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _names(line: str) -> list[str]:
    """What a line of a list may name, the most literal first: all of it, its first column, and the ends of their paths.

    Where one of them has an image's suffix, the others are no names: ``my image.png`` is not ``my``.
    """
    columns = [re.split(separator, line.strip())[0] for separator in (r"\s", r"[,;\t]", r"$")]
    columns += re.findall(r"""^["']([^"']*)["']""", line.strip())
    names = sorted({column.strip().strip("\"'").strip() for column in columns} - {""}, key=len)
    names = [name for name in names if name.lower().endswith(EXTENSIONS)] or names
    parts = [name.replace("\\", "/").removeprefix("./").strip("/").split("/") for name in names]
    return [line.strip(), *names, *("/".join(p[i:]) for p in parts for i in range(len(p)))] if names else []


@dataclass(frozen=True)
class ByHash:
    """Shares of the images, drawn by a hash of the name: adding images moves no other between splits.

    Args:
        train: share of the images; the three shares are 1 together.
        val: share of the images.
        test: share of the images.
        group: regular expression on the relative path; images whose first group (or whole match) is equal
            stay together, such as all images of one object.
        salt: another text draws another split.
    """

    train: float
    val: float
    test: float
    group: str | None = None
    salt: str = ""

    def __call__(self, root: Path, images: Sequence[str]) -> Split:
        """Relative image paths by split."""
        shares = [self.train, self.val, self.test]
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise UserError(f"data.split shares {shares}: must not be negative and must add up to 1")
        split: Split = {name: [] for name in SPLITS}
        for image in images:
            digest = hashlib.sha256((self.salt + self._key(image)).encode(errors="surrogateescape")).digest()
            draw = int.from_bytes(digest[:8], "big") / 2**64
            name = "train" if draw < shares[0] else "val" if draw < shares[0] + shares[1] else "test"
            split[name].append(image)
        return split

    def _key(self, image: str) -> str:
        if self.group is None:
            return image
        match = re.search(self.group, image)
        if match is None or match.group(1 if match.re.groups else 0) is None:
            raise UserError(f"data.split.group={self.group!r} does not match {image!r}; correct the pattern")
        return match.group(1 if match.re.groups else 0)
