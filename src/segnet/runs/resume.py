"""Continuing a stopped or killed run: in its folder, with its configuration, to the same weights.

``conf/train.yaml`` asks `run_folder` and `record_folder` where a run works: Hydra begins a new run in a new folder and
writes its record there, and a resumed one in its own folder, whose record it leaves alone.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from segnet import trust
from segnet.errors import UserError
from segnet.hydra_versions import register_resolver
from segnet.object_store import is_url
from segnet.old_names import update_targets
from segnet.passwords import masked
from segnet.runs import record
from segnet.runs.record import CONFIG, OVERRIDES, has_record, recorded

LAST = Path("checkpoints") / "last.ckpt"


def run_folder(resume: str | None, fresh: str) -> str:
    """Where the run works: in the folder to resume, if a run is there, else in a fresh one."""
    return fresh if resume is None or not has_record(Path(str(resume))) else str(resume)


def record_folder(resume: str | None) -> str | None:
    """Where in it Hydra writes its record; None keeps that of a resumed run."""
    return CONFIG.parent.name if resume is None or not has_record(Path(str(resume))) else None


register_resolver("run_folder", run_folder, replace=True)
register_resolver("record_folder", record_folder, replace=True)


def _folder(cfg: DictConfig, kind: str) -> Path:
    """The folder that ``cfg.resume`` names.

    Raises:
        UserError: no run is there, or this is a sweep.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError("resume continues a single run; leave out -m")
    folder = Path(str(cfg.resume))
    if not has_record(folder):
        raise UserError(f"resume={folder}: there is no complete {OVERRIDES}; give the folder of a {kind}")
    return folder


def saved(cfg: DictConfig) -> DictConfig:
    """The configuration that the run of ``cfg.resume`` was started with.

    ``trainer.max_epochs`` may grow, which is written to the record; any other change is listed and ignored.

    Raises:
        UserError: no run is there; its record asks for more than `segnet.trust` allows; fewer epochs, or more of them
            under a schedule that spans the run.
    """
    folder = _folder(cfg, "run, logs/train/<time>")
    config = record.configuration(folder)
    config.output_dir = cfg.output_dir
    if not cfg.trust:
        record.check_links(folder, f"resume={folder}")
        trust.plain(OmegaConf.to_container(config, resolve=False), f"resume={folder}")  # its depth
    update_targets(config)
    if not cfg.trust:
        record.check(config, f"resume={folder}")
    record.check_values(config, f"resume={folder}")
    with open_dict(config):
        config.trust, config.verbose = cfg.trust, cfg.verbose  # not what the record says
    old = recorded(folder)
    ignored = []
    for override in HydraConfig.get().overrides.task:
        key, _, value = override.lstrip("+").partition("=")
        if key == "data.root" and override in old:
            config.data.root = cfg.data.root  # a URL that is typed again is mirrored again, here
        if key in ("resume", "resume_changed_data", "output_dir", "trust", "verbose") or override in old:
            continue
        if key == "trainer.max_epochs":
            _grow(config, cfg.trainer.max_epochs, folder)
        elif OmegaConf.select(config, key) is None or str(OmegaConf.select(config, key)) != value:
            ignored.append(f"{override} (the run has {OmegaConf.select(config, key)})")
    if ignored:
        print(f"resume: the saved configuration is used; ignored: {', '.join(ignored)}", file=sys.stderr)
    return config


def _grow(config: DictConfig, epochs: int, folder: Path) -> None:
    before = config.trainer.max_epochs
    if epochs == before:
        return
    if before == -1 or -1 < epochs < before:  # -1: without end
        raise UserError(f"trainer.max_epochs={epochs}: the run has {before}; a resumed run can only get more")
    if config.model.scheduler is not None:
        from segnet.configuration import instantiate
        from segnet.training.schedules import run_length

        if run_length(instantiate(config.model.scheduler, "model.scheduler")):
            raise UserError(
                f"trainer.max_epochs={epochs}: the run's schedule spans its {before} epochs and cannot be stretched; "
                f"start a new run"
            )
    config.trainer.max_epochs = epochs
    record.save(folder / CONFIG, config)


def saved_study(cfg: DictConfig) -> tuple[DictConfig, list[str]]:
    """The configuration that the study of ``cfg.resume`` was started with, and its overrides.

    What is given beside ``resume``, such as more ``trials``, counts, and goes into the record.

    Raises:
        UserError: no study is there, or its record asks for more than `segnet.trust` allows.
    """
    folder = _folder(cfg, "study, logs/tune/<time>")
    given = HydraConfig.get().overrides
    own = [word for word in given.task if not word.startswith(("resume=", "trust=", "verbose="))]
    before = [word for word in recorded(folder) if not word.startswith("trust=")]
    source = f"resume={folder}"
    if not cfg.trust:
        record.check_links(folder, source)
        record.check_overrides(before, source)
    overrides = [*before, *own]
    config = compose("tune", [*overrides, *given.hydra])
    update_targets(config)
    config.output_dir = cfg.output_dir
    config.trust, config.verbose = cfg.trust, cfg.verbose
    if not cfg.trust:
        record.check(config, source)
        if config.storage is not None and not any(word.startswith("storage=") for word in own):
            named = masked(str(config.storage))
            raise UserError(f"{source}: its record names storage={named}; repeat it, or add trust=true")
    if is_url(root := OmegaConf.select(config, "data.root")):
        if not any(word.lstrip("+").startswith("data.root=") for word in own):
            raise UserError(f"{source}: its record names data.root={root}; repeat it")
        config.data.root = cfg.data.root  # its mirror
    record.save(folder / OVERRIDES, OmegaConf.create(overrides))
    return config, overrides


def checkpoint(cfg: DictConfig) -> Path | None:
    """Where a resumed run continues; None where it was killed before its first checkpoint and begins anew.

    Loggers are told to drop what the killed run logged after it.
    """
    from segnet.training import loggers
    from segnet.training.checkpoint import read

    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    path = Path(cfg.output_dir) / LAST
    step = _step(read(path, "resume", cfg.trust), path) if path.is_file() else 0
    loggers.continue_at(cfg.logger, step)
    return path if path.is_file() else None


def _step(content: dict[str, Any], path: Path) -> int:
    """The step of a checkpoint.

    Raises:
        UserError: it has none; or it names a file outside, which Lightning might delete as an older checkpoint.
    """
    for state in content.get("callbacks", {}).values():
        older = state.get("best_k_models") if isinstance(state, dict) else None
        names = [*state.values(), *(older if isinstance(older, dict) else ())] if isinstance(state, dict) else []
        if odd := [name for name in names if isinstance(name, str) and ".." in Path(name).parts]:
            raise UserError(f"resume={path}: names {odd[0]} as a checkpoint, which is no path that a run writes")
    if type(content.get("global_step")) is not int:
        raise UserError(f"resume={path}: not the checkpoint of a run (it has no step)")
    return int(content["global_step"])
