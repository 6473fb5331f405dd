"""ExecuTorch's program for phones and boards, its computation by XNNPACK: one size, one number of images."""

from pathlib import Path

import torch
from torch import Tensor

from segnet.data.images import resize_exact
from segnet.deployment.form import Form
from segnet.deployment.formats import Run, quiet
from segnet.deployment.portable import Portable
from segnet.deployment.pt2_format import program
from segnet.training.module import SegmentationModule

METHOD = "segnet_json"  # of the program, which returns the metadata as bytes


def write(module: SegmentationModule, form: Form, path: Path, metadata: str, opset: int) -> None:
    """Export to ``path``."""
    portable = Portable(module, form, resize_exact).eval().to(memory_format=torch.contiguous_format)
    _lower(program(portable), path, metadata)


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
