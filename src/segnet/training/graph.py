"""A training step as a CUDA graph: hundreds of kernels that the GPU starts by itself, without Python between them.

The graph holds forward, loss, counting and backward. Clipping and the optimizer follow it as ever, so schedules, weight
averaging and gradient hooks work as without it, and the weights come out with the same bits.
Source: PyTorch's notes on CUDA semantics, "CUDA Graphs" (whole-network capture).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from segnet import terminal
from segnet.data.dataset import Batch
from segnet.errors import UserError
from segnet.networks.replay import noticing_waits
from segnet.training.in_step import InStep

Results = tuple[Tensor, Tensor, Tensor]  # loss, confusion matrix, histogram
WARM_UP = 3  # steps of a shape without the graph: kernels are compiled and chosen, the optimizer gets its state
SHAPES = 2  # a full batch, and the last one of an epoch
INPUTS = ("image", "mask")


@dataclass
class _Captured:
    """The step for batches of one shape: how often it came without a graph, then the graph with its own tensors."""

    inputs: Batch
    warm: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    results: Results | None = None
    gradients: Sequence[tuple[nn.Parameter, Tensor]] = ()


class StepGraph:
    """Captures a module's training step once it is warm, and replays it for batches of the same shape.

    Args:
        wanted: ``auto`` where it can be, True (an error where it cannot), False.
        step: loss, confusion matrix and histogram of a batch, on the device.
    """

    def __init__(self, wanted: bool | Literal["auto"], step: Callable[[Batch], Results]) -> None:
        if wanted != "auto" and not isinstance(wanted, bool):
            raise UserError(f"model.cuda_graph={wanted}: must be auto, true or false")
        self.wanted, self.step = wanted, step
        self.declined: str | None = "training has not begun"  # why there is no graph; None while one is possible
        self.replayed = False  # whether the last call did
        self.parameters: list[nn.Parameter] = []
        self.forget()

    def forget(self) -> None:
        """Drop the graphs and the memory that they hold."""
        self._state: object = None
        self._captured: dict[object, _Captured] = {}
        self._last: _Captured | None = None
        self._pool: Any = None  # torch's handle of memory that the graphs share

    # -- whether -----------------------------------------------------------------------------------

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Decide whether this run can have a graph, and say why not.

        Raises:
            UserError: it cannot, and ``wanted`` is True.
        """
        self.forget()
        self.parameters = list(module.parameters())
        self.declined = "model.cuda_graph=false" if self.wanted is False else None
        if self.declined is None and (reason := _obstacle(trainer, module)):
            self._decline(reason, say=module.device.type == "cuda")

    def _decline(self, reason: str, say: bool = True) -> None:
        self.declined = reason
        if self.wanted is True:
            raise UserError(f"model.cuda_graph=true: {reason}; use model.cuda_graph=auto")
        if say:
            terminal.info(f"no CUDA graph: {reason}")

    def check(self, trainer: Trainer, module: LightningModule) -> None:
        """Before an epoch: drop a graph of another state (layers frozen or thawed, statistics moved, …)."""
        if self.declined is not None:
            return
        parameters = tuple((p.data_ptr(), p.requires_grad) for p in module.parameters())
        modes = tuple((m.training, getattr(m, "momentum", None)) for m in module.modules())
        state = (parameters, modes, trainer.accumulate_grad_batches)
        if state != self._state:
            self.forget()
            self._state = state

    # -- the step ------------------------------------------------------------------------------------

    def __call__(self, batch: Batch, accumulate: int) -> Results | None:
        """Replay the step for a batch, or None where it has to be done without the graph.

        The gradients are those of the loss over ``accumulate``; `hand_over` gives them to the parameters.

        Raises:
            UserError: the step cannot be captured, and ``wanted`` is True.
        """
        self.replayed = False
        shapes = tuple(batch[name].shape for name in INPUTS)
        if self.declined is not None or (shapes not in self._captured and len(self._captured) == SHAPES):
            return None
        if shapes not in self._captured:
            self._captured[shapes] = _Captured({name: torch.empty_like(batch[name]) for name in INPUTS})
        step = self._last = self._captured[shapes]
        for name, value in step.inputs.items():
            value.copy_(batch[name], non_blocking=True)
        if step.graph is None:
            step.warm += 1
            if step.warm <= WARM_UP:
                return None
            self._capture(step, accumulate)
        if step.graph is None or step.results is None:
            return None
        step.graph.replay()
        self.replayed = True
        loss, confusion, histogram = step.results
        return loss.clone(), confusion, histogram

    def hand_over(self, accumulate: int) -> None:
        """Give the gradients of the replayed step to the parameters, or add them to what is there."""
        assert self._last is not None
        for parameter, gradient in self._last.gradients:
            if parameter.grad is not None:
                parameter.grad.add_(gradient)
            else:  # a copy where the next step adds to it: the graph writes to the same place again
                parameter.grad = gradient.clone() if accumulate > 1 else gradient

    def _capture(self, step: _Captured, accumulate: int) -> None:
        before = [(p, p.grad) for p in self.parameters if p.requires_grad]
        for parameter, _ in before:
            parameter.grad = None  # the graph has gradients of its own
        self._pool = self._pool or torch.cuda.graph_pool_handle()  # one for all: they never run at the same time
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # Other threads may use the device meanwhile: the loader's pins memory.
            with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
                loss, confusion, histogram = self.step(step.inputs)
                with torch.autocast("cuda", enabled=False):
                    torch.autograd.backward(loss / accumulate)
        except Exception as error:
            torch.cuda.set_stream(stream)  # a failed capture leaves its own
            first = error.__context__ or error  # the capture's end only says that something failed before
            # No way back: a failed capture leaves torch 2.11's random generator and memory in the state of a capture.
            raise UserError(
                f"model.cuda_graph={self.wanted}: the step cannot be captured "
                f"({str(first).strip().splitlines()[0]}); use model.cuda_graph=false"
            ) from error
        else:
            step.graph, step.results = graph, (loss.detach(), confusion, histogram)
            step.gradients = [(p, p.grad) for p, _ in before if p.grad is not None]
        finally:
            for parameter, gradient in before:
                parameter.grad = gradient

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around both passes of the last step before the capture: notice what waits for the device.

        No graph can hold it.

        Raises:
            UserError: something does, and ``wanted`` is True.
        """
        if self.declined is not None or self._last is None or self._last.warm != WARM_UP:
            yield
            return
        with noticing_waits() as waits:
            yield
        if waits:
            self._decline("the step waits for the device (loss and network must not read values or pick by mask)")


def _obstacle(trainer: Trainer, module: LightningModule) -> str | None:
    """What keeps a run from having a graph; None if nothing does."""
    if module.device.type != "cuda":
        return f"the run is on {module.device.type}"
    if not isinstance(trainer.strategy, SingleDeviceStrategy):
        return f"{type(trainer.strategy).__name__} exchanges gradients between processes while backward runs"
    if isinstance(trainer.precision_plugin, MixedPrecision) and trainer.precision_plugin.scaler is not None:
        return f"trainer.precision={trainer.precision} scales the loss anew in every step"
    if getattr(module, "teacher", None) is not None:
        return "a teacher takes part in the step, which has not been tried in a graph"
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if part := next((callback for callback in callbacks if isinstance(callback, InStep)), None):
        return f"callbacks={part.name} takes part in the step, which has not been tried in a graph"
    if torch.is_anomaly_enabled():
        return "trainer.detect_anomaly=true reads every gradient"
    if getattr(module, "compile_mode", None) in ("reduce-overhead", "max-autotune"):
        return f"model.compile={module.compile_mode} makes graphs of its own"
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        return "callbacks=swa changes the batch norms during the run"
    return None
