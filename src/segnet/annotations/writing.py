"""An ordinary folder from what a format was read to: images/, masks/, dataset.yaml, and which image came from where."""

import csv
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import cv2
from tqdm import tqdm

from segnet.annotations import drawing
from segnet.annotations.classes import Classes
from segnet.annotations.naming import unique
from segnet.annotations.records import Annotated, Source
from segnet.data import description
from segnet.data.decoding import MAX_PIXELS, opened
from segnet.data.description import Description, Division, MaskEncoding
from segnet.data.listing import amount
from segnet.data.masks import IGNORE_INDEX
from segnet.data.splits import SPLITS, ByHash
from segnet.errors import UserError
from segnet.files import cells

# Of the formats in which a program puts an image into its own file.
BEGINNINGS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"BM": ".bmp", b"II*\0": ".tif"}
BEGINNINGS |= {b"MM\0*": ".tif"}


def unlabelled(source: Source, choice: Literal["error", "empty", "skip"], told: list[str]) -> list[Annotated]:
    """The images to write.

    Raises:
        UserError: nothing is said about some, and nobody said what that means; or none is left.
    """
    bare = [image for image in source.images if image.objects is None]
    if bare and choice == "error":
        raise UserError(
            f"{len(bare)} of {amount(len(source.images), 'image')} without a label, such as {bare[0].image}: "
            f"unlabelled=empty takes them as free of defects (all background), unlabelled=skip leaves them out; or "
            f"label them"
        )
    if bare:
        told.append(
            f"{amount(len(bare), 'image')} without a label "
            + ("taken as all background (unlabelled=empty)" if choice == "empty" else "left out (unlabelled=skip)")
        )
    images = [image for image in source.images if choice == "empty" or image.objects is not None]
    if not images:
        raise UserError("there is no labelled image; is this the right input?")
    return images


def write(
    images: Sequence[Annotated],
    root: Path,
    out: Path,
    classes: Classes,
    origin: str,
    drawn: drawing.Drawn | None = None,
) -> list[str]:
    """Write the folder and say what was counted. It appears whole or not at all.

    Args:
        images: `unlabelled` gives them.
        root: what the names of images are relative to.
        out: new, or empty.
        classes: their names and indices.
        origin: for `Description.source`.
        drawn: whether objects lie on the upright image or on the pixels as stored, where EXIF turns it and the size
            does not tell.

    Raises:
        UserError: an image is damaged or not of the stated size; no object covers a pixel; ``out`` is not empty.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UserError(f"output={out}: exists and is not an empty folder; choose another, or remove it")
    relative = [_relative(image, root) for image in images]
    names = unique(relative)
    counts = drawing.Counts()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        part = Path(scratch) / "data"
        files, shown = _draw(images, names, part, classes, counts, drawn)
        if counts.empty and not any(shown):
            raise UserError(
                f"none of the {counts.empty.total()} objects covers a pixel of its image; coordinates must be pixels, "
                f"not shares of the image's size: correct them"
            )
        told = drawing.told(counts, classes)
        told += _renamed(relative, files)
        division = _divide(images, files, shown, part, told)
        with (part / "names.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as table:
            rows = [(f, r.as_posix(), image.split or "") for f, r, image in zip(files, relative, images, strict=True)]
            csv.writer(table).writerows(map(cells, [("image", "source", "split"), *rows]))
        description.write(
            part,
            Description(
                images=["images/*"], masks="masks/{stem}.png", classes=classes.names, split=division, source=origin,
                mask=MaskEncoding(encoding="values", ignore=[IGNORE_INDEX]),
                mask_drawn="upright" if counts.turned else None,
            ),
        )  # fmt: skip
        if out.exists():
            out.rmdir()
        part.rename(out)
    return told


def _draw(
    images: Sequence[Annotated],
    names: Sequence[str],
    part: Path,
    classes: Classes,
    counts: drawing.Counts,
    drawn: drawing.Drawn | None,
) -> tuple[list[str], list[bool]]:
    """Write images and masks; where each image is, and whether a pixel of its mask belongs to an object."""
    (part / "images").mkdir(parents=True)
    (part / "masks").mkdir()
    files, shown = list[str](), list[bool]()
    for image, name in tqdm(zip(images, names, strict=True), "importing", len(images), unit="image", disable=None):
        file = _copy(image, part / "images" / name)
        files.append(f"images/{file.name}")
        mask = drawing.mask(image, file, classes, counts, drawn)
        shown.append(bool(((mask > 0) & (mask < IGNORE_INDEX)).any()))
        _, encoded = cv2.imencode(".png", mask)
        (part / "masks" / f"{name}.png").write_bytes(encoded.tobytes())
    return files, shown


def _relative(image: Annotated, root: Path) -> PurePosixPath:
    path = image.image
    return PurePosixPath((path.relative_to(root) if path.is_relative_to(root) else Path(path.name)).as_posix())


def _copy(image: Annotated, target: Path) -> Path:
    """Write the image's bytes as they are, and refuse it where training would."""
    if image.content is None:
        file = target.with_name(target.name + image.image.suffix)
        shutil.copyfile(image.image, file)
    else:
        content = image.content()
        file = target.with_name(target.name + _suffix(content, image.image))
        file.write_bytes(content)
    try:
        with opened(file, MAX_PIXELS):
            return file
    except UserError as error:
        raise UserError(str(error).replace(str(file), str(image.image))) from None


def _suffix(content: bytes, path: Path) -> str:
    for beginning, suffix in BEGINNINGS.items():
        if content.startswith(beginning):
            return suffix
    raise UserError(f"{path}: its embedded image is of no known format; put the image file beside it")


def _renamed(relative: Sequence[PurePosixPath], files: Sequence[str]) -> list[str]:
    changed = [(r, f) for r, f in zip(relative, files, strict=True) if r.stem != PurePosixPath(f).stem]
    if not changed:
        return []
    return [
        f"{amount(len(changed), 'image')} renamed, such as {changed[0][0]} to {changed[0][1]}; names.csv has all names"
    ]


def _divide(
    images: Sequence[Annotated], files: Sequence[str], shown: Sequence[bool], part: Path, told: list[str]
) -> Division | None:
    """The split that the source states, as list files; None for the default one, by hash."""
    lists: dict[str, list[str]] = {name: [] for name in SPLITS}
    for image, file in zip(images, files, strict=True):
        if image.split:
            lists[image.split].append(file)
    stated = [name for name in SPLITS if lists[name]]
    if not stated:
        return None
    learns = any(there and image.split == "train" for image, there in zip(images, shown, strict=True))
    if "train" not in stated or len(stated) == 1 or not learns:
        why = "" if learns or "train" not in stated else ", and no training image has an object"
        told.append(f"the source states only {' and '.join(stated)}{why}: all images are divided by hash as usual")
        return None
    if not lists["val"]:
        found = ByHash(0.85, 0.15, 0.0)(part, lists["train"])
        lists |= {"train": found["train"], "val": found["val"]}
        told.append(
            f"no validation images in the source: {len(found['val'])} of its training images, drawn by hash, are"
        )
    lines = {name: "".join(f"{file}\n" for file in lists[name]) for name in SPLITS if lists[name]}
    for name, text in lines.items():
        (part / f"{name}.txt").write_text(text, encoding="utf-8", errors="surrogateescape")
    if rest := len(files) - sum(map(len, lists.values())):
        told.append(f"{amount(rest, 'image')} in no split of the source, and in none here")
    told.append("split as in the source: " + ", ".join(f"{len(lists[name])} {name}" for name in lines))
    return Division(by="list", **{name: f"{name}.txt" for name in lines})
