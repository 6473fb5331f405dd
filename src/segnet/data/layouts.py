"""What was recognised in a folder, said as the settings of a data configuration: globs, mask patterns, splits."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os.path import relpath
from pathlib import Path
from typing import Any

from segnet.command_line import command_line, override
from segnet.data.description import Division
from segnet.data.layout_globs import globs_of
from segnet.data.layout_masks import by_folder, by_numbers, pattern_of
from segnet.data.layout_splits import by_folders, by_lists, split_of
from segnet.data.listing import amount, counted, neither, unreadable
from segnet.data.naming import File, Parts, Rule
from segnet.data.pairs import Layout as Pairs
from segnet.data.patterns import MaskPattern, Masks, listed, shown
from segnet.data.recognition import Names, Reading, in_folders, readings
from segnet.errors import UserError

IMAGES, MASKS = "images/*", "masks/{stem}.png"  # what has always been read without a word
MVTEC = {"train", "test", "ground_truth"}


@dataclass
class Layout:
    """Where images and masks are, and which split each is in; ``told`` are lines for people.

    ``found`` is false where no file is there to say it; ``bare`` are images that are left out, as is told.
    """

    images: Any
    masks: Masks
    match: str | None = None
    split: Division | None = None
    told: list[str] = field(default_factory=list)
    found: bool = True
    defect_free: str | None = None
    bare: frozenset[str] = frozenset()


def find(root: Path, images: Any = None, masks: Masks | None = None, match: str | None = None) -> Layout:
    """The layout of a folder.

    Args:
        root: of the data set.
        images: globs, where they are named.
        masks: as ``data.masks``, where it is named.
        match: as ``data.match``.

    Raises:
        UserError: several layouts fit, or none; with the settings to choose one.
    """
    if images is not None and masks is not None:
        return _divided(Layout(images, masks, match), root, _matching(root, images))
    names = Names(root)
    found = _found(names, images, masks, match)
    found.told += [f"passed over {text}" for text in unreadable(names.shut)]
    if images is None and found.found:
        found.told += _elsewhere(names, found)
    return found


def _elsewhere(names: Names, found: Layout) -> list[str]:
    """What is said of image files in folders where neither images nor masks were found: a set's good images, say."""
    pairs = Pairs(names.root, listed(found.images), found.masks, defect_free=found.defect_free, match=found.match)
    try:
        images = pairs.list_images()
        masks = [mask for image in images for mask in pairs.masks_of(image)]
    except UserError:  # whoever reads them says it
        return []
    near, _ = neither(names.root, [*pairs.images, *pairs.pattern.folders(masks)], images, masks)  # told with the split
    used = {*images, *near, *found.bare, *(relpath(mask, names.root) for mask in masks)}
    rest = in_folders(file for file in names.files if file.path not in used)
    return [f"not used are {_there(rest)}; where they belong to the set, name data.images"] if rest else []


def _there(folders: Mapping[Parts, Sequence[File]]) -> str:
    """Such as ``3 image files (a (2), b (1))``, those with the most files first."""
    top = sorted(folders.items(), key=lambda item: -len(item[1]))
    named = ", ".join(f"{'/'.join(folder) or '.'} ({len(files)})" for folder, files in top[:6])
    return f"{amount(sum(map(len, folders.values())), 'image file')} ({named}{', …' if len(top) > 6 else ''})"


def _found(names: Names, images: Any, masks: Masks | None, match: str | None) -> Layout:
    root = names.root
    if masks is not None:
        found = _images_for(names, masks, match)
        return _divided(found, root, _matching(root, found.images))
    given = None if images is None else _matching(root, images)
    plain = names.inside.get(("images",), []) if given is None else given
    if plain and (suffix := _suffix(names, plain)):
        return _divided(Layout(images or IMAGES, f"masks/{{stem}}{suffix}"), root, plain)
    if images is None and _as_mvtec(names):
        told = ["a tree as of MVTec AD, without a defect in train/: all images are divided by hash"]
        globs = ["train/*/*", "test/*/*"]
        return Layout(globs, "ground_truth/{parent}/{stem}_mask.png", told=told, defect_free="*/good/*")
    fitting = readings(names, given)
    if len(fitting) > 1:
        raise UserError(_several(names, fitting, images))
    if not fitting:
        return _numbered(names, images) or _unknown(names, images, plain)
    return _said(names, fitting[0], images)


def _numbered(names: Names, images: Any) -> Layout | None:
    way = by_numbers(names) if images is None else None
    if way is None:
        return None
    pairs, masks, match = way
    files = sorted(pairs, key=lambda file: file.path)
    globs = globs_of(names, files, Reading(Rule(), pairs, []), masks, match)
    return None if globs is None else _divided(Layout(globs, masks, match), root=names.root, files=files)


def _as_mvtec(names: Names) -> bool:
    """Whether it is train/good/, test/<kind>/ and ground_truth/<kind>/<stem>_mask.png, and nothing else."""
    homes = {("train", "good"), *(file.folder for file in names.files if len(file.folder) == 2)}
    masks = [file for file in names.files if file.folder[:1] == ("ground_truth",)]
    folders = {file.folder for file in names.files} <= homes and {home[0] for home in homes} == MVTEC
    return folders and all(
        mask.stem.endswith("_mask") and names.index.get((("test", mask.folder[1]), mask.stem.removesuffix("_mask")))
        for mask in masks
    )


def _suffix(names: Names, images: Sequence[File]) -> str | None:
    """That of the masks, if each of these images has one of its name in masks/, all of one suffix."""
    found = [[mask.suffix for mask in names.index.get((("masks",), file.stem), ())] for file in images]
    return found[0][0] if found[0] and all(suffixes == found[0][:1] for suffixes in found) else None


def _unknown(names: Names, images: Any, plain: Sequence[File]) -> Layout:
    labels = []
    if names.labels:
        labels = [
            f"{counted(names.labels, 'file')} may hold labels; {_importing(names.root)} makes masks of those that do"
        ]
    stems = {file.stem for file in plain}
    homes = sorted({"/".join(file.folder) for file in names.files if len(file.folder) > 1 and file.stem in stems})
    if classes := _classes([f"{home}/{{stem}}.png" for home in homes]):
        labels.append(f"if each of {', '.join(homes)} holds the masks of a class: {classes}")
    if images is not None or plain or not names.files:  # whoever reads it says what is missing
        return Layout(images or IMAGES, MASKS, found=False, told=labels)
    raise UserError(
        f"data.root={names.root}: {_there(names.inside)} do not show which are images and which are their masks; "
        f"{''.join(f'{text}; else ' for text in labels)}name them: 'data.images=<glob>' "
        f"'data.masks=\"<where an image's mask is, such as masks/{{stem}}.png>\"'"
    )


def _several(names: Names, found: Sequence[Reading], images: Any) -> str:
    ways, layouts = [], [_said(names, reading, images) for reading in found]
    for layout in layouts[:4]:
        texts = [] if images is not None else [_typed("data.images", layout.images)]
        texts += [_typed("data.masks", layout.masks)]
        texts += [_typed("data.match", layout.match)] if layout.match else []
        ways.append(" ".join(texts))
    parts = all(other.pairs.keys() == found[0].pairs.keys() for other in found)
    classes = _classes([layout.masks for layout in layouts])
    one = f"; if each of these folders holds the masks of a class: {classes}" if classes else ""
    one += f"; if they are classes or objects of one mask, {_importing(names.root)} makes it" if parts else ""
    return f"data.root={names.root}: {len(found)} layouts fit its files; choose one: {'; or '.join(ways)}{one}"


def _classes(masks: Sequence[Masks]) -> str:
    """The settings that read these patterns as a folder for each class; empty if they are none."""
    folders = by_folder([text for text in masks if isinstance(text, str)])
    if folders is None or len(folders[1]) < len(masks):
        return ""
    template, names = folders
    classes = ["background", *(name for name in names if name != "background")]
    return f"{_typed('data.masks', template)} data/mask=by_path {_typed('data.classes', classes)}"


def _importing(root: Path) -> str:
    return command_line("import_labels", [override("input", str(root)), override("output", f"{root}_set")])


def _said(names: Names, reading: Reading, images: Any) -> Layout:
    """A reading as settings."""
    told: list[str] = []
    alone, left = list(reading.alone), frozenset[str]()
    if images is None:
        homes = {file: split_of(file) for file in (*reading.pairs, *alone)}
        bare = {file for file in alone if homes[file] == "test"}
        if bare and not any(homes[file] == "test" for file in reading.pairs):
            told.append(f"{len(bare)} image{'s' * (len(bare) > 1)} of test have no masks and are left out")
            alone, left = [file for file in alone if file not in bare], frozenset(file.path for file in bare)
    files = sorted((*reading.pairs, *alone), key=lambda file: file.path)
    pattern = pattern_of(names, reading)
    globs = images if images is not None or pattern is None else globs_of(names, files, reading, *pattern)
    if globs is None or pattern is None:
        image = next(iter(reading.pairs))
        raise UserError(
            f"data.root={names.root}: {image.path} has the mask {reading.pairs[image][0].path}, but not all names "
            f"follow one pattern; name them with data.images, data.masks and data.match"
        )
    return _divided(Layout(globs, pattern[0], pattern[1], told=told, bare=left), names.root, files)


def _matching(root: Path, images: Any) -> list[File]:
    try:
        return [File.of(path) for path in Pairs(root, listed(images), "{dir}/{name}").list_images()]
    except UserError:
        return []


def _images_for(names: Names, masks: Masks, match: str | None) -> Layout:
    """The images that have a mask where ``masks`` says."""
    if ("images",) in names.inside:
        return Layout(IMAGES, masks, match)
    pattern = MaskPattern(names.root, masks, match)
    pairs: dict[File, list[File]] = {}
    for file in names.files:
        try:
            found = [path for path in pattern.find(file.path) if path.is_file()]
        except UserError:
            continue
        if found and names.root / file.path not in found:
            pairs[file] = [
                File.of(path.relative_to(names.root).as_posix()) for path in found if path.is_relative_to(names.root)
            ]
    taken = {mask for found in pairs.values() for mask in found}
    files = [file for file in pairs if file not in taken]
    globs = globs_of(names, files, Reading(Rule(), pairs, []), masks, match) if files else None
    return Layout(globs or IMAGES, masks, match)


def _typed(key: str, value: Any) -> str:
    """A setting as it is typed in a shell."""
    if isinstance(value, str):
        return shlex.quote(override(key, value))
    if isinstance(value, dict):
        return shlex.quote(f"{key}={shown(value)}")
    texts = [override(key, text).removeprefix(f"{key}=") for text in value]
    return shlex.quote(f"{key}=[{','.join(texts)}]")


def _divided(layout: Layout, root: Path, files: Sequence[File]) -> Layout:
    """The layout of images with the split that their folders or list files show."""
    layout.split = by_folders(files, layout.told) or by_lists(root, files, layout.told)
    return layout
