"""Build, fit, test the best checkpoint: the training of one network."""

import math
from collections.abc import Sequence

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from omegaconf import DictConfig

from segnet import terminal
from segnet.commands import batch_size
from segnet.commands.build import build
from segnet.data.datamodule import SegmentationDataModule
from segnet.reports.run_report import RunReport
from segnet.runs import resume
from segnet.training import checkpoint, recording
from segnet.training.data_record import DataRecord
from segnet.training.module import SegmentationModule
from segnet.training.preemption import StopOnSignal, ValidateAtTheStop


def fit(
    cfg: DictConfig, resuming: bool = False, changed_data: bool = False, callbacks: Sequence[Callback] = ()
) -> float | None:
    """Train one network as configured, or continue in its folder; see `segnet.commands.train.run`."""
    start = resume.checkpoint(cfg) if resuming else None
    trainer, module, data = build(cfg, weights_follow=start is not None)
    if resuming:
        terminal.info(f"resume: {f'continues {start}' if start else 'there is no checkpoint yet, so it starts anew'}")
    if (weights := cfg.get("weights")) is not None and start is None:
        checkpoint.start_from(module, weights, cfg.trust)
    trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]
    if cfg.trainer.max_time is not None:
        trainer.callbacks.append(ValidateAtTheStop())  # type: ignore[attr-defined]  # behind Lightning's timer
    if cfg.find is not None:
        batch_size.find(cfg, trainer, data)
        return None
    report = RunReport(cfg)
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        trainer.callbacks += [DataRecord(cfg.output_dir, changed_data), report]  # type: ignore[attr-defined]
    try:
        trainer.fit(module, data, ckpt_path=start, weights_only=True)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, StopOnSignal):
                callback.stop()
        return None if trainer.fast_dev_run else test(trainer, module, data, report)  # type: ignore[attr-defined]
    finally:
        recording.close(trainer)


def test(trainer: Trainer, module: SegmentationModule, data: SegmentationDataModule, report: RunReport) -> float | None:
    """Test the best checkpoint, without one the weights as they are; the best value of its monitor.

    Without test images there is the report alone.
    """
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
