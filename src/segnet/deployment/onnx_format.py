"""ONNX: operators that every runtime on a device has, see `PORTABLE`."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from segnet.deployment import runtimes
from segnet.deployment.calibration import Array, Calibration, report
from segnet.deployment.form import Form
from segnet.deployment.formats import KEY, Run, quiet
from segnet.deployment.onnx_graph import separate_pooling, simplify
from segnet.deployment.onnx_model import OnnxModel
from segnet.deployment.portable import Portable, resize_by_products
from segnet.deployment.pt2_format import program
from segnet.training.module import SegmentationModule

if TYPE_CHECKING:
    from onnx import ModelProto

NATIVE = 18  # of torch's exporter
# Operators of a file of one size, all of them in each of these lists; tests compare them with what is written:
# ONNX Runtime (docs/OperatorKernels.md), OpenVINO (Supported Operations, ONNX), TensorRT (onnx-tensorrt,
# docs/operators.md), LiteRT (onnx2tf, "Supported layers"), OpenCV DNN (modules/dnn/src/onnx/onnx_importer.cpp).
_PORTABLE = """
    Add Cast Ceil Clip Concat Conv DepthToSpace Div MatMul MaxPool Mul Relu Reshape Resize Sigmoid Slice Softmax Sub
    Transpose Unsqueeze
"""
PORTABLE = frozenset(_PORTABLE.split())


def write(module: SegmentationModule, form: Form, path: Path, metadata: str, opset: int) -> None:
    """Export to ``path``, in the oldest version of the file format that has the operators of ``opset``."""
    import onnx

    portable = Portable(module, form, resize_by_products).eval()
    with quiet():
        onnx_program = torch.onnx.export(
            program(portable), dynamo=True, opset_version=max(opset, NATIVE), verbose=False,
            input_names=["images"], output_names=["probabilities"],
        )  # fmt: skip
        assert onnx_program is not None
        model = onnx_program.model_proto
        simplify(model)
        if opset < NATIVE:
            model = onnx.version_converter.convert_version(model, opset)
    _save(model, path, metadata)


def _save(model: "ModelProto", path: Path, metadata: str) -> None:
    import onnx

    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    # By default that of the exporter's library, which runtimes of its day alone can read.
    model.ir_version = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    # The exporter's notes: stack traces with paths of this machine, 4 % of an int8 file.
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: metadata})
    onnx.save(model, path)


def quantize(calibration: Calibration, path: Path, metadata: str, opset: int) -> dict[str, Any]:
    """Write a model with int8 convolutions, by ONNX Runtime's own tool; those that cost most stay in float32.

    Weights are symmetric, a scale for each output channel; activations uint8 over 99.999 % of the values seen. The
    first and the last convolution stay in float32: they are cheap, and they see the image and make the decision.
    """
    import onnx
    from onnxruntime import quantization as ort

    class OneImage(ort.CalibrationDataReader):  # type: ignore[misc]
        """Image by image: of all at once the tool would keep every activation in memory."""

        def __init__(self, array: Array) -> None:
            self.due = iter([{"images": array}])

        def get_next(self) -> dict[str, Array] | None:
            return next(self.due, None)

    with TemporaryDirectory() as folder, quiet():
        plain, draft = Path(folder) / "model.onnx", Path(folder) / "draft.onnx"
        write(calibration.module, calibration.form, plain, "", opset)
        model = onnx.load(plain)
        separate_pooling(model)
        onnx.save(model, plain)
        calibrator = ort.create_calibrator(
            plain, ["Conv"], str(Path(folder) / "augmented.onnx"), ort.CalibrationMethod.Percentile,
            extra_options={"percentile": 99.999},
        )  # fmt: skip
        for array in calibration.inputs():
            calibrator.collect_data(OneImage(array))
        ranges = calibrator.compute_data()
        first, *between, last = (node.name for node in onnx.load(plain).graph.node if node.op_type == "Conv")

        def iou(file: Path) -> float:
            return calibration.iou(runtimes.onnx(file, torch.get_num_threads(), "f32"))

        def quantized(kept: Sequence[str]) -> float:
            """The IoU with some layers in float32, and the model in ``draft``."""
            quantizer = ort.QDQQuantizer(
                onnx.load(plain), True, False, ort.QuantType.QInt8, ort.QuantType.QUInt8, ranges,
                nodes_to_quantize=[], nodes_to_exclude=[first, *kept, last], op_types_to_quantize=["Conv"],
                extra_options={},
            )  # fmt: skip
            quantizer.quantize_model()
            quantizer.model.save_model_to_file(str(draft))
            return iou(draft)

        reason = f"in int8 the IoU fell by more than {calibration.max_drop}"
        costly = dict.fromkeys(calibration.costly(between, quantized, iou(plain)), reason)
        _save(onnx.load(draft), path, metadata)
    kept = {first: "it sees the image", **costly, last: "it makes the decision"}
    return report(calibration, "ONNX Runtime, 99.999 % of the values", kept)


def open_model(path: Path, device: str, trusted: bool, precision: str) -> tuple[Run, str]:
    """What runs a file, and its metadata."""
    model = OnnxModel(path, KEY, device, trusted)
    return model, model.metadata
