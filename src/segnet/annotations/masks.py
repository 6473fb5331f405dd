"""Mask files under any name: one for an image, one for an object, or one for a class, as images or ``.npy``.

Images and masks are told apart by words in their names, paired by what their names have in common, and what the values
of the masks mean is found out from all of them together. What can be read in two ways is asked about.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segnet.annotations import raster, words
from segnet.annotations.asked import NO_IMAGE, missing
from segnet.annotations.folder import Folder, without
from segnet.annotations.records import IGNORE, Annotated, Choices, Object, Source
from segnet.annotations.stored import Kind, labels_of, read_values, size_of
from segnet.data import listing
from segnet.data.decoding import EXTENSIONS, LOSSY
from segnet.data.listing import amount
from segnet.errors import UserError

YES = "1"  # label of the class of masks that say only yes and no


class Mask(NamedTuple):
    """A mask file, its image, and its class where a folder says it."""

    path: Path
    image: Path
    label: str | None


class Key(NamedTuple):
    """What a mask's and an image's name have in common, and whether the mask's folder stands for its image."""

    mask: Callable[[Path], str]
    image: Callable[[Path], str]
    folder: bool = False


def _one_of_many(path: Path) -> str:
    """A name without the number behind it: ``a`` of ``a_0`` and ``a_mask_0``."""
    return re.sub(rf"[_\-. ]?({words.OBJECT})?[_\-. ]?\d+$", "", path.stem)


def _beginning(stems: Set[str], mask: Path) -> str:
    """The longest of the images' names that a mask's begins with: ``a`` of ``a_crack``."""
    ends = [found.start() for found in re.finditer(r"[_\-. ]", mask.stem)]
    return next((mask.stem[:end] for end in reversed(ends) if mask.stem[:end] in stems), "")


def _own_folder(root: Path, path: Path) -> str:
    """Where a folder holds one image and its masks: ``007`` of ``007/image.png`` and of ``007/masks/a.png``."""
    parts = list(path.relative_to(root).parts[:-1])
    while parts and words.says_nothing(parts[-1]):
        parts.pop()
    return "/".join(parts)


def _numbers(name: str) -> str:
    return "_".join(str(int(number)) for number in re.findall(r"\d+", words.bare(name)))


KEYS = (
    Key(lambda mask: mask.stem, lambda image: image.stem),
    Key(lambda mask: words.bare(mask.stem), lambda image: words.bare(image.stem)),
    Key(lambda mask: mask.parent.name, lambda image: image.stem, True),
    Key(lambda mask: words.bare(mask.parent.name), lambda image: words.bare(image.stem), True),
)
PARTS = (
    Key(_one_of_many, lambda image: image.stem),
    Key(lambda mask: words.bare(_one_of_many(mask)), lambda image: words.bare(image.stem)),
)
NUMBERS = Key(lambda mask: _numbers(mask.stem), lambda image: _numbers(image.stem))


def fits(folder: Folder) -> list[Path]:
    """The files that are masks by their names."""
    return _apart(folder, None)[1]


def read(folder: Folder, files: Sequence[Path], choices: Choices) -> Source:
    """The images below the folder and their masks, in the order of the masks' names."""
    images, masks = _apart(folder, choices.masks)
    told: list[str] = []
    found, lost = _pair(folder, images, masks)
    told += missing([p.relative_to(folder.root).as_posix() for p in lost], folder.root, choices.missing, NO_IMAGE)
    if others := listing.split_off(set(folder.files) - {*images, *masks}, folder.root, (".npy", *EXTENSIONS))[1]:
        told.append(f"passed over {', '.join(others)}")
    of: dict[Path, list[Mask]] = defaultdict(list)
    for mask in found:
        of[mask.image].append(mask)
    labels = [label for label in dict.fromkeys(mask.label for mask in found) if label is not None]
    bare = next((mask.path for mask in found if mask.label is None), None)
    if labels and bare is not None:
        raise UserError(f"{bare}: lies beside folders of classes ({', '.join(labels)}); move it into one of them")
    if labels:
        kind, form = Kind("yes"), "one for a class"
    elif max(map(len, of.values()), default=0) > 1:
        kind, form, labels = Kind("yes"), "one for an object", [YES]
    else:
        form = "one for an image"
        kind, labels = labels_of([mask.path for mask in found], choices, told)
    told.append(f"{amount(len(found), 'mask')}, {form}, {kind.said}")
    read_to = [
        Annotated(
            image, partial(_drawn, of[image], kind) if image in of else None,
            size_of(of[image][0].path) if image in of else None,
            words.split_of_folders(image.relative_to(folder.image_root)),
        )
        for image in images
    ]  # fmt: skip
    return Source(read_to, labels, told, named=form == "one for a class")


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


def _apart(folder: Folder, given: str | None) -> tuple[list[Path], list[Path]]:
    """Images and masks; ``given`` is the folder of the masks, below the root."""
    arrays = folder.with_suffix(".npy")
    files = folder.with_suffix(*EXTENSIONS)
    if given is not None:
        place = folder.root / given
        masks = [path for path in [*files, *arrays] if path.is_relative_to(place)]
        if not masks or ".." in Path(given).parts:
            raise UserError(f"masks={given}: there is no mask in this folder below {folder.root}; correct it")
        images = [path for path in folder.images if not words.is_mask(path.relative_to(folder.image_root))]
        return without(images, masks), masks
    masks = [path for path in files if words.is_mask(path.relative_to(folder.root))]
    images = without(folder.images, masks)
    if not masks and not arrays:
        masks = _beside(folder, images)
        images = without(images, masks)
    return images, sorted([*masks, *arrays])


def _beside(folder: Folder, files: Sequence[Path]) -> list[Path]:
    """Masks that no word tells: beside ``images/`` in a folder for each class, or ``a.png`` beside ``a.jpg``."""
    inside = [p for p in files if any(words.says(part, words.IMAGE) for part in p.relative_to(folder.root).parts[:-1])]
    stems = {path.stem for path in inside}
    outside = without(files, inside)
    if any({path.stem, path.parent.name} & stems for path in outside):
        return outside
    photos = {path.with_suffix("") for path in files if path.suffix.lower() in LOSSY}
    return [path for path in files if path.suffix.lower() not in LOSSY and path.with_suffix("") in photos]


def _pair(folder: Folder, images: Sequence[Path], masks: Sequence[Path]) -> tuple[list[Mask], list[Path]]:
    """Masks with their images, by the key that finds the most of them, and those that it does not find."""
    stems = {image.stem for image in images}
    own = Key(partial(_own_folder, folder.root), partial(_own_folder, folder.image_root))
    keys = (*KEYS, own, *PARTS, Key(partial(_beginning, stems), lambda image: image.stem), NUMBERS)
    tables = [_table(key, images) for key in keys]
    lone = tables[len(KEYS)]
    tables[len(KEYS)] = {name: found for name, found in lone.items() if len(found) == 1 < len(lone)}
    found = [sum(key.mask(mask) in table for mask in masks) for key, table in zip(keys, tables, strict=True)]
    best = found.index(max(found))
    if best == 0 < found[0] == found[2] and any(mask.parent.name != mask.stem for mask in masks):
        raise UserError(
            f"{masks[0]}: may be a mask of the image {masks[0].stem!r} or of {masks[0].parent.name!r}, after which its "
            f"folder is called; rename the folders or the images"
        )
    pairs, lost = [], []
    for mask in masks:
        near = _nearest(mask, tables[best].get(keys[best].mask(mask), []), folder)
        if near is None:
            lost.append(mask)
        else:
            pairs.append(Mask(mask, near, _label(mask, near, keys[best], folder)))
    _check(pairs)
    return _by_words(pairs), lost


def _by_words(pairs: list[Mask]) -> list[Mask]:
    """The masks with the classes that their names say, where images have several: ``a_crack`` and ``a_stain``."""
    said, several = [words.beside(m.path.stem, m.image.stem) for m in pairs], len({m.image for m in pairs}) < len(pairs)
    if any(mask.label for mask in pairs) or not several or len(set(said)) == 1:
        return pairs
    if "" in said:
        bare, (word, other) = pairs[said.index("")], next((w, m) for w, m in zip(said, pairs, strict=True) if w)
        raise UserError(
            f"{other.path}: may be class {word!r}, and {bare.path} says no class; name the masks {bare.image.stem}_0, "
            f"{bare.image.stem}_1, … if they are objects of one class, or {bare.image.stem}_<class> all of them"
        )
    return [mask._replace(label=word) for mask, word in zip(pairs, said, strict=True)]


def _table(key: Key, images: Sequence[Path]) -> Mapping[str, list[Path]]:
    table: dict[str, list[Path]] = {}
    for image in images:
        if name := key.image(image):
            table.setdefault(name, []).append(image)
    return table


def _nearest(mask: Path, images: Sequence[Path], folder: Folder) -> Path | None:
    """The one whose folders are most like the mask's."""
    ours = set(mask.parent.relative_to(folder.root).parts)
    common = [len(ours & set(image.parent.relative_to(folder.image_root).parts)) for image in images]
    near = [image for image, count in zip(images, common, strict=True) if count == max(common)]
    if len(near) > 1:  # of images/a.jpg and thumbnails/a.jpg the first
        called = [
            any(words.says(part, words.IMAGE) for part in image.parent.relative_to(folder.image_root).parts)
            for image in near
        ]
        near = [image for image, says in zip(near, called, strict=True) if says == any(called)]
    if len(near) > 1:
        raise UserError(f"{mask}: may be the mask of {near[0]} or of {near[1]}; give them different names")
    return near[0] if near else None


def _label(mask: Path, image: Path, key: Key, folder: Folder) -> str | None:
    """The folder that says the class: none of the image's, and not one that says only that masks are there."""
    others = {*image.parent.relative_to(folder.image_root).parts, *([mask.parent.name] if key.folder else [])}
    names = [name for name in mask.parent.relative_to(folder.root).parts if name not in others]
    classes = [name for name in names if not words.says_nothing(name)]
    return classes[-1] if classes else None


def _check(found: Sequence[Mask]) -> None:
    """Refuse several sets of masks: they would be mixed."""
    homes: dict[tuple[Path, str | None], set[Path]] = defaultdict(set)
    for mask in found:
        homes[mask.image, mask.label].add(mask.path.parent)
    for (image, _), places in homes.items():
        if len(places) > 1:
            one, other = sorted(places)[:2]
            raise UserError(
                f"{image}: has masks in {one} and in {other}, and they may say different things; name the folder to "
                f"take with masks=<folder below input>, such as masks={one.name}"
            )
