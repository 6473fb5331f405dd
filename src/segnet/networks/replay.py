"""Functions of tensors that a GPU replays as a CUDA graph: hundreds of small kernels without Python between them.

Source: PyTorch's notes on CUDA semantics, "CUDA Graphs".
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WARM_UP = 2  # calls of a form before it is captured: kernels are compiled and chosen


@dataclass
class _Form:
    """Calls with tensors of one form: so many so far, and the graph with its own inputs and outputs."""

    calls: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    inputs: Sequence[Tensor] = ()
    outputs: Sequence[Tensor] = ()


class Replay:
    """Calls a function as it is, and on a GPU, for tensors of a form that it has seen before, by a CUDA graph.

    The results have the same bits and are the caller's own. What the function reads beside its arguments, such as
    weights, is read in place: changes are seen, replaced tensors are not. It computes no gradients.

    Args:
        function: of tensors on one device, to a sequence of tensors; it must not wait for the device, nor read anything
            that changes between calls and is no tensor.
        most: graphs to keep; calls of further forms are not captured.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]], most: int = 4) -> None:
        self.function, self.most = function, most
        self._forms: dict[Any, _Form] = {}

    @torch.no_grad()
    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        """What the function gives."""
        if not tensors[0].is_cuda or torch.cuda.is_current_stream_capturing():
            return self.function(*tensors)
        autocast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        key = (autocast, tuple((t.shape, t.stride(), t.dtype, t.device) for t in tensors))
        form = self._forms.get(key)
        if form is None:
            if len(self._forms) >= self.most:
                return self.function(*tensors)
            form = self._forms[key] = _Form()
        form.calls += 1
        if form.calls == WARM_UP + 1:
            self._capture(form, tensors)
        if form.graph is None:
            return self.function(*tensors)
        for own, given in zip(form.inputs, tensors, strict=True):
            own.copy_(given, non_blocking=True)
        form.graph.replay()
        return [output.clone() for output in form.outputs]

    def _capture(self, form: _Form, tensors: Sequence[Tensor]) -> None:
        form.inputs = [torch.empty_like(t).copy_(t) for t in tensors]
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # A cast that autocast keeps would be of the weights as they are now.
            with torch.cuda.graph(graph), torch.autocast("cuda", cache_enabled=False, **_autocast()):
                form.outputs = self.function(*form.inputs)
        except Exception as error:
            torch.cuda.set_stream(stream)  # a failed capture leaves its own
            form.inputs = ()
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"not captured as a CUDA graph, only slower for it: {reason}", stacklevel=3)
        else:
            form.graph = graph


def _autocast() -> dict[str, Any]:
    return {"enabled": torch.is_autocast_enabled("cuda"), "dtype": torch.get_autocast_dtype("cuda")}
