"""The objects of a predicted mask: where each lies, and how probable it is."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from segnet.decisions.regions import Regions, regions


@dataclass(frozen=True)
class Predicted:
    """The 8-connected regions of every class but the first (binary: of the defect), class by class.

    Attributes:
        regions: numbered through all classes; labels are those of the window (h, w) that holds all objects, and so are
            boxes and centroids.
        corner: top and left of that window in the image.
        size: height and width of the image.
        classes: int64 (n,) the class index of each.
        mean: float64 (n,) the mean probability of its class over each.
        greatest: float64 (n,) the greatest.
    """

    regions: Regions
    corner: tuple[int, int]
    size: tuple[int, int]
    classes: NDArray[np.int64]
    mean: NDArray[np.float64]
    greatest: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def boxes(self) -> NDArray[np.int64]:
        """int64 (n, 4) left, top, width, height in the image."""
        return np.add(self.regions.boxes, (self.corner[1], self.corner[0], 0, 0))

    @property
    def centroids(self) -> NDArray[np.float64]:
        """float64 (n, 2) x, y in the image; the centre of its first pixel is (0, 0)."""
        return np.add(self.regions.centroids, (self.corner[1], self.corner[0]))

    def largest(self, most: int) -> "Predicted":
        """The ``most`` largest ones, in their order; of equal ones the first."""
        if len(self) <= most:
            return self
        kept = np.zeros(len(self), np.bool_)
        kept[np.argsort(-self.regions.areas, kind="stable")[:most]] = True
        number = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)]).astype(np.int32)
        found = self.regions
        chosen = Regions(number[found.labels], found.areas[kept], found.boxes[kept], found.centroids[kept])
        return replace(
            self, regions=chosen, classes=self.classes[kept], mean=self.mean[kept], greatest=self.greatest[kept]
        )


def predicted_objects(mask: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Predicted:
    """The objects of a mask (H, W) of class indices with the probabilities (C, H, W) that it comes from."""
    left, top, width, height = cv2.boundingRect(mask)
    window = np.s_[top : top + height, left : left + width]
    inside = mask[window]
    labels = np.zeros(inside.shape, np.int32)
    found: list[tuple[int, Regions, NDArray[np.float64], NDArray[np.float64]]] = []
    count = 0
    for index, values in _of_classes(inside, probabilities):
        part = regions(inside == index)
        values = values[window]
        labels[part.labels > 0] = part.labels[part.labels > 0] + count
        found.append((index, part, part.mean(values), part.greatest(values)))
        count += len(part)
    if not found:
        none = Regions(labels, np.zeros(0, np.int64), np.zeros((0, 4), np.int64), np.zeros((0, 2)))
        return Predicted(none, (top, left), mask.shape, np.zeros(0, np.int64), np.zeros(0), np.zeros(0))  # type: ignore[arg-type]
    parts = [part for _, part, *_ in found]
    together = Regions(
        labels, np.concatenate([p.areas for p in parts]), np.concatenate([p.boxes for p in parts]),
        np.concatenate([p.centroids for p in parts]),
    )  # fmt: skip
    classes = np.repeat([index for index, *_ in found], [len(part) for part in parts])
    mean, greatest = (np.concatenate([entry[i] for entry in found]) for i in (2, 3))
    return Predicted(together, (top, left), mask.shape, classes, mean, greatest)  # type: ignore[arg-type]


def _of_classes(
    inside: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Each class index in the window that makes objects, with its probabilities."""
    for index in np.flatnonzero(np.bincount(inside.ravel())[1:]) + 1:
        yield int(index), probabilities[0 if len(probabilities) == 1 else index]
