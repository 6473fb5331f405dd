"""Names that checkpoints, run folders and experiments of earlier versions use, and what they are called now."""

from typing import Any

from omegaconf import Container, DictConfig, ListConfig, OmegaConf

# Of a module, or of a single class where the module's old name is now a package's.
RENAMED = {
    "segnet.callbacks": "segnet.training.callbacks",
    "segnet.data.SegmentationDataModule": "segnet.data.datamodule.SegmentationDataModule",
    "segnet.interruption": "segnet.training.preemption",
    "segnet.leaderboard": "segnet.runs.leaderboard",
    "segnet.losses": "segnet.training.losses",
    "segnet.masks": "segnet.data.masks",
    "segnet.model": "segnet.networks.segnet",
    "segnet.module": "segnet.training.module",
    "segnet.optimizers": "segnet.training.optimizers",
    "segnet.schedules": "segnet.training.schedules",
    "segnet.splits": "segnet.data.splits",
    "segnet.synthetic": "segnet.synthetic.cables",
}


def current(target: str) -> str:
    """Today's name of a class or function; a name that is not an old one comes back as it is."""
    if target in RENAMED:
        return RENAMED[target]
    module, _, name = target.rpartition(".")
    return f"{RENAMED[module]}.{name}" if module in RENAMED else target


def update_targets(config: Any) -> None:
    """Replace every old ``_target_`` in a configuration, in place; interpolations are left unresolved.

    Args:
        config: plain containers or OmegaConf's, of any depth; anything else is left alone.
    """
    if isinstance(config, dict | DictConfig):
        keys: list[Any] = list(config)
    elif isinstance(config, list | tuple | ListConfig):
        keys = list(range(len(config)))
    else:
        return
    for key in keys:
        if isinstance(config, Container) and (
            OmegaConf.is_interpolation(config, key) or OmegaConf.is_missing(config, key)
        ):
            continue
        if key == "_target_":
            config[key] = current(str(config[key]))
        else:
            update_targets(config[key])
