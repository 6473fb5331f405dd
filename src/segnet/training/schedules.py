"""Learning-rate schedules: one that PyTorch does not have in one piece, and how any of them spans a run."""

import inspect
import math
from collections.abc import Callable
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from segnet.configuration import call
from segnet.errors import UserError
from segnet.settings import BelowOne, Positive, Share

# How PyTorch's schedulers call the number of steps that a schedule lasts.
LENGTHS = ("total_steps", "T_max", "total_iters")


def warmup_cosine(optimizer: Optimizer, total_steps: Positive, warmup: BelowOne = 0.05, floor: Share = 0.0) -> LambdaLR:
    """Linear warm-up, then a cosine to ``floor`` times the peak (Loshchilov and Hutter, SGDR, ICLR 2017, eq. 5).

    Args:
        optimizer: whose learning rate is the peak.
        total_steps: of the whole run; the module fills it in.
        warmup: share of the steps, in [0, 1).
        floor: in 0..1.
    """
    if not 0 <= warmup < 1 or not 0 <= floor <= 1:
        raise UserError(f"model.scheduler: warmup={warmup} must lie in [0, 1), floor={floor} in [0, 1]")
    rising = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        share = (step - rising) / max(1, total_steps - rising)
        return floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, share))) / 2

    return LambdaLR(optimizer, factor)


def run_length(scheduler: Callable[..., Any]) -> str | None:
    """The argument by which a scheduler factory wants to know how many steps the run has; None if it does not."""
    wanted = inspect.signature(scheduler).parameters
    given = getattr(scheduler, "keywords", {})
    return next((name for name in LENGTHS if name in wanted and name not in given), None)


def attach(
    factory: Callable[..., Any], optimizer: Optimizer, steps: float, monitor: str, every: int = 1
) -> OptimizerLRSchedulerConfig:
    """Build a schedule for an optimizer, for Lightning's ``configure_optimizers``.

    Args:
        factory: called with the optimizer, and where it wants a length and was not given one (see `run_length`), with
            the run's; it then steps per batch, otherwise per epoch.
        optimizer: whose learning rate it sets.
        steps: of the run, infinite where it has no end.
        monitor: the metric that plateau schedules follow.
        every: epochs from one validation to the next.

    Raises:
        UserError: the run has no end, or is too short for the schedule.
    """
    length = run_length(factory)
    if length and math.isinf(steps):
        raise UserError("model.scheduler lasts the whole run, which has no end; set trainer.max_epochs")
    extra = {length: int(steps)} if length else {}
    try:
        scheduler = call(factory, "model.scheduler", optimizer, **extra)
    except ZeroDivisionError as error:
        raise UserError(f"model.scheduler: a run of {steps} step(s) is too short for it; train longer") from error
    interval = "step" if length else "epoch"
    waits = isinstance(scheduler, ReduceLROnPlateau) and monitor.startswith("val/")
    return {
        "optimizer": optimizer,
        "lr_scheduler": {
            "scheduler": scheduler, "interval": interval, "monitor": monitor, "frequency": every if waits else 1,
        },
    }  # fmt: skip
