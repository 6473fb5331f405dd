"""A trained network as one file that needs nothing of this project to run: ONNX, PyTorch's own pt2 and others.

The model maps uint8 RGB images (N, 3, H, W) of any size to float32 probabilities (N, C, H, W); resizing and
normalisation are inside, or what its `Form` says; classes, colours, commit and model card are in its metadata.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segnet import rules
from segnet.data.masks import check_classes
from segnet.decisions import OperatingPoint
from segnet.deployment.calibration import Calibration
from segnet.deployment.form import Form
from segnet.deployment.formats import SUFFIXES
from segnet.errors import UserError
from segnet.settings import CropScale
from segnet.training.module import SegmentationModule

OPSET = 18
POINT = "operating_point"  # in the metadata; docs/deployment.md says how another program applies it


def write(
    module: SegmentationModule, path: Path, metadata: dict[str, Any], form: Form | None = None, opset: int = OPSET
) -> None:
    """Export to ``path``, whose suffix is the format's; ``opset`` is ONNX's."""
    form = form or Form()
    text = json.dumps({**metadata, "form": form.stored()})
    SUFFIXES[path.suffix].module.write(module.cpu(), form, path, text, opset)


def quantize(calibration: Calibration, path: Path, metadata: dict[str, Any], opset: int = OPSET) -> dict[str, Any]:
    """Export to ``path`` with int8 convolutions; how it was done, and which layers stayed in float32 and why."""
    text = json.dumps({**metadata, "form": calibration.form.stored()})
    calibration.module.cpu()
    found: dict[str, Any] = SUFFIXES[path.suffix].module.quantize(calibration, path, text, opset)
    return found


class ExportedModel:
    """Runs an exported file.

    Args:
        path: a file that `write` made; its suffix says the format (`segnet.deployment.formats`).
        device: cpu or cuda.
        trusted: the user made the file. Others are refused, except an ONNX model, which runs within the bounds of
            `segnet.deployment.onnx_model`.
        precision: Lightning's name; ``bf16-mixed`` lets a runtime that can compute in bfloat16.
        key: of the command that names the file, for messages.

    Attributes:
        form: what the file takes and gives.
        classes, colors, image_size: as in `segnet.training.module.SegmentationModule`, from the metadata.
        on_crops, scale, operating_point: of `segnet.training.segmenter.Segmenter`, likewise.
        device: where it takes and gives tensors without a copy; ONNX Runtime goes from the CPU to a GPU by itself.

    Raises:
        UserError: not a model of this project, damaged, or not trusted.
    """

    mean = torch.zeros(1, 3, 1, 1)  # of a form whose normalisation is outside
    std = torch.ones(1, 3, 1, 1)

    def __init__(
        self, path: str | Path, device: str = "cpu", trusted: bool = False, precision: str = "32-true",
        key: str = "ckpt_path",
    ) -> None:  # fmt: skip
        self.path, source = Path(path), f"{key}={path}"
        if not self.path.is_file():
            raise UserError(f"{source}: no such file; export.py writes it, such as model.onnx")
        kind = SUFFIXES.get(self.path.suffix, SUFFIXES[".onnx"])
        if kind.danger and not trusted:
            raise UserError(
                f"{source}: a {self.path.suffix[1:]} file {kind.danger}; use the ONNX model instead "
                f"(export.py format=onnx), or, if you made the file yourself, add trust=true"
            )
        self.device = torch.device(device if self.path.suffix == ".pt2" else "cpu")
        try:
            run, text = kind.module.open_model(self.path, device, trusted, precision)
            self.metadata: dict[str, Any] = json.loads(text)
            self.classes = [str(name) for name in self.metadata["classes"]]
            self.colors: list[list[int]] | None = self.metadata["colors"]
            check_classes(self.classes, len(self.classes), self.colors)
            for color in self.colors or []:
                if len(color) != 3 or any(type(value) is not int or not 0 <= value < 256 for value in color):
                    raise ValueError(f"{color} is no colour")
            self.form = Form.read(self.metadata.get("form", {}))
            if self.form.outside:
                self.mean, self.std = (torch.tensor(self.metadata[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
            height, width = (int(side) for side in self.metadata["image_size"])
            rules.check("scale", scale := self.metadata.get("scale", 1.0), CropScale)
        except ModuleNotFoundError as error:
            raise UserError(f"{source}: {error}; pip install 'segnet-lightning[{kind.extra}]'") from error
        except Exception as error:  # both runtimes raise many kinds for a damaged file
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{source}: not a model that export.py wrote ({reason})") from error
        self._run = run
        stored = self.metadata.get(POINT)
        self.operating_point = None if stored is None else OperatingPoint.read(stored, self.classes, source)
        self.image_size = (height, width)
        self.on_crops, self.scale = self.metadata.get("crop") is not None, scale

    @property
    def bytes(self) -> int:
        """Of the file, and of the one that belongs to it."""
        kind = SUFFIXES[self.path.suffix]
        return sum(self.path.with_suffix(s).stat().st_size for s in (kind.suffix, kind.beside) if s)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 RGB (N, 3, H, W) to float32 probabilities (N, C, H, W)."""
        found = [
            self._run(batch, self.form.shape(batch, len(self.classes)))
            for batch in self.form.batches(images, self.mean, self.std)
        ]
        return self.form.probabilities(found, len(images), (images.shape[-2], images.shape[-1]))
