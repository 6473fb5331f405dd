"""Which format a file or folder holds, found out from its content."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from segnet.annotations import coco, cvat, labelme, masks, voc, words, yolo
from segnet.annotations.asked import leave_masks
from segnet.annotations.folder import BYTES, Folder
from segnet.annotations.records import Annotated, Choices, Source
from segnet.data.listing import counted
from segnet.errors import UserError

Format = Literal["coco", "labelme", "cvat", "yolo", "voc", "masks"]
Reader = Callable[[Folder, Sequence[Path], Choices], Source]
READERS: dict[Format, Reader] = {
    "coco": coco.read, "labelme": labelme.read, "cvat": cvat.read, "yolo": yolo.read, "voc": voc.read,
    "masks": masks.read,
}  # fmt: skip
# Of formats that list their images: others in the folder have no label.
LISTING = ("coco", "labelme", "cvat")
SAMPLE = 200  # text files that are looked into


def read(given: Path, images: Path | None, format: str, choices: Choices) -> tuple[Source, Path, str]:
    """Read a file or a folder.

    Args:
        given: an annotation file, or a folder with such, or with masks.
        images: where images are, if not there.
        format: one of `READERS`, or auto.
        choices: what the user decided.

    Returns:
        what was read; what the names of images are relative to; and what it is, in a line.

    Raises:
        UserError: nothing, or more than one format, fits; or what the reader says.
    """
    if not given.exists():
        raise UserError(f"input={given}: no such file or folder; correct it")
    if given.is_file() and given.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        raise UserError(f"input={given}: is packed; unpack it, and give the folder")
    if images is not None and not images.is_dir():
        raise UserError(f"images={images}: no such folder; correct it")
    root = given if given.is_dir() else given.parent
    if given.is_file() and root.name.lower() in ("annotations", "annotation", "labels", "json") and images is None:
        root = root.parent  # whose images lie beside that folder
    folder = Folder(root, images)
    if choices.masks is not None:
        format = "masks"
    found = _fitting(folder, given, format)
    said = "; ".join(f"{name} ({_counted(files, root)})" for name, files in found.items())
    if format != "auto":
        found = {name: files for name, files in found.items() if name == format}
    if len(found) != 1:
        others = [] if found or not given.is_dir() else sorted({p.suffix.lower() or p.name for p in folder.files})
        there = f"it holds {said or 'files of ' + (', '.join(others[:12]) or 'no kind')}"
        if format != "auto":
            raise UserError(f"input={given}: is not {format}: {there}; choose another format, or leave it out")
        if found:
            choice = " or ".join(f"format={name}" for name in found)
            raise UserError(f"input={given}: may be read in {len(found)} ways: {there}; choose {choice}")
        raise UserError(
            f"input={given}: no labels were found: {there}; known are {', '.join(READERS)}: see docs/labels.md for how "
            f"their files are named{''.join(f'; {text}' for text in folder.told())}"
        )
    ((name, files),) = found.items()
    source = READERS[name](folder, files, choices)
    title = f"{name}: {_counted(files, root)}"
    source.told.extend(folder.told())
    if name in LISTING:
        listed = {image.image for image in source.images}
        rest = [path for path in folder.images if path not in listed]
        if given.is_dir():
            relative = {path: path.relative_to(folder.image_root) for path in rest}
            source.told.extend(leave_masks([name.as_posix() for name in relative.values() if words.is_mask(name)]))
            bare = [Annotated(path, None) for path, name in relative.items() if not words.is_mask(name)]
            return Source([*source.images, *bare], source.labels, source.told, source.named), folder.image_root, title
        if rest:
            source.told.append(f"{counted([p.name for p in rest], 'image')} not in {given.name}, so not taken")
    return source, folder.image_root, title


def _counted(files: Sequence[Path], root: Path) -> str:
    kind = "folder" if files[0].is_dir() else "file"
    return counted([path.relative_to(root).as_posix() for path in files], kind)


def _fitting(folder: Folder, given: Path, format: str) -> dict[Format, list[Path]]:
    """The files of each format that fits; masks fit where nothing else does.

    Raises:
        UserError: a JSON file is none.
    """
    found: dict[Format, list[Path]] = defaultdict(list)
    files = [given] if given.is_file() else folder.files
    for path in files:
        match path.suffix.lower():
            case ".json":
                if (name := _json(path)) is not None:
                    found[name].append(path)
                elif format in ("auto", "coco", "labelme"):
                    coco.load(path)  # one that is cut off would be passed over as if it held something else
            case ".xml" if re.search(rb"<annotations[\s>]", _head(path)):
                found["cvat"].append(path)
            case ".yaml" | ".yml" if b"names" in _head(path) and yolo.fits(yolo.load(path)):
                found["yolo"].append(path)
    if given.is_dir():
        if not found["yolo"]:
            texts = folder.with_suffix(".txt")[:SAMPLE]
            found["yolo"] = [path for path in texts if yolo.is_label(path)]
        found["voc"] = voc.fits(folder)
        if not any(found.values()):
            found["masks"] = masks.fits(folder)
    return {name: paths for name, paths in found.items() if paths}


def _json(path: Path) -> Format | None:
    """By the keys that are in its text: whether they are where they belong is seen when it is read."""
    content = _bytes(path, BYTES) if path.stat().st_size <= BYTES else b""
    if b'"shapes"' in content and b'"imagePath"' in content:
        return "labelme"
    return "coco" if all(f'"{key}"'.encode() in content for key in coco.KEYS) else None


def _head(path: Path) -> bytes:
    return _bytes(path, 10_000)


def _bytes(path: Path, count: int) -> bytes:
    """The beginning of a text; of UTF-16, as PowerShell writes it, in UTF-8."""
    with path.open("rb") as file:
        content = file.read(count)
    if content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return content
    return content.decode("utf-16", errors="replace").encode(errors="replace")
