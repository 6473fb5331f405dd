"""Which image belongs to training, validation and test: by folder, by list file or by a stable hash.

Every split maps the images' paths (relative to the data root, posix) to ``{"train": [...], ...}``.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from segnet.errors import UserError

SPLITS = ("train", "val", "test")
Split = dict[str, list[str]]


@dataclass(frozen=True)
class ByPattern:
    """Each split is a glob on the relative path, such as ``train/*``; a split may be named twice."""

    train: str
    val: str
    test: str

    def __call__(self, root: Path, images: Sequence[str]) -> Split:
        """Relative image paths by split."""
        return {name: [i for i in images if fnmatchcase(i, getattr(self, name))] for name in SPLITS}


@dataclass(frozen=True)
class ByList:
    """Each split is a text file below the root: one image a line, as relative path, file name or stem.

    Only the first column counts, and of an absolute path only as much of its end as is needed.
    """

    train: str
    val: str
    test: str

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
        found: list[str] = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            parts = line.split()[0].strip("/").split("/")
            tails = [line.strip(), *("/".join(parts[i:]) for i in range(len(parts)))]
            match = next((known[tail] for tail in tails if tail in known), set())
            if len(match) != 1:
                raise UserError(
                    f"{path}:{number}: {line.split()[0]!r} names no image (or more than one) that "
                    f"data.images finds; write its path relative to data.root"
                )
            found += match
        return found


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
