"""The objects of a training from its configuration."""

import torch
from lightning.pytorch import Trainer, seed_everything
from omegaconf import DictConfig, OmegaConf

from segnet import environment, terminal
from segnet.commands.sizes import settle_size
from segnet.configuration import instantiate
from segnet.data.datamodule import SegmentationDataModule
from segnet.errors import UserError
from segnet.training import distillation
from segnet.training.checkpoint import without_downloads
from segnet.training.module import SegmentationModule
from segnet.training.monitors import check_metric


def build(cfg: DictConfig, weights_follow: bool = False) -> tuple[Trainer, SegmentationModule, SegmentationDataModule]:
    """Trainer, module and data as configured, from the configured seed.

    Args:
        cfg: of conf/train.yaml.
        weights_follow: a checkpoint replaces the network's, so that none is downloaded.
    """
    environment.keep_freed_memory()
    torch.set_float32_matmul_precision("high")
    # trainer.deterministic would have new tensors filled before their kernels fill them, to find faults: 5 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    seed_everything(cfg.seed, workers=True, verbose=False)
    cfg.trainer.precision = environment.precision_of(cfg.trainer.precision, cfg.trainer.accelerator)
    settle_size(cfg.data)
    data = instantiate(cfg.data, "data")
    model = cfg.model.copy()
    if weights_follow:
        model.net = without_downloads(OmegaConf.to_container(model.net, resolve=True))
    module = instantiate(model, "model")
    for name, callback in cfg.callbacks.items():
        if callback.get("monitor") is not None:
            check_metric(f"callbacks.{name}.monitor", callback.monitor, module.classes)
    keep = {key: cfg[key] for key in ("data", "model", "seed", "monitor", "mode")}
    module.config = OmegaConf.to_container(OmegaConf.create(keep), resolve=True)
    trainer = instantiate(cfg.trainer, "trainer")
    environment.check_processes(trainer)
    if cfg.trainer.sync_batchnorm and trainer.strategy.root_device.type == "cpu":
        raise UserError("trainer.sync_batchnorm=true on a CPU: it needs GPUs; add trainer.sync_batchnorm=false")
    if (teacher := cfg.get("teacher")) is not None:  # a resumed run may be older than this setting
        module.teacher = distillation.teacher(teacher, cfg.distill, module, cfg.trust)
        trainer.callbacks.append(distillation.TellSeen())
    terminal.info(
        f"precision: {trainer.precision} on {environment.hardware(trainer.strategy.root_device)}; run: {cfg.output_dir}"
    )
    return trainer, module, data
