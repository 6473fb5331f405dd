"""Build, fit, test the best checkpoint; the value that a sweep optimises comes back."""

import logging
import math
import sys
from collections.abc import Sequence
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

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

    from segnet.data.datamodule import SegmentationDataModule
    from segnet.reports.run_report import RunReport
    from segnet.training.module import SegmentationModule

SAFE_IN_SWEEPS = ("ddp_spawn", "ddp_fork", "ddp_notebook")  # these start no second command line


def run(cfg: DictConfig, callbacks: Sequence["Callback"] = ()) -> float | None:
    """Train as configured, or resume the run that ``resume`` names; with callbacks beside the configured ones.

    Returns:
        The best value of ``monitor``; None where no checkpoint was made (debug runs), or ``monitor`` was never defined.
    """
    resuming = cfg.resume is not None
    changed_data = bool(cfg.get("resume_changed_data"))
    if resuming:
        cfg = resume.saved(cfg)
        check_output(cfg.output_dir, "data.root", cfg.data.root)
    else:
        cfg = choices.complete(cfg)
    check(cfg)
    # Imported here, so that --help and errors of composition answer at once.
    from tqdm.contrib.logging import logging_redirect_tqdm

    from segnet.commands.build import build
    from segnet.reports.run_report import RunReport
    from segnet.training import checkpoint
    from segnet.training.callbacks import ValidateAtTheStop
    from segnet.training.data_record import DataRecord
    from segnet.training.preemption import Stopped

    start = resume.checkpoint(cfg) if resuming else None
    trainer, module, data = build(cfg)
    if (weights := cfg.get("weights")) is not None and start is None:  # a resumed run may be older than this setting
        checkpoint.start_from(module, weights, cfg.trust)
    trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]
    if cfg.trainer.max_time is not None:
        trainer.callbacks.append(ValidateAtTheStop())  # type: ignore[attr-defined]  # behind Lightning's timer
    if cfg.find is not None:
        from segnet.commands import batch_size

        batch_size.find(cfg, trainer, data)
        return None
    report = RunReport(cfg)
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        trainer.callbacks += [DataRecord(cfg.output_dir, changed_data), report]  # type: ignore[attr-defined]
    try:
        with logging_redirect_tqdm([logging.getLogger("lightning.pytorch")]):  # lines of their own beside the bar
            trainer.fit(module, data, ckpt_path=start, weights_only=True)
        return None if trainer.fast_dev_run else test(trainer, module, data, report)  # type: ignore[attr-defined]
    except Stopped as stop:
        again = command_line("train", [override("resume", cfg.output_dir)])
        print(f"stopped by {stop}; resume with: {again}", file=sys.stderr)
        sys.exit(128 + stop.number)


def test(
    trainer: "Trainer", module: "SegmentationModule", data: "SegmentationDataModule", report: "RunReport"
) -> float | None:
    """Test the best checkpoint, without one the weights as they are; the best value of its monitor.

    Without test images there is the report alone.
    """
    import torch
    from lightning.pytorch.callbacks import WeightAveraging

    kept = trainer.checkpoint_callback
    best: str = kept.best_model_path if kept else ""  # type: ignore[attr-defined]
    if best:
        module.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    # It would replace the averaged weights, which the checkpoint holds, by those trained last.
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    trainer.callbacks = [part for part in callbacks if not isinstance(part, WeightAveraging)]  # type: ignore[attr-defined]
    if data.indices["test"] and trainer.limit_test_batches != 0:  # type: ignore[attr-defined]
        trainer.test(module, data, verbose=False)
    else:
        report.write(trainer, module.eval())
    score = kept.best_model_score if best else None  # type: ignore[attr-defined, union-attr]
    # Infinite where it was undefined in every epoch.
    return float(score) if score is not None and math.isfinite(score) else None


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
    if HydraConfig.get().mode == RunMode.MULTIRUN and strategy.startswith("ddp") and strategy not in SAFE_IN_SWEEPS:
        raise UserError(
            f"trainer.strategy={strategy} in a sweep: every process it starts would begin a sweep of its own; use "
            f"trainer.strategy=ddp_spawn, or one job per GPU (hydra/launcher=joblib or hydra/launcher=submitit_slurm)"
        )
    for group in ("callbacks", "logger"):  # by their names; the trainer has them as lists
        check_arguments(cfg.get(group), group)
    with open_dict(cfg):
        switch(cfg)


def switch(cfg: DictConfig) -> None:
    """Remove the callbacks that Lightning refuses where ``~logger`` or a switch of the trainer turned something off."""
    for group in ("callbacks", "logger"):
        if cfg.get(group) is None:
            cfg[group] = {}
    trainer, off = cfg.trainer, set()
    if trainer.fast_dev_run or trainer.get("enable_checkpointing") is False:  # it would write last.ckpt even so
        off |= {"BestCheckpoint", "ModelCheckpoint", "OnExceptionCheckpoint"}
    if trainer.get("enable_progress_bar") is True:
        trainer.enable_progress_bar = sys.stdout.isatty()  # a file is no place for a bar
    if trainer.get("enable_progress_bar") is False:
        off |= {"TQDMProgressBar", "RichProgressBar"}
    if not OmegaConf.select(trainer, "logger"):  # false, null, or a group without a logger
        trainer.logger = False
        off |= {"LearningRateMonitor", "ThroughputMonitor"}
    for name, callback in list(cfg.callbacks.items()):
        if str(callback._target_).rpartition(".")[2] in off:
            del cfg.callbacks[name]


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
