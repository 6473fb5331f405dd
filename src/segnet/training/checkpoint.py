"""Rebuilding a module from nothing but its checkpoint, without running code that the file chooses."""

import inspect
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import nn
from torch.optim.swa_utils import AveragedModel

from segnet.configuration import instantiate
from segnet.errors import UserError
from segnet.old_names import update_targets
from segnet.training.module import SegmentationModule

# Packages whose classes and functions a checkpoint may name; everything else is refused.
ALLOWED = ("segnet.networks", "segnet.data", "segnet.training")
# Modules there that write files, or read them.
EXCLUDED = (
    "segnet.data.cache",
    "segnet.data.images",
    "segnet.training.callbacks",
    "segnet.training.checkpoint",
    "segnet.training.preemption",
)


def read(path: str | Path, argument: str = "ckpt_path") -> dict[str, Any]:
    """The checkpoint as tensors and plain containers (``weights_only=True``), its configuration checked.

    Args:
        path: of the file.
        argument: what errors call it.

    Raises:
        UserError: no checkpoint of this project, damaged, or naming code outside the allowed modules.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{argument}={path}: no such file; a run keeps its checkpoints in <run folder>/checkpoints/")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or hostile file
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{argument}={path}: cannot be loaded safely ({reason})") from error
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict) or not content["config"]:
        raise UserError(f"{argument}={path}: not a checkpoint written by segnet (it holds no configuration)")
    # Augmentation and downloads are on record there, but nothing rebuilds them.
    data = content["config"].get("data")
    if isinstance(data, dict):
        data["augment"], data["prepare"] = [], None
    update_targets(content["config"])
    check_targets(content["config"], f"{argument}={path}")
    return content


def load_module(path: str | Path) -> SegmentationModule:
    """The trained module, in evaluation mode, with the configuration it was trained with as ``config``."""
    content = read(path)
    config = content["config"]
    model = OmegaConf.create({"model": config["model"]})
    if "pretrained" in model.model.net:
        model.model.net.pretrained = False  # the checkpoint has the weights; download nothing
    module: SegmentationModule = instantiate(model.model, "model")
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise UserError(f"ckpt_path={path}: weights do not fit its network ({error})") from error
    module.config = config
    return module.eval()


def start_from(module: SegmentationModule, weights: str | Path | Sequence[str | Path]) -> None:
    """Give the module's network the weights of a checkpoint, and nothing else of it (fine-tuning).

    Of several checkpoints it gets the mean (Wortsman et al. 2022, Model soups, section 2, uniform soup); batch norms'
    statistics fit that mean only after some training. Where the classes are others in number, the layers that have
    one channel per class keep their fresh start, which is said on standard error.

    Raises:
        UserError: a checkpoint belongs to another network, or none is named.
    """
    paths = [weights] if isinstance(weights, str | Path) else weights
    if not paths:
        raise UserError("weights=[]: name at least one checkpoint, or leave it out to start afresh")
    mean = AveragedModel(module.net, use_buffers=True)
    for path in paths:
        _start_from_one(module, path)
        mean.update_parameters(module.net)
    module.net.load_state_dict(mean.module.state_dict())


def _start_from_one(module: SegmentationModule, path: str | Path) -> None:
    content = read(path, "weights")
    given = {name[4:]: value for name, value in content["state_dict"].items() if name.startswith("net.")}
    own = module.net.state_dict()
    before, now = len(content["config"]["model"]["classes"]), len(module.classes)
    fresh = [
        name
        for name in given.keys() & own.keys()
        if before != now and given[name].shape == (before, *own[name].shape[1:]) and len(own[name]) == now
    ]
    try:
        module.net.load_state_dict(given | {name: own[name] for name in fresh})
    except RuntimeError as error:
        reason = shorten(str(error).splitlines()[1], 150)  # torch lists every entry
        net = content["config"]["model"]["net"]
        raise UserError(
            f"weights={path}: it belongs to another network than this run's ({reason}); choose the same model: {net}"
        ) from error
    if fresh:
        print(f"weights: {before} class(es) there, {now} here; not loaded: {', '.join(sorted(fresh))}", file=sys.stderr)


def check_targets(config: Any, source: str) -> None:
    """Refuse interpolations and ``_target_`` entries that lead outside the allowed code."""
    if isinstance(config, str) and "${" in config:
        raise UserError(f"{source}: its configuration holds an interpolation {config!r}; refused")
    if isinstance(config, dict):
        if "_target_" in config and not _allowed(str(config["_target_"])):
            raise UserError(
                f"{source}: names {config['_target_']!r}, which a checkpoint must not run; put your own networks, "
                f"data and losses into {', '.join(ALLOWED)}"
            )
        for key, value in config.items():
            check_targets(key, source)
            check_targets(value, source)
    elif isinstance(config, list | tuple):
        for value in config:
            check_targets(value, source)


def _allowed(target: str) -> bool:
    module, _, name = target.rpartition(".")
    if name.startswith("_"):
        return False
    if _within(module, ALLOWED):
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError):
            return False
        # Not what a module has merely imported, such as `Path`: its home counts.
        home = str(getattr(found, "__module__", ""))
        code = inspect.isclass(found) or inspect.isfunction(found)
        return code and _within(home, ALLOWED) and not _within(home, EXCLUDED)
    # Of the libraries only classes of networks, losses and optimizers: building one runs nothing else.
    root = target.split(".")[0]
    if root not in ("torch", "segmentation_models_pytorch"):
        return False
    try:
        found = get_class(target)
    except Exception:  # not a class, or not there
        return False
    bases = (nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
    return inspect.isclass(found) and issubclass(found, bases) and found.__module__.startswith(root + ".")


def _within(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
