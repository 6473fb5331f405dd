"""PyTorch's own format: the program that `torch.export` records, with the operators of torch."""

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
    portable = Portable(module, form, resize_exact).eval()
    with quiet():
        torch.export.save(program(portable), path, extra_files={KEY: metadata})


def program(portable: Portable) -> torch.export.ExportedProgram:
    """What `torch.export` records of it, without its stack traces, which name paths of this machine."""
    shapes = {"images": portable.form.dynamic()}
    recorded = torch.export.export(portable, (portable.example,), dynamic_shapes=shapes)
    for node in recorded.graph.nodes:
        node.meta.pop("stack_trace", None)
    return recorded


def open_model(path: Path, device: str, trusted: bool, precision: str) -> tuple[Run, str]:
    """What runs a file that is trusted, and its metadata."""
    extra = {KEY: ""}
    module = torch.export.load(path, extra_files=extra).module().to(device)

    def run(images: Tensor, shape: tuple[int, ...]) -> Tensor:
        with torch.no_grad():
            out: Tensor = module(images.to(device))
        return out

    return run, extra[KEY]
