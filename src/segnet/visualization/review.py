"""Panels to review a network by: titles above, the names of the colours below, at a size that shows something."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from segnet.data.images import resize_mask
from segnet.data.masks import IGNORE_INDEX
from segnet.visualization.overlays import FALSE_ALARM, MISSED, VOID, WRONG, Image, panel

TITLES = ("image", "truth", "prediction", "errors")
LEAST, MOST = 256, 480  # pixels of an image's longer side
RULE, LINE, SWATCH = 8, 26, 14


def review(
    image: Image,
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    table: Image,
    classes: Sequence[str],
    size: Sequence[int],
) -> Image:
    """A `panel` with a title above each column and a legend below, in the proportions of ``size``.

    Args:
        image: (H, W, 3), as the network gets it.
        truth: (H, W), class indices.
        prediction: as ``truth``.
        table: from `segnet.visualization.overlays.palette`.
        classes: their names; one is a binary task.
        size: height and width of the image's file.

    Returns:
        uint8 RGB (H', W', 3); each of the four images has ``size``, enlarged or reduced to a longer side of `LEAST` to
        `MOST` pixels.
    """
    scale = min(max(max(size), LEAST), MOST) / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    way = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR
    shown = cv2.resize(image, (width, height), interpolation=way)
    masks = [resize_mask(mask.astype(np.uint8), (height, width)) for mask in (truth, prediction)]
    binary = len(classes) == 1
    drawn = panel(np.asarray(shown, np.uint8), masks[0], masks[1], table, binary)
    entries = [(table[i + binary], name) for i, name in enumerate(classes)]
    entries += [(MISSED, "missed"), (FALSE_ALARM, "false alarm")] if binary else [(WRONG, "wrong")]
    entries += [(VOID, "ignored")] if (truth == IGNORE_INDEX).any() else []
    titles = _line(drawn.shape[1], [(i * (width + RULE), None, title) for i, title in enumerate(TITLES)])
    return np.concatenate([titles, drawn, *legend(drawn.shape[1], entries)])


def legend(width: int, entries: Sequence[tuple[Sequence[int], str]]) -> list[Image]:
    """Lines (`LINE`, width, 3) with a swatch of each colour and its name, as many as it takes."""
    lines: list[list[tuple[int, Sequence[int] | None, str]]] = [[]]
    left = 0
    for color, name in entries:
        needed = SWATCH + 8 + round(_font().getlength(name)) + 20
        if lines[-1] and left + needed > width:
            lines.append([])
            left = 0
        lines[-1].append((left, color, name))
        left += needed
    return [_line(width, line) for line in lines]


def _line(width: int, parts: Sequence[tuple[int, Sequence[int] | None, str]]) -> Image:
    """White, with texts at their places, and a swatch before those that have a colour."""
    canvas = Pillow.new("RGB", (width, LINE), "white")
    draw = ImageDraw.Draw(canvas)
    for left, color, text in parts:
        if color is not None:
            top = (LINE - SWATCH) // 2
            fill = tuple(int(value) for value in color)
            draw.rectangle((left, top, left + SWATCH - 1, top + SWATCH - 1), fill=fill, outline="grey")
            left += SWATCH + 6
        draw.text((left, LINE // 2), text, fill="black", font=_font(), anchor="lm")
    return np.asarray(canvas)


@cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which Matplotlib brings; it knows more letters than OpenCV's and Pillow's own fonts."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 15)
