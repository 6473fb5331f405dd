"""What a listing of images passes over, so that it can be counted and told: nothing is left out without a word."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from segnet.data.decoding import EXTENSIONS

# Beside names that begin with a dot (macOS's ._x.png, .ipynb_checkpoints): what systems add on their own.
CLUTTER = {"__macosx", "@eadir", "thumbs.db", "desktop.ini", "ehthumbs.db"}


def is_hidden(relative: PurePath) -> bool:
    """Whether a path below a data set's root is hidden, or lies in a hidden folder."""
    return any(part.startswith(".") or part.lower() in CLUTTER for part in relative.parts)


def split_off(paths: Iterable[Path], root: Path, suffixes: Sequence[str] = EXTENSIONS) -> tuple[list[Path], list[str]]:
    """The paths that have one of the suffixes and are not hidden, and what is said of the others.

    Folders without such a suffix are left out without being counted.
    """
    found: list[Path] = []
    others: dict[str, list[str]] = defaultdict(list)
    for path in sorted(set(paths)):
        relative = path.relative_to(root)
        image = path.suffix.lower() in suffixes
        if not is_hidden(relative) and image:
            found.append(path)
        elif image or not path.is_dir():
            kind = "hidden" if is_hidden(relative) else path.suffix or "suffixless"
            others[kind].append(relative.as_posix())
    return found, [counted(names, f"{kind} file") for kind, names in sorted(others.items())]


def counted(names: Sequence[str], what: str) -> str:
    """Such as ``3 hidden files (such as images/._a.png)``."""
    return f"{len(names)} {what}{'s' * (len(names) > 1)} ({'such as ' * (len(names) > 1)}{names[0]})"


def neither(root: Path, patterns: Sequence[str], images: Sequence[str], masks: Sequence[Path]) -> list[str]:
    """Image files where images and masks are looked for that are neither, such as ``A.JPG`` for ``*.jpg``.

    Args:
        root: of the data set.
        patterns: of images and masks; what stands before their first wildcard is the folder that is looked through.
        images: those found, relative to the root.
        masks: theirs.
    """
    known = {root / image for image in images} | set(masks)
    folders = {root / _before_wildcards(pattern) for pattern in patterns}
    found = {
        path
        for folder in folders
        if folder.is_relative_to(root)  # masks may lie elsewhere
        for path in _files(folder)
        if path.suffix.lower() in EXTENSIONS and not is_hidden(path.relative_to(root)) and path not in known
    }
    return sorted(path.relative_to(root).as_posix() for path in found)


def files_below(root: Path) -> list[str]:
    """Every file below a folder that is not hidden, relative to it; what hidden folders hold is not looked at."""
    found: list[str] = []
    known = {str(root.resolve())}  # links to folders are followed, once
    for where, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in sorted(folders) if not is_hidden(PurePath(name)) and _new(known, where, name)]
        below = Path(where).relative_to(root)
        found += [(below / name).as_posix() for name in names if not is_hidden(PurePath(name))]
    return found


def _new(known: set[str], where: str, name: str) -> bool:
    """Whether a folder has not been seen yet, by another path."""
    real = str((Path(where) / name).resolve())
    new = real not in known
    known.add(real)
    return new


def shared(images: Sequence[str], masks: Sequence[Sequence[Path]]) -> list[str]:
    """``a.jpg and a.png`` of each mask file that belongs to several images."""
    count = Counter(mask for files in masks for mask in files)
    owners: dict[Path, list[str]] = defaultdict(list)
    for image, files in zip(images, masks, strict=True):
        for mask in files:
            if count[mask] > 1:
                owners[mask].append(image)
    return [" and ".join(names) for names in owners.values()]


def _before_wildcards(pattern: str) -> Path:
    parts = Path(pattern).parts[:-1]
    end = next((i for i, part in enumerate(parts) if set(part) & set("*?[{")), len(parts))
    return Path(*parts[:end])


def _files(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        yield from (Path(where) / name for name in names)
