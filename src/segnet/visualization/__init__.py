"""Images for people: overlays, panels and plots. Importing it does not import torch, which `figures` does without."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segnet.visualization.overlays import grid as grid
    from segnet.visualization.overlays import overlay as overlay
    from segnet.visualization.overlays import palette as palette
    from segnet.visualization.overlays import panel as panel


def __getattr__(name: str) -> Any:
    if name not in ("grid", "overlay", "palette", "panel"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("segnet.visualization.overlays"), name)
