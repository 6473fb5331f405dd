"""YOLO segmentation: a text file for each image, names and splits in ``data.yaml``."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from segnet.annotations import raster, words
from segnet.annotations.asked import NO_IMAGE, leave_masks, missing, shared, tell_boxes
from segnet.annotations.folder import Folder, read_text
from segnet.annotations.records import Annotated, Choices, Object, Source, Split, points
from segnet.data.listing import counted
from segnet.errors import UserError

SPLITS: tuple[tuple[Split, tuple[str, ...]], ...] = (
    ("train", ("train",)),
    ("val", ("val", "valid")),
    ("test", ("test",)),
)
NAME_LISTS = ("classes.txt", "obj.names", "labels.names")
LIMITS = -1.0, 2.0  # of shares of the image's sides; pixels lie far beyond


def load(path: Path) -> Any:
    """A YAML file without aliases, which may grow without bound.

    Raises:
        UserError: it is none.
    """
    text = read_text(path, "YAML file")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise UserError(f"{path}: has an alias (*name); write its content instead")
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: is no YAML ({' '.join(str(error).split())}); correct it") from None


def fits(content: Any) -> bool:
    """Whether it is a ``data.yaml``."""
    lists = {"train", "val", "valid", "test", "path", "nc"}
    return isinstance(content, dict) and isinstance(content.get("names"), list | dict) and bool(lists & set(content))


def is_label(path: Path) -> bool:
    """Whether a text file has lines of a class and coordinates."""
    if path.name in NAME_LISTS or path.stat().st_size > 10**8:
        return False
    with path.open("rb") as file:
        first = next((line.split() for line in file if line.strip()), [])
    number = re.compile(rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
    return len(first) >= 5 and first[0].isdigit() and all(number.fullmatch(word) for word in first)


def read(folder: Folder, files: Sequence[Path], choices: Choices) -> Source:
    """The images below the folder and the objects in their text files, drawn in the order of the lines.

    A text file without lines says that its image has no object; an image without a text file says nothing.
    """
    told: list[str] = []
    settings = [path for path in files if path.suffix.lower() in (".yaml", ".yml")]
    if len(settings) > 1:
        raise UserError(
            f"{settings[0]} and {settings[1]} both describe a data set; give one of them: input={settings[0]}"
        )
    content = load(settings[0]) if settings else {}
    names = _names(content, folder)
    told += shared(names.values(), settings[0] if settings else folder.root)
    if names and type(stated := content.get("nc")) is int and stated != len(names):
        raise UserError(f"{settings[0]}: nc={stated}, and names has {len(names)}; correct one of them")
    splits = _splits(content, folder, settings[0], choices, told) if settings else {}
    images: list[Annotated] = []
    boxes, used = Counter[str](), Counter[int]()
    texts = dict.fromkeys(folder.with_suffix(".txt"), False)  # whether an image has it
    known = {str(text).lower(): text for text in texts}  # Labels/a.TXT of Images/a.JPG
    masks: list[str] = []
    for path in folder.images:
        relative = path.relative_to(folder.image_root)
        label = next((known[name] for text in _texts(folder, relative) if (name := str(text).lower()) in known), None)
        if label is not None:
            texts[label] = True
        if splits and path not in splits:
            continue
        if label is None and words.is_mask(relative):
            masks.append(relative.as_posix())
            continue
        used.update(_check(label, choices, boxes) if label else ())
        draw = partial(_drawn, label, names, choices) if label else None
        images.append(
            Annotated(path, draw, split=splits.get(path) or (None if splits else words.split_of_folders(relative)))
        )
    told += leave_masks(masks)
    if splits and (rest := [path.name for path in folder.images if path not in splits]):
        told.append(f"left out {counted(rest, 'image')} that {settings[0].name} does not list")
    if names and (unknown := [number for number in used if number not in names]):
        raise UserError(f"{folder.root}: labels have class {unknown[0]}, and names are {names}; add it there")
    homeless = [
        text.relative_to(folder.root).as_posix() for text, known in texts.items() if not known and is_label(text)
    ]
    told += missing(homeless, folder.root, choices.missing, NO_IMAGE) + tell_boxes(boxes)
    numbers = sorted(names or used)
    return Source(images, [names.get(n, str(n)) for n in numbers], told, named=bool(names))


def _names(content: Mapping[str, Any], folder: Folder) -> dict[int, str]:
    given = content.get("names")
    if given is None:
        lists = [path for path in folder.files if path.name in NAME_LISTS]
        read = [[name.strip() for name in read_text(path, "list of names").rstrip().split("\n")] for path in lists]
        if other := [path for path, names in zip(lists, read, strict=True) if names != read[0]]:
            raise UserError(f"{other[0]}: names other classes than {lists[0]}; make them one list")
        given = read[0] if read and any(read[0]) else []
    pairs = given.items() if isinstance(given, dict) else enumerate(given)
    names: dict[int, str] = {}
    for key, name in pairs:
        if not str(key).isdigit() or not isinstance(name, str | int | float) or not str(name).strip():
            raise UserError(f"{folder.root}: names: {key!r}: {name!r} must be a number and a name; correct it")
        names[int(key)] = str(name).strip()
    return names


def _texts(folder: Folder, relative: Path) -> Iterator[Path]:
    """Where the text of an image may be: below ``labels/`` in place of ``images/`` (the last one), or beside it."""
    name = f"{relative.stem}.txt"
    for place in reversed([i for i, part in enumerate(relative.parts[:-1]) if part.lower() == "images"]):
        yield folder.root.joinpath(*relative.parts[:place], "labels", *relative.parts[place + 1 : -1], name)
    yield folder.root.joinpath("labels", *relative.parts[:-1], name)
    yield folder.root.joinpath(*relative.parts[:-1], "labels", name)
    yield folder.root.joinpath(*relative.parts[:-1], name)


def _splits(
    content: Mapping[str, Any], folder: Folder, file: Path, choices: Choices, told: list[str]
) -> dict[Path, Split]:
    """The split of each image that ``train``, ``val`` and ``test`` name: folders, or lists of images."""
    found: dict[Split, dict[Path, None]] = {}
    absent: list[str] = []
    base = str(content.get("path") or "")
    for split, keys in SPLITS:
        given: Any = next((content[key] for key in keys if content.get(key)), [])
        entries: dict[Path, None] = {}
        for entry in given if isinstance(given, list) else [given]:
            if not isinstance(entry, str):
                raise UserError(f"{file}: {split}: {entry!r} is no path; correct it")
            place = _place(f"{base}/{entry}", file.parent, folder)
            if place is None:
                told.append(f"{file.name}: {split}: {entry!r} is not there")
            elif place.is_dir():
                entries |= dict.fromkeys(path for path in folder.images if path.is_relative_to(place))
            else:
                lines = [line.strip() for line in read_text(place, "list").splitlines() if line.strip()]
                paths = [folder.find(line, place, split) for line in lines]
                absent += [line for line, path in zip(lines, paths, strict=True) if path is None]
                entries |= dict.fromkeys(path for path in paths if path is not None)
        if entries:
            found[split] = entries
    told += missing(absent, folder.root, choices.missing)
    pairs = [(a, b) for a in found for b in found if a < b]
    if both := [(a, b, path) for a, b in pairs for path in found[a] if path in found[b]]:
        told.append(f"{file.name}: {both[0][0]} and {both[0][1]} share {len(both)} images, so its split is not taken")
        return {}
    return {path: split for split, paths in found.items() for path in paths}


def _place(given: str, base: Path, folder: Folder) -> Path | None:
    """The longest end of a path that is there, below the file's folder: ``path:`` is often another machine's."""
    path = PurePosixPath(given.replace("\\", "/"))
    parts = [part for part in path.parts if part not in ("/", "..", ".")]
    for start in range(len(parts)):
        place = base.joinpath(*parts[start:])
        if place.exists():
            return place
    return base if set(path.parts) <= {".", "/"} else None


def _check(label: Path, choices: Choices, boxes: Counter[str]) -> Iterator[int]:
    """The class of each line, and how many boxes there are."""
    for where, entry in _lines(label):
        if not entry[0].isdigit() or len(entry[0]) > 6:
            raise UserError(f"{where}: {entry[0]!r} is no number of a class; correct or remove it")
        if len(entry) == 5:
            boxes[choices.boxes] += 1
        elif len(entry) < 7 or len(entry) % 2 == 0:
            raise UserError(
                f"{where}: has {len(entry)} numbers; a class and three or more pairs x y are expected; correct it"
            )
        yield int(entry[0])


def _lines(label: Path) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(read_text(label, "label file").splitlines(), 1):
        if entry := line.split():
            yield f"{label}:{number}", entry


def _drawn(label: Path, names: Mapping[int, str], choices: Choices, height: int, width: int) -> Iterator[Object]:
    for where, entry in _lines(label):
        found = points(entry[1:], where, 2)
        if found.min() < LIMITS[0] or found.max() > LIMITS[1]:
            raise UserError(f"{where}: {found.max():g} is no share of the image's side; give 0..1, not pixels")
        name = names.get(int(entry[0]), entry[0])
        found = found * np.array([width, height], np.float64)
        if len(entry) > 5:
            yield Object(name, partial(raster.polygon, [found]))
        elif choices.boxes == "fill":
            middle, size = found
            yield Object(name, partial(raster.box, *(middle - size / 2), *(middle + size / 2)))
