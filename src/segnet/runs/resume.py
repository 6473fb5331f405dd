"""Continuing a stopped or killed run: in its folder, with its configuration, to the same weights.

``conf/train.yaml`` asks `run_folder` and `record_folder` where a run works: Hydra begins a new run in a new folder and
writes its record there, and a resumed one in its own folder, whose record it leaves alone.
"""

import sys
import warnings
from pathlib import Path

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from segnet.errors import UserError
from segnet.files import atomic_write
from segnet.old_names import update_targets

CONFIG = Path(".hydra") / "config.yaml"
OVERRIDES = CONFIG.with_name("overrides.yaml")  # which Hydra writes last
LAST = Path("checkpoints") / "last.ckpt"


def has_record(folder: Path) -> bool:
    """Whether the record of a run is whole: a kill while Hydra wrote it leaves its last file empty, before any work."""
    return (folder / OVERRIDES).is_file() and (folder / OVERRIDES).stat().st_size > 0


def recorded(folder: Path) -> list[str]:
    """The overrides that a run folder's run was started with, ``${...}`` as it was given; none where no record is."""
    if not has_record(folder):
        return []
    content = OmegaConf.to_container(OmegaConf.load(folder / OVERRIDES), resolve=False)
    assert isinstance(content, list)
    return [str(override) for override in content]


def run_folder(resume: str | None, fresh: str) -> str:
    """Where the run works: in the folder to resume, if a run is there, else in a fresh one."""
    return fresh if resume is None or not has_record(Path(str(resume))) else str(resume)


def record_folder(resume: str | None) -> str | None:
    """Where in it Hydra writes its record; None keeps that of a resumed run."""
    return CONFIG.parent.name if resume is None or not has_record(Path(str(resume))) else None


OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
OmegaConf.register_new_resolver("record_folder", record_folder, replace=True)


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
        UserError: no run is there; fewer epochs, or more of them under a schedule that spans the run.
    """
    folder = _folder(cfg, "run, logs/train/<time>")
    config = OmegaConf.load(folder / CONFIG)
    assert isinstance(config, DictConfig)
    update_targets(config)
    config.output_dir = cfg.output_dir
    old = recorded(folder)
    ignored = []
    for override in HydraConfig.get().overrides.task:
        key, _, value = override.lstrip("+").partition("=")
        if key in ("resume", "resume_changed_data", "output_dir") or override in old:
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
    if -1 < epochs < before:
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
    with atomic_write(folder / CONFIG) as part:
        OmegaConf.save(config, part)


def saved_study(cfg: DictConfig) -> tuple[DictConfig, list[str]]:
    """The configuration that the study of ``cfg.resume`` was started with, and its overrides.

    What is given beside ``resume``, such as more ``trials``, counts, and goes into the record.

    Raises:
        UserError: no study is there.
    """
    folder = _folder(cfg, "study, logs/tune/<time>")
    given = HydraConfig.get().overrides
    overrides = [*recorded(folder), *(override for override in given.task if not override.startswith("resume="))]
    config = compose("tune", [*overrides, *given.hydra])
    update_targets(config)
    config.output_dir = cfg.output_dir
    with atomic_write(folder / OVERRIDES) as part:
        OmegaConf.save(OmegaConf.create(overrides), part)
    return config, overrides


def checkpoint(cfg: DictConfig) -> Path | None:
    """Where a resumed run continues; None where it was killed before its first checkpoint and begins anew.

    TensorBoard is told to drop what the killed run logged after it.
    """
    import torch

    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    path = Path(cfg.output_dir) / LAST
    step = torch.load(path, map_location="cpu", weights_only=True)["global_step"] if path.is_file() else 0
    for logger in (cfg.logger or {}).values():
        if logger._target_.endswith("TensorBoardLogger"):
            with open_dict(logger):
                logger.purge_step = step
    return path if path.is_file() else None
