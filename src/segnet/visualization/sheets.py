"""Contact sheets: a row an image, with a line above it that says which."""

from collections.abc import Sequence

import cv2
import numpy as np

from segnet.visualization.overlays import Image, grid

LINE = 18  # pixels


def captioned(text: str, image: Image) -> Image:
    """An image (H, W, 3) below a line of text; the line is cut where the image ends."""
    line = np.full((LINE, image.shape[1], 3), 255, np.uint8)
    plain = text.encode("ascii", "replace").decode()  # OpenCV's letters
    cv2.putText(line, plain, (2, LINE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([line, image])


def sheet(rows: Sequence[tuple[str, Image]]) -> Image:
    """Rows of a line of text and an image (H, W, 3), below each other: uint8 RGB (H, W, 3)."""
    return grid([captioned(text, image) for text, image in rows])
