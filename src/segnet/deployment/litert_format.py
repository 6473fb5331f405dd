"""LiteRT's flat buffer for phones and boards, as of TensorFlow Lite: one size, one number of images.

The metadata is a file in a zip archive at its end, where LiteRT's own tools put what belongs to a model.
"""

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from segnet.data.images import resize_exact
from segnet.deployment.form import Form
from segnet.deployment.formats import KEY, Run, quiet
from segnet.deployment.portable import Portable
from segnet.training.module import SegmentationModule


def write(module: SegmentationModule, form: Form, path: Path, metadata: str, opset: int) -> None:
    """Export to ``path``."""
    with quiet():
        import litert_torch

        portable = Portable(module, form, resize_exact).eval().to(memory_format=torch.contiguous_format)
        litert_torch.convert(portable, (portable.example,)).export(str(path))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(KEY, metadata)


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
