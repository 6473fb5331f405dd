"""Which split each image is in, where the names of folders or list files say so."""

import re
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Literal

from segnet.data.description import Division
from segnet.data.naming import File
from segnet.data.splits import ByList
from segnet.errors import UserError

WORDS: dict[str, Literal["train", "val", "test"]] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
LISTS = ("", "splits", "lists", "ImageSets/Segmentation", "ImageSets")  # folders with train.txt and val.txt
TAKEN = 0.15  # of the training images, for validation, where folders say what training and test are and no more
GLOBS = 100  # that say where files are, at most


def by_folders(files: Sequence[File], told: list[str]) -> Division | None:
    """The split that folders called train, val and test show; None where not all images lie in such.

    Args:
        files: the images.
        told: what people should know is added here.
    """
    places: dict[str, set[tuple[str, ...]]] = {}
    for file in files:
        i = _place(file)
        if i is None:
            return None
        places.setdefault(_word(file.folder[i]), set()).add(file.folder[: i + 1])
    if "train" not in places or len(places) < 2 or any(len(where) > GLOBS for where in places.values()):
        return None
    patterns = {name: _one_glob(where) for name, where in places.items()}
    if None in patterns.values():
        return None
    if "val" not in patterns:
        told.append(f"folders for training and test and none for validation: {TAKEN:.0%} of the training images are it")
        return Division(by="pattern", train=patterns["train"], val=TAKEN, test=patterns["test"])
    return Division(by="pattern", train=patterns["train"], val=patterns["val"], test=patterns.get("test"))


def _one_glob(folders: set[tuple[str, ...]]) -> str | None:
    """One pattern for all images below these folders; None where there is none."""
    if len(folders) == 1:
        return "/".join(map(escape, next(iter(folders)))) + "/*"
    last = {folder[-1] for folder in folders}
    return f"*/{escape(last.pop())}/*" if len(last) == 1 and all(len(folder) > 1 for folder in folders) else None


def _place(file: File) -> int | None:
    return next((i for i, part in enumerate(file.folder) if _word(part)), None)


def split_of(file: File) -> str:
    """The split that an image's folders say; empty if none."""
    place = _place(file)
    return "" if place is None else _word(file.folder[place])


def _word(folder: str) -> str:
    """The split that a folder's name says; empty if none, or two."""
    found: set[str] = {WORDS[word] for word in re.findall(r"[a-z]+", folder.lower()) if word in WORDS}
    return found.pop() if len(found) == 1 else ""


def by_lists(root: Path, files: Sequence[File], told: list[str]) -> Division | None:
    """The split that list files show, train.txt and val.txt; None where there are none, or they name other files.

    Args:
        root: of the data set.
        files: the images.
        told: what people should know is added here.
    """
    for folder in LISTS:
        place = root / folder
        texts = [path for path in sorted(place.iterdir()) if path.is_file()] if place.is_dir() else []
        lists = {WORDS[p.stem.lower()]: p for p in texts if p.suffix.lower() == ".txt" and p.stem.lower() in WORDS}
        if "train" not in lists or len(lists) < 2:
            continue
        named: dict[str, str | float] = {name: path.relative_to(root).as_posix() for name, path in lists.items()}
        if "val" not in named:
            named["val"] = TAKEN
        try:
            found = ByList(**named)(root, [file.path for file in files])  # type: ignore[arg-type]
        except UserError as error:
            told.append(f"the split by {', '.join(path.name for path in lists.values())} is not taken: {error}")
            return None
        if not found["train"] or not found["val"]:
            told.append(f"the split by {', '.join(path.name for path in lists.values())} is not taken: a list is empty")
            return None
        if "val" not in lists:
            told.append(f"lists of training and test and none of validation: {TAKEN:.0%} of the training images are it")
        return Division(by="list", **named)  # type: ignore[arg-type]
    return None
