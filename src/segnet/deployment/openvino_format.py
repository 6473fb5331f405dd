"""OpenVINO's IR: ``model.xml``, the graph, and ``model.bin``, its weights in float16 (int8 by NNCF)."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segnet.deployment import onnx_format
from segnet.deployment.form import Form
from segnet.deployment.formats import KEY, Run, quiet
from segnet.training.module import SegmentationModule


def write(module: SegmentationModule, form: Form, path: Path, metadata: str, opset: int) -> None:
    """Convert the ONNX model."""
    import openvino

    with TemporaryDirectory() as folder:
        onnx_format.write(module, form, Path(folder) / "model.onnx", metadata, opset)
        model = openvino.convert_model(Path(folder) / "model.onnx")
        model.set_rt_info(metadata, [KEY])
        openvino.save_model(model, path, compress_to_fp16=True)


def quantize(path: Path, target: Path, images: Iterable[NDArray[np.generic]]) -> None:
    """Quantise the convolutions but the first and the last; nothing that compares pooled values, which stay exact."""
    import openvino

    with quiet():
        import nncf

    model = openvino.Core().read_model(path)
    nodes = model.get_ordered_ops()
    convolutions = [node.get_friendly_name() for node in nodes if node.get_type_name() == "Convolution"]
    others = sorted({node.get_type_name() for node in nodes} - {"Convolution", "Constant", "Parameter", "Result"})
    with quiet():
        quantized = nncf.quantize(
            model,
            nncf.Dataset(list(images)),
            subset_size=10**6,
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=[convolutions[0], convolutions[-1]], types=others, validate=False),
        )
    openvino.save_model(quantized, target, compress_to_fp16=True)


def open_model(path: Path, device: str, trusted: bool, precision: str) -> tuple[Run, str]:
    """What runs a file that is trusted, and its metadata; in bfloat16 only if ``precision`` says so."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    metadata = str(model.get_rt_info([KEY]).astype(str))
    kind = "bf16" if precision == "bf16-mixed" else "f32"
    options = {
        "INFERENCE_PRECISION_HINT": kind,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = core.compile_model(model, "CPU", options)

    def run(images: Tensor, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(compiled(images.cpu().contiguous().numpy())[0].copy())

    return run, metadata
