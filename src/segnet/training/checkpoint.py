"""Rebuilding a module from nothing but its checkpoint, without running code that the file chooses.

A checkpoint is a file that a run wrote, or a folder that publish.py wrote (`segnet.training.published`).
"""

import inspect
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from pkgutil import resolve_name
from textwrap import shorten
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from segnet import hub, trust
from segnet.configuration import instantiate
from segnet.decisions import OperatingPoint
from segnet.errors import UserError
from segnet.files import atomic_write
from segnet.networks.pruning import prune
from segnet.networks.segnet import SegNet
from segnet.old_names import update_targets
from segnet.rules import shown
from segnet.training import published
from segnet.training.module import SegmentationModule

ENSEMBLE = "segnet.networks.ensemble.Ensemble"
SEGNET = f"{SegNet.__module__}.{SegNet.__qualname__}"
POINT = "operating_point"  # in checkpoints


def read(path: str | Path, argument: str = "ckpt_path", trusted: bool = False) -> dict[str, Any]:
    """The checkpoint as tensors and plain containers (``weights_only=True``), its configuration checked.

    Args:
        path: of the file, or of a published folder, whose files are compared with its checksums.
        argument: what errors call it.
        trusted: the user made the file: its configuration may name any class.

    Raises:
        UserError: no checkpoint of this project, damaged, or asking for more than `segnet.trust` allows.
    """
    path = Path(path)
    content = _stored(path, argument)
    parts = [content.get(name) for name in ("config", "state_dict")] if isinstance(content, dict) else [None]
    if not all(isinstance(part, dict) and part for part in parts):
        raise UserError(f"{argument}={path}: not a checkpoint written by segnet (it holds no configuration)")
    config = content["config"] = trust.plain(content["config"], f"{argument}={path}")
    state = content["state_dict"].items()
    whole = all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state)
    whole = whole and all(isinstance(config.get(name), dict) for name in ("model", "data"))
    if not whole or not isinstance(config["model"].get("classes"), list):
        raise UserError(f"{argument}={path}: not a checkpoint written by segnet (it describes no model)")
    # Augmentation and downloads are on record there, but nothing rebuilds them; nor is its cache used, which may
    # delete older caches to make room.
    config["data"] |= {"augment": [], "prepare": None, "cache_dir": None}
    update_targets(config)
    if not trusted:
        trust.check(config, f"{argument}={path}")
    config["model"]["net"] = without_downloads(config["model"].get("net"))
    return content


def _stored(path: Path, argument: str) -> dict[str, Any]:
    """What a file holds, or a published folder."""
    if path.is_dir():
        return published.read(path, argument)
    if not path.is_file():
        others = ", a folder that publish.py wrote or hf://<user>/<name>" if argument == "weights" else ""
        raise UserError(f"{argument}={path}: no such file; give <run folder>/checkpoints/best.ckpt{others}")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or hostile file
        reason = str(error).strip().partition(". ")[0].partition("\n")[0] or type(error).__name__  # the rest is advice
        raise UserError(
            f"{argument}={path}: cannot be loaded safely ({reason}): it is damaged, or not a checkpoint written by "
            f"segnet; give another, such as {'last' if path.name == 'best.ckpt' else 'best'}.ckpt of its run"
        ) from error
    return content


def load_module(path: str | Path, trusted: bool = False, argument: str = "ckpt_path") -> SegmentationModule:
    """The trained module, in evaluation mode, with the configuration it was trained with as ``config``; see `read`."""
    content = read(path, argument, trusted)
    config = content["config"]
    module = instantiate(config["model"], "model")
    if not isinstance(module, SegmentationModule):
        raise UserError(f"{argument}={path}: not a checkpoint written by segnet (its model is {type(module).__name__})")
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise UserError(f"{argument}={path}: weights do not fit its network ({error})") from error
    module.config = config
    if (stored := content.get(POINT)) is not None:
        module.operating_point = OperatingPoint.read(stored, module.classes, f"{argument}={path}")
    return module.eval()


def write_calibrated(path: str | Path, target: Path, point: OperatingPoint) -> None:
    """Write the checkpoint ``path`` again, with an operating point that `load_module` reads."""
    content = _stored(Path(path), "ckpt_path")
    with atomic_write(target) as part:
        torch.save(content | {POINT: point.stored()}, part)


def ensemble(paths: Sequence[Path], trusted: bool = False) -> SegmentationModule:
    """The networks of several folds' checkpoints as one (`Ensemble`), in evaluation mode; its ``config`` rebuilds it.

    Everything else, such as counted class weights, which only the loss of a test depends on, is the first one's.
    """
    members = [load_module(path, trusted) for path in paths]
    config = deepcopy(members[0].config)
    nets = [member.config["model"]["net"] for member in members]
    config["model"]["net"] = {"_target_": ENSEMBLE, "nets": nets}
    config["data"]["split"]["fold"] = None
    module: SegmentationModule = instantiate(config["model"], "model")
    module.load_state_dict(members[0].state_dict(), strict=False)  # the loss's; its network has other names here
    for net, member in zip(module.net.nets, members, strict=True):  # type: ignore[arg-type]
        net.load_state_dict(member.net.state_dict())
    module.config = config
    return module.eval()


def start_from(module: SegmentationModule, weights: str | Path | Sequence[str | Path], trusted: bool = False) -> None:
    """Give the module's network the weights of a checkpoint, and nothing else of it (fine-tuning).

    Of several checkpoints it gets the mean (Wortsman et al. 2022, Model soups, section 2, uniform soup); batch norms'
    statistics fit that mean only after some training. Where the classes are others in number, the layers that have
    one channel per class keep their fresh start; a SegNet narrower than the checkpoint's gets a part of its channels
    (`segnet.networks.pruning`). Both are said on standard error.

    Args:
        module: to start.
        weights: one or more files or folders, as `read` takes them, or names on a hub, as `segnet.hub.fetch` does.
        trusted: the user made them.

    Raises:
        UserError: a checkpoint belongs to another network, or none is named.
    """
    paths = [weights] if isinstance(weights, str | Path) else weights
    if not paths:
        raise UserError("weights=[]: name at least one checkpoint, or leave it out to start afresh")
    mean = AveragedModel(module.net, use_buffers=True)
    for path in paths:
        if _start_from_one(module, path, trusted) and len(paths) > 1:
            raise UserError(
                f"weights={shown([str(path) for path in paths])}: {path} has more channels than this network, and "
                f"those that are left of several checkpoints have no mean; name one of them"
            )
        mean.update_parameters(module.net)
    module.net.load_state_dict(mean.module.state_dict())


def _start_from_one(module: SegmentationModule, path: str | Path, trusted: bool) -> bool:
    """Load it; whether a part of its channels is left."""
    where = hub.fetch(str(path), published.NEEDED) if hub.is_url(path) else path
    content = read(where, "weights", trusted)
    given = {name[4:]: value for name, value in content["state_dict"].items() if name.startswith("net.")}
    own = module.net.state_dict()
    before, now = len(content["config"]["model"]["classes"]), len(module.classes)
    fresh = [
        name
        for name in given.keys() & own.keys()
        if before != now and given[name].shape == (before, *own[name].shape[1:]) and len(own[name]) == now
    ]
    net = content["config"]["model"]["net"]
    try:
        if (wide := _wider(net, given, module.net)) is not None:
            prune(wide, module.net)  # type: ignore[arg-type]
            fresh = ["classifier.bias", "classifier.weight"] if before != now else []
            print(f"weights: {shown(wide.widths)} channels there, {shown(module.net.widths)} here", file=sys.stderr)
        else:
            module.net.load_state_dict(given | {name: own[name] for name in fresh})
    except RuntimeError as error:
        reason = shorten(str(error).splitlines()[1], 150)  # torch lists every entry
        told = f"weights={path}: it belongs to another network than this run's ({reason})"
        if net["_target_"] == ENSEMBLE:
            raise UserError(f"{told}; an ensemble can teach one network: teacher={path}") from error
        raise UserError(f"{told}; choose the same model: {net}") from error
    if fresh:
        print(f"weights: {before} class(es) there, {now} here; not loaded: {', '.join(sorted(fresh))}", file=sys.stderr)
    return wide is not None


def _wider(config: dict[str, Any], weights: dict[str, torch.Tensor], own: nn.Module) -> SegNet | None:
    """The SegNet of a checkpoint, where it has more channels than ``own`` and in no stage fewer; otherwise None."""
    if not isinstance(own, SegNet) or config["_target_"] != SEGNET:
        return None
    net = instantiate(config, "weights: model.net")
    if net.widths == own.widths or any(there < here for there, here in zip(net.widths, own.widths, strict=True)):
        return None
    net.load_state_dict(weights)
    found: SegNet = net
    return found


def without_downloads(config: Any) -> Any:
    """The configuration of a network whose weights follow: none of its parts fetches or opens any by itself."""
    if isinstance(config, list):
        return [without_downloads(entry) for entry in config]
    if not isinstance(config, dict):
        return config
    config = {key: without_downloads(value) for key, value in config.items()}
    if "_target_" in config:
        try:
            known = set(inspect.signature(resolve_name(str(config["_target_"]))).parameters)
        except (ImportError, AttributeError, TypeError, ValueError):  # building it says what is wrong
            known = set()
        for name in ("pretrained", "encoder_weights", "weights_backbone"):
            if name in known or name in config:
                config[name] = False if name == "pretrained" else None
        for name in ("weights", "checkpoint_path"):
            if isinstance(config.get(name), str):
                config[name] = None
    return config
