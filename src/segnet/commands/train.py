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
from segnet.configuration import check_arguments
from segnet.errors import UserError
from segnet.files import check_output
from segnet.runs import resume

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

    from segnet.data.datamodule import SegmentationDataModule
    from segnet.reports.run_report import RunReport
    from segnet.training.module import SegmentationModule

LARGEST_BATCH = 512  # that find=batch_size tries
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
    check(cfg)
    # Imported here, so that --help and errors of composition answer at once.
    from tqdm.contrib.logging import logging_redirect_tqdm

    from segnet.reports.run_report import RunReport
    from segnet.training import checkpoint
    from segnet.training.data_record import DataRecord
    from segnet.training.preemption import Stopped

    start = resume.checkpoint(cfg) if resuming else None
    trainer, module, data = build(cfg)
    if (weights := cfg.get("weights")) is not None and start is None:  # a resumed run may be older than this setting
        checkpoint.start_from(module, weights, cfg.trust)
    trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]
    if cfg.find is not None:
        find_batch_size(cfg, trainer, data)
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


def build(cfg: DictConfig) -> "tuple[Trainer, SegmentationModule, SegmentationDataModule]":
    """Trainer, module and data as configured, from the configured seed."""
    import torch
    from lightning.pytorch import seed_everything
    from lightning.pytorch.utilities import rank_zero_info

    from segnet import environment
    from segnet.configuration import instantiate

    environment.keep_freed_memory()
    torch.set_float32_matmul_precision("high")
    # trainer.deterministic would have new tensors filled before their kernels fill them, to find faults: 5 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    seed_everything(cfg.seed, workers=True, verbose=False)
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = environment.fastest_precision(cfg.trainer.accelerator)
    data = instantiate(cfg.data, "data")
    module = instantiate(cfg.model, "model")
    for name, callback in cfg.callbacks.items():
        if callback.get("monitor") is not None:
            module.check_metric(f"callbacks.{name}.monitor", callback.monitor)
    keep = {key: cfg[key] for key in ("data", "model", "seed", "monitor", "mode")}
    module.config = OmegaConf.to_container(OmegaConf.create(keep), resolve=True)
    trainer = instantiate(cfg.trainer, "trainer")
    if cfg.trainer.sync_batchnorm and trainer.strategy.root_device.type == "cpu":
        raise UserError("trainer.sync_batchnorm=true on a CPU: it needs GPUs; add trainer.sync_batchnorm=false")
    rank_zero_info(
        f"precision: {trainer.precision} on {environment.hardware(trainer.strategy.root_device)}; run: {cfg.output_dir}"
    )
    return trainer, module, data


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


def find_batch_size(cfg: DictConfig, trainer: "Trainer", data: "SegmentationDataModule") -> None:
    """Double the batch until memory, the training images or `LARGEST_BATCH` end it; print the size and what ended it.

    Every size trains a few steps from the start. The machine's own memory is not filled, since Linux would kill the
    process: what the next size takes is computed from the peaks of the last two.

    Raises:
        UserError: there are several processes, or two images do not fit.
    """
    import resource

    from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error

    from segnet import environment

    if trainer.world_size > 1:
        raise UserError(f"find=batch_size with {trainer.world_size} processes: look for it with trainer=auto, in one")
    data.prepare_data()
    data.setup()
    images = len(data.indices["train"])
    size, peaks = 0, [0]
    while size < min(images, LARGEST_BATCH):
        larger = min(2 * size or 2, images)
        need = peaks[-1] + (peaks[-1] - peaks[-2]) * (larger - size) / (size / 2) if len(peaks) > 2 else 0
        if need > environment.memory():
            break
        try:
            _train_briefly(cfg, larger)
        except RuntimeError as error:
            if not is_oom_error(error):
                raise
            break
        finally:
            garbage_collection_cuda()
        size = larger
        peaks.append(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    if size == 0:
        raise UserError(f"find=batch_size: not even {larger} images fit into memory; lower data.image_size")
    limit = f"limited by memory, {larger} do not fit"
    if size == images:
        limit = f"limited by the {images} training images, not by memory"
    elif size >= LARGEST_BATCH:
        limit = "the largest that is tried, not limited by memory"
    print(f"data.batch_size={size}   ({limit}; check the learning rate with it)")


def _train_briefly(cfg: DictConfig, batch_size: int) -> None:
    """Three steps and one validation step, without files."""
    trial = cfg.copy()
    with open_dict(trial):
        trial.callbacks, trial.logger, trial.model.scheduler = {}, {}, None
        trial.data.batch_size = batch_size
        trial.trainer.update(max_epochs=1, limit_train_batches=3, limit_val_batches=1, enable_checkpointing=False)
        trial.trainer.update(enable_progress_bar=False, enable_model_summary=False)
    logging.disable(logging.INFO)  # or each would tell the hardware once more
    try:
        trainer, module, data = build(trial)
        trainer.fit(module, data)
    finally:
        logging.disable(logging.NOTSET)


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
