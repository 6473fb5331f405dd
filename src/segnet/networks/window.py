"""A window that slides over an image: where it stands, and how overlapping answers are blended.

Validation, test, prediction and exported models share this, so that their figures are those of deployment.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

OVERLAP = 0.25  # share of a window that the next one covers again
BATCH = 4  # windows at a time
Size = tuple[int, int]
Corner = tuple[int, int]


def starts(side: int, window: int, overlap: float = OVERLAP) -> list[int]:
    """First pixels of the windows along a side, evenly spread, the last one flush with the end."""
    if side <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    count = -(-(side - window) // step) + 1
    return [round(i * (side - window) / (count - 1)) for i in range(count)]


def pyramid(window: Size) -> Tensor:
    """Weights float32 (h, w) of a window's pixels: they fall from its centre to its edges, and are above 0."""
    rows, columns = (torch.linspace(-1, 1, side + 2)[1:-1].abs().neg().add(1) for side in window)
    return rows[:, None] * columns[None]


def reflect(side: int, length: int) -> NDArray[np.int64]:
    """Indices (length,) into a side that continue it past its end by mirror images, the last pixel not repeated."""
    period = max(1, 2 * (side - 1))
    at = np.arange(length) % period
    return np.minimum(at, period - at) if side > 1 else np.zeros(length, np.int64)


def padded(image: Tensor, window: Size) -> Tensor:
    """An image (1, 3, H, W) of at least the window's size: a shorter side is mirrored at its lower or right end."""
    for axis, side in zip((-2, -1), window, strict=True):
        if image.shape[axis] < side:
            index = torch.from_numpy(reflect(image.shape[axis], side)).to(image.device)
            image = image.index_select(image.ndim + axis, index)
    return image


def slide(
    image: Tensor,
    window: Size,
    run: Callable[[Sequence[Tensor], Sequence[Corner]], Iterable[Tensor]],
    channels: int,
    overlap: float = OVERLAP,
    batch_size: int = BATCH,
) -> Tensor:
    """Blend what a network says of overlapping windows of an image, by the weights of `pyramid`.

    Args:
        image: (1, 3, H, W); along a side that is shorter than the window, the window is as short.
        window: its height and width.
        run: gives (channels, h, w) of each of some windows (1, 3, h, w), whose upper left corners it gets too.
        channels: how many it gives.
        overlap: share of a window that the next one covers again, in [0, 1).
        batch_size: windows at a time.

    Returns:
        float32 (channels, H, W), where the image is.
    """
    height, width = image.shape[-2:]
    corners = [(top, left) for top in starts(height, window[0], overlap) for left in starts(width, window[1], overlap)]
    h, w = min(window[0], height), min(window[1], width)
    weight = pyramid(window)[:h, :w].to(image.device)
    total: Tensor = torch.zeros(channels, height, width, device=image.device)
    weights = torch.zeros(height, width, device=image.device)
    for start in range(0, len(corners), batch_size):
        part = corners[start : start + batch_size]
        windows = [image[..., t : t + h, s : s + w] for t, s in part]
        for (t, s), answer in zip(part, run(windows, part), strict=True):
            total[:, t : t + h, s : s + w] += answer * weight
            weights[t : t + h, s : s + w] += weight
    return total.div_(weights)


def size_at(size: Sequence[int], scale: float) -> Size:
    """(height, width) of an image at a scale: rounded, at least one pixel."""
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def shown(crop: Any, scale: float) -> str:
    """Crop and scale for people, such as ``480×480 at scale 1``."""
    return f"{'×'.join(map(str, crop))} at scale {scale:g}"
