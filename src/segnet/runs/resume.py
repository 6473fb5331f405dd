"""Going on where a stopped or killed run stood: in its folder, with its configuration, to the same weights."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

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


def arguments(given: Sequence[str]) -> list[str]:
    """The command line, with ``resume=<run folder>`` made to run in that folder without touching its record."""
    folder = next((a.partition("=")[2].strip("'\"") for a in given if a.startswith("resume=")), None)
    if folder is not None and {"-m", "--multirun"} & set(given):
        print("error: resume goes on with one run; leave out -m", file=sys.stderr)
        sys.exit(1)
    if folder is None or not has_record(Path(folder)):
        return list(given)
    return [*given, f"output_dir='{folder}'", "hydra.output_subdir=null"]


def again(given: Sequence[str]) -> list[str]:
    """The command line of a study, with ``resume=<folder>`` made into what it was started with there."""
    folder = next((a.partition("=")[2].strip("'\"") for a in given if a.startswith("resume=")), None)
    if folder is None:
        return list(given)
    if not has_record(Path(folder)):
        print(f"error: resume={folder}: no whole {OVERRIDES} there; give the folder of a study", file=sys.stderr)
        sys.exit(1)
    return [*recorded(Path(folder)), *(a for a in given if not a.startswith("resume=")), f"output_dir='{folder}'"]


def saved(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration that the run of ``cfg.resume`` was started with.

    ``trainer.max_epochs`` may grow, which is written to the record; whatever else was given otherwise is listed and
    does not count.

    Raises:
        UserError: no run is there.
        UserError: fewer epochs, or more of them under a schedule that spans the run.
    """
    folder = Path(cfg.resume)
    if not has_record(folder):
        hint = "give the folder of a run, logs/train/<time>"
        raise UserError(f"resume={folder}: no whole {OVERRIDES} there; {hint}")
    config = OmegaConf.load(folder / CONFIG)
    assert isinstance(config, DictConfig)
    update_targets(config)
    config.output_dir = cfg.output_dir
    old = recorded(folder)
    ignored = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in ("resume", "output_dir") or override in old:
            continue
        if key == "trainer.max_epochs":
            _grow(config, cfg.trainer.max_epochs, folder)
        elif OmegaConf.select(config, key) is None or str(OmegaConf.select(config, key)) != value:
            ignored.append(f"{override} (the run has {OmegaConf.select(config, key)})")
    if ignored:
        print(f"resume: the saved configuration counts; not taken: {', '.join(ignored)}", file=sys.stderr)
    return config


def _grow(config: DictConfig, epochs: int, folder: Path) -> None:
    before = config.trainer.max_epochs
    if epochs == before:
        return
    if -1 < epochs < before:
        raise UserError(f"trainer.max_epochs={epochs}: the run has {before}; on resuming it may only grow")
    if config.model.scheduler is not None:
        from hydra.utils import instantiate

        from segnet.training.schedules import run_length

        if run_length(instantiate(config.model.scheduler)):
            raise UserError(
                f"trainer.max_epochs={epochs}: the run's schedule spans its {before} epochs and cannot be stretched; "
                f"start a new run"
            )
    config.trainer.max_epochs = epochs
    with atomic_write(folder / CONFIG) as part:
        OmegaConf.save(config, part)


def checkpoint(cfg: DictConfig) -> Path | None:
    """Where a resumed run goes on; None where it was killed before its first checkpoint and begins anew.

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
