"""What the benchmark measures: forms of the training step, inference, pooling."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segnet import environment
from segnet.benchmark.reference import StockNetwork
from segnet.data.dataset import Batch
from segnet.networks.pooling import max_pool, max_unpool
from segnet.networks.segnet import SegNet, SegNetCompact, UnpoolingNetwork
from segnet.training.graph import WARM_UP, Results, StepGraph
from segnet.training.losses import CrossEntropy

SOURCE = Path(__file__).resolve().parents[2]


def as_in_training() -> None:
    """Set what ``train.py`` sets for the whole process; to be called before the first product on a GPU."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # as trainer.deterministic=true; torch reads it once
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    environment.keep_freed_memory()


@dataclass(frozen=True)
class Variant:
    """A form of the network and of its training step.

    Attributes:
        net: makes the network, given the number of classes.
        fast: channels-last in the precision that ``precision=auto`` takes; else NCHW in float32.
        stock: torch's own pooling with int64 indices, which has no deterministic kernel; else this project's, and
            deterministic as in ``train.py``.
        captured: forward, loss and backward replayed from a CUDA graph, as in ``train.py``.
        compile: mode of ``torch.compile``.
    """

    net: Callable[[int], nn.Module]
    fast: bool = True
    stock: bool = False
    captured: bool = False
    compile: str | None = None

    def network(self, device: torch.device) -> nn.Module:
        """The network on the device, its weights always the same."""
        torch.manual_seed(0)
        net = self.net(1)
        if self.stock:
            net = StockNetwork(net)
        net = net.to(device).to(memory_format=self.layout)  # type: ignore[call-overload]
        if self.compile is not None:
            net.compile(mode=self.compile)
        return net

    @property
    def layout(self) -> torch.memory_format:
        """Of weights and activations."""
        return torch.channels_last if self.fast else torch.contiguous_format

    def images(self, device: torch.device, size: int, batch: int) -> Tensor:
        """A fixed batch of normalised images, float32 (N, 3, size, size)."""
        return torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=self.layout)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The precision."""
        return environment.autocast(device.type, environment.fastest_precision(device.type) if self.fast else "32-true")


def variants(device: torch.device, compile_modes: Sequence[str]) -> dict[str, Variant]:
    """Forms of the training step by name: first the original's, last this project's."""
    form = f"channels-last, {short(fastest(device.type))}"
    found = {
        "baseline: compact, NCHW, float32, stock indices": Variant(SegNetCompact, fast=False, stock=True),
        f"compact, {form}, stock indices": Variant(SegNetCompact, stock=True),
        f"compact, {form}": Variant(SegNetCompact),
        f"segnet, {form}, stock indices": Variant(SegNet, stock=True),
        f"segnet, {form}": Variant(SegNet),
    }
    on_gpu = device.type == "cuda"
    if on_gpu:
        found[f"segnet, {form}, CUDA graph"] = Variant(SegNet, captured=True)
    for mode in compile_modes:
        # As in train.py, which leaves graphs to the modes that make their own.
        captured = on_gpu and mode == "default"
        found[f"segnet, {form}, compile={mode}"] = Variant(SegNet, captured=captured, compile=mode)
    return found


class Step:
    """One training step on a fixed batch: forward, loss, backward, clipping, update.

    Args:
        results: loss, confusion matrix and histogram of a batch.
        optimizer: of the network.
        batch: on the device.
        captured: replay ``results`` and backward from a CUDA graph, by the class that ``train.py`` does it with;
            ``auto`` where they do not wait for the GPU, and True (an error where they do).
        deterministic: as ``trainer.deterministic``.
        clip: the greatest norm of the gradients; None for no bound.
    """

    def __init__(
        self,
        results: Callable[[Batch], Results],
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        captured: bool | Literal["auto"],
        deterministic: bool,
        clip: float | None = None,
    ) -> None:
        self.results, self.optimizer, self.batch = results, optimizer, batch
        self.deterministic, self.clip = deterministic, clip
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.graph = StepGraph(captured, results)
        if captured:
            self.graph.parameters, self.graph.declined = self.parameters, None

    def __call__(self) -> None:
        """The step."""
        torch.use_deterministic_algorithms(self.deterministic)
        self.optimizer.zero_grad()
        if self.graph(self.batch, 1) is None:
            with self.graph.watched():
                self.results(self.batch)[0].backward()  # type: ignore[no-untyped-call]
        else:
            self.graph.hand_over(1)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()

    def warm_up(self) -> float:
        """Step until there is nothing left to compile, choose or capture; the seconds of the first step."""
        device = self.batch["image"].device
        seconds = seconds_of(self, device)
        for _ in range(WARM_UP + 1 if device.type == "cuda" else 0):
            self()
        return seconds


def training_step(variant: Variant, device: torch.device, size: int, batch: int) -> Step:
    """A variant's step with SGD and binary cross-entropy on random images of side ``size``."""
    net = variant.network(device)
    loss = CrossEntropy(1).to(device)
    nothing = torch.zeros((), device=device)  # metrics are not part of this step

    def results(batch: Batch) -> Results:
        environment.keep_freed_memory(variant.fast)  # the original leaves memory to the C library
        with variant.autocast(device):
            logits = net(batch["image"])
        return loss(logits.float(), batch["mask"]), nothing, nothing

    masks = torch.randint(0, 2, (batch, size, size), device=device)
    images = {"image": variant.images(device, size, batch), "mask": masks}
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    return Step(results, optimizer, images, variant.captured, deterministic=not variant.stock)


def inference(variant: Variant, device: torch.device, size: int, batch: int) -> Callable[[], Tensor]:
    """A variant's forward pass in evaluation mode on a fixed batch."""
    net, images = variant.network(device).eval(), variant.images(device, size, batch)

    def forward() -> Tensor:
        torch.use_deterministic_algorithms(False)  # as predict.py
        environment.keep_freed_memory(variant.fast)
        with torch.no_grad(), variant.autocast(device):
            out: Tensor = net(images)
        return out

    return forward


def captured(call: Callable[[], Any]) -> Callable[[], None]:
    """The call replayed from a CUDA graph."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def pool_and_unpool(x: Tensor, stock: bool) -> None:
    """Pool, unpool, and the gradient of both; by torch's operators or this project's."""
    torch.use_deterministic_algorithms(not stock)
    size = (x.shape[-2], x.shape[-1])
    if stock:
        pooled, index = F.max_pool2d(x, 2, return_indices=True)
        unpooled = F.max_unpool2d(pooled, index, (2, 2), output_size=size)
    else:
        unpooled = max_unpool(*max_pool(x), size)
    torch.autograd.grad(unpooled, x, x.detach())


def flops(net: Callable[[int], nn.Module], size: int, training: bool = True) -> int:
    """Floating-point operations of an image of side ``size``: convolutions and matrix products, forward and backward.

    Args:
        net: makes the network, given the number of classes.
        size: of the image.
        training: False counts the forward pass alone, in evaluation mode.
    """
    plain = net(1).train(training)
    if isinstance(plain, UnpoolingNetwork):
        plain = StockNetwork(plain)
    with FlopCounterMode(display=False) as counter:
        out = plain.to("meta")(torch.zeros(1, 3, size, size, device="meta"))  # shapes without values
        if training:
            out.sum().backward()
    return int(counter.get_total_flops())


def fastest(device: str) -> torch.dtype:
    """What ``trainer.precision=auto`` computes in on this device."""
    return environment.arithmetic(environment.fastest_precision(device))


def short(dtype: torch.dtype) -> str:
    """``float32`` of ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], Any], device: torch.device, times: int = 1) -> float:
    """Seconds of a call, the mean of so many in a row."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / times
