"""ExecuTorch's program for phones and boards, its computation by XNNPACK: one size, one number of images."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segnet.data.images import resize_exact
from segnet.deployment.calibration import Calibration, convolution, report
from segnet.deployment.form import Form
from segnet.deployment.formats import Run, quiet
from segnet.deployment.portable import Portable
from segnet.deployment.pt2_format import program
from segnet.training.module import SegmentationModule

METHOD = "segnet_json"  # of the program, which returns the metadata as bytes


def write(module: SegmentationModule, form: Form, path: Path, metadata: str, opset: int) -> None:
    """Export to ``path``."""
    _lower(program(_portable(module, form)), path, metadata)


def _portable(module: SegmentationModule, form: Form) -> Portable:
    return Portable(module, form, resize_exact).eval().to(memory_format=torch.contiguous_format)


def quantize(calibration: Calibration, path: Path, metadata: str, opset: int) -> dict[str, Any]:
    """Write a program with int8 convolutions, by XNNPACK's own quantiser.

    Weights are symmetric, a scale for each output channel; ranges of activations are those of the least squared error
    over the histogram of their values. Pooling compares what the convolutions gave, in float32.
    """
    portable = _portable(calibration.module, calibration.form)
    with quiet():
        from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
        from torchao.quantization.pt2e import quantize_pt2e

        kind = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True)
        quantizer = xnnpack_quantizer.XNNPACKQuantizer().set_operator_type(torch.ops.aten.conv2d.default, kind)
        observed = quantize_pt2e.prepare_pt2e(program(portable).module(), quantizer)
        with torch.no_grad():
            for array in calibration.inputs():
                observed(torch.from_numpy(array))
        quantized = quantize_pt2e.convert_pt2e(observed)
        _lower(torch.export.export(quantized, (portable.example,)), path, metadata)
    kept = dict.fromkeys(_kept(quantized), "XNNPACK's quantiser does not know it")
    return report(calibration, "XNNPACK, least squared error", kept)


def _kept(quantized: torch.fx.GraphModule) -> list[str]:
    """The convolutions whose weights are not int8."""
    nodes = quantized.graph.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default)
    weights = [node.args[1] for node in nodes]
    return [
        convolution(number, len(nodes), weight.meta["val"].shape)
        for number, weight in enumerate(weights, start=1)
        if "dequantize" not in str(weight.target)
    ]


def _lower(exported: torch.export.ExportedProgram, path: Path, metadata: str) -> None:
    text = torch.frombuffer(bytearray(metadata.encode()), dtype=torch.uint8)
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        edge = to_edge_transform_and_lower(
            exported, partitioner=[XnnpackPartitioner()], constant_methods={METHOD: text}
        )
        path.write_bytes(edge.to_executorch().buffer)


def open_model(path: Path, device: str, trusted: bool, precision: str) -> tuple[Run, str]:
    """What runs a file that is trusted, and its metadata."""
    with quiet():
        from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    metadata = bytes(program.load_method(METHOD).execute([])[0].numpy()).decode()
    method = program.load_method("forward")

    def run(images: Tensor, shape: tuple[int, ...]) -> Tensor:
        (found,) = method.execute([images.cpu().contiguous()])
        return found.clone()  # type: ignore[no-any-return]

    return run, metadata
