"""Train: one network or one a fold, a new run or one to resume; the value that a sweep optimises comes back."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from segnet.cli import check_entries, command
from segnet.command_line import command_line, override
from segnet.commands import choices
from segnet.configuration import check_arguments
from segnet.errors import UserError
from segnet.files import check_output
from segnet.runs import resume
from segnet.runs.stopping import leave

if TYPE_CHECKING:
    from lightning.pytorch import Callback

LESS_IS_BETTER = re.compile(r"(train|val)/loss|val/(escape@overkill|overkill@escape)0(\.\d+)?")
BARS = {"Progress", "TQDMProgressBar", "RichProgressBar"}


def run(cfg: DictConfig, callbacks: Sequence["Callback"] = ()) -> float | None:
    """Train as configured, or resume the run that ``resume`` names; with callbacks beside the configured ones.

    Returns:
        The best value of ``monitor``, of several folds its mean; None where no checkpoint was made (debug runs), or
        ``monitor`` was never defined.
    """
    resuming = cfg.resume is not None
    changed_data = bool(cfg.get("resume_changed_data"))
    if resuming:
        cfg = resume.saved(cfg)
        check_output(cfg.output_dir, "data.root", cfg.data.root)
        choices.record_data(cfg)  # nothing is open, unless the run was killed before that was written
        if cfg.get("auto") or cfg.get("budget_ms") is not None:
            raise UserError(f"resume={cfg.output_dir}: was stopped before its recipe was chosen; start it anew")
    else:
        cfg = choices.complete(cfg)
    check(cfg)
    if not resuming:
        _check_modes(cfg)
    # Imported here, so that --help and errors of composition answer at once.
    from segnet.commands import cross_validation
    from segnet.commands.fit import fit
    from segnet.training.preemption import Stopped

    try:
        if cfg.get("folds") is not None and cfg.find is None:  # a resumed run may be older than this setting
            return cross_validation.run(cfg, changed_data)
        return fit(cfg, resuming, changed_data, callbacks)
    except Stopped as stop:
        search = Path(cfg.output_dir).parent if callbacks else None  # which a trial is a part of
        again = command_line("tune" if search else "train", [override("resume", str(search or cfg.output_dir))])
        print(f"stopped by {stop}; resume with: {again}", file=sys.stderr)
        leave(128 + stop.number)


def check(cfg: DictConfig) -> None:
    """Refuse what would fail later, or go wrong silently."""
    check_entries(cfg, "callbacks")
    check_entries(cfg, "logger")
    if cfg.find == "lr":
        raise UserError(
            "find=lr: there is no such search any more, because its rates did not train; try rates in a sweep, "
            "-m model.optimizer.lr=0.1,0.03,0.01, or search with tune.py"
        )
    _check_length(cfg)
    strategy = str(cfg.trainer.strategy)
    if HydraConfig.get().mode == RunMode.MULTIRUN and strategy.startswith(("ddp", "fsdp")):
        raise UserError(
            f"trainer.strategy={strategy} in a sweep: every process it starts would begin a sweep of its own; use "
            f"one job per GPU (hydra/launcher=joblib or hydra/launcher=submitit_slurm)"
        )
    if strategy == "fsdp" and not _has_gpu(cfg):
        raise UserError("trainer.strategy=fsdp: needs GPUs; on CPUs use trainer.strategy=ddp")
    for group in ("callbacks", "logger"):  # by their names; the trainer has them as lists
        check_arguments(cfg.get(group), group)
    with open_dict(cfg):
        switch(cfg)


def _has_gpu(cfg: DictConfig) -> bool:
    import torch

    return torch.cuda.is_available() and cfg.trainer.accelerator != "cpu"


def switch(cfg: DictConfig) -> None:
    """Remove the callbacks that Lightning refuses where ``~logger`` or a switch of the trainer turned something off."""
    for group in ("callbacks", "logger"):
        if cfg.get(group) is None:
            cfg[group] = {}
    trainer, off = cfg.trainer, set()
    if trainer.fast_dev_run:  # nothing is written, a store of its own neither
        cfg.logger = {}
    if trainer.fast_dev_run or trainer.get("enable_checkpointing") is False:  # it would write last.ckpt even so
        off |= {"BestCheckpoint", "ModelCheckpoint", "OnExceptionCheckpoint"}
    names = {str(callback._target_).rpartition(".")[2] for callback in cfg.callbacks.values()}
    if trainer.get("enable_progress_bar") is True:  # a file is no place for a bar; without one Lightning adds its own
        trainer.enable_progress_bar = sys.stderr.isatty() and bool(names & BARS)
    if trainer.get("enable_progress_bar") is False:
        off |= BARS
    if not OmegaConf.select(trainer, "logger"):  # false, null, or a group without a logger
        trainer.logger = False
        off |= {"LearningRateMonitor", "ThroughputMonitor"}
    for name, callback in list(cfg.callbacks.items()):
        if str(callback._target_).rpartition(".")[2] in off:
            del cfg.callbacks[name]


def _check_modes(cfg: DictConfig) -> None:
    """Refuse to take the epoch with the greatest loss for the best; not of a run that has begun so."""
    callbacks = {f"callbacks.{name}.": part for name, part in (cfg.callbacks or {}).items()}
    for key, part in {"": cfg, **callbacks}.items():
        monitor = str(part.get("monitor"))
        if part.get("mode") == "max" and LESS_IS_BETTER.fullmatch(monitor):
            raise UserError(f"{key}monitor={monitor} {key}mode=max: less is better; use {key}mode=min")


def _check_length(cfg: DictConfig) -> None:
    trainer = cfg.trainer
    for key in ("max_epochs", "limit_train_batches"):
        if trainer.get(key) == 0:
            raise UserError(f"trainer.{key}=0 trains nothing; leave it out, or test a checkpoint by src/eval.py")
    epochs, every = trainer.max_epochs, trainer.get("check_val_every_n_epoch")
    rare = type(epochs) is type(every) is int and 0 < epochs < every  # other types are refused when they are built
    if str(cfg.monitor).startswith("val/") and (trainer.get("limit_val_batches") == 0 or rare):
        key = "check_val_every_n_epoch" if rare else "limit_val_batches"
        print(
            f"trainer.{key}={trainer[key]}: nothing is validated, so monitor={cfg.monitor} chooses no best.ckpt; the "
            f"last epoch counts",
            file=sys.stderr,
        )


main = command("train")(run)
