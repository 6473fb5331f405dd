"""From probabilities to decisions: the objects of a mask, the verdict on an image, and how sure their rates are."""

from segnet.decisions.operating_point import OperatingPoint
from segnet.decisions.predicted import Predicted, predicted_objects
from segnet.decisions.regions import Regions, regions

__all__ = ["OperatingPoint", "Predicted", "Regions", "predicted_objects", "regions"]
