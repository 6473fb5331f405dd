"""COCO JSON: one file for many images, with polygons or run lengths; several files are read as one set."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from segnet.annotations import raster, runs, words
from segnet.annotations.asked import missing, shared, tell_boxes
from segnet.annotations.folder import Folder, read_text
from segnet.annotations.records import IGNORE, Annotated, Choices, Object, Source, points, size
from segnet.data.listing import counted
from segnet.errors import UserError

KEYS = ("images", "annotations", "categories")


def load(path: Path) -> Any:
    """A JSON file.

    Raises:
        UserError: it is none.
    """
    text = read_text(path, "JSON file")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON ({error}); correct or remove it") from None


def fits(content: Any) -> bool:
    """Whether it is COCO's."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in KEYS)


def read(folder: Folder, files: Sequence[Path], choices: Choices) -> Source:
    """The images and objects of COCO files.

    A file's split is the one in its name or folder. Objects are drawn in the order of the file, crowds beneath them
    as ignored.
    """
    told: list[str] = []
    found: dict[Path, Annotated] = {}
    labels: dict[str, None] = {}
    boxes = Counter[str]()
    absent: list[str] = []
    for path in files:
        content = load(path)
        if not fits(content):
            raise UserError(f"{path}: is not COCO's; its keys {', '.join(KEYS)} must be lists")
        split = words.split_of(path.stem, path.parent.name)
        names = _categories(content, path, told)
        labels |= dict.fromkeys(names.values())
        images = _images(content, path)
        objects, crowds = _objects(content, path, names, images, choices, boxes, told)
        for key, image in images.items():
            file = folder.find(image["file_name"], path, split)
            if file is None:
                absent.append(image["file_name"])
                continue
            if file in found:
                other = f", or give one file: input={path}" if len(files) > 1 else ""
                raise UserError(
                    f"{path}: image {image['file_name']!r} (id {key!r}) is {file}, which is there once before; "
                    f"keep one of them{other}"
                )
            drawn = [*crowds[key], *objects[key]]
            stated = size(image, f"{path}: image {image['file_name']!r}")
            found[file] = Annotated(file, _drawer(drawn) if drawn else None, stated, split)
    told += missing(absent, files[0] if len(files) == 1 else folder.root, choices.missing)
    told += tell_boxes(boxes)
    return Source(list(found.values()), list(labels), told)


def _drawer(drawn: list[Object]) -> Any:
    return lambda height, width: drawn


def _categories(content: Mapping[str, Any], path: Path, told: list[str]) -> dict[Any, str]:
    """Name of each category id; without the parent that Roboflow lists as the first one."""
    names: dict[Any, str] = {}
    parents = [c.get("supercategory") for c in content["categories"] if isinstance(c, dict)]
    ids = [entry.get("category_id") for entry in content["annotations"] if isinstance(entry, dict)]
    used = {key for key in ids if _hashable(key)}
    for entry in content["categories"]:
        key, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if type(key) not in (int, str) or not isinstance(name, str) or not name.strip():
            raise UserError(f"{path}: categories: {entry!r} needs an id and a name; correct it")
        if key in names and names[key] != name:
            raise UserError(f"{path}: categories: id {key!r} is both {names[key]!r} and {name!r}; give each its own")
        if key not in used and entry.get("supercategory") in (None, "", "none") and name in parents:
            told.append(f"{path.name}: category {name!r} has no object and is the parent of others: no class")
            continue
        names[key] = name.strip()
    told += shared(names.values(), path)
    return names


def _images(content: Mapping[str, Any], path: Path) -> dict[Any, Mapping[str, Any]]:
    images: dict[Any, Mapping[str, Any]] = {}
    for entry in content["images"]:
        key = entry.get("id") if isinstance(entry, dict) else None
        if type(key) not in (int, str) or not isinstance(entry.get("file_name"), str):
            raise UserError(f"{path}: images: {str(entry)[:200]} needs an id and a file_name; correct it")
        if key in images:
            raise UserError(f"{path}: images: id {key!r} is there twice, so whose objects are whose? Give each its own")
        images[key] = entry
    return images


def _objects(
    content: Mapping[str, Any], path: Path, names: Mapping[Any, str], images: Mapping[Any, Any], choices: Choices,
    boxes: Counter[str], told: list[str],
) -> tuple[Mapping[Any, list[Object]], Mapping[Any, list[Object]]]:  # fmt: skip
    """Objects and crowds of each image id."""
    objects: dict[Any, list[Object]] = defaultdict(list)
    crowds: dict[Any, list[Object]] = defaultdict(list)
    homeless: list[str] = []
    ids: set[Any] = set()
    again: list[str] = []
    for place, entry in enumerate(content["annotations"]):
        if not isinstance(entry, dict):
            raise UserError(f"{path}: annotations[{place}]: {entry!r} is no mapping; correct or remove it")
        where = f"{path}: annotations[{place}] (id {entry.get('id')!r})"
        if "segments_info" in entry:
            raise UserError(f"{where}: is panoptic, which is not read; give COCO's instances file")
        if not _hashable(entry.get("image_id")) or entry.get("image_id") not in images:
            homeless.append(where)
            continue
        if not _hashable(entry.get("category_id")) or entry.get("category_id") not in names:
            raise UserError(
                f"{where}: category_id={entry.get('category_id')!r} is none of categories {list(names)[:20]}; add it "
                f"there, or correct it"
            )
        if _hashable(entry.get("id")) and entry.get("id") is not None:
            again += [where] if entry["id"] in ids else []
            ids.add(entry["id"])
        label, shape = names[entry["category_id"]], _shape(entry, where, choices, boxes)
        if shape is None:
            continue
        if entry.get("iscrowd") in (1, True) and choices.crowd != "object":
            crowds[entry["image_id"]].append(Object(IGNORE, shape))
        else:
            objects[entry["image_id"]].append(Object(label, shape))
    if len(homeless) == len(content["annotations"]) > 0:
        raise UserError(
            f"{homeless[0]}: image_id={content['annotations'][0].get('image_id')!r} is no id of images, such as "
            f"{next(iter(images), None)!r}, and so are all others; correct them, or give the images' own file"
        )
    if homeless:
        told.append(f"left out {counted(homeless, 'object')} whose image_id no image has")
    if again:
        told.append(f"{counted(again, 'object')} with the id of another; both are drawn")
    if crowds and not objects and choices.crowd is None:
        raise UserError(
            f"{path}: every object is a crowd (iscrowd=1), as CVAT writes what was drawn with its brush; crowd=object "
            f"takes them as objects, crowd=ignore leaves these pixels out of loss and metrics"
        )
    if crowds:
        number = sum(map(len, crowds.values()))
        told.append(f"{number} crowds (iscrowd=1) are ignored where no object lies over them; crowd=object draws them")
    return objects, crowds


def _shape(entry: Mapping[str, Any], where: str, choices: Choices, boxes: Counter[str]) -> raster.Shape | None:
    given = entry.get("segmentation")
    if isinstance(given, list) and given:
        rings = given if isinstance(given[0], list) else [given]
        if not all(isinstance(ring, list) for ring in rings):
            raise UserError(f"{where}: segmentation must be a list of lists [x, y, x, y, …]; correct or remove it")
        parts = [partial(raster.polygon, [points(ring, f"{where}: segmentation")]) for ring in rings]
        return parts[0] if len(parts) == 1 else partial(raster.union, parts)
    if isinstance(given, dict):
        counts, sides = given.get("counts"), given.get("size")
        if not isinstance(counts, str | list) or not isinstance(sides, list) or len(sides) != 2:
            raise UserError(f"{where}: segmentation needs size [height, width] and counts; correct or remove it")
        return partial(_runs, counts, sides, where)
    if entry.get("bbox"):
        boxes[choices.boxes] += 1
        if choices.boxes != "fill":
            return None
        corner = points(entry["bbox"], f"{where}: bbox", 2)
        (x, y), (w, h) = corner[:2]
        return partial(raster.box, x, y, x + w, y + h)
    boxes["nothing"] += 1
    return None


def _runs(counts: Any, sides: Any, where: str, height: int, width: int) -> raster.Patch:
    if sides != [height, width]:
        raise UserError(f"{where}: its run lengths are of size {sides}, the image is [{height}, {width}]; correct it")
    try:
        lengths = runs.unpack(counts) if isinstance(counts, str) else counts
        return raster.Patch(0, 0, runs.decode(lengths, height, width, by_column=True))
    except UserError as error:
        raise UserError(f"{where}: {error}; correct or remove it") from None


def _hashable(value: Any) -> bool:
    return isinstance(value, str | int | float | None)
