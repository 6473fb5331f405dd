"""From a checkpoint to predictions and exported models."""

from segnet.deployment.exported_model import ExportedModel
from segnet.deployment.prediction import Prediction
from segnet.deployment.predictor import Predictor

__all__ = ["ExportedModel", "Prediction", "Predictor"]
