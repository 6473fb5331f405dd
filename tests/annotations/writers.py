"""Data sets in the formats of other programs, written from binary masks without any code of the package."""

import base64
import csv
import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

VOC = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)  # of Pascal VOC: background, aeroplane, bicycle


def read(source: Path) -> dict[str, np.ndarray]:
    """The masks of images/ and masks/ by stem, bool."""
    return {p.stem: cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) > 127 for p in sorted((source / "masks").iterdir())}


def imported(folder):
    """The masks that were written, by stem."""
    return {p.stem: cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted((folder / "masks").iterdir())}


def sources(folder):
    """The source of each image, by names.csv."""
    with (folder / "names.csv").open() as file:
        return {row["image"]: row["source"] for row in csv.DictReader(file)}


def rectangles(mask):
    """Exact: each run of a row as the rectangle that its pixels fill."""
    found = []
    for y, row in enumerate(mask):
        ends = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        found += [[x0, y, x1, y, x1, y + 1, x0, y + 1] for x0, x1 in ends.reshape(-1, 2).tolist()]
    return found


def contours(mask):
    """As annotators draw: OpenCV's outer contours through the centres of the pixels."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [(c.reshape(-1, 2) + 0.5).ravel().tolist() for c in found if len(c) > 2]


def pairs(flat):
    return np.reshape(flat, (-1, 2)).tolist()


def images(source, target):
    shutil.copytree(source / "images", target)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def runs(mask, order):
    flat = mask.ravel(order=order).astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def coco(source, target, kind):
    images(source, target / "images")
    content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "defect", "supercategory": ""}]}
    for number, (name, mask) in enumerate(read(source).items(), 100):
        height, width = mask.shape
        content["images"].append({"id": number, "file_name": f"{name}.png", "height": height, "width": width})
        packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        shape = {
            "rows": lambda m=mask: rectangles(m),
            "contours": lambda m=mask: contours(m),
            "packed": lambda p=packed: {"size": p["size"], "counts": p["counts"].decode()},
            "plain": lambda m=mask: {"size": list(m.shape), "counts": runs(m, "F")},
        }[kind]()
        if mask.any():
            entry = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": 7, "iscrowd": 0}
            content["annotations"].append(
                entry | {"segmentation": shape, "bbox": [0, 0, 1, 1], "area": int(mask.sum())}
            )
    (target / "annotations").mkdir()
    (target / "annotations" / "instances_default.json").write_text(json.dumps(content))


def labelme(source, target, kind):
    target.mkdir(parents=True)
    for name, mask in read(source).items():
        image = source / "images" / f"{name}.png"
        base = {"label": "defect", "group_id": 1, "flags": {}, "description": ""}
        if kind == "mask":
            y, x = np.nonzero(mask)
            box = [[int(x.min()), int(y.min())], [int(x.max()), int(y.max())]] if len(x) else []
            cut = mask[y.min() : y.max() + 1, x.min() : x.max() + 1] if len(x) else mask
            shapes = [base | {"shape_type": "mask", "points": box, "mask": png(cut)}] if len(x) else []
        elif kind == "rectangles":
            shapes = [
                base | {"shape_type": "rectangle", "points": [[r[4], r[5]], [r[0], r[1]]], "mask": None}
                for r in rectangles(mask)
            ]
        else:
            shapes = [base | {"shape_type": "polygon", "points": pairs(c), "mask": None} for c in contours(mask)]
        data = base64.b64encode(image.read_bytes()).decode() if kind == "mask" else None
        if kind != "mask":
            shutil.copy(image, target)
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png", "imageData": data}
        size = {"imageHeight": mask.shape[0], "imageWidth": mask.shape[1]}
        (target / f"{name}.json").write_text(json.dumps(content | size))


def cvat(source, target, kind):
    images(source, target / "images")
    parts = []
    for number, (name, mask) in enumerate(read(source).items()):
        shapes = ""
        if kind == "mask" and mask.any():
            x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
            counts = ", ".join(map(str, runs(mask[y : y + h, x : x + w], "C")))
            shapes = f'<mask label="defect" rle="{counts}" left="{x}" top="{y}" width="{w}" height="{h}" z_order="0"/>'
        elif kind == "polygon":
            for row in rectangles(mask):
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in pairs(row))
                shapes += f'<polygon label="defect" points="{points}" z_order="0" occluded="0"></polygon>'
        elif kind == "box":
            for r in rectangles(mask):
                shapes += f'<box label="defect" xtl="{r[0]}" ytl="{r[1]}" xbr="{r[4]}" ybr="{r[5]}" z_order="0"/>'
        size = f'width="{mask.shape[1]}" height="{mask.shape[0]}"'
        parts.append(f'<image id="{number}" name="{name}.png" {size}>{shapes}</image>')
    labels = "<meta><job><labels><label><name>defect</name></label></labels></job></meta>"
    text = f"<annotations><version>1.1</version>{labels}{''.join(parts)}</annotations>"
    (target / "annotations.xml").write_text(f'<?xml version="1.0" encoding="utf-8"?>{text}')


def yolo(source, target, kind):
    for folder in ("images", "labels"):
        (target / "train" / folder).mkdir(parents=True)
    for name, mask in read(source).items():
        shutil.copy(source / "images" / f"{name}.png", target / "train" / "images")
        shapes = rectangles(mask) if kind == "rows" else contours(mask)
        scale = np.array(mask.shape[::-1])
        lines = ["0 " + " ".join(map(repr, (np.reshape(s, (-1, 2)) / scale).ravel().tolist())) for s in shapes]
        (target / "train" / "labels" / f"{name}.txt").write_text("\n".join(lines))
    names = ["defect"] if kind == "rows" else {0: "defect"}
    content = {"path": "/datasets/gone", "train": "../train/images", "nc": 1, "names": names}
    (target / "data.yaml").write_text(yaml.safe_dump(content))


def voc(source, target, kind):
    (target / "SegmentationClass").mkdir(parents=True)
    images(source, target / "JPEGImages")
    for name, mask in read(source).items():
        file = Image.fromarray(mask.astype(np.uint8))
        if kind == "palette":
            file = file.convert("P")
            file.putpalette(VOC.ravel().tolist())
        elif kind == "labelmap":
            file = Image.fromarray(np.array([[0, 0, 0], [250, 50, 83]], np.uint8)[mask.astype(int)])
        file.save(target / "SegmentationClass" / f"{name}.png")
    if kind == "labelmap":
        lines = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndefect:250,50,83::\n"
        (target / "labelmap.txt").write_text(lines)


def objects(mask):
    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return [parts == i for i in range(1, count)]


def masks(source, target, kind):
    """Mask files; an image without an object has none where there is one for each object."""
    images(source, target / ("images" if kind != "other names" else "all"))
    for number, (name, mask) in enumerate(read(source).items()):
        white = mask.astype(np.uint8) * 255
        parts = [part.astype(np.uint8) * 255 for part in objects(mask)]
        match kind:
            case "folder for each image":
                files = {f"masks/{name}/{i}.png": part for i, part in enumerate(parts)}
            case "number behind the name":
                files = {f"masks/{name}_{i}.png": part for i, part in enumerate(parts)}
            case "folder for each class":
                files = {f"masks/defect/{name}.png": white}
            case "class beside images":
                files = {f"defect/{name}.png": white}
            case "0 and 1":
                files = {f"labels/{name}.png": mask.astype(np.uint8)}
            case "npy bool":
                files = {f"masks/{name}.npy": mask}
            case "npy float":
                files = {f"masks/{name}.npy": np.where(mask, 0.83, 0.12).astype(np.float32)[None]}
            case "npy integer":
                files = {f"{name}.npy": mask.astype(np.int64)}
            case "float image":
                files = {f"gt/{name}.tif": mask.astype(np.float32)}
            case "palette in grey":
                files = {f"annot/{name}_seg.gif": white}
            case "colour":
                files = {f"masks/{name}.bmp": np.where(mask[..., None], np.uint8([0, 0, 255]), np.uint8(0))}
            case "other names":
                files = {f"all/{name}_mask.png": white}
                (target / "all" / f"{name}.png").rename(target / "all" / f"{name}_sat.png")
            case "numbers":
                files = {f"Ground Truth/gt{number:03d}.png": white}
                (target / "images" / f"{name}.png").rename(target / "images" / f"img_{number:04d}.png")
        for file, content in files.items():
            path = target / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".npy":
                np.save(path, content)
            else:
                Image.fromarray(content[..., ::-1] if content.ndim == 3 else content).save(path)


WRITERS = {"coco": coco, "labelme": labelme, "cvat": cvat, "yolo": yolo, "voc": voc, "masks": masks}
EXACT = [
    *(("coco", kind) for kind in ("rows", "packed", "plain")),
    *(("labelme", kind) for kind in ("mask", "rectangles")),
    *(("cvat", kind) for kind in ("mask", "polygon", "box")),
    ("yolo", "rows"),
    *(("voc", kind) for kind in ("palette", "labelmap", "grey")),
    *(("masks", kind) for kind in ("folder for each image", "number behind the name", "folder for each class")),
    *(("masks", kind) for kind in ("class beside images", "0 and 1", "npy bool", "npy float", "npy integer", "colour")),
    *(("masks", kind) for kind in ("float image", "palette in grey", "other names", "numbers")),
]
DRAWN = [("coco", "contours"), ("labelme", "contours"), ("yolo", "contours")]
