"""Which images a data set has, where their masks are, and which split each of them belongs to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np

from segnet.data import cache
from segnet.data.images import EXTENSIONS, read_raw_mask, read_rgb, resize_pair
from segnet.data.masks import Encoding
from segnet.data.splits import SPLITS, Split
from segnet.errors import UserError


@dataclass(frozen=True)
class Pair:
    """An image and its mask; ``mask=None`` means that all of it is background."""

    image: Path
    mask: Path | None

    def load(self, encoding: Encoding, size: tuple[int, int] | None) -> cache.Pair:
        """Decode to uint8 RGB (H, W, 3) and class indices (H, W), at ``size`` or at the image's own."""
        image = read_rgb(self.image)
        if self.mask is None:
            indices = np.zeros(image.shape[:2], np.uint8)
        else:
            indices = encoding(read_raw_mask(self.mask, encoding.kind), self.mask)
        if indices.shape != image.shape[:2]:
            sizes = ["×".join(str(side) for side in array.shape[1::-1]) for array in (indices, image)]
            raise UserError(
                f"{self.mask}: mask is {sizes[0]}, its image {self.image} is {sizes[1]}; both must have the same size"
            )
        return (image, indices) if size is None else resize_pair(image, indices, size)


@dataclass(frozen=True)
class Layout:
    """Where images and masks lie below a folder; the arguments are those of `SegmentationDataModule`."""

    root: Path
    images: Sequence[str]
    masks: str
    missing_mask: Literal["error", "empty"] = "error"
    defect_free: str | None = None

    def __post_init__(self) -> None:
        if self.missing_mask not in ("error", "empty"):
            raise UserError(f"data.missing_mask={self.missing_mask}: must be 'error' or 'empty'")

    def list_images(self) -> list[str]:
        """Every image by its path relative to the root, in order.

        Raises:
            UserError: there is no such folder, or no image in it.
            ValueError: a pattern leads out of it.
        """
        if not self.root.is_dir():
            raise UserError(f"data.root={self.root}: no such folder; set data.root to the folder of the data set")
        found = set()
        for pattern in self.images:
            if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                raise UserError(f"data.images={pattern!r}: must be a pattern below data.root")
            paths = (path for path in self.root.glob(pattern) if path.suffix.lower() in EXTENSIONS)
            found |= {path.relative_to(self.root).as_posix() for path in paths}
        if not found:
            raise UserError(f"data.root={self.root}: nothing matches data.images={self.images}")
        return sorted(found)

    def pair(self, image: str) -> Pair:
        """An image of `list_images` with its mask.

        Raises:
            UserError: it should have a mask and has none.
            ValueError: the pattern of the masks has a placeholder that does not exist.
        """
        if self.defect_free is not None and fnmatchcase(image, self.defect_free):
            return Pair(self.root / image, None)
        path = Path(image)
        try:
            name = self.masks.format(
                stem=path.stem, name=path.name, dir=path.parent.as_posix(), parent=path.parent.name
            )
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UserError(
                f"data.masks={self.masks!r}: wrong placeholder ({error}); use {{stem}}, {{name}}, {{dir}}, {{parent}}"
            ) from error
        mask = self.root / name
        if mask.is_file():
            return Pair(self.root / image, mask)
        if self.missing_mask == "error":
            raise UserError(
                f"{self.root / image}: its mask {mask} is missing; add it, or set data.missing_mask=empty "
                f"(no mask means no defect) or data.defect_free=<pattern>"
            )
        return Pair(self.root / image, None)


def find(layout: Layout, split: Callable[[Path, Sequence[str]], Split]) -> tuple[list[Pair], dict[str, list[int]], int]:
    """List the images and split them.

    Returns:
        pairs that belong to some split, in the order of their names; of each split the indices into them, empty where
        the split is not there; and how many images there are, in a split or not.

    Raises:
        UserError: an image is in the training split and in another.
    """
    images = layout.list_images()
    by_split: Split = {name: [] for name in SPLITS} | split(layout.root, images)
    if leaked := sorted(set(by_split["train"]) & {*by_split["val"], *by_split["test"]}):
        raise UserError(f"data.split puts {leaked[0]} ({len(leaked)} in all) into train and val or test")
    used = sorted({image for part in by_split.values() for image in part})
    pairs = [layout.pair(image) for image in used]
    place = {image: i for i, image in enumerate(used)}
    return pairs, {name: [place[image] for image in part] for name, part in by_split.items()}, len(images)
