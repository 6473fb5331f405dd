"""The data that a trained network is evaluated on: the settings that it was trained with, changed only by name."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from segnet.errors import UserError, printable
from segnet.rules import shown

CHECKPOINT = "checkpoint"  # the option of the group ``data`` that names nothing
FOLDER = "folder"  # the option whose settings are found
# What a data group says: where the files are. How they are read is a matter of the network.
WHERE = ("root", "images", "masks", "match", "missing_mask", "defect_free", "mask_drawn", "split", "prepare")
NAMED = ("kinds", "parts")  # what it says of the images' names, if it does: the group's patterns fit its files


def settings(trained: dict[str, Any], cfg: DictConfig, whole: bool = False) -> dict[str, Any]:
    """The data of a command that runs a checkpoint, for `segnet.configuration.instantiate`.

    The settings of the training hold: image size, classes, colours, encoding of the masks and all others. A data group
    (``data=camvid``) says where the files are and how they are split (`WHERE`), and what the command line names holds
    (``data.image_size=96``, ``data/mask=values``, ``data.mask.above=0``). The cache alone is never the checkpoint's:
    there is none unless the command line names its folder.

    Args:
        trained: the checkpoint's configuration, `SegmentationModule.config`.
        cfg: the command's, composed with the group ``data``.
        whole: take every image, without a split.

    Raises:
        UserError: the classes differ in number, name or order from those of the network; or a split is named
            beside ``whole``.
    """
    chosen = HydraConfig.get()
    group = str(chosen.runtime.choices["data"])
    overrides = OverridesParser.create().parse_overrides(list(chosen.overrides.task))
    named = [override.key_or_group.replace("/", ".") for override in overrides]
    given: Any = OmegaConf.to_container(cfg.data, resolve=False)
    data = {**deepcopy(trained["data"]), "cache_dir": None}
    if group != CHECKPOINT:
        data |= {key: given[key] for key in WHERE if key in given}
        data |= {key: given[key] for key in NAMED if given.get(key) is not None}
    from segnet.data import description, folder  # torch comes with them

    if group == FOLDER and description.has(given["root"]):  # it says how its masks are encoded
        data |= {key: given[key] for key in ("mask", "classes", "num_classes")}
    for key in named:
        if key.startswith("data."):
            _copy(given, data, key.split(".")[1:])
    if whole:
        if any(key.startswith("data.split") for key in named):
            raise UserError("split=all takes every image, so data.split has no effect; leave one of them out")
        data["split"] = {"_target_": "segnet.data.splits.All"}
    # Interpolations are resolved among the settings that hold, not among those of the group.
    composed = OmegaConf.create({**OmegaConf.to_container(cfg, resolve=False), "data": data})  # type: ignore[dict-item]
    found: dict[str, Any] = OmegaConf.to_container(composed.data, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    found, lines = folder.settle(found)
    for line in lines:
        print(printable(line))
    if group not in (CHECKPOINT, FOLDER) and "data.classes" not in named:
        _check_classes(list(cfg.data.classes), trained["model"]["classes"], f"data={group} has the classes")
    _check_classes(found["classes"], trained["model"]["classes"], "data.classes is")
    return found


def is_missing(found: dict[str, Any]) -> bool:
    """Whether the data are the checkpoint's own, none of the command line's, and not there, nor made where missing."""
    chosen = HydraConfig.get()
    named = any(word.lstrip("+~").startswith(("data.", "data/")) for word in chosen.overrides.task)
    own = str(chosen.runtime.choices["data"]) == CHECKPOINT and not named
    return own and found.get("prepare") is None and not Path(str(found["root"])).exists()


def check_sizes(
    found: dict[str, Any], trained: dict[str, Any], what: str, keys: Sequence[str] = ("image_size", "crop", "scale")
) -> None:
    """Refuse another size of the network's input than it was trained at: ``what`` is made at that one.

    Raises:
        UserError: naming the key.
    """
    for key in keys:
        if found.get(key) != trained.get(key):
            raise UserError(
                f"data.{key}={found[key]}: {what} has that of the network's training, {shown(trained.get(key))}; leave "
                f"it out"
            )


def _copy(source: dict[str, Any], target: dict[str, Any], path: Sequence[str]) -> None:
    """Copy what a command line names; a missing key was deleted there (``~data.colors``), a missing value never set."""
    key, *rest = path
    if key not in source:
        target.pop(key, None)
    elif rest and isinstance(source[key], dict) and isinstance(target.get(key), dict):
        _copy(source[key], target[key], rest)
    elif isinstance(source[key], dict):
        target[key] = {name: value for name, value in source[key].items() if value != "???"}
    else:
        target[key] = source[key]


def _check_classes(given: Sequence[str], trained: Sequence[str], what: str) -> None:
    if list(given) == list(trained):
        return
    own = f"[{','.join(trained)}]"
    same = len(given) == len(trained)
    remedy = f"if the masks mean the same, add 'data.classes={own}'" if same else "choose data with these classes"
    raise UserError(
        f"{what} [{','.join(given)}], but the network was trained for {own}: number, names and order must agree; "
        f"{remedy}"
    )
