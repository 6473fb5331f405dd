"""From a checkpoint to predictions and exported models. Importing it imports none of them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segnet.deployment.exported_model import ExportedModel
    from segnet.deployment.prediction import Prediction
    from segnet.deployment.predictor import Predictor

__all__ = ["ExportedModel", "Prediction", "Predictor"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "exported_model" if name == "ExportedModel" else name.lower()
    return getattr(import_module(f"segnet.deployment.{module}"), name)
