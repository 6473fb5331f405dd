"""Which images a data set has, where their masks are, and which split each of them belongs to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from numpy.typing import NDArray

from segnet.data import cache, listing
from segnet.data.decoding import header, turned
from segnet.data.images import read_raw_mask, read_rgb, resize_pair
from segnet.data.masks import Encoding
from segnet.data.splits import SPLITS, Split
from segnet.errors import UserError, printable


@dataclass(frozen=True)
class Pair:
    """An image and its mask; ``mask=None`` means that all of it is background.

    Where the image states an EXIF rotation and the mask does not, the mask's size says whether it was drawn on the
    ``upright`` image or on the pixels as ``stored``; ``drawn`` says so where the size cannot. ``bits`` of 16 are in
    use in the image; None decides by its values.
    """

    image: Path
    mask: Path | None
    drawn: Literal["upright", "stored"] | None = None
    bits: int | None = None

    def load(self, encoding: Encoding, size: tuple[int, int] | None) -> cache.Pair:
        """Decode to uint8 RGB (H, W, 3) and class indices (H, W), at ``size`` or at the image's own."""
        image = read_rgb(self.image, bits=self.bits)
        indices = self.indices(encoding, image.shape[:2])
        return (image, indices) if size is None else resize_pair(image, indices, size)

    def indices(self, encoding: Encoding, size: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
        """Class indices (H, W), which is the ``size`` of the upright image; None reads it from the image's header."""
        if size is None:
            size = header(self.image)[:2]
        if self.mask is None:
            return np.zeros(size, np.uint8)
        raw = self._upright(self.mask, read_raw_mask(self.mask, encoding.kind), size)
        indices = encoding(raw, self.mask)
        if indices.shape != size:
            sizes = ["×".join(str(side) for side in shape[::-1]) for shape in (indices.shape, size)]
            raise UserError(
                f"{self.mask}: mask is {sizes[0]}, its image {self.image} is {sizes[1]}; both must have the same size: "
                f"correct data.masks, or scale the mask"
            )
        return indices

    def _upright(self, path: Path, raw: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
        """The mask, turned as its image of (height, width) ``size`` was if it was drawn on the pixels as stored."""
        orientation = header(self.image)[2]
        if orientation == 1 or header(path)[2] != 1:
            return raw
        stored = size[::-1] if orientation > 4 else size
        turn = np.ascontiguousarray(turned(raw, orientation))
        if self.drawn is None and raw.shape[:2] == size == stored and not np.array_equal(raw, turn):
            raise UserError(
                f"{self.image}: states EXIF orientation {orientation} and its mask {path} none, and their sizes do not "
                f"tell whether the mask was drawn on the upright image or on the pixels as stored; set "
                f"data.mask_drawn=upright or data.mask_drawn=stored"
            )
        return turn if self.drawn == "stored" or (self.drawn is None and raw.shape[:2] == stored != size) else raw


@dataclass(frozen=True)
class Layout:
    """Where images and masks lie below a folder; the arguments are those of `SegmentationDataModule`."""

    root: Path
    images: Sequence[str]
    masks: str
    missing_mask: Literal["error", "empty"] = "error"
    defect_free: str | None = None
    mask_drawn: Literal["upright", "stored"] | None = None
    bits: int | None = None

    def __post_init__(self) -> None:
        if self.mask_drawn not in (None, "upright", "stored"):
            raise UserError(f"data.mask_drawn={self.mask_drawn}: must be null, 'upright' or 'stored'")
        if self.bits is not None and (type(self.bits) is not int or not 8 <= self.bits <= 16):
            raise UserError(f"data.bits={self.bits}: must be null or an integer in 8..16")
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
        found, others = listing.split_off(self._matches(), self.root)
        if not found:
            known = listing.neither(self.root, [""], [], [])
            more = f"; images there: {listing.counted(known, 'file')}" if known else ""
            told = f"; passed over: {', '.join(others)}" if others else ""
            raise UserError(
                f"data.root={self.root}: nothing matches data.images={list(self.images)}; correct it{more}{told}"
            )
        return [path.relative_to(self.root).as_posix() for path in found]

    def _matches(self) -> list[Path]:
        for pattern in self.images:
            if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                raise UserError(f"data.images={pattern!r}: must be a pattern below data.root")
        return [path for pattern in self.images for path in self.root.glob(pattern)]

    def passed_over(self) -> list[str]:
        """What lies among the images and is not used, and masks of several images: texts with numbers, for people."""
        images = self.list_images()
        masks = [self.mask_of(image) for image in images]
        there = [mask for mask in masks if mask is not None and mask.is_file()]
        others = listing.split_off(self._matches(), self.root)[1]
        told = [f"passed over {', '.join(others)}"] if others else []
        told += [f"no file for data.images={p!r}" for p in self.images if not any(self.root.glob(p))]
        if rest := listing.neither(self.root, [*self.images, self.masks], images, there):
            told.append(
                f"passed over {listing.counted(rest, 'image file')}, neither in data.images nor a mask of these"
            )
        if twins := listing.shared(images, masks):
            told.append(f"several images with the same mask: {listing.counted(twins, 'group')}")
        return told

    @rank_zero_only
    def tell_passed_over(self) -> None:
        """Print `passed_over` in one line."""
        if told := self.passed_over():
            rank_zero_info(printable(f"data.root={self.root}: {'; '.join(told)}"))

    def pair(self, image: str) -> Pair:
        """An image of `list_images` with its mask.

        Raises:
            UserError: it should have a mask and has none.
            ValueError: the pattern of the masks has a placeholder that does not exist.
        """
        mask = self.mask_of(image)
        if mask is None:
            return Pair(self.root / image, None, bits=self.bits)
        if mask.exists() or mask.is_symlink():
            return Pair(self.root / image, mask, self.mask_drawn, self.bits)
        if self.missing_mask == "error":
            raise UserError(
                f"{self.root / image}: its mask {mask} is missing; add it, or set data.missing_mask=empty "
                f"(no mask means no defect) or data.defect_free=<pattern>"
            )
        return Pair(self.root / image, None, bits=self.bits)

    def mask_of(self, image: str) -> Path | None:
        """Where the mask of an image of `list_images` should be; None if it has none by design."""
        if self.defect_free is not None and fnmatchcase(image, self.defect_free):
            return None
        path = Path(image)
        try:
            name = self.masks.format(
                stem=path.stem, name=path.name, dir=path.parent.as_posix(), parent=path.parent.name
            )
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UserError(
                f"data.masks={self.masks!r}: wrong placeholder ({error}); use {{stem}}, {{name}}, {{dir}}, {{parent}}"
            ) from error
        return self.root / name


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
