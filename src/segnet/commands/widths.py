"""``budget_ms`` and ``runtime``: the widths of the network by how long it may take, as if they had been typed."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf, open_dict

from segnet.errors import UserError
from segnet.overrides import name_of
from segnet.rules import shown
from segnet.runs import record

if TYPE_CHECKING:
    from segnet.recipe.latency import Latency

KEY = "model.net.widths"


def complete(cfg: DictConfig) -> DictConfig:
    """The configuration with the widest network within the budget, which is told, and stands in the run's record;
    without ``budget_ms`` as it is.

    Args:
        cfg: with everything else settled.

    Raises:
        UserError: one of the two is missing; the network has no widths that could be others; no network fits.
    """
    if cfg.get("budget_ms") is None and cfg.get("runtime") is None:
        return cfg
    check(cfg)
    import torch

    from segnet import environment
    from segnet.commands.sizes import settle_size
    from segnet.configuration import instantiate, plain
    from segnet.recipe import latency

    environment.keep_freed_memory()
    budget, runtime, candidate = float(cfg.budget_ms), cfg.runtime, cfg.copy()
    settle_size(candidate.data)

    def measured(widths: list[int]) -> "Latency":
        candidate.model.net.widths = widths
        found = latency.measure(instantiate(candidate.model, "model"), runtime)
        print(f"budget: {KEY}={shown(widths)} takes {found}", file=sys.stderr)
        return found

    widths, found = latency.widest(plain(cfg.model.net.widths), budget, measured)
    size = candidate.data.image_size
    where = f"{environment.hardware(torch.device('cpu'))}, {runtime}, float32, data.image_size={shown(plain(size))}"
    print(f"budget: {KEY}={shown(widths)}, the widest within {budget:g} ms: {found}; {where}", file=sys.stderr)
    settled = {KEY: widths, "budget_ms": None, "runtime": None}
    _settle(cfg, settled)
    folder = Path(str(cfg.output_dir))
    if record.has_record(folder):
        kept = record.configuration(folder)
        _settle(kept, settled)
        others = [override for override in record.recorded(folder) if name_of(override) not in settled]
        record.write(kept, [*others, f"{KEY}={shown(widths)}"], folder)
    return cfg


def check(cfg: DictConfig) -> None:
    """Refuse a budget that says nothing, or of a network that cannot be made narrower.

    Raises:
        UserError: naming the key.
    """
    budget, runtime, trainer = cfg.get("budget_ms"), cfg.get("runtime"), cfg.trainer
    if budget is None:
        raise UserError(f"runtime={runtime}: needs budget_ms, the milliseconds that an image may take there; add it")
    told = f"budget_ms={budget:g}"
    if runtime is None:
        raise UserError(f"{told}: needs the runtime in which it is measured; add runtime=openvino, onnx or pytorch")
    if trainer.devices not in (1, "1") or trainer.num_nodes != 1 or "LOCAL_RANK" in os.environ:
        raise UserError(
            f"{told} with trainer.devices={trainer.devices}: every process would measure for itself; add "
            f"trainer.devices=1, or leave it out and name the {KEY} that such a run tells"
        )
    net = cfg.model.net
    if net.get("widths") is None or net.get("pretrained"):
        name = str(net.get("_target_")).rpartition(".")[2] + " with pretrained weights" * bool(net.get("pretrained"))
        raise UserError(f"{told}: {name} has no widths to choose; use model=segnet, or leave budget_ms and runtime out")


def _settle(cfg: DictConfig, values: dict[str, list[int] | None]) -> None:
    with open_dict(cfg):
        for key, value in values.items():
            OmegaConf.update(cfg, key, value, merge=False)
