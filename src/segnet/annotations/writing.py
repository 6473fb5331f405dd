"""An ordinary folder from what a format was read to: images/, masks/, dataset.yaml, and which image came from where."""

import csv
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segnet.annotations import raster
from segnet.annotations.classes import Classes
from segnet.annotations.naming import unique
from segnet.annotations.records import Annotated, Object, Source
from segnet.data import description
from segnet.data.decoding import MAX_PIXELS, header, opened, turned
from segnet.data.description import Description, Division, MaskEncoding
from segnet.data.masks import IGNORE_INDEX
from segnet.errors import UserError
from segnet.files import cells

SPLITS = ("train", "val", "test")
Drawn = Literal["upright", "stored"]


@dataclass
class Counts:
    """What happened while masks were drawn."""

    objects: Counter[str] = field(default_factory=Counter)  # by label
    empty: Counter[str] = field(default_factory=Counter)  # those that cover no pixel
    left_out: Counter[str] = field(default_factory=Counter)  # those of no class
    overlap: int = 0  # pixels of several classes
    overlapping: int = 0  # images with such
    turned: int = 0  # images with an EXIF orientation


def unlabelled(source: Source, choice: Literal["error", "empty", "skip"], told: list[str]) -> list[Annotated]:
    """The images to write.

    Raises:
        UserError: nothing is said about some, and nobody said what that means; or none is left.
    """
    bare = [image for image in source.images if image.objects is None]
    if bare and choice == "error":
        raise UserError(
            f"{len(bare)} of {len(source.images)} images have no label, such as {bare[0].image}: unlabelled=empty takes "
            f"them as free of defects (all background), unlabelled=skip leaves them out; or label them"
        )
    if bare:
        told.append(
            f"{len(bare)} images without a label "
            + ("are all background (unlabelled=empty)" if choice == "empty" else "left out (unlabelled=skip)")
        )
    images = (
        list(source.images) if choice == "empty" else [image for image in source.images if image.objects is not None]
    )
    if not images:
        raise UserError("there is no labelled image; is this the right input?")
    return images


def write(
    images: Sequence[Annotated], root: Path, out: Path, classes: Classes, origin: str, drawn: Drawn | None = None
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
        UserError: an image is damaged or its size is not the stated one; ``out`` is not empty.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UserError(f"output={out}: exists and is not an empty folder; choose another, or remove it")
    relative = [_relative(image, root) for image in images]
    names = unique(relative)
    counts = Counts()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        part = Path(scratch) / "data"
        (part / "images").mkdir(parents=True)
        (part / "masks").mkdir()
        files: list[str] = []
        for image, name in tqdm(zip(images, names, strict=True), "importing", len(images), unit="image", disable=None):
            file = _copy(image, part / "images" / name)
            files.append(f"images/{file.name}")
            _, encoded = cv2.imencode(".png", _mask(image, file, classes, counts, drawn))
            (part / "masks" / f"{name}.png").write_bytes(encoded.tobytes())
        told = _told(counts, classes)
        told += _renamed(relative, files)
        division = _divide(images, files, part, told)
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
    kinds = {
        b"\x89PNG": ".png",
        b"\xff\xd8\xff": ".jpg",
        b"RIFF": ".webp",
        b"BM": ".bmp",
        b"II*\0": ".tif",
        b"MM\0*": ".tif",
    }
    for beginning, suffix in kinds.items():
        if content.startswith(beginning):
            return suffix
    raise UserError(f"{path}: its embedded image is of no known format; put the image file beside it")


def _mask(image: Annotated, file: Path, classes: Classes, counts: Counts, drawn: Drawn | None) -> NDArray[np.uint8]:
    """uint8 (H, W) class indices of the upright image."""
    height, width, orientation = header(file)
    sizes: dict[Drawn, tuple[int, int]] = {"upright": (height, width), "stored": (height, width)}
    if orientation > 4 and file.suffix.lower() not in (".tif", ".tiff"):  # Pillow turns a TIFF itself
        sizes["stored"] = (width, height)
    counts.turned += orientation != 1
    fits = [kind for kind in sizes if image.size in (None, sizes[kind])]
    if not fits and image.size is not None:
        raise UserError(
            f"{image.image}: is {width}×{height} (width×height), and its annotation says {image.size[1]}×{image.size[0]}; "
            f"give the image that was annotated, or correct the size"
        )
    if orientation != 1 and len(fits) == 2 and drawn is None and image.objects is not None:
        raise UserError(
            f"{image.image}: states EXIF orientation {orientation}, and nothing tells whether its objects were drawn on "
            f"the upright image or on the pixels as stored; set drawn=upright or drawn=stored"
        )
    on = fits[0] if len(fits) == 1 else drawn or "upright"
    canvas = np.zeros(sizes[on], np.uint8)
    _draw(canvas, image.objects(*canvas.shape) if image.objects else (), classes, counts)
    return np.ascontiguousarray(turned(canvas, orientation if on == "stored" else 1))  # type: ignore[arg-type]


def _draw(canvas: NDArray[np.uint8], objects: Iterable[Object], classes: Classes, counts: Counts) -> None:
    overlap = 0
    for label, shape in objects:
        index = classes.index.get(label)
        if index is None:
            counts.left_out[label] += 1
            continue
        patch = shape(*canvas.shape)
        counts.objects[label] += 1
        if not patch.covered.any():
            counts.empty[label] += 1
            continue
        height, width = patch.covered.shape
        before = canvas[patch.top : patch.top + height, patch.left : patch.left + width][patch.covered]
        overlap += int(((before != 0) & (before != index) & (before != IGNORE_INDEX)).sum())
        raster.paint(canvas, patch, index)
    counts.overlap += overlap
    counts.overlapping += overlap > 0


def _told(counts: Counts, classes: Classes) -> list[str]:
    told = []
    shown = {label for label, index in classes.index.items() if 0 < index < IGNORE_INDEX and counts.objects[label]}
    absent = [label for label, i in classes.index.items() if 0 < i < IGNORE_INDEX and label not in shown]
    if absent:
        kept = ",".join(label for label in classes.index if label in shown)
        told.append(f"no object of {', '.join(absent)}; 'classes=[{kept}]' leaves such classes out")
    if counts.left_out:
        told.append(f"left out objects of labels that classes does not name: {_tally(counts.left_out)}")
    if counts.empty:
        told.append(f"objects that cover no pixel (no area, or outside of the image): {_tally(counts.empty)}")
    if counts.overlap:
        told.append(
            f"{counts.overlap:,} pixels in {counts.overlapping} images belonged to several classes; the later object has them"
        )
    return told


def _tally(count: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in count.most_common())


def _renamed(relative: Sequence[PurePosixPath], files: Sequence[str]) -> list[str]:
    changed = [(r, f) for r, f in zip(relative, files, strict=True) if r.stem != PurePosixPath(f).stem]
    if not changed:
        return []
    return [f"{len(changed)} images renamed, such as {changed[0][0]} to {changed[0][1]}; names.csv has all names"]


def _divide(images: Sequence[Annotated], files: Sequence[str], part: Path, told: list[str]) -> Division | None:
    """The split that the source states, as list files; None for the default one, by hash."""
    lists: dict[str, list[str]] = {name: [] for name in SPLITS}
    for image, file in zip(images, files, strict=True):
        if image.split:
            lists[image.split].append(file)
    stated = [name for name in SPLITS if lists[name]]
    if not stated:
        return None
    if "train" not in stated or len(stated) == 1:
        told.append(f"the source states only {' and '.join(stated)}; images are divided by hash as usual")
        return None
    if not lists["val"]:
        from segnet.data.splits import ByHash

        found = ByHash(0.85, 0.15, 0.0)(part, lists["train"])
        lists |= {"train": found["train"], "val": found["val"]}
        told.append(
            f"the source has no validation images: {len(found['val'])} of its training images, drawn by hash, are"
        )
    for name in SPLITS:
        if lists[name]:
            (part / f"{name}.txt").write_text("\n".join(lists[name]) + "\n", encoding="utf-8", errors="surrogateescape")
    if rest := len(files) - sum(map(len, lists.values())):
        told.append(f"{rest} images are in no split of the source, and in none here")
    shown = ", ".join(f"{len(lists[name])} {name}" for name in SPLITS if lists[name])
    told.append(f"split as in the source: {shown}")
    return Division(by="list", **{name: f"{name}.txt" for name in SPLITS if lists[name]})
