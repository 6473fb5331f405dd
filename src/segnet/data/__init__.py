"""From files to batches: reading, splitting, decoding masks, caching."""

from segnet.data.datamodule import SegmentationDataModule
from segnet.data.folds import ByFold
from segnet.data.masks import IGNORE_INDEX, Palette, Threshold, Values
from segnet.data.splits import ByHash, ByList, ByPattern

__all__ = [
    "IGNORE_INDEX",
    "ByFold",
    "ByHash",
    "ByList",
    "ByPattern",
    "Palette",
    "SegmentationDataModule",
    "Threshold",
    "Values",
]
