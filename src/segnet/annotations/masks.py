"""Mask files under any name: one for an image, one for an object, or one for a class, as images or ``.npy``.

Images and masks are told apart by words in their names, paired by what their names have in common, and what the values
of the masks mean is found out from all of them together. What can be read in two ways is asked about.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segnet.annotations import raster
from segnet.annotations.asked import missing
from segnet.annotations.folder import Folder
from segnet.annotations.records import IGNORE, Annotated, Choices, Object, Source, split_of
from segnet.annotations.stored import Kind, labels_of, read_values
from segnet.data.decoding import EXTENSIONS
from segnet.errors import UserError

MASK_WORDS = re.compile(
    r"masks?|labels?|labelids|annot\w*|gt|truth|groundtruth|seg|segmentations?|segmented|targets?|manual\d*|1st|2nd"
)
IMAGE_WORDS = re.compile(r"images?|imgs?|photos?|sat|rgb|inputs?|originals?|frames?|jpegimages|data|raw")
SPLIT_WORDS = re.compile(r"train(ing)?|val(id|idation)?|test(ing)?|dev")
ONE = "1"  # label of the class of masks that say only yes and no


class Mask(NamedTuple):
    """A mask file, and how it belongs to an image: by what key, and of what class."""

    path: Path
    image: Path
    label: str | None


def fits(folder: Folder) -> list[Path]:
    """The files that are masks by their names."""
    return _apart(folder)[1]


def read(folder: Folder, files: Sequence[Path], choices: Choices) -> Source:
    """The images below the folder and their masks, in the order of the masks' names."""
    images, masks = _apart(folder)
    told: list[str] = []
    found, lost = _pair(folder, images, masks)
    told += missing([path.relative_to(folder.root).as_posix() for path in lost], folder.root, choices.missing)
    of: dict[Path, list[Mask]] = defaultdict(list)
    for mask in found:
        of[mask.image].append(mask)
    labels = list(dict.fromkeys(mask.label for mask in found))
    several = max(map(len, of.values()), default=0) > 1
    if several or labels != [None]:
        if None in labels and len(labels) > 1:
            bare = next(mask.path for mask in found if mask.label is None)
            raise UserError(
                f"{bare}: lies beside folders of classes ({', '.join(filter(None, labels))}); move it into one"
            )
        kind, named = Kind("yes", several), labels != [None]
        names = [label or ONE for label in labels]
    else:
        kind, names = labels_of([mask.path for mask in found], choices, told)
        named = False
    told.append(_described(kind, several, labels, len(found)))
    return Source(
        [
            Annotated(
                image, partial(_drawn, of[image], kind) if image in of else None,
                split=split_of(*reversed(image.relative_to(folder.image_root).parts[:-1])),
            )
            for image in images
        ],
        names, told, named,
    )  # fmt: skip


def _described(kind: Kind, several: bool, labels: Sequence[str | None], count: int) -> str:
    form = "one for a class" if labels != [None] else "one for an object" if several else "one for an image"
    return f"{count} masks, {form}, {kind.said}"


def _drawn(masks: Sequence[Mask], kind: Kind, height: int, width: int) -> Iterator[Object]:
    for mask in masks:
        values = read_values(mask.path, kind)
        if values.shape != (height, width):
            raise UserError(
                f"{mask.path}: is {values.shape[1]}×{values.shape[0]} (width×height), its image {mask.image} "
                f"{width}×{height}; both must have the same size"
            )
        for value in np.unique(values).tolist():
            if value:
                label = mask.label or (IGNORE if value == kind.ignored else kind.label(value))
                yield Object(label, partial(raster.stored, values == value, 0, 0))


def _apart(folder: Folder) -> tuple[list[Path], list[Path]]:
    """Images and masks."""
    arrays = folder.with_suffix(".npy")
    files = [path for path in folder.files if path.suffix.lower() in EXTENSIONS]
    masks = [path for path in files if _says(path, folder.root, MASK_WORDS)]
    images = folder.images if folder.image_root != folder.root else [path for path in files if path not in set(masks)]
    if not masks and not arrays:  # images/ beside a folder for each class
        inside = [
            p
            for p in images
            if any(IMAGE_WORDS.fullmatch(part.lower()) for part in p.relative_to(folder.root).parts[:-1])
        ]
        stems = {path.stem for path in inside}
        outside = [path for path in images if path not in set(inside)]
        if outside and any(path.stem in stems or path.parent.name in stems for path in outside):
            images, masks = inside, outside
    return images, sorted([*masks, *arrays])


def _says(path: Path, root: Path, words: re.Pattern[str]) -> bool:
    """Whether a folder of the path, or a part of its name, is one of the words; folders such as ``trainannot`` too."""
    folders = [token for part in path.relative_to(root).parts[:-1] for token in [part.lower(), *_tokens(part)]]
    glued = [match[2] for folder in folders if (match := re.fullmatch(r"(train|val|test)(\w+)", folder))]
    return any(words.fullmatch(token) for token in [*folders, *glued, *_tokens(path.stem)])


def _tokens(name: str) -> list[str]:
    return [token for token in re.split(r"[_\-. ()]+", name.lower()) if token]


def _bare(name: str) -> str:
    """A name without the words that say what it is."""
    kept = [t for t in _tokens(name) if not any(w.fullmatch(t) for w in (MASK_WORDS, IMAGE_WORDS, SPLIT_WORDS))]
    return "_".join(kept)


def _numbers(name: str) -> str:
    return "_".join(str(int(number)) for number in re.findall(r"\d+", _bare(name)))


def _one_of_many(path: Path) -> str:
    return re.sub(r"[_\-. ]?(mask|object|obj|instance|inst)?[_\-. ]?\d+$", "", path.stem)


# How a mask's name gives its image's: keys of the mask and of the image.
KEYS: tuple[tuple[Callable[[Path], str], Callable[[Path], str]], ...] = (
    (lambda mask: mask.stem, lambda image: image.stem),
    (lambda mask: _bare(mask.stem), lambda image: _bare(image.stem)),
    (lambda mask: mask.parent.name, lambda image: image.stem),
    (_one_of_many, lambda image: image.stem),
    (lambda mask: _bare(_one_of_many(mask)), lambda image: _bare(image.stem)),
    (lambda mask: _numbers(mask.stem), lambda image: _numbers(image.stem)),
)


def _pair(folder: Folder, images: Sequence[Path], masks: Sequence[Path]) -> tuple[list[Mask], list[Path]]:
    """Masks with their images, by the key that finds the most of them, and those that it does not find."""
    best: tuple[Callable[[Path], str], Mapping[str, list[Path]]] = (KEYS[0][0], {})
    most = 0
    for mask_key, image_key in KEYS:
        table: dict[str, list[Path]] = defaultdict(list)
        for image in images:
            table[image_key(image)].append(image)
        table.pop("", None)
        if (count := sum(mask_key(mask) in table for mask in masks)) > most:
            most, best = count, (mask_key, table)
    mask_key, table = best
    found, lost = [], []
    for mask in masks:
        candidates = table.get(mask_key(mask), [])
        if not candidates:
            lost.append(mask)
            continue
        ours = _folders(mask.parent, folder.root)
        common = {image: len(set(ours) & set(_folders(image.parent, folder.image_root))) for image in candidates}
        near = [image for image in candidates if common[image] == max(common.values())]
        if len(near) > 1:
            raise UserError(f"{mask}: may be the mask of {near[0]} or {near[1]}; give them different names")
        rest = [
            name for name in ours if name not in _folders(near[0].parent, folder.image_root) and name != near[0].stem
        ]
        classes = [name for name in rest if not _only(name, MASK_WORDS, IMAGE_WORDS, SPLIT_WORDS)]
        found.append(Mask(mask, near[0], classes[-1] if classes else None))
    _check(found)
    return found, lost


def _check(found: Sequence[Mask]) -> None:
    """Refuse several sets of masks: they would be mixed."""
    count = Counter((mask.image, mask.label, mask.path.parent) for mask in found)
    homes = defaultdict(set)
    for image, label, home in count:
        homes[image, label].add(home)
    for (image, _), places in homes.items():
        if len(places) > 1:
            one, other = sorted(places)[:2]
            raise UserError(
                f"{image}: has masks in {one} and in {other}, and they may say different things; move one of the folders "
                f"away, or name one: masks=<folder>"
            )


def _folders(path: Path, root: Path) -> list[str]:
    return list(path.relative_to(root).parts)


def _only(name: str, *words: re.Pattern[str]) -> bool:
    tokens = [re.sub(r"^(train|val|test)(?=\w)", "", token) or token for token in _tokens(name)]
    return all(any(word.fullmatch(token) for word in words) or token.isdigit() for token in tokens)
