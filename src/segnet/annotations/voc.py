"""Pascal VOC: ``SegmentationClass/`` with masks in palette colours, names in ``labelmap.txt``, splits in lists."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from segnet.annotations import cvat, raster, words
from segnet.annotations.asked import missing
from segnet.annotations.folder import Folder, read_text
from segnet.annotations.records import BACKGROUND, IGNORE, Annotated, Choices, Object, Source, Split
from segnet.data.decoding import EXTENSIONS, LOSSY, header
from segnet.data.images import read_raw_mask
from segnet.data.listing import amount, composed
from segnet.data.values import RGB, packed
from segnet.errors import UserError

MASKS = "SegmentationClass"
NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOID = (224, 224, 192)  # the colour of VOC's border
Color = tuple[int, int, int]


def color(index: int) -> Color:
    """Of VOC's palette: the bits of the index spread over the channels, from the highest bits down."""
    return tuple(sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3))  # type: ignore[return-value]


def fits(folder: Folder) -> list[Path]:
    """The folders of masks."""
    return sorted({path.parent for path in folder.with_suffix(*EXTENSIONS) if path.parent.name == MASKS})


def read(folder: Folder, files: Sequence[Path], choices: Choices) -> Source:
    """The images and masks of VOC folders.

    The colour of a pixel says its class: by ``labelmap.txt``, else by VOC's palette. VOC's border is ignored.
    """
    told: list[str] = []
    table, labels, named = _classes(folder, files, told)
    found: dict[Path, Annotated] = {}
    absent: list[str] = []
    for masks in files:
        base = masks.parent
        stems = {composed(path.stem): path.stem for path in folder.images}
        lists = _splits(base / "ImageSets" / "Segmentation", stems.keys(), told)
        splits = {stems.get(composed(name), name): split for name, split in lists.items()}
        for path in [path for path in folder.with_suffix(*EXTENSIONS) if path.parent == masks]:
            if path.suffix.lower() in LOSSY:
                raise UserError(f"{path}: JPEG changes colours, so it holds no classes; give PNG")
            image = _image(folder, path)
            if image is None:
                absent.append(path.name)
                continue
            found[image] = Annotated(image, partial(_drawn, path, table), header(path)[:2], splits.get(path.stem))
        bare = [path for path in folder.images if path.parent == base / "JPEGImages" and path not in found]
        listed = [path for path in bare if not splits or path.stem in splits]
        found |= {path: Annotated(path, None, split=splits.get(path.stem)) for path in listed}
        if rest := len(bare) - len(listed):
            told.append(f"left out {amount(rest, 'image')} of JPEGImages without a mask, in no list")
        there = {path.stem for path in found}
        absent += [name for name in splits if name not in there and name not in {Path(a).stem for a in absent}]
    told += missing(absent, folder.root, choices.missing)
    return Source(list(found.values()), labels, told, named)


def _classes(folder: Folder, files: Sequence[Path], told: list[str]) -> tuple[dict[Color, str], list[str], bool]:
    """The label of each colour; labels in order; whether they are names."""
    maps = [path for path in folder.files if path.name == "labelmap.txt"]
    if maps:
        table = _label_map(maps)
        labels = [label for label in dict.fromkeys(table.values()) if label != IGNORE]
        return {VOID: IGNORE, (0, 0, 0): BACKGROUND[0]} | table, labels, True
    colors = {color(i): i for i in range(1, 255)}
    masks = [path for path in folder.with_suffix(*EXTENSIONS) if path.parent in files]
    shown = {_color(code) for path in masks for code in np.unique(_codes(path, colors))}
    used = sorted(colors[shade] for shade in shown if shade in colors)
    annotated = {o.findtext("name") for path in folder.with_suffix(".xml") for o in _objects(path)}
    if annotated and annotated <= set(NAMES) and max(used, default=0) <= len(NAMES):
        told.append("no labelmap.txt, and Annotations/ names objects of Pascal VOC: the 20 classes are VOC's")
        table = {color(i): name for i, name in enumerate(NAMES, 1)}
        return table | {color(0): BACKGROUND[0], VOID: IGNORE}, list(NAMES), True
    told.append("no labelmap.txt: classes are numbered by VOC's palette; 'classes=[a,b]' names them in this order")
    table = {color(i): str(i) for i in used}
    return table | {color(0): BACKGROUND[0], VOID: IGNORE}, [str(i) for i in used], False


def _label_map(files: Sequence[Path]) -> dict[Color, str]:
    """The label of each colour in files of lines ``name:r,g,b::``."""
    table: dict[Color, str] = {}
    for path in files:
        for number, line in enumerate(read_text(path, "label map").splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, _, rest = line.strip().partition(":")
            try:
                shade = tuple(int(v) for v in rest.split(":")[0].split(","))
            except ValueError:
                shade = ()
            if len(shade) != 3 or not all(0 <= v <= 255 for v in shade) or table.get(shade, name) != name:
                raise UserError(f"{path}:{number}: {line.strip()!r} must be name:r,g,b::, each colour once; correct it")
            table[shade] = IGNORE if shade == VOID and name in ("void", "ignore", "ignored") else name
    return table


def _objects(path: Path) -> list[Element]:
    root = cvat.load(path)
    return root.findall("object") if root.tag == "annotation" else []


def _color(code: np.uint32) -> Color:
    return int(code) >> 16, int(code) >> 8 & 255, int(code) & 255


def _codes(path: Path, known: Collection[Color]) -> NDArray[np.uint32]:
    """(H, W) colours as 24-bit numbers. Grey values that are no known colours are indices of VOC's palette."""
    raw: NDArray[np.uint8] = read_raw_mask(path, "rgb")
    if (raw == raw[..., :1]).all() and not {(v, v, v) for v in np.unique(raw).tolist()} <= set(known):
        raw = np.array([color(i) for i in range(256)], np.uint8)[raw[..., 0]]
    return packed(raw) & RGB


def _drawn(path: Path, table: Mapping[Color, str], height: int, width: int) -> Iterator[Object]:
    codes = _codes(path, table)
    if codes.shape != (height, width):
        raise UserError(f"{path}: is {codes.shape[1]}×{codes.shape[0]}, its image {width}×{height}; give both alike")
    for code in np.unique(codes):
        if (label := table.get(shade := _color(code))) is None:
            line = ",".join(map(str, shade))
            raise UserError(f"{path}: the colour {line} is no class; add a line <name>:{line}:: to labelmap.txt")
        if label not in BACKGROUND:
            yield Object(label, partial(raster.stored, codes == code, 0, 0))


def _image(folder: Folder, mask: Path) -> Path | None:
    """The image of a mask, which lies in a folder beside that of the masks, or below ``images=<folder>``."""
    base = mask.parent.parent
    places = [folder.image_root] if folder.image_root != folder.root else [base / "JPEGImages", base / "images", base]
    for place in places:
        for suffix in (*EXTENSIONS, *(suffix.upper() for suffix in EXTENSIONS)):
            if folder.has(path := place / f"{mask.stem}{suffix}"):
                return path
    found = folder.find(mask.stem, mask)
    return None if found is None or words.is_mask(found.relative_to(folder.image_root)) else found


def _splits(folder: Path, stems: Collection[str], told: list[str]) -> dict[str, Split]:
    """The split of each name in the lists; ``trainval.txt`` and others that name no single split say nothing.

    A line is a name, with suffix or not, or a name and a number.
    """
    found: dict[str, Split] = {}
    lists = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    for path in lists:
        split = words.split_of(path.stem)
        for line in read_text(path, "list").splitlines() if split else []:
            if line.strip():
                parts = (line.strip(), line.rsplit(maxsplit=1)[0], line.split()[0])
                tries = [Path(part.replace("\\", "/")) for part in parts]
                names = [name for file in tries for name in (file.name, file.stem)]
                name = next((name for name in names if composed(name) in stems), tries[-1].name)
                if found.setdefault(name, split) != split:  # type: ignore[arg-type]
                    told.append(f"{path.name} and another list name {name}, so the lists are not taken")
                    return {}
    return found
