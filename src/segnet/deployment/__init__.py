"""From a checkpoint to predictions and exported programs."""

from segnet.deployment.exported_model import Program
from segnet.deployment.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor", "Program"]
