"""Data of one's own: called where the folder is missing, it makes (or downloads) images and masks."""

from pathlib import Path

import numpy as np
from PIL import Image


def write(root: Path, images: int, size: int) -> None:
    """Draw bright discs on noise: ``images/*.png`` RGB and ``masks/*.png``, 255 on a disc."""
    for name in ("images", "masks"):
        (Path(root) / name).mkdir(parents=True)
    row, column = np.mgrid[:size, :size]
    for i in range(images):
        draw = np.random.default_rng(i)
        middle, radius = draw.uniform(0.2, 0.8, 2) * size, draw.uniform(0.1, 0.25) * size
        disc = (row - middle[0]) ** 2 + (column - middle[1]) ** 2 < radius**2
        image = draw.normal(100, 30, (size, size, 3)) + 60 * disc[..., None]
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(Path(root) / "images" / f"{i:03d}.png")
        Image.fromarray(disc.astype(np.uint8) * 255).save(Path(root) / "masks" / f"{i:03d}.png")
