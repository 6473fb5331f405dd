"""What dashboards compare runs by: the values that a sweep or a search varies, of a single run the usual ones."""

from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from segnet.overrides import name_of
from segnet.runs.record import configuration, has_record, load, recorded

SHORT = {
    "model.net._target_": "net",
    "model.loss._target_": "loss",
    "model.optimizer._target_": "optimizer",
    "model.optimizer.lr": "lr",
    "data.batch_size": "batch_size",
    "data.image_size": "image_size",
    "trainer.max_epochs": "epochs",
    "seed": "seed",
}


def parameters(cfg: DictConfig) -> dict[str, bool | int | float | str]:
    """Names and values, numbers as numbers: HParams draws them on an axis.

    Args:
        cfg: of the run, whose ``output_dir`` is its folder.
    """
    folder = Path(cfg.output_dir)
    given = {name_of(text): text.partition("=")[2] for text in recorded(folder) if not text.startswith("~")}
    keys = swept(folder) or list(dict.fromkeys([*SHORT, *given]))
    return {SHORT.get(key, key): _value(cfg, key, given) for key in keys}


def swept(folder: Path) -> list[str]:
    """Keys that the sweep or the search varies whose job has this folder; none of a single run."""
    parent = folder.parent
    if (parent / "multirun.yaml").is_file():
        hydra: Any = OmegaConf.to_container(load(parent / "multirun.yaml"), resolve=False)
        hydra = hydra["hydra"]
        parsed = OverridesParser.create().parse_overrides(hydra["overrides"]["task"])
        keys = [override.key_or_group for override in parsed if override.is_sweep_override()]
        return [*keys, *(hydra["sweeper"].get("params") or {})]
    if has_record(parent):
        return [str(key) for key in configuration(parent).get("search") or {}]
    return []


def _value(cfg: DictConfig, key: str, given: dict[str, str]) -> bool | int | float | str:
    value = OmegaConf.select(cfg, key)
    if isinstance(value, bool | int | float):
        return value
    if key.endswith("._target_"):
        return str(value).rpartition(".")[2]
    group = OmegaConf.is_dict(value) or value is None
    return given.get(key, "null") if group else str(value)
