"""Names that checkpoints, run folders and experiments of earlier versions use, and what they are called now."""

from contextlib import nullcontext
from typing import Any

from omegaconf import Container, DictConfig, ListConfig, OmegaConf, open_dict

# Of a module, or of a single class that moved alone or has another name.
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
    "segnet.optimizers.muon": "segnet.training.optimizers.Muon",
    "segnet.schedules": "segnet.training.schedules",
    "segnet.splits": "segnet.data.splits",
    "segnet.synthetic": "segnet.synthetic.cables",
}
# Old and new names of arguments, by today's name of what takes them.
ARGUMENTS = {"segnet.training.callbacks.Panels": {"pictures": "images"}}


def current(target: str) -> str:
    """Today's name of a class or function; a name that is not an old one comes back as it is."""
    if target in RENAMED:
        return RENAMED[target]
    module, _, name = target.rpartition(".")
    return f"{RENAMED[module]}.{name}" if module in RENAMED else target


def update_targets(config: Any) -> None:
    """Replace every old ``_target_`` and its old arguments in a configuration, in place, and resolve no interpolation.

    Args:
        config: plain containers or OmegaConf's, of any depth; anything else is left alone.
    """
    if isinstance(config, dict | DictConfig):
        keys: list[Any] = list(config)
    elif isinstance(config, list | tuple | ListConfig):
        keys = list(range(len(config)))
    else:
        return
    renamed: dict[str, str] = {}
    for key in keys:
        if isinstance(config, Container) and (
            OmegaConf.is_interpolation(config, key) or OmegaConf.is_missing(config, key)
        ):
            continue
        if key == "_target_" and config[key] is not None:
            config[key] = current(str(config[key]))
            renamed = ARGUMENTS.get(config[key], {})
        else:
            update_targets(config[key])
    if renamed:
        _rename_arguments(config, renamed)


def _rename_arguments(config: Any, names: dict[str, str]) -> None:
    """Give arguments their new names; values are taken over as they are written."""
    written: Any = OmegaConf.to_container(config, resolve=False) if isinstance(config, DictConfig) else config
    for old, new in names.items():
        if old in written:
            with open_dict(config) if isinstance(config, DictConfig) else nullcontext():
                config[new] = written[old]
                del config[old]
