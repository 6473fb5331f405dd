"""The different values or colours of a mask, how often each is there, and how they are typed."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

RGB = np.uint32(0xFFFFFF)  # the bits of a `packed` colour; the others are set


def packed(rgb: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Colours (…, 3) as numbers (…) that are in order where these are by red, green and blue."""
    if not rgb.size:
        return np.zeros(rgb.shape[:-1], np.uint32)
    four = cv2.cvtColor(np.ascontiguousarray(rgb).reshape(-1, 1, 3), cv2.COLOR_RGB2BGRA)
    return four.view("<u4").reshape(rgb.shape[:-1])


def unpacked(codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """The colours (n, 3) that `packed` made (n,) numbers of."""
    return np.stack([codes >> 16 & 255, codes >> 8 & 255, codes & 255], 1).astype(np.uint8)


def counted(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The different values of an array in ascending order, and how often each is there.

    Masks are areas: runs of equal values are sorted and not their pixels.
    """
    flat = values.ravel()
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(flat)), np.bool_), flat[1:] != flat[:-1]]))
    found, place = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(place, np.diff(starts, append=len(flat)), len(found))
    return found, counts.astype(np.int64)


def typed(values: Sequence[object]) -> str:
    """A list as it is typed in an override: numbers, names, or colours."""
    return str(list(values)).replace(" ", "").replace("'", "")
