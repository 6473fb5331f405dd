"""Images for people: masks in colour, overlays, and panels of image, truth, prediction and errors."""

import os
from collections.abc import Sequence
from pathlib import Path
from threading import get_ident

import cv2
import numpy as np
from numpy.typing import NDArray

from segnet.data.masks import IGNORE_INDEX

Image = NDArray[np.uint8]
DEFECT = (230, 30, 60)
VOID = (90, 90, 90)
MISSED = (255, 150, 0)
FALSE_ALARM = (60, 140, 255)
WRONG = (255, 60, 60)
SIDE = 1024  # of a panel's images at most, where they are larger than the network's input
STRIP = 2**20  # pixels drawn at a time, so that large images take little more than their own memory


def palette(num_classes: int, colors: Sequence[Sequence[int]] | None = None) -> NDArray[np.uint8]:
    """RGB (256, 3) uint8 by class index; `IGNORE_INDEX` is grey. A binary task has black and the defect's colour.

    Without given colours hues are spread by the golden angle, which keeps neighbours apart.
    """
    table = np.zeros((256, 3), np.uint8)
    if num_classes == 1:
        table[1] = colors[0] if colors is not None else DEFECT
    elif colors is not None:
        table[:num_classes] = colors
    else:
        hue = (np.arange(num_classes) * 137.508) % 360
        value = 0.6 + 0.4 * (np.arange(num_classes) % 2)
        hsv = np.stack([hue, np.full(num_classes, 0.75), value], 1)[None].astype(np.float32)
        table[:num_classes] = np.rint(255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0])
    table[IGNORE_INDEX] = VOID
    return table


def overlay(image: Image, mask: NDArray[np.integer], table: Image, binary: bool) -> Image:
    """Blend class colours over an image (H, W, 3), half and half; a binary task leaves the background alone."""
    out = np.empty_like(image)
    rows = max(1, STRIP // image.shape[1])
    for top in range(0, len(image), rows):
        part, classes = image[top : top + rows], mask[top : top + rows]
        mixed = (part.astype(np.uint16) + table[classes]) // 2
        out[top : top + rows] = np.where((classes == 0)[..., None] & binary, part, mixed)
    return out


def errors(image: Image, truth: NDArray[np.integer], prediction: NDArray[np.integer], binary: bool) -> Image:
    """The image (H, W, 3) in dim grey, wrong pixels `MISSED` or `FALSE_ALARM`; of several classes `WRONG`."""
    grey = image.mean(axis=2, keepdims=True, dtype=np.float32) / 2
    out = np.repeat(grey.astype(np.uint8), 3, axis=2)
    wrong = (truth != prediction) & (truth != IGNORE_INDEX)
    out[wrong] = WRONG
    if binary:
        out[wrong & (truth == 1)] = MISSED
        out[wrong & (truth == 0)] = FALSE_ALARM
    return out


def panel(
    image: Image, truth: NDArray[np.integer], prediction: NDArray[np.integer], table: Image, binary: bool
) -> Image:
    """Image, truth, prediction and errors side by side with a white rule: (H, 4 W + 3·8, 3) uint8 RGB."""
    rule = np.full((image.shape[0], 8, 3), 255, np.uint8)
    shown = [image, *(overlay(image, mask, table, binary) for mask in (truth, prediction))]
    shown.append(errors(image, truth, prediction, binary))
    return np.concatenate([part for one in shown for part in (rule, one)][1:], axis=1)


def drawn_at(size: Sequence[int]) -> tuple[int, int]:
    """(height, width) that an image of this size is drawn at: no side above `SIDE`."""
    height, width = (max(1, round(side * min(1, SIDE / max(size)))) for side in size)
    return height, width


def grid(panels: Sequence[Image]) -> Image:
    """Panels below each other with a white rule, narrower ones filled up with white: uint8 RGB (H, W, 3)."""
    width = max(panel.shape[1] for panel in panels)
    rule = np.full((8, width, 3), 255, np.uint8)
    wide = [np.pad(p, [(0, 0), (0, width - p.shape[1]), (0, 0)], constant_values=255) for p in panels]
    return np.concatenate([part for one in wide for part in (rule, one)][1:])


def save(path: Path, image: Image) -> None:
    """Write uint8 (H, W, 3) RGB or (H, W), in the format that the suffix names.

    Programs that watch the folder see the old file or the new one, whole; unlike `segnet.files.atomic_write` it does
    not wait for the disk.

    Raises:
        OSError: the file cannot be written.
    """
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, content = cv2.imencode(path.suffix, ordered)
    if not done:
        raise OSError(f"{path}: an image of {image.shape} could not be encoded")
    part = path.with_name(f".{os.getpid():x}-{get_ident():x}.part")  # short: the name itself may have no room for more
    try:
        part.write_bytes(content.data)  # not by OpenCV, which crashes on a name that is not valid UTF-8
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise
