"""``experiment=auto``: look at the data, choose a recipe by rules, tell it, and train as if it had been typed."""

import math
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from segnet.errors import UserError
from segnet.overrides import name_of
from segnet.runs import record
from segnet.terminal import is_first, tell

if TYPE_CHECKING:
    from segnet.data.datamodule import SegmentationDataModule
    from segnet.recipe.fingerprint import Fingerprint
    from segnet.recipe.record import Recipe

# What the rules set, or go by, as it stands in the configuration.
KEYS = (
    "data.image_size", "data.crop", "data.scale", "data.crops_per_epoch",
    "data.batch_size", "data.positive_share", "data.augment", "data.split.group", "model.loss",
    "model.optimizer", "model.scheduler", "model.class_weights", "trainer.max_epochs", "trainer.gradient_clip_val",
    "trainer.check_val_every_n_epoch", "trainer.limit_train_batches", "trainer.limit_val_batches",
    "trainer.limit_test_batches", "trainer.max_time", "own_size", "data.device_cache",
)  # fmt: skip
AGAIN = 1.5  # times more or fewer pixels than were measured are measured once more
SHORT = 180  # seconds, in which measuring twice would take too much


def complete(cfg: DictConfig, start: float) -> DictConfig:
    """The configuration with the recipe in it, which is told, and written to the run's folder; without
    ``experiment=auto`` as it is.

    Args:
        cfg: as composed of the user's overrides, its data settled.
        start: when the command began, by `time.monotonic`.

    Raises:
        UserError: ``minutes`` without ``experiment=auto``, or with several processes.
    """
    if not cfg.get("auto"):
        if cfg.get("minutes") is not None:
            raise UserError(
                f"minutes={cfg.minutes}: needs experiment=auto, which chooses size and epochs for the time; add it, or "
                f"leave minutes out (trainer.max_time=00:00:20:00 would stop any other recipe, wherever it is)"
            )
        return cfg
    hydra = HydraConfig.get()
    given = list(hydra.overrides.task)
    recipe = decide(cfg, given, start)
    settled = _composed([*recipe.overrides, *_others(given), *hydra.overrides.hydra], cfg)
    tell(*recipe.lines())
    if is_first():
        recipe.write(Path(cfg.output_dir))
        record.write(settled, [*recipe.overrides, *_others(given)], Path(cfg.output_dir))
    return settled


def decide(cfg: DictConfig, given: Sequence[str], start: float) -> "Recipe":
    """The recipe for ``cfg``.

    Args:
        cfg: as composed of the user's overrides.
        given: these.
        start: when the command began, by `time.monotonic`.
    """
    from segnet.commands import timing
    from segnet.commands.sizes import settle_size
    from segnet.configuration import instantiate
    from segnet.data.splits import ByHash
    from segnet.recipe import rules, survey
    from segnet.recipe.budget import Budget
    from segnet.recipe.plan import Case
    from segnet.recipe.record import Recipe

    named = named_in(cfg, given)
    found = cfg.data.copy()
    found.cache_dir = None
    if found.crop is None:  # the rules may choose crops, which these two go with
        found.scale, found.crops_per_epoch = 1.0, None
    settle_size(found)
    data: SegmentationDataModule = instantiate(found, "data")
    data.prepare_data()
    data.setup()
    data.require("train", "val")
    seen = survey.measure(data)
    gpu = timing.device_of(cfg).type == "cuda"
    case = Case(seen, Budget(gpu), named, gpu, isinstance(data.split, ByHash))
    choices, plan = rules.choose(case)
    if cfg.minutes is None:
        return Recipe(seen, choices, plan, named, given=_others(given))
    if cfg.trainer.devices not in (1, "1") or cfg.trainer.num_nodes != 1:
        raise UserError(
            f"minutes={cfg.minutes} with trainer.devices={cfg.trainer.devices}: the speed of one process is measured; "
            f"leave minutes out, or add trainer.devices=1"
        )
    if slow := sorted({"auxiliary", "int8"} & set(cfg.callbacks or ())):
        raise UserError(
            f"minutes={cfg.minutes} with callbacks={slow[0]}: the speed is measured without it; leave minutes out, or "
            f"callbacks={slow[0]}"
        )
    folds = cfg.get("folds") or 1
    case = replace(case, data=_of_a_fold(seen, folds))
    choices, plan = rules.choose(case)
    limit, measured, speed = 60 * float(cfg.minutes), 0, None
    while speed is None or not measured / AGAIN < plan.pixels < measured * AGAIN:
        if measured and limit < SHORT:
            break
        candidate = _composed([*Recipe(seen, choices, plan, named).overrides, *_others(given)], cfg)
        speed = timing.measure(candidate, data, plan)
        measured, again = plan.pixels, measured
        budget = Budget(gpu, (limit - (time.monotonic() - start)) / folds, speed, os.cpu_count() or 1)
        choices, plan = rules.choose(replace(case, budget=budget))
        if again:
            break
    return Recipe(seen, choices, plan, named, speed, float(cfg.minutes), time.monotonic() - start, _others(given))


def _of_a_fold(seen: "Fingerprint", folds: int) -> "Fingerprint":
    """The data set as one of ``folds`` trainings has it, which predicts its part of the images afterwards."""
    if folds == 1:
        return seen
    count = sum(seen.images.values())
    part = math.ceil(count / folds)
    return replace(seen, images={"train": count - part, "val": part, "test": part})


def expand(cfg: DictConfig, given: Sequence[str], varied: Collection[str]) -> list[str]:
    """Overrides with the recipe in place of ``experiment=auto``, for the trials of a search; told as for a run.

    Args:
        cfg: as composed of ``given``.
        given: the user's overrides.
        varied: what the search varies, which the recipe leaves alone.

    Raises:
        UserError: ``minutes`` or ``budget_ms`` is set, which would be those of one training.
    """
    for key in ("minutes", "budget_ms"):
        if cfg.get(key) is not None:
            raise UserError(f"{key}={cfg[key]}: is for one training, and a search has many; leave it out")
    if not cfg.get("auto"):
        return list(given)
    recipe = decide(cfg, given, time.monotonic())
    tell(*recipe.lines())
    return [*(o for o in recipe.overrides if name_of(o) not in varied), *_others(given)]


def named_in(cfg: DictConfig, given: Sequence[str]) -> dict[str, Any]:
    """What the user has set of `KEYS`: on the command line, or by a file that sets it otherwise than by default."""
    typed = {name_of(override) for override in given}
    typed |= {"data.augment"} if "augment" in typed else set()
    typed |= {f"model.{group}" for group in ("loss", "optimizer", "scheduler") if group in typed}
    default = _composed([], cfg)

    def value(config: DictConfig, key: str) -> Any:
        found = OmegaConf.select(config, key)
        if isinstance(found, DictConfig):  # a group: arguments of its choice may be named without the choice
            return found.get("_target_")
        return OmegaConf.to_container(found, resolve=False) if OmegaConf.is_config(found) else found

    return {key: value(cfg, key) for key in KEYS if key in typed or value(cfg, key) != value(default, key)}


def _others(given: Sequence[str]) -> list[str]:
    """The user's overrides that still say something behind a recipe."""
    return [override for override in given if name_of(override) not in ("experiment", "minutes", "auto")]


def _composed(overrides: Sequence[str], cfg: DictConfig) -> DictConfig:
    """``conf/train.yaml`` with these overrides; where ``cfg`` runs, and with what was found of its data."""
    config: DictConfig = compose("train", list(overrides))
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    config.output_dir, config.trust = cfg.output_dir, cfg.trust
    for key in cfg.data:
        if f"data.{key}" not in KEYS:
            config.data[key] = cfg.data[key]
    return config
