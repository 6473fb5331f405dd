"""LiteRT's flat buffer for phones and boards, as of TensorFlow Lite: one size, one number of images.

The metadata is a file in a zip archive at its end, where LiteRT's own tools put what belongs to a model.
"""

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from segnet.data.images import resize_exact
from segnet.deployment.calibration import Calibration, convolution, report
from segnet.deployment.form import Form
from segnet.deployment.formats import KEY, Run, quiet
from segnet.deployment.portable import Portable
from segnet.training.module import SegmentationModule


def write(module: SegmentationModule, form: Form, path: Path, metadata: str, opset: int) -> None:
    """Export to ``path``."""
    _convert(module, form, path)
    _add(metadata, path)


def _convert(module: SegmentationModule, form: Form, path: Path) -> None:
    with quiet():
        import litert_torch

        portable = Portable(module, form, resize_exact).eval().to(memory_format=torch.contiguous_format)
        litert_torch.convert(portable, (portable.example,)).export(str(path))


def _add(metadata: str, path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(KEY, metadata)


def quantize(calibration: Calibration, path: Path, metadata: str, opset: int) -> dict[str, Any]:
    """Write a model with int8 convolutions, by the quantiser of LiteRT's makers.

    Weights are symmetric, a scale for each output channel; ranges of activations are from the least to the greatest
    value of all images. By default the quantiser averages the images' ranges, which cuts off what a few images have:
    a rare defect, and with it the whole IoU. Pooling compares what the convolutions gave, in float32.
    """
    with TemporaryDirectory() as folder, quiet():
        from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager
        from ai_edge_quantizer.utils import qsv_utils

        plain = Path(folder) / "model.tflite"
        _convert(calibration.module, calibration.form, plain)
        recipe = recipe_manager.RecipeManager()
        for kind in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.DEPTHWISE_CONV_2D):
            recipe.add_static_config(".*", kind, activation_num_bits=8, weight_num_bits=8)
        ranges = calibrator.Calibrator(
            str(plain), num_threads=torch.get_num_threads(), qsv_update_func=qsv_utils.min_max_update
        )
        images = [{"args_0": array} for array in calibration.inputs()]
        ranges.calibrate({"serving_default": images}, recipe)
        made = quantizer.Quantizer(str(plain), recipe.get_quantization_recipe())
        made.quantize(ranges.get_model_qsvs(), str(path), enable_progress_bar=False, enable_progress_report=False)
    kept = dict.fromkeys(_kept(path), "LiteRT's quantiser left it")
    _add(metadata, path)
    return report(calibration, "LiteRT, least and greatest value", kept)


def _kept(path: Path) -> list[str]:
    """The convolutions whose weights are not int8."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    kinds = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    (graph,) = model.subgraphs
    weights = [
        graph.tensors[node.inputs[1]]
        for node in graph.operators
        if model.operatorCodes[node.opcodeIndex].builtinCode in kinds
    ]
    return [
        convolution(number, len(weights), (weight.shape[0], weight.shape[-1]))
        for number, weight in enumerate(weights, start=1)
        if weight.type != schema.TensorType.INT8
    ]


def open_model(path: Path, device: str, trusted: bool, precision: str) -> tuple[Run, str]:
    """What runs a file that is trusted, and its metadata."""
    with quiet():
        from ai_edge_litert.interpreter import Interpreter

    with zipfile.ZipFile(path) as archive:
        metadata = archive.read(KEY).decode()
    interpreter = Interpreter(model_path=str(path), num_threads=torch.get_num_threads())
    interpreter.allocate_tensors()
    (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: Tensor, shape: tuple[int, ...]) -> Tensor:
        interpreter.set_tensor(given["index"], images.cpu().contiguous().numpy())
        interpreter.invoke()
        return torch.from_numpy(interpreter.get_tensor(found["index"]))

    return run, metadata
