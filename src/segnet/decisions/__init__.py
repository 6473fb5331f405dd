"""From probabilities to decisions: the objects of a mask, the verdict on an image, and how sure their rates are."""

from segnet.decisions.objects import Objects, objects
from segnet.decisions.operating_point import OperatingPoint
from segnet.decisions.regions import Regions, overlaps, regions

__all__ = ["Objects", "OperatingPoint", "Regions", "objects", "overlaps", "regions"]
