"""What a file from someone else may have this program build: known classes, with plain values.

A checkpoint and a run's record name classes and arguments. Unless ``trust=true`` says that the user made the files, a
target must be defined in one of the homes below; its arguments are numbers, lists and texts, but for a few no paths.
"""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple, NoReturn

from segnet.errors import UserError

REMEDY = "if you made these files yourself, add trust=true"
DEPTH, ENTRIES, BYTES = 40, 100_000, 1_000_000  # of a configuration
_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+")
_WORDS = re.compile(r"[\w .,+=-]*")
_METRIC = re.compile(r"(train|val|test)/[\w .-]+")


class Rule(NamedTuple):
    """What may be built.

    Attributes:
        homes: modules and packages, or single classes and functions, where it must be defined.
        bases: it must be a subclass of one of these; empty: any class or function there.
        text: what its texts may look like.
        excluded: modules, packages and classes in the homes that write files, open them, or call what they are given.
        more: arguments beyond those of the signature may be given, where it takes them (``**kwargs``).
    """

    homes: tuple[str, ...]
    bases: tuple[str, ...] = ()
    text: re.Pattern[str] = _WORDS
    excluded: tuple[str, ...] = ()
    more: bool = False


_IO = "callbacks checkpoint dashboard data_record distillation loggers preemption published recording records selection"
OWN = Rule(
    (
        *("segnet.networks", "segnet.training"),
        *(f"segnet.data.{name}" for name in ("datamodule", "folds", "masks", "path_masks", "splits")),
    ),
    text=re.compile(r"(?![/~])([^\\{\x00-\x1f]|\{\w*\})*"),  # patterns below the data's root are among them
    excluded=tuple(f"segnet.training.{name}" for name in _IO.split()),
    more=True,
)
MODEL = (
    OWN,
    Rule(("torch.nn.modules",), ("torch.nn.Module",)),
    Rule(("torch.optim",), ("torch.optim.Optimizer", "torch.optim.lr_scheduler.LRScheduler")),
    Rule(("segmentation_models_pytorch.decoders", "segmentation_models_pytorch.losses"), ("torch.nn.Module",)),
    Rule(("torchvision.models.segmentation",)),
)
_OPTION = re.compile(r"[\w .,:+={}()%-]*")
_ROOTS = (
    "albumentations",
    "lightning.pytorch",
    "segmentation_models_pytorch",
    "torch.nn",
    "torch.optim",
    "torchvision.models",
    "torchvision.transforms.v2",
    "segnet.data",  # whose classes may be named without their module
    *OWN.homes,
)
_CALLBACK = ("lightning.pytorch.Callback", "lightning.pytorch.plugins.io.CheckpointIO")
_PARTS = tuple(f"segnet.training.{name}" for name in ("callbacks", "dashboard", "preemption"))
RUN = (
    *MODEL,
    Rule(
        (
            "lightning.pytorch.loggers.csv_logs.CSVLogger",
            "lightning.pytorch.loggers.tensorboard.TensorBoardLogger",
            "lightning.pytorch.trainer.trainer.Trainer",
            "segnet.training.callbacks.batch_size",
        ),
        text=_OPTION,
    ),
    Rule(("lightning.pytorch.callbacks",), _CALLBACK, _OPTION, more=True),
    Rule(_PARTS, _CALLBACK, _OPTION),
    Rule(("segnet.training.loggers",), ("lightning.pytorch.loggers.Logger",), _OPTION),
    Rule(("segnet.training.selection",), _CALLBACK, _OPTION, more=True),
    Rule(
        ("albumentations.augmentations", "albumentations.core.composition", "albumentations.pytorch"),
        ("albumentations.BasicTransform", "albumentations.BaseCompose"),
        excluded=tuple(f"albumentations.augmentations.{name}" for name in ("mixing", "other.lambda_transform", "text")),
    ),
    Rule(
        ("torchvision.transforms.v2",),
        ("torchvision.transforms.v2.Transform",),
        excluded=("torchvision.transforms.v2._misc.Lambda",),
    ),
)
# What may make the data where its folder is missing, and its arguments; the folder is added when it is called.
PREPARE = {
    "segnet.synthetic.cables.write": {"images", "size", "seed"},
    "torchvision.datasets.OxfordIIITPet": {"target_types", "download", "split"},
}
# Arguments that name where a run writes: in its own folder.
_PLACES = {"default_root_dir", "dirpath", "path", "save_dir"}
_FOUND = {"data.mask", "data.split"}  # null in a record whose run was killed before its data was settled
# Arguments that may be any text. Data are read below the root; the cache makes a folder of its own in cache_dir.
_DATA = {"root", "cache_dir", "classes", "defect_free", "match", "kinds", "parts"}
_FREE = {
    "segnet.data.datamodule.SegmentationDataModule": _DATA,
    "segnet.data.path_masks.ByPath": {"classes", "pattern"},
    "segnet.data.splits.ByGroup": {"group", "train", "val", "test"},
    "segnet.data.splits.ByHash": {"group", "salt"},
    "segnet.training.module.SegmentationModule": {"classes"},
}


def plain(value: Any, source: str) -> Any:
    """A copy of nested containers, which holds nothing but dicts, lists, texts, numbers and None.

    Raises:
        UserError: it holds something else, or is too deep or too large to be a configuration.
    """
    left = ENTRIES

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if depth > DEPTH or left < 0:
            raise UserError(f"{source}: its configuration is too deep or too large; {REMEDY}")
        if type(value) is dict:
            return {copy(key, depth + 1): copy(entry, depth + 1) for key, entry in value.items()}
        if type(value) in (list, tuple):
            return [copy(entry, depth + 1) for entry in value]
        if value is None or type(value) in (str, int, float, bool):
            return value
        raise UserError(f"{source}: its configuration holds a {type(value).__name__}; only plain values are read")

    return copy(value, 0)


def check(config: Any, source: str, rules: Sequence[Rule] = MODEL, folder: Path | None = None) -> None:
    """Refuse a configuration that would have anything else built.

    Args:
        config: plain containers, without interpolations.
        source: the file as the user gave it, such as ``ckpt_path=a.ckpt``.
        rules: what may be built.
        folder: paths in it are allowed.

    Raises:
        UserError: naming the entry.
    """
    _Check(source, rules, folder).walk(plain(config, source), "")


def refuse(source: str, entry: str, reason: str) -> NoReturn:
    """Raise the error that names an entry, and what to do if it is the user's own."""
    raise UserError(f"{source}: {entry} {reason}; {REMEDY}")


@dataclass(frozen=True)
class _Check:
    source: str
    rules: Sequence[Rule]
    folder: Path | None

    def walk(self, value: Any, key: str) -> None:
        if isinstance(value, list):
            for i, entry in enumerate(value):
                self.walk(entry, f"{key}.{i}")
        elif isinstance(value, dict):
            if "_target_" in value and not (key in _FOUND and value["_target_"] is None):
                self.call(value, key)
            for name, entry in value.items():
                self.walk(name, key)
                self.walk(entry, f"{key}.{name}".strip("."))
        elif isinstance(value, str) and "${" in value:
            refuse(self.source, f"{key}={value!r}", "is an interpolation that a file must not use")

    def call(self, node: dict[Any, Any], key: str) -> None:
        target = node["_target_"]
        entry = f"{key}._target_={target!r}".strip(".")
        given = {str(name): value for name, value in node.items() if name not in ("_target_", "_partial_")}
        free: set[str] = set()
        if isinstance(target, str) and target in PREPARE and key == "data.prepare" and self.rules is RUN:
            form, known = _WORDS, PREPARE[target]
        else:
            found, rule = _allowed(target, self.rules)
            if rule is None:
                refuse(self.source, entry, "names code that a file must not run")
            form, free = rule.text, _FREE.get(f"{found.__module__}.{found.__qualname__}", set())
            kinds = {name: parameter.kind for name, parameter in inspect.signature(found).parameters.items()}
            known = set(given) if rule.more else {n for n, k in kinds.items() if k is not inspect.Parameter.VAR_KEYWORD}
        if strange := [name for name in given if name not in known or name.startswith("_")]:
            refuse(self.source, entry, f"takes no {strange[0]} from a file")
        for name, value in given.items():
            if (name == "offline" and value is not True) or (name == "tracking_uri" and value is not None):
                refuse(self.source, f"{key}.{name}={value}", "would send the run somewhere else")
            for text in () if name in free else _texts(value):
                inside = self.folder is not None and Path(text).is_relative_to(self.folder)
                good = inside or (name not in _PLACES and (form.fullmatch(text) or _METRIC.fullmatch(text)))
                if not good or ".." in text or "://" in text:
                    refuse(self.source, f"{key}.{name}={text!r}".strip("."), "is a path that a file must not choose")


def _texts(value: Any) -> list[str]:
    """The texts in an argument, those of other targets in it left out."""
    if isinstance(value, dict):
        return [] if "_target_" in value else [text for part in (*value, *value.values()) for text in _texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []


def _allowed(target: Any, rules: Sequence[Rule]) -> tuple[Any, Rule | None]:
    """The class or function, and the rule that allows it; None where none does."""
    if not isinstance(target, str) or not _NAME.fullmatch(target) or not _within(target, _ROOTS):
        return None, None
    try:
        found = _located(target)
    except (ImportError, AttributeError):
        return None, None
    if not (inspect.isclass(found) or inspect.isfunction(found)) or "." in found.__qualname__:
        return None, None
    full = f"{found.__module__}.{found.__name__}"  # not that of a module which has merely imported it, such as `Path`
    for rule in rules:
        if not _within(full, rule.homes) or _within(full, rule.excluded):
            continue
        bases = tuple(resolve_name(base) for base in rule.bases)
        if not bases or (inspect.isclass(found) and issubclass(found, bases)):
            return found, rule
    return None, None


def _located(target: str) -> Any:
    """What Hydra finds under this name: attributes come before modules."""
    parts = target.split(".")
    found = import_module(parts[0])
    for i, part in enumerate(parts[1:], 1):
        try:
            found = getattr(found, part)
        except AttributeError:
            found = import_module(".".join(parts[: i + 1]))
    return found


def _within(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
