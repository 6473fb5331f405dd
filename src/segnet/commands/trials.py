"""The values of a trial as overrides, and the experiment file that repeats it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial

from segnet.command_line import override
from segnet.overrides import CONF_DIR, name_of
from segnet.rules import shown


def overrides_of(values: Mapping[str, Any]) -> list[str]:
    """As on the command line; groups first, so that they do not undo the keys below them."""
    groups = [_override(key, value) for key, value in values.items() if "." not in key]
    return groups + [_override(key, value) for key, value in values.items() if "." in key]


def _override(key: str, value: Any) -> str:
    """As it is typed: a group of which none is chosen is left out; a text that Hydra cannot read is quoted."""
    if value is None and (CONF_DIR / key).is_dir():
        return f"~{key}"
    plain = f"{key}={shown(value)}"
    try:
        OverridesParser.create().parse_override(plain)
    except HydraException:
        return override(key, str(value))
    return plain


def experiment(trial: FrozenTrial, given: Sequence[str]) -> str:
    """An experiment configuration that repeats the trial."""
    defaults: list[Any] = []
    values: dict[str, Any] = {}
    chosen = [*given, *overrides_of(trial.params)]
    for word in chosen:
        key = name_of(word)
        parsed = OverridesParser.create().parse_override(word)
        value = None if parsed.is_delete() else parsed.value()
        if key == "experiment":
            defaults.insert(0, value)
        elif (CONF_DIR / key).is_dir():
            defaults = [d for d in defaults if not isinstance(d, dict) or f"override /{key}" not in d]
            defaults.append({f"override /{key}": value})
        elif entry := re.match(r"(.*?)\.\d+(\.|$)", key):  # of a list, which an experiment can only replace
            whole = OmegaConf.select(compose("train", chosen), entry[1])
            values[entry[1]] = OmegaConf.to_container(whole, resolve=False)
        else:
            values[key] = value
    config = OmegaConf.create()
    for key, value in values.items():
        OmegaConf.update(config, key, value)
    head = f"# @package _global_\n# Trial {trial.number} of a search: {trial.value:.4f}.\n"
    text = head + OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults}))
    return text + (OmegaConf.to_yaml(config) if values else "")
