"""Images larger than the network's input, with thin bright lines, for the tests of crops."""

from pathlib import Path

import cv2
import numpy as np


def write(root: Path, images: int = 12, height: int = 150, width: int = 200, thickness: int = 4) -> None:
    """images/ and masks/ (0 and 255); sizes differ by a few pixels, and every fourth image has no line."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i in range(images):
        rng = np.random.default_rng(i)
        size = (height + i % 3, width - i % 5)
        mask = np.zeros(size, np.uint8)
        for _ in range(0 if i % 4 == 3 else 3):
            first, last = (rng.integers(0, size[::-1]).tolist() for _ in range(2))
            cv2.line(mask, first, last, 255, thickness)
        image = rng.normal(90, 12, (*size, 3)) + 110 * (mask > 0)[..., None]
        cv2.imwrite(str(root / "images" / f"{i:02d}.png"), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(root / "masks" / f"{i:02d}.png"), mask)
