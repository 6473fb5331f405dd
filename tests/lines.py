"""Images larger than the network's input, with thin bright lines, for the tests of crops."""

import sys
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


def hairlines(root: Path, images: int, height: int, width: int) -> None:
    """JPEG images of a soft texture with noise, and one to four wandering dark lines, three pixels wide, in each."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i in range(images):
        rng = np.random.default_rng(i)
        coarse = rng.normal(0, 12, (height // 16 + 2, width // 16 + 2)).astype(np.float32)
        grey = 130 + cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        grey += 10 * rng.standard_normal((height, width), dtype=np.float32)
        mask = np.zeros((height, width), np.uint8)
        for _ in range(rng.integers(1, 5)):
            points, angle = [rng.uniform(0.2, 0.8, 2) * (width, height)], rng.uniform(0, 2 * np.pi)
            for _ in range(max(height, width) // 100 + 2):
                angle += rng.normal(0, 0.35)
                points.append(points[-1] + 60 * np.array([np.cos(angle), np.sin(angle)]))
            line = np.round(points).astype(np.int32)
            cv2.polylines(mask, [line], False, 255, 2)  # OpenCV draws this three pixels wide
        image = (grey - 45 * (mask > 0)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(root / "images" / f"{i:02d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        cv2.imwrite(str(root / "masks" / f"{i:02d}.png"), mask)


if __name__ == "__main__":  # python tests/lines.py <new folder> <images> <height> <width>
    hairlines(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
