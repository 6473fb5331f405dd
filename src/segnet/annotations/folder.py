"""The files below a folder, and how a name that an annotation states is found among them.

A name never leads out of the folder: of an absolute path, of one with ``..`` and of a URL only the end counts.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from segnet.annotations import words
from segnet.annotations.records import Split
from segnet.data.decoding import EXTENSIONS, check_regular
from segnet.data.listing import composed, counted, is_hidden, unreadable
from segnet.errors import UserError

BYTES = 2**31  # of an annotation file at most


class Folder:
    """What lies below ``root``; hidden files are passed over.

    Args:
        root: the folder.
        images: another one, in which images are looked for; None: in ``root``.
    """

    def __init__(self, root: Path, images: Path | None = None) -> None:
        self.root = root
        self.image_root = images or root
        self.led_out: list[str] = []  # names that lead out of the folder
        self.hidden: list[Path] = []  # files that were passed over
        self.shut: list[str] = []  # folders that cannot be read

    @cached_property
    def files(self) -> list[Path]:
        """All files, in order of their names."""
        return self._walk(self.root)

    @cached_property
    def images(self) -> list[Path]:
        """Those that may be images."""
        found = self.files if self.image_root == self.root else self._walk(self.image_root)
        return [path for path in found if path.suffix.lower() in EXTENSIONS]

    @cached_property
    def _image_set(self) -> frozenset[Path]:
        return frozenset(self.images)

    def has(self, path: Path) -> bool:
        """Whether it is one of the images."""
        return path in self._image_set

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """The files that have one of the suffixes."""
        return [path for path in self.files if path.suffix.lower() in suffixes]

    def find(self, given: Any, annotation: Path, split: Split | None = None) -> Path | None:
        """The image that an annotation file names; None if there is none.

        A path from the annotation file's folder, or from that of the images, is literal. Otherwise the image counts
        that ends most like what is given; of several, one that no folder calls a mask; one below the annotation file's
        folder, or beside it, as in ``annotations/`` and ``images/``; one of its split.

        Raises:
            UserError: it is no name, or several images still have it.
        """
        if not isinstance(given, str) or not given.strip():
            raise UserError(f"{annotation}: {given!r} is no name of an image; correct it")
        beside = annotation.parent
        posix = given.strip().split("?d=")[-1].replace("\\", "/")  # Label Studio's local files have the path there
        for base in (beside, self.image_root, beside / "images"):
            if self.has(path := Path(os.path.normpath(base / posix))):  # an absolute path may be below the root, too
                return path
        name = PurePosixPath(re.sub(r"^[a-zA-Z][\w+.-]*:/*", "/", posix).split("?")[0])
        if name.is_absolute() or ".." in name.parts:
            self.led_out.append(given)
        parts = [part for part in name.parts if part not in ("/", "..", ".")]
        if not parts:
            return None
        if _key(parts[-1]) not in self._by_name:
            parts = [unquote(part) for part in parts]  # as in a URL
        found = self._by_name.get(_key(parts[-1])) or self._by_name.get(f"{_key(parts[-1])}.*", [])
        around = beside.parent if beside != self.root else beside
        ranks: tuple[Callable[[Path], int], ...] = (
            lambda path: _common_end(path.parts, parts),
            lambda path: not words.is_mask(path.relative_to(self.image_root)),
            lambda path: path.is_relative_to(beside) + path.is_relative_to(around),
            lambda path: split is not None and words.split_of_folders(path.relative_to(self.image_root)) == split,
            lambda path: path.name == parts[-1],
            # Names are relative to one folder: of default/a.png and default/sub/a.png, a.png is the first.
            lambda path: all(other.is_relative_to(path.parents[_common_end(path.parts, parts) - 1]) for other in found),
        )
        for rank in ranks if len(found) > 1 else ():
            most = max(rank(path) for path in found)
            found = [path for path in found if rank(path) == most]
        if len(found) > 1:
            raise UserError(
                f"{annotation}: {given!r} may be {found[0]} or {found[1]}; write the path below {self.image_root} there"
            )
        return found[0] if found else None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        table: dict[str, list[Path]] = defaultdict(list)
        for path in self.images:
            table[_key(path.name)].append(path)
            table[f"{_key(path.stem)}.*"].append(path)  # what is named without a suffix
        return table

    def _walk(self, root: Path) -> list[Path]:
        found: list[Path] = []
        for where, folders, names in os.walk(
            root, onerror=lambda error: self.shut.append(error.filename)
        ):  # links to folders may lead out, or to a folder above
            for name in names:
                (self.hidden if is_hidden(name) else found).append(Path(where) / name)
            folders[:] = [name for name in folders if not is_hidden(name)]
        return sorted(found)

    def told(self) -> list[str]:
        """What is said of the names that were looked for, and of the folders that were not."""
        links = [
            path.relative_to(self.root).as_posix()
            for path in self.root.rglob("*")
            if path.is_symlink() and path.is_dir()
        ]
        told = [f"{counted(links, 'link')} to a folder not followed; images=<folder> names one"] if links else []
        if self.hidden:
            told.append(f"passed over {counted([path.name for path in self.hidden], 'hidden file')}")
        below = [os.path.relpath(path, self.root) for path in dict.fromkeys(self.shut)]
        told += [f"passed over {text}" for text in unreadable(below)]
        if self.led_out:
            told.append(f"{counted(self.led_out, 'name')} leading out of the folder: only the end of the path counted")
        return told


def read_text(path: Path, what: str) -> str:
    """An annotation file in UTF-8 (or UTF-16 with a mark), bounded.

    Raises:
        UserError: no regular file, too large, or no text.
    """
    check_regular(path)
    if path.stat().st_size > BYTES:
        raise UserError(f"{path}: larger than {BYTES:,} bytes, too large for {what}; split it")
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text in UTF-8 ({error}), so no {what}; save it as such") from None


def _key(name: str) -> str:
    """What names have in common that some file systems take for one."""
    return composed(name).lower()


def _common_end(path: Sequence[str], given: Sequence[str]) -> int:
    pairs = zip(reversed(path), reversed(given), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if _key(a) != _key(b)), min(len(path), len(given)))


def without(files: Iterable[Path], others: Iterable[Path]) -> list[Path]:
    """The files that are not among the others, in their order."""
    left = set(others)
    return [path for path in files if path not in left]
