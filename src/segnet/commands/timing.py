"""How fast a recipe trains and validates on this machine: a few real steps on images of the data set."""

import time
from functools import partial
from typing import Literal

import torch
from omegaconf import DictConfig

from segnet import environment
from segnet.benchmark.steps import Step, as_in_training, seconds_of
from segnet.commands.sizes import settle_size
from segnet.configuration import instantiate
from segnet.data.crops import cut
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.dataset import Batch, Samples, collate
from segnet.recipe.budget import Speed
from segnet.recipe.plan import Plan
from segnet.training import distillation
from segnet.training.graph import Results
from segnet.training.module import SegmentationModule

STEPS = 3


def device_of(cfg: DictConfig) -> torch.device:
    """Where ``trainer.accelerator`` trains."""
    wanted = str(cfg.trainer.accelerator)
    return torch.device("cuda" if wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")


def _captured(module: SegmentationModule) -> bool | Literal["auto"]:
    """Whether the training will replay its step from a CUDA graph, as far as this is known before it."""
    return module.graph.wanted if module.device.type == "cuda" and module.teacher is None else False


def measure(cfg: DictConfig, data: SegmentationDataModule, plan: Plan) -> Speed:
    """Train some steps and validate a batch, on images of the training split.

    Args:
        cfg: of the training, with the choices that are to be measured.
        data: after its ``setup``; its images are decoded here.
        plan: its figures.
    """
    as_in_training()
    settle_size(cfg.data)
    torch.manual_seed(0)
    device = device_of(cfg)
    precision = environment.precision_of(str(cfg.trainer.precision), str(cfg.trainer.accelerator))
    train = data.indices["train"]
    batch, (height, width) = plan.batch, plan.crop or plan.size
    pairs = [data.pairs[train[i * len(train) // 2]] for i in range(min(2, len(train)))]
    loaded = [cut(pair.load(data.mask, plan.size), (0, 0), (height, width)) for pair in pairs]
    plain = Samples(lambda i: loaded[i % len(loaded)], range(batch))
    drawn = Samples(plain.load, range(batch), instantiate(cfg.data.augment, "data.augment") or ())
    made = [drawn[i] for i in range(batch)]
    start = time.perf_counter()
    made = [drawn[0, i, 1] for i in range(batch)]
    transforms = time.perf_counter() - start
    module: SegmentationModule = instantiate(cfg.model, "model")
    if cfg.get("teacher") is not None:
        module.teacher = distillation.teacher(cfg.teacher, cfg.distill, module, cfg.trust)
    module.to(device)

    def results(batch: Batch) -> Results:
        with environment.autocast(device.type, precision):
            return module.graph.step(batch)

    shown = {name: value.to(device) for name, value in collate(made).items()}
    step = Step(
        results, module.optimizer(module.parameters()), shown, captured=_captured(module), deterministic=True,
        clip=cfg.trainer.gradient_clip_val,
    )  # fmt: skip
    step.warm_up()
    whole = seconds_of(step, device, STEPS) + transforms
    update = seconds_of(step.optimizer.step, device, STEPS)
    module.eval()
    whole_images = {name: value.to(device) for name, value in collate([plain[i] for i in range(batch)]).items()}
    with torch.no_grad():
        results(whole_images)
        forward = seconds_of(partial(results, whole_images), device)
    pixels = shown["mask"].numel()
    return Speed((whole - update) / pixels, update, forward / (batch * height * width))
