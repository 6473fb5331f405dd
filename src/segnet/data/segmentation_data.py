"""One description for every data set: patterns say where images and masks are, which become pairs in three splits."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np
from numpy.typing import NDArray

from segnet import rules, settings
from segnet.data import cache, crops, division, grouping, loading
from segnet.data.decoded import Decoded
from segnet.data.masks import Encoding, check_classes
from segnet.data.pairs import Layout, Pair, find
from segnet.data.patterns import listed
from segnet.data.splits import Split
from segnet.data.transforms import Transforms
from segnet.errors import UserError
from segnet.object_store import is_url

# Settings that are checked by their declared types where a program makes the data; a configuration's all are.
PLAIN = (
    *("missing_mask", "mask_drawn", "bits", "scale", "crop_share", "crops_per_epoch", "positive_share"),
    *("batch_size", "num_workers", "cache_gb", "device_cache", "seed"),
)


class SegmentationData:
    """Images and masks of a folder in three splits, resized to one size, or with ``crop`` at their own.

    What a data audit looks at, without Lightning, whose import takes seconds; `SegmentationDataModule` makes batches.

    Args:
        root: folder of the data set.
        images: glob or globs below ``root`` that find the images.
        masks: where an image's mask is, relative to ``root``; ``{stem}`` and ``{name}`` are the image's name without
            and with suffix, ``{dir}`` its folder relative to the root, ``{parent}`` that folder's last part. A list has
            alternatives, a mapping replaces parts of the image's path; files that a wildcard finds are one mask.
        match: regular expression searched in an image's path, whose groups ``masks`` may name: ``{1}``, ``{name}``.
        mask: encoding of the mask files, see `segnet.data.masks`.
        classes: class names in order (one name for a binary task).
        num_classes: how many; 1 is a binary task with one logit.
        split: see `segnet.data.splits`.
        missing_mask: an image without a mask is an ``error``, or its mask is ``empty``.
        defect_free: glob on the relative path of images that have no mask by design.
        mask_drawn: where images state an EXIF rotation and masks none, masks were drawn on the ``upright`` image or on
            the pixels as ``stored``; null decides by their sizes.
        kinds: regular expression searched in an image's relative path, whose first group (or whole match) is the kind
            of its defects in figures, see `segnet.data.grouping`; null: no figures by kind.
        parts: the same for the part that an image shows: a part is defective if one of its images is.
        bits: in use in images of 16 bits, such as 12; null decides by the values of each. Prediction uses it too.
        image_size: side in pixels, or [height, width]; at least 32. Null is 480, or the size of a crop.
        crop: side in pixels, or [height, width], of the crops on which images larger than the network's input are
            trained; they are evaluated whole, by a window of this size. Null resizes images to ``image_size``.
        scale: factor on the height and width of the images of which crops are cut.
        crop_share: of crops around a pixel of a rare class, see `segnet.data.crops.rare`; the others lie anywhere.
        crops_per_epoch: how many training draws; null goes by area, see `segnet.data.crops.epoch_length`.
        augment: transforms for training (`segnet.data.transforms`), after the resizing or cropping; they may crop.
        positive_share: of images that show the class, of several any but the first, in a training epoch, which keeps
            its length; in 0..1. Null draws every image once.
        batch_size: images per step and process.
        num_workers: loader processes; ``auto`` is 0 on a CPU (the cache outruns the step) and up to 8 beside a GPU.
        cache_dir: folder of the decoded images, null to decode in every epoch.
        cache_gb: bound of that folder in 10⁹ bytes.
        device_cache: keep the decoded images on the training device and transform them there, with the same draws;
            ``auto`` does so on a GPU that can do every transform, if the training split takes at most a quarter of its
            memory.
        prepare: called with ``root`` where the root does not exist (a downloader, the renderer).
        seed: of order and random transforms.
        colors: RGB of each class in overlays; null draws from a fixed palette.

    Attributes:
        pairs: after `setup`, image and mask of everything that belongs to a split.
        indices: after `setup`, of each split, into ``pairs``.
        found: after `setup`, how many images there are, in a split or not.
        arrays: what `load` reads.
        plan: how crops are drawn; None without ``crop``.
    """

    def __init__(
        self,
        root: settings.PathText,
        images: settings.Images,
        masks: settings.Masks,
        mask: Encoding,
        classes: Sequence[settings.Text],
        num_classes: settings.NumClasses,
        split: Callable[[Path, Sequence[str]], Split],
        missing_mask: Literal["error", "empty"] = "error",
        defect_free: settings.Text | None = None,
        mask_drawn: Literal["upright", "stored"] | None = None,
        bits: settings.Bits | None = None,
        match: settings.Text | None = None,
        kinds: settings.Text | None = None,
        parts: settings.Text | None = None,
        image_size: settings.ImageSize | None = None,
        crop: settings.ImageSize | None = None,
        scale: settings.CropScale = 1.0,
        crop_share: settings.Share = 0.5,
        crops_per_epoch: settings.Positive | None = None,
        augment: Sequence[Callable[..., Any]] | None = (),
        positive_share: settings.BetweenZeroAndOne | None = None,
        batch_size: settings.Positive = 4,
        num_workers: settings.Workers | Literal["auto"] = "auto",
        cache_dir: settings.PathText | None = None,
        cache_gb: settings.NotNegative = 20.0,
        device_cache: bool | Literal["auto"] = "auto",
        prepare: Callable[..., Any] | None = None,
        seed: settings.Seed = 0,
        colors: settings.Colors | None = None,
    ) -> None:
        super().__init__()
        types = get_type_hints(SegmentationData.__init__, include_extras=True)
        given = locals()
        for name in PLAIN:
            rules.check(f"data.{name}", given[name], types[name])
        check_classes(classes, num_classes, colors)
        grouping.check_names("data.classes", classes)
        for name, pattern in {"kinds": kinds, "parts": parts}.items():
            grouping.check(f"data.{name}", pattern)
        if is_url(root):
            raise UserError(
                f"data.root={root}: comes from a file or a program, and only a URL that is typed is fetched: add "
                f"data.root={root} to the command, or mirror it by segnet.mirror.update"
            )
        self.root = Path(str(root))
        self.layout = Layout(self.root, listed(images), masks, missing_mask, defect_free, mask_drawn, bits, match)
        self.mask, self.split, self.kinds, self.parts = mask, split, kinds, parts
        self.classes, self.num_classes = list(classes), num_classes
        self.plan, self.image_size = crops.plan(
            crop, scale, crop_share, crops_per_epoch, image_size, positive_share, device_cache
        )
        self.augment, self.batch_size, self.seed = list(augment or ()), batch_size, seed
        Transforms(self.augment)  # refuses what none is before anything is read
        self.num_workers, self.positive_share, self.prepare, self.colors = num_workers, positive_share, prepare, colors
        self.cache_dir, self.cache_gb, self.device_cache = cache_dir, cache_gb, device_cache
        self.pairs = list[Pair]()
        self.indices: dict[str, list[int]] = {}
        self.found = 0
        self.arrays = self._arrays()

    def _arrays(self) -> Decoded:
        scale = self.plan.scale if self.plan else None
        return Decoded(self.pairs, self.mask, self.num_classes, self.image_size, scale)

    def prepare_data(self) -> None:
        """Make or download the data where it is missing, and build the cache."""
        if self.prepare is not None and not self.root.exists():
            self.prepare(root=str(self.root))
        if self.cache_dir is not None:
            self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Find the pairs, split them and map the cache.

        Args:
            stage: ``fit``, ``validate`` or ``test`` is refused where its splits are empty; None asks for nothing.
        """
        if not self.pairs:
            self.pairs, self.indices, self.found = find(self.layout, self.split)
            if self.kinds is not None:
                files = (pair.image.relative_to(self.root).as_posix() for pair in self.pairs)
                grouping.check_names("data.kinds", {grouping.kind_of(self.kinds, file) for file in files})
            self.arrays = self._arrays()
            if self.cache_dir is not None:
                self.arrays.use_cache(Path(str(self.cache_dir)), self.cache_gb)
        self.require(*division.NEEDED.get(stage or "", ()))

    def require(self, *splits: str) -> None:
        """Refuse a data set that has no image for one of these splits."""
        division.require(splits, self.indices, self.found, self.split)

    def used(self, *splits: str) -> str:
        """How many images these splits use, and where the others are, for people."""
        return division.told(splits, self.pairs, self.indices, self.found)

    def load(self, index: int) -> cache.Arrays:
        """Image uint8 (H, W, 3) and mask uint8 (H, W) of ``pairs[index]`` at ``image_size``, or whole at ``scale``."""
        return self.arrays[index]

    def example(self, index: int) -> cache.Arrays:
        """As `load`; with ``crop`` one crop, around a rare class if the image shows any."""
        return loading.example(self.arrays, index, self.plan, self.seed)

    @property
    def epoch_length(self) -> int:
        """How many images, or crops of them, a training epoch draws in all processes."""
        return crops.epoch_length([self.arrays.size_at(index) for index in self.indices["train"]], self.plan)

    def class_frequencies(self) -> NDArray[np.int64]:
        """Pixels (2 or num_classes, 2) of the training split: of each class, and of the images in which it occurs."""
        return self.arrays.frequencies(self.indices["train"])
