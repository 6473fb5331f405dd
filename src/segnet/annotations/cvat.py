"""CVAT XML ("CVAT for images 1.1"): one file for many images; those of several jobs are read as one set."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException, ElementTree

from segnet.annotations import raster, runs, words
from segnet.annotations.asked import ask_line_width, missing
from segnet.annotations.folder import Folder, read_text
from segnet.annotations.records import Annotated, Choices, Object, Source, number, points, size
from segnet.errors import UserError

AREAS = ("polygon", "box", "ellipse", "mask")
NO_AREA = ("points", "cuboid", "skeleton", "tag")


def load(path: Path) -> Element:
    """The root of an XML file; entities and document types, which may grow without bound or name files, are refused.

    Raises:
        UserError: it is no XML file, or has such.
    """
    text = read_text(path, "XML file")
    try:
        root: Element = ElementTree.fromstring(text, forbid_dtd=True)
        return root
    except DefusedXmlException as error:
        raise UserError(f"{path}: has a document type or entities ({type(error).__name__}); remove them") from None
    except (ParseError, ValueError) as error:
        raise UserError(f"{path}: is no XML ({error}); correct it") from None


def fits(root: Element) -> bool:
    """Whether it is CVAT's."""
    return root.tag == "annotations" and (root.find("image") is not None or root.find("track") is not None)


def read(folder: Folder, files: Sequence[Path], choices: Choices) -> Source:
    """The images and objects of CVAT files.

    Objects are drawn by ``z_order``, of equal ones in the order of the file. Boxes and ellipses are filled.
    """
    found: dict[Path, Annotated] = {}
    labels: dict[str, None] = {}
    lines, others = Counter[str](), Counter[str]()
    absent: list[str] = []
    for path in files:
        root = load(path)
        if not fits(root):
            raise UserError(f"{path}: is not CVAT's for images; it must hold <annotations> with <image> in it")
        if root.find("track") is not None:
            raise UserError(f"{path}: is CVAT's format for videos; export it as 'CVAT for images 1.1'")
        labels |= dict.fromkeys(_names(root))
        for image in root.iter("image"):
            name = image.get("name", "")
            drawn = [shape for shape in image if shape.tag in (*AREAS, "polyline")]
            if any(not shape.get("label", "").strip() for shape in drawn):
                raise UserError(f"{path}: image {name!r}: a shape without a label; correct or remove it")
            split = words.split_of(image.get("subset", ""), path.stem)
            file = folder.find(f"{image.get('subset')}/{name}" if image.get("subset") else name, path, split)
            if file is None:
                absent.append(name)
                continue
            labels |= dict.fromkeys(shape.get("label", "").strip() for shape in drawn)
            others.update(shape.tag for shape in image if shape.tag in NO_AREA)
            lines[name] += sum(shape.tag == "polyline" for shape in drawn)
            if file in found:
                raise UserError(f"{path}: image {name!r} is {file}, which is there once before; keep one of them")
            where = f"{path}: image {name!r}"
            drawn.sort(key=lambda shape: number(shape.get("z_order", 0), f"{where}: z_order"))
            draw = partial(_drawn, drawn, where, choices.line_width) if drawn else None
            found[file] = Annotated(file, draw, size(image.attrib, where), split)
    told = missing(absent, files[0] if len(files) == 1 else folder.root, choices.missing)
    told += ask_line_width(lines, choices)
    if others:
        told.append("left out what has no area: " + ", ".join(f"{n} {tag}" for tag, n in others.most_common()))
    return Source(list(found.values()), list(labels), told)


def _names(root: Element) -> Iterator[str]:
    """The labels that the task declares, without those of a skeleton's parts."""
    for label in root.iterfind("./meta//labels/label"):
        if name := (label.findtext("name") or "").strip():
            yield name


def _drawn(shapes: Sequence[Element], where: str, thickness: float | None, height: int, width: int) -> Iterator[Object]:
    for place, shape in enumerate(shapes):
        made = _shape(shape, f"{where}: {shape.tag} {place + 1}", thickness)
        if made is not None:
            yield Object(shape.get("label", "").strip(), made)


def _shape(shape: Element, where: str, thickness: float | None) -> raster.Shape | None:
    def value(key: str) -> float:
        return number(shape.get(key), f"{where}: {key}")

    if shape.tag == "mask":
        return partial(_runs, shape.get("rle", ""), where, *(int(value(k)) for k in ("top", "left", "height", "width")))
    if shape.tag == "ellipse":
        turn = number(shape.get("rotation", 0), f"{where}: rotation")
        return partial(raster.ellipse, value("cx"), value("cy"), value("rx"), value("ry"), turn)
    if shape.tag == "box":
        return partial(raster.polygon, [_box(value("xtl"), value("ytl"), value("xbr"), value("ybr"), shape, where)])
    given: Any = [pair.split(",") for pair in shape.get("points", "").split(";") if pair.strip()]
    found = points(given, f"{where}: points", 2 if shape.tag == "polyline" else 0)
    if shape.tag == "polygon":
        return partial(raster.polygon, [found])
    return partial(raster.line, found, thickness) if thickness else None


def _box(x0: float, y0: float, x1: float, y1: float, shape: Element, where: str) -> raster.Points:
    """The corners, turned clockwise about the middle by ``rotation`` degrees."""
    angle = np.deg2rad(number(shape.get("rotation", 0), f"{where}: rotation"))
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)
    if angle == 0:
        return corners
    middle = corners.mean(0)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray((corners - middle) @ turn + middle, np.float64)


def _runs(text: str, where: str, top: int, left: int, high: int, wide: int, height: int, width: int) -> raster.Patch:
    if not (0 < high <= height and 0 < wide <= width):
        raise UserError(f"{where}: its size of {wide}×{high} does not lie in the image's {width}×{height}; correct it")
    try:
        counts = [int(count) for count in text.split(",")]
        return raster.stored(runs.decode(counts, high, wide, by_column=False), top, left, height, width)
    except ValueError as error:
        raise UserError(f"{where}: {error}; correct or remove it") from None
