"""Geometry of albumentations' transforms: 3×3 maps from output pixels (x, y, 1) to the input pixels they come from."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]  # (height, width) of the input
Params = dict[str, Any]  # what a transform has drawn
Matrix = NDArray[np.float64]


def _horizontal_flip(transform: Any, params: Params, size: Size) -> Matrix:
    return np.array([[-1.0, 0, size[1] - 1], [0, 1, 0], [0, 0, 1]])


def _vertical_flip(transform: Any, params: Params, size: Size) -> Matrix:
    return np.array([[1.0, 0, 0], [0, -1, size[0] - 1], [0, 0, 1]])


def _transpose(transform: Any, params: Params, size: Size) -> Matrix:
    return np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])


def _rotate90(transform: Any, params: Params, size: Size) -> Matrix:
    quarter = np.array([[0.0, -1, size[0] - 1], [1, 0, 0], [0, 0, 1]])
    return np.linalg.matrix_power(quarter, params["factor"])


def _crop(transform: Any, params: Params, size: Size) -> Matrix:
    left, top = params["crop_coords"][:2]
    return np.array([[1.0, 0, left], [0, 1, top], [0, 0, 1]])


def _resized_crop(transform: Any, params: Params, size: Size) -> Matrix:
    left, top, right, bottom = params["crop_coords"]
    x, y = (right - left) / transform.size[1], (bottom - top) / transform.size[0]
    return np.array([[x, 0, left + x / 2 - 0.5], [0, y, top + y / 2 - 0.5], [0, 0, 1]])  # centres lie at .5


def _affine(transform: Any, params: Params, size: Size) -> Matrix:
    return np.linalg.inv(params["matrix"])


EXACT = {  # each output pixel is one input pixel
    "HorizontalFlip": _horizontal_flip,
    "VerticalFlip": _vertical_flip,
    "Transpose": _transpose,
    "RandomRotate90": _rotate90,
    "RandomCrop": _crop,
}
RESAMPLING = {"RandomResizedCrop": _resized_crop, "Affine": _affine, "Rotate": _affine}
GEOMETRY = EXACT | RESAMPLING
CROPS: dict[str, Callable[[Any], Size]] = {  # output sizes
    "RandomCrop": lambda transform: (transform.height, transform.width),
    "RandomResizedCrop": lambda transform: tuple(transform.size),
}
