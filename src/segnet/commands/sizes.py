"""The size of the network's input where the data leave it open."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from segnet import rules, settings
from segnet.configuration import plain
from segnet.data.crops import DEFAULT_SIZE


def settle_size(data: DictConfig) -> None:
    """With ``crop``, the size of the network's input is the crop's, unless the command line names another one.

    That stays, and the data refuse it; a default, or what an experiment has, gives way. Null is `DEFAULT_SIZE`.
    """
    chosen = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    named = any(override.lstrip("+").startswith("data.image_size=") for override in chosen)
    if data.get("crop") is not None and not named:
        rules.check("data.crop", plain(data.crop), settings.ImageSize | None)
        data.image_size = data.crop
    elif data.get("image_size") is None:
        data.image_size = DEFAULT_SIZE
