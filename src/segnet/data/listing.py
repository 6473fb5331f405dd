"""What a listing of images passes over, so that it can be counted and told: nothing is left out without a word."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from posixpath import relpath, splitext

from segnet.data.decoding import EXTENSIONS

# Beside names that begin with a dot (macOS's ._x.png, .ipynb_checkpoints): what systems add on their own.
CLUTTER = {"__macosx", "@eadir", "thumbs.db", "desktop.ini", "ehthumbs.db"}


def composed(name: str) -> str:
    """A name with each accent joined to its letter, as a text may have it where macOS has written the file's apart."""
    return unicodedata.normalize("NFC", name)


def is_hidden(*names: str) -> bool:
    """Whether one of these names of files and folders is hidden."""
    return any((name[0] == "." and name != "..") or name.lower() in CLUTTER for name in names)


def split_off(paths: Iterable[Path], root: Path, suffixes: Sequence[str] = EXTENSIONS) -> tuple[list[Path], list[str]]:
    """The paths that have one of the suffixes and are not hidden, and what is said of the others.

    Folders without such a suffix are left out without being counted.
    """
    found: list[Path] = []
    others: dict[str, list[str]] = defaultdict(list)
    for path in sorted(set(paths), key=lambda path: path.parts):
        relative = path.parts[len(root.parts) :]
        image, hidden = path.suffix.lower() in suffixes, is_hidden(*relative)
        if image and not hidden:
            found.append(path)
        elif image or not path.is_dir():
            others["hidden" if hidden else path.suffix or "suffixless"].append("/".join(relative))
    return found, [counted(names, f"{kind} file") for kind, names in sorted(others.items())]


def amount(count: int, what: str, plural: str | None = None) -> str:
    """Such as ``1 object`` and ``2 objects``."""
    return f"{count} {what if count == 1 else plural or what + 's'}"


def counted(names: Sequence[str], what: str) -> str:
    """Such as ``3 hidden files (such as images/._a.png)``."""
    return f"{amount(len(names), what)} ({'such as ' * (len(names) > 1)}{names[0]})"


def neither(
    root: Path, patterns: Sequence[str], images: Sequence[str], masks: Sequence[Path]
) -> tuple[list[str], list[str]]:
    """Image files where images and masks are looked for that are neither, such as ``A.JPG`` for ``*.jpg``.

    Also folders there that cannot be read, which a glob passes over without a word.

    Args:
        root: of the data set.
        patterns: of images and masks; what stands before their first wildcard is the folder that is looked through.
        images: those found, relative to the root.
        masks: theirs.
    """
    depth = len(root.parts)
    known = set(images) | {"/".join(mask.parts[depth:]) for mask in masks if mask.parts[:depth] == root.parts}
    folders = {root / _before_wildcards(pattern) for pattern in patterns}  # masks may lie elsewhere, or in ".."
    below = [folder for folder in folders if folder.is_relative_to(root) and ".." not in folder.parts[depth:]]
    seen = [folder for folder in below if not is_hidden(*folder.parts[depth:])]
    shut: list[str] = []
    files = {path for folder in seen for path in files_below(root, folder, shut)}
    found = {path for path in files if splitext(path)[1].lower() in EXTENSIONS}
    return sorted(found - known), sorted(set(shut))


def unreadable(folders: Sequence[str]) -> list[str]:
    """What is said of folders that cannot be read; nothing if there are none."""
    return [f"{counted(folders, 'folder')} that cannot be read: give permission, chmod -R u+rX"] if folders else []


def files_below(root: Path, folder: Path | None = None, shut: list[str] | None = None) -> list[str]:
    """Every file below a folder, the root itself by default, that is not hidden, relative to the root.

    What hidden folders hold is not looked at. Folders that cannot be read are added to ``shut``.
    """
    found: list[str] = []

    def note(error: OSError) -> None:
        if shut is not None and isinstance(error, PermissionError):  # a folder that is not there has no files
            shut.append(relpath(error.filename, root))

    start = root if folder is None else folder
    known = {str(root.resolve()), str(start.resolve())}  # links to folders are followed, once
    for where, folders, names in os.walk(start, onerror=note, followlinks=True):
        folders[:] = [name for name in sorted(folders) if not is_hidden(name) and _new(known, where, name)]
        below = relpath(where, root)
        found += [name if below == "." else f"{below}/{name}" for name in names if not is_hidden(name)]
    return found


def _new(known: set[str], where: str, name: str) -> bool:
    """Whether a folder has not been seen yet, by another path."""
    real = str((Path(where) / name).resolve())
    new = real not in known
    known.add(real)
    return new


def shared(images: Sequence[str], masks: Sequence[Sequence[Path]]) -> list[str]:
    """``a.jpg and a.png`` of each mask file that belongs to several images."""
    owners: dict[Path, list[str]] = defaultdict(list)
    for image, files in zip(images, masks, strict=True):
        for mask in files:
            owners[mask].append(image)
    return [" and ".join(names) for names in owners.values() if len(names) > 1]


def _before_wildcards(pattern: str) -> Path:
    parts = Path(pattern).parts[:-1]
    end = next((i for i, part in enumerate(parts) if set(part) & set("*?[{")), len(parts))
    return Path(*parts[:end])
