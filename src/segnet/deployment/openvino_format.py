"""OpenVINO's IR: ``model.xml``, the graph, and ``model.bin``, its weights in float16 (int8 by NNCF)."""

import re
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segnet.deployment import onnx_format
from segnet.deployment.calibration import Array, Calibration, Pair, convolution, report
from segnet.deployment.form import Form
from segnet.deployment.formats import KEY, Run, quiet
from segnet.errors import UserError
from segnet.training.module import SegmentationModule

if TYPE_CHECKING:
    from openvino import CompiledModel, Model, Node

# What compares, cuts and joins pooled values and resizes images: exact, in the precision that the runtime computes in.
EXACT = ["Add", "Ceiling", "Clamp", "Divide", "Interpolate", "MatMul", "Maximum", "Multiply", "Sigmoid", "SoftMax"]
EXACT += ["Subtract"]


def write(module: SegmentationModule, form: Form, path: Path, metadata: str, opset: int) -> None:
    """Convert the ONNX model."""
    model = _converted(module, form, opset)
    _halve(model)
    _save(model, path, metadata)


def _converted(module: SegmentationModule, form: Form, opset: int) -> "Model":
    import openvino

    with TemporaryDirectory() as folder:
        onnx_format.write(module, form, Path(folder) / "model.onnx", "", opset)
        return openvino.convert_model(Path(folder) / "model.onnx")


def _save(model: "Model", path: Path, metadata: str) -> None:
    import openvino

    _share_constants(model)
    _shorten_names(model)
    model.set_rt_info(metadata, [KEY])
    openvino.save_model(model, path, compress_to_fp16=False)
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\s*(/?>)\s*<", r"\1<", text)  # a fifth of the file is white space; values have no <
    path.write_text(text, encoding="utf-8")


def _halve(model: "Model") -> None:
    """Store the weights of convolutions in float16.

    The converter's own compression takes all constants, those of resizing too, where it moves decisions; in the other
    runtimes they are float32.
    """
    from openvino import Type, opset13

    for node in model.get_ordered_ops():
        weights = node.input_value(1).get_node() if "Convolution" in node.get_type_name() else None
        if weights is not None and weights.get_type_name() == "Constant":  # a group's may be reshaped
            half = opset13.constant(weights.data, Type.f16)
            node.input(1).replace_source_output(opset13.convert(half, "f32").output(0))


def _share_constants(model: "Model") -> None:
    """Let equal constants be one: half of the nodes of an int8 model are bounds of ranges, the same several times."""
    first: dict[tuple[str, str, bytes], Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant":
            kind = (str(node.get_element_type()), str(node.get_output_shape(0)), node.data.tobytes())
            if kind in first:
                node.output(0).replace(first[kind].output(0))
            first.setdefault(kind, node)


def _shorten_names(model: "Model") -> None:
    """Number the nodes: names of those between the input and the output are a tenth of an int8 model's .xml."""
    ends = [*model.inputs, *model.outputs]
    for number, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(str(number))
        for output in node.outputs():
            if not any(output == end for end in ends):
                output.get_tensor().set_names(set())


def quantize(calibration: Calibration, path: Path, metadata: str, opset: int) -> dict[str, Any]:
    """Write a model with int8 convolutions; those that cost most stay in float32 until the IoU holds.

    Ranges of activations are those of the least squared error over the histogram of their values. The quantisers go
    in front of the pixel shuffles, whose values they are, and no comparison is quantised.
    """
    import openvino

    if not calibration.examples:
        raise UserError("images=0: int8 is held to max_drop on validation images; leave images out")
    with quiet():
        import nncf

    model = _converted(calibration.module, calibration.form, opset)

    def first(item: Any) -> Array:
        image = item[0] if isinstance(item, tuple) else item
        return next(calibration.given(image)).numpy()

    def validate(compiled: "CompiledModel", pairs: Iterable[Pair]) -> tuple[float, None]:
        """The IoU alone, by which layers are ranked then; by outputs NNCF would rank the worst layer last."""
        return calibration.iou(lambda array: compiled(array)[0], pairs), None

    with quiet():
        quantized = nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(calibration.images, first),
            nncf.Dataset(calibration.examples, first),
            validate,
            max_drop=calibration.max_drop,
            subset_size=len(calibration.images),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(types=EXACT, validate=False),
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=nncf.quantization.range_estimator.RangeEstimatorParametersSet.HISTOGRAM
            ),
        )
    del quantized.rt_info["nncf"]
    _save(quantized, path, metadata)
    kept = _kept(openvino.Core().read_model(path))
    reason = f"NNCF's accuracy control: in int8 the IoU fell by more than {calibration.max_drop}"
    return report(calibration, "NNCF, least squared error", dict.fromkeys(kept, reason))


def _kept(model: "Model") -> list[str]:
    """The convolutions whose weights are not int8."""
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
    names = []
    for number, node in enumerate(nodes, start=1):
        if _stored(node.input_value(1).get_node()) != "i8":
            names.append(convolution(number, len(nodes), list(node.input_value(1).get_shape())))
    return names


def _stored(node: "Node") -> str:
    """The type of the constant behind weights."""
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return str(node.get_element_type().get_type_name())


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
