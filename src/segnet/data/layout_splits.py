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
SUFFIXES = (".lst", ".tsv", ".csv", ".txt")  # of list files; of several alike, the last of these
UNREAD = (".json", ".jsonl", ".yaml", ".xlsx")  # what may state a split too
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
        places.setdefault("" if i is None else _word(file.folder[i]), set()).add(file.folder[: (i or 0) + 1])
    outside = places.pop("", set())
    if "train" not in places or len(places) < 2:
        return None
    patterns = {name: _one_glob(where) for name, where in places.items()}
    if outside or None in patterns.values():
        names = ", ".join(sorted("/".join(folder) for where in places.values() for folder in where)[:3])
        why = f"{'/'.join(min(outside)) or '.'} holds images too" if outside else "no one pattern says each of them"
        told.append(f"the split by folders ({names}) is not taken: {why}; name it, such as 'data.split.train=train/*'")
        return None
    if "val" not in patterns:
        told.append(f"folders for training and test and none for validation: {TAKEN:.0%} of the training images are it")
        return Division(by="pattern", train=patterns["train"], val=TAKEN, test=patterns["test"])
    return Division(by="pattern", train=patterns["train"], val=patterns["val"], test=patterns.get("test"))


def _one_glob(folders: set[tuple[str, ...]]) -> str | None:
    """One pattern for all images below these folders; None where there is none."""
    if len(folders) > GLOBS:
        return None
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
        named_so = [p for p in sorted(place.iterdir()) if p.stem.lower() in WORDS] if place.is_dir() else []
        texts = [path for path in named_so if path.suffix.lower() in SUFFIXES and path.is_file()]
        texts.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()))
        lists = {WORDS[path.stem.lower()]: path for path in texts}
        if "train" not in lists or len(lists) < 2:
            if lost := [path.name for path in named_so if path in texts or path.suffix.lower() in UNREAD]:
                told.append(f"the split by {', '.join(lost)} is not taken: train.txt with val.txt or test.txt is read")
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
