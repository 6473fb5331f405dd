"""What is said of a prediction in numbers and grey levels: areas, maps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Row = list[Any]


def grey(values: Tensor) -> NDArray[np.uint8]:
    """0..1 (H, W) as grey levels 0..255."""
    return values.mul(255).round().clamp(0, 255).byte().numpy()


def areas(mask: NDArray[np.uint8], classes: int) -> Row:
    """Pixels and per cent of each class in turn (binary: of the defect)."""
    counts = np.bincount(mask.ravel(), minlength=max(classes, 2))
    told = counts[1:] if classes == 1 else counts
    return [value for count in told for value in (int(count), f"{100 * count / mask.size:.3f}")]
