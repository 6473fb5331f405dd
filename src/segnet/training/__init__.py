"""The LightningModule, and what its training needs."""

from segnet.training.checkpoint import load_module
from segnet.training.losses import CrossEntropy
from segnet.training.module import SegmentationModule

__all__ = ["CrossEntropy", "SegmentationModule", "load_module"]
