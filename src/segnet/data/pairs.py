"""Which images a data set has, where their masks are, and which split each of them belongs to."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from posixpath import dirname
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segnet.data import cache, listing
from segnet.data.decoding import header, turned
from segnet.data.images import read_raw_mask, read_rgb, resize_pair
from segnet.data.masks import IGNORE_INDEX, Encoding
from segnet.data.patterns import MaskPattern, Masks, leads_out
from segnet.data.splits import SPLITS, Split
from segnet.errors import UserError
from segnet.mirror import is_mirror


@dataclass(frozen=True)
class Pair:
    """An image and its mask; ``mask=None`` means that all of it is background.

    Where the image states an EXIF rotation and the mask does not, the mask's size says whether it was drawn on the
    ``upright`` image or on the pixels as ``stored``; ``drawn`` says so where the size cannot. ``bits`` of 16 are in
    use in the image; None decides by its values. ``more`` are further files of the mask, each a part of it.
    """

    image: Path
    mask: Path | None
    drawn: Literal["upright", "stored"] | None = None
    bits: int | None = None
    more: tuple[Path, ...] = ()

    @property
    def masks(self) -> list[Path]:
        """Every file of the mask; none where all is background."""
        return [] if self.mask is None else [self.mask, *self.more]

    def load(self, encoding: Encoding, size: tuple[int, int] | None) -> cache.Arrays:
        """Decode to uint8 RGB (H, W, 3) and class indices (H, W), at ``size`` or at the image's own."""
        image = read_rgb(self.image, bits=self.bits)
        indices = self.indices(encoding, image.shape[:2])
        return (image, indices) if size is None else resize_pair(image, indices, size)

    def indices(self, encoding: Encoding, size: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
        """Class indices (H, W), which is the ``size`` of the upright image; None reads it from the image's header.

        Of several files, a class lies over what is ignored, and that over the first class, the background; where two
        files show a class, the later one does, in the order of their names.
        """
        if size is None:
            size = header(self.image)[:2]
        out = np.zeros(size, np.uint8)
        for file in self.masks:
            part = self._part(file, encoding, size)
            out = part if file == self.mask else _over(out, part)
        return out

    def _part(self, file: Path, encoding: Encoding, size: tuple[int, ...]) -> NDArray[np.uint8]:
        raw = self._upright(file, read_raw_mask(file, encoding.kind), size)
        indices = encoding(raw, file)
        if indices.shape != size:
            sizes = ["×".join(str(side) for side in shape[::-1]) for shape in (indices.shape, size)]
            raise UserError(
                f"{file}: mask is {sizes[0]}, its image {self.image} is {sizes[1]}; both must have the same size: "
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


def _over(under: NDArray[np.uint8], part: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask with a further part of it laid over."""
    counts = (part != 0) & ((part != IGNORE_INDEX) | (under == 0))
    return np.where(counts, part, under)


def matching(root: Path, patterns: Sequence[str]) -> list[Path]:
    """What these globs find below a folder.

    Raises:
        UserError: one is none, or leads out of the folder.
    """
    found: list[Path] = []
    for pattern in patterns:
        if leads_out(pattern):
            raise UserError(f"data.images={pattern!r}: must be a pattern below data.root")
        try:
            if any("**" in part and part != "**" for part in pattern.split("/")):  # from Python 3.13 on read as one *
                raise ValueError("** must be all of a folder's name")
            found += root.glob(pattern)
        except (ValueError, IndexError) as error:
            raise UserError(f"data.images={pattern!r}: no glob ({error}); write such as images/**/*.png") from error
    return found


class MissingMaskError(UserError):
    """An image has no mask and should have one."""


@dataclass(frozen=True)
class Layout:
    """Where images and masks lie below a folder; the arguments are those of `SegmentationDataModule`."""

    root: Path
    images: Sequence[str]
    masks: Masks
    missing_mask: Literal["error", "empty"] = "error"
    defect_free: str | None = None
    mask_drawn: Literal["upright", "stored"] | None = None
    bits: int | None = None
    match: str | None = None

    def __post_init__(self) -> None:
        _ = self.pattern

    @cached_property
    def pattern(self) -> MaskPattern:
        """What ``masks`` and ``match`` say."""
        return MaskPattern(self.root, self.masks, self.match)

    def list_images(self) -> list[str]:
        """Every image by its path relative to the root, in order; what is the mask of one of them is none.

        Raises:
            UserError: there is no such folder, no image in it, or a pattern that is none or leads out of it.
        """
        if not self.root.is_dir():
            more = ", or again to the URL that it is the mirror of" if is_mirror(self.root) else ""
            raise UserError(f"data.root={self.root}: no such folder; set data.root to the folder of the data set{more}")
        found, others = self._listed
        if not found:
            known, shut = listing.neither(self.root, [""], [], [])
            more = f"; images there: {listing.counted(known, 'file')}" if known else ""
            passed = [*others, *listing.unreadable(shut)]
            told = f"; passed over: {', '.join(passed)}" if passed else ""
            raise UserError(
                f"data.root={self.root}: nothing matches data.images={list(self.images)}; correct it{more}{told}"
            )
        return found

    @cached_property
    def _listed(self) -> tuple[list[str], list[str]]:
        """The images, and what is said of other files that ``images`` finds; the disk is asked once."""
        found, others = listing.split_off(matching(self.root, self.images), self.root)
        names = ["/".join(path.parts[len(self.root.parts) :]) for path in found]
        masks = self.pattern.among(names)
        return [name for name in names if name not in masks], others

    def passed_over(self) -> list[str]:
        """What lies among the images and is not used, and masks of several images: texts with numbers, for people."""
        images = self.list_images()
        masks = [self.masks_of(image) for image in images]
        there = [mask for files in masks for mask in files if mask.is_file()]
        others = self._listed[1]
        told = [f"passed over {', '.join(others)}"] if others else []
        told += [f"no file for data.images={p!r}" for p in self.images if not any(self.root.glob(p))]
        rest, shut = listing.neither(self.root, [*self.images, *self.pattern.folders(there)], images, there)
        told += [f"passed over {text}" for text in listing.unreadable(shut)]
        if rest:
            told.append(
                f"passed over {listing.counted(rest, 'image file')}, neither in data.images nor a mask of these"
            )
        if twins := listing.shared(images, masks):
            told.append(f"several images with the same mask: {listing.counted(twins, 'group')}")
        return told

    def pair(self, image: str) -> Pair:
        """An image of `list_images` with its mask.

        Raises:
            UserError: it should have a mask and has none, or has several; or the pattern of the masks is wrong.
        """
        files = self.masks_of(image)
        if not files:
            return Pair(self.root / image, None, bits=self.bits)
        if files[0].exists() or files[0].is_symlink():
            return Pair(self.root / image, files[0], self.mask_drawn, self.bits, tuple(files[1:]))
        if self.missing_mask == "error":
            raise MissingMaskError(
                f"{self.root / image}: its mask {files[0]} is missing; add it, or set data.missing_mask=empty "
                f"(no mask means no defect) or data.defect_free=<pattern>"
            )
        return Pair(self.root / image, None, bits=self.bits)

    def masks_of(self, image: str) -> list[Path]:
        """The files of the mask of an image of `list_images`, or where it should be; none if it has none by design."""
        if self.defect_free is not None and fnmatchcase(image, self.defect_free):
            return []
        return self.pattern.find(image)


def find(layout: Layout, split: Callable[[Path, Sequence[str]], Split]) -> tuple[list[Pair], dict[str, list[int]], int]:
    """List the images and split them.

    Returns:
        pairs that belong to some split, in the order of their names; of each split the indices into them, empty where
        the split is not there; and how many images there are, in a split or not.

    Raises:
        UserError: an image is in the training split and in another, or images have no mask and should have one.
    """
    images = layout.list_images()
    by_split: Split = {name: [] for name in SPLITS} | split(layout.root, images)
    if leaked := sorted(set(by_split["train"]) & {*by_split["val"], *by_split["test"]}):
        raise UserError(f"data.split puts {leaked[0]} ({len(leaked)} in all) into train and val or test")
    used = sorted({image for part in by_split.values() for image in part})
    pairs, bare = list[Pair](), dict[str, MissingMaskError]()
    for image in used:
        try:
            pairs.append(layout.pair(image))
        except MissingMaskError as error:
            bare[image] = error
    if bare:
        first = next(iter(bare.values()))
        raise UserError(f"{len(bare)} of {len(used)} images without a mask{_where(list(bare), used)}: {first}")
    place = {image: i for i, image in enumerate(used)}
    return pairs, {name: [place[image] for image in part] for name, part in by_split.items()}, len(images)


def _where(some: Sequence[str], images: Sequence[str]) -> str:
    """Such as `` (all of a/b)``, if some images are all of these folders; empty if not."""
    inside, folders = Counter(map(dirname, images)), Counter(map(dirname, some))
    if len(folders) == len(inside) or any(inside[folder] != count for folder, count in folders.items()):
        return ""
    named = list(folders)
    return f" (all of {', '.join(named[:6])}{', …' if len(named) > 6 else ''})"
