"""The networks of ``conf/model`` side by side."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from hydra import compose
from torch import nn

from segnet.benchmark import steps
from segnet.configuration import instantiate
from segnet.networks.segnet import count_parameters


def side_by_side(
    names: Sequence[str], device: torch.device, size: int
) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Forward passes of one image of side ``size``, and what each network costs, by the names of ``model=``.

    To be asked for inside a command, whose Hydra knows ``conf/``. The networks have one class and random weights.
    """
    calls: dict[str, Callable[[], Any]] = {}
    notes = {}
    for name in names:
        net = partial(_network, name)
        work = steps.flops(net, size, training=False)
        notes[name] = f"{count_parameters(net(1)):,} parameters, {work / 2e9:.2f} G multiply-adds"
        calls[name] = steps.inference(steps.Variant(net), device, size, 1)
        if device.type == "cuda":
            calls[f"{name}, CUDA graph"] = steps.captured(calls[name])
    return calls, notes


def _network(name: str, classes: int) -> nn.Module:
    config = compose("train", [f"model={name}", f"data.num_classes={classes}"])
    net: nn.Module = instantiate(config.model.net, "model.net")
    return net
