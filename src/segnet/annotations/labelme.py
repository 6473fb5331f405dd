"""labelme JSON: a file for each image, beside it or with the image in it."""

import base64
import binascii
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segnet.annotations import raster, words
from segnet.annotations.asked import ask_line_width, missing
from segnet.annotations.coco import load
from segnet.annotations.folder import Folder
from segnet.annotations.records import Annotated, Choices, Object, Source, points, size
from segnet.data.listing import amount, counted
from segnet.errors import UserError

LINES = ("line", "linestrip")
NO_AREA = ("point", "points")
POLYGONS = ("polygon", "rotation")  # the second one is X-AnyLabeling's turned box
KINDS = (*POLYGONS, "rectangle", "circle", "mask", *LINES, *NO_AREA)


def fits(content: Any) -> bool:
    """Whether it is labelme's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def read(folder: Folder, files: Sequence[Path], choices: Choices) -> Source:
    """The images and objects of labelme files, and the images without one.

    Shapes are drawn in the order of the file. A file without shapes says that its image has no object.
    """
    labels: Counter[str] = Counter()
    lines, spots = Counter[str](), Counter[str]()
    found: dict[Path, Annotated] = {}
    absent: list[str] = []
    inside: list[str] = []
    beside: list[str] = []
    for path in files:
        content = load(path)
        if not fits(content):
            raise UserError(f"{path}: is not labelme's; it needs a list shapes, and imagePath")
        for place, shape in enumerate(content["shapes"]):
            where = f"{path}: shapes[{place}]"
            if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
                raise UserError(f"{where}: needs a label; name it in labelme, or remove it")
            kind = shape.get("shape_type") or "polygon"
            if kind not in KINDS:
                raise UserError(f"{where}: shape_type={kind!r} is none of {', '.join(KINDS)}; correct or remove it")
            labels[shape["label"].strip()] += kind not in NO_AREA
            lines[path.name] += kind in LINES
            spots[path.name] += kind in NO_AREA
        split = words.split_of_folders(path.relative_to(folder.root))
        file = _image(folder, content, path, split, beside)
        if file is None and not content.get("imageData"):
            absent.append(str(content.get("imagePath") or path.name))
            continue
        if file is not None and file in found:
            raise UserError(f"{path}: its image {file} belongs to another file too; keep one of them")
        embedded = partial(_embedded, path) if file is None else None
        inside += [path.name] if file is None else []
        draw = partial(_drawn, path, choices.line_width)
        stated = size(content, str(path), ("imageHeight", "imageWidth"))
        found[file or path] = Annotated(file or path, draw, stated, split, embedded)
    told = missing(absent, folder.root, choices.missing)
    told += ask_line_width(lines, choices)
    if beside:
        told.append(f"{counted(beside, 'image')} taken from beside the JSON file, as the imagePath in it is not there")
    if inside:
        told.append(f"{counted(inside, 'image')} taken out of the JSON file")
    if spots.total():
        told.append(f"left out {amount(spots.total(), 'point')} without an area")
    return Source(list(found.values()), list(labels), told)


def _image(folder: Folder, content: Mapping[str, Any], path: Path, split: Any, beside: list[str]) -> Path | None:
    """The file that it names, or one beside it with its own stem, whose name is added to ``beside``."""
    given = content.get("imagePath")
    if isinstance(given, str) and given.strip() and (file := folder.find(given, path, split)) is not None:
        return file
    near = [p for p in folder.images if p.parent == path.parent and p.stem == path.stem]
    if len(near) != 1:
        return None
    beside.append(near[0].name)
    return near[0]


def _embedded(path: Path) -> bytes:
    return _bytes(load(path)["imageData"], f"{path}: imageData")


def _bytes(text: Any, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=False)
    except (binascii.Error, TypeError, ValueError):
        raise UserError(f"{where}: is no base64 text; correct or remove it") from None


def _drawn(path: Path, thickness: float | None, height: int, width: int) -> Iterator[Object]:
    for place, shape in enumerate(load(path)["shapes"]):
        made = _shape(shape, f"{path}: shapes[{place}]", thickness)
        if made is not None:
            yield Object(shape["label"].strip(), made)


def _shape(shape: Mapping[str, Any], where: str, thickness: float | None) -> raster.Shape | None:
    kind = shape.get("shape_type") or "polygon"
    if kind in NO_AREA:
        return None
    found = points(shape.get("points"), f"{where}: points", 0 if kind in POLYGONS else 2)
    if kind in POLYGONS:
        return partial(raster.polygon, [found])
    (x0, y0), (x1, y1) = found[:2]
    if kind == "rectangle":
        return partial(raster.box, x0, y0, x1, y1) if len(found) == 2 else partial(raster.polygon, [found])
    if kind == "circle":
        radius = float(np.hypot(x1 - x0, y1 - y0))
        return partial(raster.ellipse, x0, y0, radius, radius, 0.0)
    if kind in LINES:
        return partial(raster.line, found, thickness) if thickness else None
    return partial(_stored, shape.get("mask"), int(min(y0, y1)), int(min(x0, x1)), where)


def _stored(text: Any, top: int, left: int, where: str, height: int, width: int) -> raster.Patch:
    """The pixels of a mask shape: a PNG of the part between its two points."""
    content = _bytes(text, f"{where}: mask")
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as file:
            if file.width > width or file.height > height:
                raise UserError(f"{where}: its mask of {file.width}×{file.height} pixels is larger than the image")
            pixels = np.asarray(file.convert("L")) > 0
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: its mask is no PNG ({error}); correct or remove it") from None
    return raster.stored(pixels, top, left, height, width)
