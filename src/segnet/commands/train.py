"""Build, fit, test the best checkpoint; the value that a sweep optimises comes back."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from segnet.cli import check_entries, command
from segnet.errors import UserError
from segnet.files import check_output
from segnet.runs import resume

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

    from segnet.training.module import SegmentationModule

SAFE_IN_SWEEPS = ("ddp_spawn", "ddp_fork", "ddp_notebook")  # these start no second command line


def run(cfg: DictConfig, callbacks: Sequence["Callback"] = ()) -> float | None:
    """Train as configured, or resume the run that ``resume`` names; with callbacks beside the configured ones.

    Returns:
        The best value of ``monitor``; None where no checkpoint was made (debug runs).
    """
    resuming = cfg.resume is not None
    if resuming:
        cfg = resume.saved(cfg)
        check_output(cfg.output_dir, "data.root", cfg.data.root)
    check(cfg)
    # Imported here, so that --help and errors of composition answer at once.
    from segnet.reports.run_report import RunReport
    from segnet.training import checkpoint
    from segnet.training.preemption import Stopped

    start = resume.checkpoint(cfg) if resuming else None
    trainer, module, data = build(cfg)
    weights = cfg.get("weights")  # a resumed run may be older than this setting
    if weights is not None and start is None:
        checkpoint.start_from(module, weights, cfg.trust)
    trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]
    if cfg.find is not None:
        find(cfg, trainer, module, data)
        return None
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        trainer.callbacks.append(RunReport(cfg))  # type: ignore[attr-defined]
    try:
        trainer.fit(module, data, ckpt_path=start, weights_only=True)
    except Stopped as stop:
        print(f"stopped by {stop}; resume with: python src/train.py resume={cfg.output_dir}", file=sys.stderr)
        sys.exit(128 + stop.number)
    return None if trainer.fast_dev_run else test(trainer, module, data)  # type: ignore[attr-defined]


def build(cfg: DictConfig) -> "tuple[Trainer, SegmentationModule, LightningDataModule]":
    """Trainer, module and data as configured, from the configured seed."""
    import torch
    from lightning.pytorch import seed_everything
    from lightning.pytorch.utilities import rank_zero_info

    from segnet import environment
    from segnet.configuration import check_arguments, instantiate

    environment.keep_freed_memory()
    torch.set_float32_matmul_precision("high")
    # trainer.deterministic would have new tensors filled before their kernels fill them, to find faults: 5 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    seed_everything(cfg.seed, workers=True, verbose=False)
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = environment.fastest_precision(cfg.trainer.accelerator)
    for group in ("callbacks", "logger"):  # by their names; the trainer has them as lists
        check_arguments(cfg.get(group), group)
    data = instantiate(cfg.data, "data")
    module = instantiate(cfg.model, "model")
    keep = {key: cfg[key] for key in ("data", "model", "seed", "monitor", "mode")}
    module.config = OmegaConf.to_container(OmegaConf.create(keep), resolve=True)
    trainer = instantiate(cfg.trainer, "trainer")
    if cfg.trainer.sync_batchnorm and trainer.strategy.root_device.type == "cpu":
        raise UserError("trainer.sync_batchnorm=true on a CPU: it needs GPUs; add trainer.sync_batchnorm=false")
    rank_zero_info(
        f"precision: {trainer.precision} on {environment.hardware(trainer.strategy.root_device)}; run: {cfg.output_dir}"
    )
    return trainer, module, data


def test(trainer: "Trainer", module: "LightningModule", data: "LightningDataModule") -> float | None:
    """Test the best checkpoint, without one the weights as they are; the best value of its monitor."""
    import torch
    from lightning.pytorch.callbacks import WeightAveraging

    kept = trainer.checkpoint_callback
    best: str = kept.best_model_path if kept else ""  # type: ignore[attr-defined]
    if best:
        module.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    # It would replace the averaged weights, which the checkpoint holds, by those trained last.
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    trainer.callbacks = [part for part in callbacks if not isinstance(part, WeightAveraging)]  # type: ignore[attr-defined]
    trainer.test(module, data, verbose=False)
    return float(kept.best_model_score) if best else None  # type: ignore[attr-defined, union-attr]


def find(cfg: DictConfig, trainer: "Trainer", module: "LightningModule", data: "LightningDataModule") -> None:
    """Suggest a learning rate (Smith, WACV 2017) or a batch size, by Lightning's `Tuner`."""
    from lightning.pytorch.tuner.tuning import Tuner

    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if cfg.find == "lr":
        found = Tuner(trainer).lr_find(module, datamodule=data, update_attr=False, min_lr=1e-6)
        assert found is not None
        suggestion = found.suggestion()
        if suggestion is None:
            raise UserError("find=lr: too few steps for a suggestion; raise trainer.max_epochs or use more data")
        figure = found.plot(suggest=True)
        assert figure is not None
        figure.savefig(folder / "lr_finder.png")
        print(f"model.optimizer.lr={suggestion:.2e}   (curve in {folder / 'lr_finder.png'})")
    else:
        size = Tuner(trainer).scale_batch_size(module, datamodule=data, max_trials=8)
        print(f"data.batch_size={size}   (the largest that fits, up to 512; check the learning rate with it)")


def check(cfg: DictConfig) -> None:
    """Refuse what would fail later, or go wrong silently."""
    check_entries(cfg, "callbacks")
    check_entries(cfg, "logger")
    if cfg.find not in (None, "lr", "batch_size"):
        raise UserError(f"find={cfg.find}: must be null, lr or batch_size")
    if not isinstance(cfg.seed, int):
        raise UserError(f"seed={cfg.seed}: must be an integer")
    if not isinstance(cfg.trainer.max_epochs, int):
        raise UserError(f"trainer.max_epochs={cfg.trainer.max_epochs}: must be an integer, -1 for no end")
    strategy = str(cfg.trainer.strategy)
    if HydraConfig.get().mode == RunMode.MULTIRUN and strategy.startswith("ddp") and strategy not in SAFE_IN_SWEEPS:
        raise UserError(
            f"trainer.strategy={strategy} in a sweep: every process it starts would begin a sweep of its own; use "
            f"trainer.strategy=ddp_spawn, one job per GPU (hydra/launcher=joblib), or a cluster "
            f"(hydra/launcher=submitit_slurm)"
        )
    if cfg.trainer.fast_dev_run:  # ModelCheckpoint would write last.ckpt even so
        with open_dict(cfg):
            for name in ("checkpoint", "last"):
                cfg.callbacks.pop(name, None)


main = command("train")(run)
