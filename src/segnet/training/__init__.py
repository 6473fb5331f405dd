"""What Lightning trains, and all that a training needs beside it."""

from segnet.training.checkpoint import load_module
from segnet.training.losses import CrossEntropy
from segnet.training.module import SegmentationModule

__all__ = ["CrossEntropy", "SegmentationModule", "load_module"]
