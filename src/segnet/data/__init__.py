"""From files to batches: reading, splitting, decoding masks, caching. Importing it does not import Lightning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from segnet.data.folds import ByFold
from segnet.data.masks import IGNORE_INDEX, Palette, Threshold, Values
from segnet.data.path_masks import ByPath
from segnet.data.segmentation_data import SegmentationData
from segnet.data.splits import ByGroup, ByHash, ByList, ByPattern

if TYPE_CHECKING:
    from segnet.data.datamodule import SegmentationDataModule

__all__ = [
    "IGNORE_INDEX",
    "ByFold",
    "ByGroup",
    "ByHash",
    "ByList",
    "ByPath",
    "ByPattern",
    "Palette",
    "SegmentationData",
    "SegmentationDataModule",
    "Threshold",
    "Values",
]


def __getattr__(name: str) -> Any:
    if name != "SegmentationDataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("segnet.data.datamodule").SegmentationDataModule
