"""ONNX models, also a stranger's: only operators that `export.py` writes, in a process with bounded memory and time.

What is checked before: the size of the file, no branches, loops, functions, libraries of operators or data outside of
the file, one input of images and one float32 output. What such a graph may still do, taking memory and time, the
process bounds. Its answer is checked for type and shape.
"""

import math
import multiprocessing
import resource
import subprocess
import sys
import weakref
from collections.abc import Iterable
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from segnet.errors import UserError
from segnet.trust import REMEDY

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto, ValueInfoProto

# What this project's networks, and those of segmentation-models-pytorch, become.
_OPERATORS = """
    Abs Add AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv DepthToSpace
    DequantizeLinear Div Erf Exp Expand Flatten Gather GatherND Gelu GlobalAveragePool HardSigmoid HardSwish
    Identity InstanceNormalization LayerNormalization Log MatMul Max MaxPool Min Mul Neg PRelu Pow QuantizeLinear
    Range Reciprocal ReduceLogSumExp ReduceMax ReduceMean ReduceSum Relu Reshape Resize ScatterND Shape Sigmoid
    Slice Softmax Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where
"""
OPERATORS = frozenset(_OPERATORS.split())
FILE = 2**30  # bytes of a file
NODES = 20_000
MEMORY = 4 * 2**30  # bytes of its process, and more for large images
SECONDS = 60.0  # to open it, and for each batch
WORKER = Path(__file__).with_name("onnx_worker.py")


class OnnxModel:
    """A model in a process of its own, which ends with this object.

    Args:
        path: of the file.
        key: the property that holds the metadata.
        device: cpu or cuda.
        trusted: the user made the file: any operator, without bounds.

    Attributes:
        metadata: what the property holds, as text.

    Raises:
        ValueError: the file asks for more than is allowed, or cannot be opened.
    """

    def __init__(self, path: Path, key: str, device: str = "cpu", trusted: bool = False) -> None:
        import onnx

        if find_spec("onnxruntime") is None:
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        if path.stat().st_size > FILE and not trusted:
            raise ValueError(f"it is larger than {FILE} bytes; {REMEDY}")
        model = onnx.ModelProto.FromString(path.read_bytes())
        model.DiscardUnknownFields()  # type: ignore[attr-defined]  # the runtime may know fields that are not checked here
        if not trusted:
            check(model)
        self.path, self.bounded = path, not trusted
        self.metadata = {entry.key: entry.value for entry in model.metadata_props}[key]
        ours, theirs = multiprocessing.Pipe()
        with theirs:
            # -P: no module of the current folder or of this package's is taken for one of a library.
            command = [sys.executable, "-P", str(WORKER), str(theirs.fileno()), device]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        self._link = ours
        self._more = 0 if device == "cpu" else 4 * MEMORY  # CUDA's own
        self._end = weakref.finalize(self, _end, self._process, ours)
        content = model.SerializeToString()
        self._ask(content, 0, 8 * len(content))

    def __call__(self, images: Tensor, shape: tuple[int, ...]) -> Tensor:
        """uint8 or float32 (N, 3, H, W) or (N, H, W, 3) to float32 of this shape."""
        head = torch.tensor([images.dtype == torch.float32, *images.shape, *shape]).numpy().tobytes()
        values = math.prod(shape)
        try:
            answer = self._ask(
                head + images.cpu().contiguous().numpy().tobytes(), 4 * values, 64 * (images.numel() // 3 + values)
            )
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from error
        return torch.frombuffer(bytearray(answer), dtype=torch.float32).reshape(shape)

    def _ask(self, request: bytes, length: int, room: int) -> bytes:
        """Send a request and wait for ``length`` bytes; ``room`` bytes of memory are allowed beside `MEMORY`."""
        memory = min(MEMORY + self._more + room, available())
        try:
            if self.bounded:
                hard = resource.prlimit(self._process.pid, resource.RLIMIT_DATA)[1]
                soft = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
                resource.prlimit(self._process.pid, resource.RLIMIT_DATA, (soft, hard))
            self._link.send_bytes(request)
            if not self._link.poll(SECONDS if self.bounded else None):
                self._end()
                raise ValueError(f"the model took longer than {SECONDS:.0f} s; {REMEDY}, which lifts the limit")
            answer = self._link.recv_bytes(4 + max(length, 2000))
        except (EOFError, OSError) as error:
            self._end()
            raise ValueError(f"the model ended its process, whose memory was {memory} bytes; {REMEDY}") from error
        if answer[:4] != b"good" or len(answer) != 4 + length:
            reason = answer[4:300].decode(errors="replace").strip()
            lifted = f" (its memory was bounded by {memory} bytes; {REMEDY})" if "alloc" in reason else ""
            raise ValueError(f"the model failed: {reason}{lifted}")
        return answer[4:]


def _end(process: subprocess.Popen[bytes], link: Connection) -> None:
    link.close()
    process.kill()
    process.wait()


def available() -> int:
    """Three quarters of the memory, in bytes, that this machine has left."""
    with Path("/proc/meminfo").open(encoding="ascii") as file:
        left = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    return left * 3 // 4


def check(model: "ModelProto") -> None:
    """Refuse what `segnet.deployment.exported_model.write` does not produce.

    Raises:
        ValueError: saying what it holds.
    """
    graph = model.graph
    if others := [entry.domain for entry in model.opset_import if entry.domain not in ("", "ai.onnx")]:
        raise ValueError(f"it needs the operators of {others[0]!r}; {REMEDY}")
    if model.functions or model.training_info or graph.sparse_initializer or len(graph.node) > NODES:
        raise ValueError(f"it holds functions, training, sparse tensors or more than {NODES} operators; {REMEDY}")
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise ValueError(f"it holds the operator {f'{node.domain}.{node.op_type}'.strip('.')!r}; {REMEDY}")
        for attribute in node.attribute:
            nested = attribute.HasField("g") or attribute.graphs or attribute.ref_attr_name
            if nested or attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise ValueError(f"its operator {node.op_type!r} holds a graph, or sparse tensors; {REMEDY}")
            _check_inside([attribute.t, *attribute.tensors])
    _check_inside(graph.initializer)
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise ValueError(f"it has {len(graph.input)} inputs and {len(graph.output)} outputs, instead of one each")
    _check_value(graph.input[0], (1, 2), "uint8 or float32 (N, 3, H, W) or (N, H, W, 3)")
    _check_value(graph.output[0], (1,), "float32 (N, C, H, W) or (N, H, W, C)")
    sides = graph.input[0].type.tensor_type.shape.dim
    if 3 not in (sides[1].dim_value, sides[3].dim_value):
        raise ValueError(f"{graph.input[0].name!r} is not of three channels")


def _check_inside(tensors: Iterable["TensorProto"]) -> None:
    for tensor in tensors:
        if tensor.data_location != 0 or tensor.external_data:
            raise ValueError(f"its weights {tensor.name!r} lie in another file")


def _check_value(value: "ValueInfoProto", kinds: tuple[int, ...], expected: str) -> None:
    form = value.type.tensor_type
    if form.elem_type not in kinds or len(form.shape.dim) != 4:
        raise ValueError(f"{value.name!r} is not {expected}")
