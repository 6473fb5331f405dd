"""Functions of tensors that a GPU replays as a CUDA graph: hundreds of small kernels without Python between them.

Source: PyTorch's notes on CUDA semantics, "CUDA Graphs".
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Function = Callable[..., Sequence[Tensor]]
WARM_UP = 2  # calls of a form before it is captured: kernels are compiled and chosen


class Recording(Protocol):
    """What repeats a function for tensors of one form."""

    def __call__(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """What the function gives for these tensors; the next call may overwrite it."""


@contextmanager
def noticing_waits() -> Iterator[list[str]]:
    """Collect, one entry each, what waits for the GPU inside: no graph can hold it.

    To be known before a capture, because one that fails leaves torch 2.11's random generator in the state of a capture.
    """
    waits: list[str] = []
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            waits += [str(w.message) for w in said if "called a synchronizing" in str(w.message)]


class CudaGraph:
    """The kernels that a function starts, captured once; each call copies the tensors in and replays them.

    Args:
        function: see `Replay`.
        tensors: of the form to capture; their values are not read.
        beside: an earlier graph, whose memory this one uses too. They may be replayed in any order, but not at the same
            time, and a replay may overwrite the results of another.
    """

    def __init__(self, function: Function, tensors: Sequence[Tensor], beside: "CudaGraph | None" = None) -> None:
        device = tensors[0].device
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device):
            before = torch.cuda.current_stream()
            self.stream: torch.cuda.Stream = beside.stream if beside else torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self.graph = torch.cuda.CUDAGraph()
            self.inputs = [torch.empty_like(t) for t in tensors]
            pool = beside.graph.pool() if beside else None
            try:
                # Other threads may use the GPU meanwhile. Autocast keeps no casts of weights here: they would hold the
                # weights of now, and vanish when the caller leaves its autocast.
                with (
                    torch.cuda.graph(self.graph, pool, self.stream, capture_error_mode="thread_local"),
                    torch.autocast("cuda", cache_enabled=False, **_autocast("cuda")),
                ):
                    self.outputs = list(function(*self.inputs))
            except Exception:
                torch.cuda.set_stream(before)  # a failed capture leaves its own
                raise

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Replay with the values of these tensors; the results stay until the next replay."""
        for own, given in zip(self.inputs, tensors, strict=True):
            own.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.outputs


Record = Callable[[Function, Sequence[Tensor], Any], Recording]
RECORD: Mapping[str, Record] = {"cuda": CudaGraph}


@dataclass
class _Form:
    """Calls with tensors of one form: so many so far, and what repeats them."""

    calls: int = 0
    recording: Recording | None = None


class Replay:
    """Calls a function as it is, and on a GPU, for tensors of a form that it has seen before, by a CUDA graph.

    The results have the same bits. What the function reads beside its arguments, such as weights, is read in place:
    changes are seen, replaced tensors are not (see `check`). It computes no gradients. One thread at a time, on one
    stream. A form is shape, strides, type and device of every tensor, and the autocast.

    Args:
        function: of tensors on one device, to a sequence of tensors; it must not wait for the device, nor read anything
            that changes between calls and is no tensor.
        most: forms to remember, each with a graph; the one that was used longest ago is dropped for a new one.
        own: whether results are the caller's own, or may be overwritten by the next call.
        module: what the function reads; `check` looks after it.
        record: what makes a recording, by type of device; other devices call the function.
    """

    def __init__(
        self,
        function: Function,
        most: int = 4,
        own: bool = True,
        module: nn.Module | None = None,
        record: Mapping[str, Record] = RECORD,
    ) -> None:
        self.function, self.most, self.own, self.module, self.record = function, most, own, module, record
        self.failed: str | None = None  # why nothing more is captured
        self._forms: OrderedDict[Any, _Form] = OrderedDict()
        self._state: object = None

    def forget(self) -> None:
        """Drop all graphs and the memory that they hold."""
        self._forms.clear()

    def check(self) -> None:
        """Drop all graphs if tensors of the module were replaced or its layers changed their mode; before a series."""
        if self.module is None:
            return
        tensors = chain(self.module.parameters(), self.module.buffers())
        state = ([t.data_ptr() for t in tensors], [m.training for m in self.module.modules()])
        if state != self._state:
            self.forget()
            self._state = state

    @torch.no_grad()
    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        """What the function gives."""
        kind = tensors[0].device.type
        if kind not in self.record or (kind == "cuda" and torch.cuda.is_current_stream_capturing()):
            return self.function(*tensors)
        autocast = tuple(_autocast(kind).values())
        key = (autocast, tuple((t.shape, t.stride(), t.dtype, t.device) for t in tensors))
        form = self._forms.pop(key, None) or _Form()
        if len(self._forms) >= self.most:
            self._forms.popitem(last=False)
        self._forms[key] = form  # the last one: used most recently
        form.calls += 1
        if form.calls == WARM_UP and self.failed is None and kind == "cuda":
            with noticing_waits() as waits:
                found = self.function(*tensors)
            if waits:
                self._fail("it waits for the GPU")
            return found
        if form.calls == WARM_UP + 1 and self.failed is None:
            form.recording = self._recorded(self.record[kind], tensors)
        if form.recording is None:
            return self.function(*tensors)
        found = form.recording(tensors)
        return [result.clone() for result in found] if self.own else found

    def _recorded(self, record: Record, tensors: Sequence[Tensor]) -> Recording | None:
        """A recording of this form; None where it cannot be had."""
        if any(torch.empty_like(t).stride() != t.stride() for t in tensors):
            return None  # gaps or repeated elements, as in a slice: a copy would lie differently
        where = tensors[0].device
        beside = (form.recording for (_, (first, *_)), form in self._forms.items() if first[-1] == where)
        try:
            return record(self.function, tensors, next(filter(None, beside), None))
        except Exception as error:
            self._fail((str(error).strip() or type(error).__name__).splitlines()[0])
            return None

    def _fail(self, reason: str) -> None:
        self.failed = reason
        warnings.warn(f"could not be captured as a CUDA graph and runs slower: {reason}", stacklevel=4)


def _autocast(kind: str) -> dict[str, Any]:
    return {"enabled": torch.is_autocast_enabled(kind), "dtype": torch.get_autocast_dtype(kind)}
