"""A trained network as one file that needs nothing of this project to run: ONNX, or PyTorch's own pt2.

The model maps uint8 RGB images (N, 3, H, W) of any size to float32 probabilities (N, C, H, W); resizing and
normalisation are inside; classes, colours, commit and model card are in its metadata.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from segnet import rules
from segnet.data.images import resize_exact
from segnet.data.masks import check_classes
from segnet.decisions import OperatingPoint
from segnet.deployment.onnx_model import OnnxModel
from segnet.errors import UserError
from segnet.settings import CropScale
from segnet.training.module import SegmentationModule

OPSET = 20
KEY = "segnet.json"  # the metadata, in pt2 a file of this name, in ONNX a property
POINT = "operating_point"  # in the metadata; docs/deployment.md says how another program applies it


class Portable(nn.Module):
    """`SegmentationModule.forward` with the probabilities, for the exporters: no branch depends on a size.

    Args:
        module: the trained module; its parts are shared, not copied.
        resize: `segnet.data.images.resize_exact` or `resize_by_products`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, module: SegmentationModule, resize: Callable[[Tensor, tuple[int, int]], Tensor]) -> None:
        super().__init__()
        self.net = module.net
        self.size = module.image_size
        self.resize = resize
        self.binary = len(module.classes) == 1
        self.register_buffer("mean", module.mean)
        self.register_buffer("std", module.std)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 RGB (N, 3, H, W) to float32 probabilities (N, C, H, W)."""
        x = self.resize(images, self.size)
        logits = self.net((x / 255 - self.mean) / self.std)
        logits = F.interpolate(logits, (images.shape[-2], images.shape[-1]), mode="bilinear")
        return logits.sigmoid() if self.binary else logits.softmax(1)


def resize_by_products(images: Tensor, size: tuple[int, int]) -> Tensor:
    """`data.images.resize_exact` as two matrix products: ONNX Runtime's antialiased Resize rounds its weights."""
    rows, columns = (_triangle(side, out) for side, out in zip(images.shape[-2:], size, strict=True))
    return rows @ images.float() @ columns.mT


def _triangle(size: int, out: int) -> Tensor:
    """Weights float32 (out, size) of bilinear resizing with antialiasing along one side."""
    scale = size / out
    centres = (torch.arange(out, dtype=torch.float64) + 0.5) * scale - 0.5
    distance = (torch.arange(size, dtype=torch.float64) - centres[:, None]).abs()
    support: float = torch.sym_max(scale, 1.0)  # type: ignore[assignment]
    weights = (1 - distance / support).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).float()


def write(module: SegmentationModule, path: Path, metadata: dict[str, Any]) -> None:
    """Export to ``path``; its suffix, .onnx or .pt2, is the format."""
    height, width = module.image_size
    example = torch.zeros(2, 3, height + 3, width + 5, dtype=torch.uint8)
    dims = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    resize = resize_exact if path.suffix == ".pt2" else resize_by_products
    with _quiet():
        portable = Portable(module.cpu(), resize).eval()
        exported = torch.export.export(portable, (example,), dynamic_shapes={"images": dims})
        if path.suffix == ".pt2":
            torch.export.save(exported, path, extra_files={KEY: json.dumps(metadata)})
            return
        onnx_program = torch.onnx.export(
            exported, dynamo=True, opset_version=OPSET, verbose=False,
            input_names=["images"], output_names=["probabilities"],
        )  # fmt: skip
    assert onnx_program is not None
    onnx_program.model.metadata_props[KEY] = json.dumps(metadata)
    onnx_program.save(path, external_data=False)


def quantize(path: Path, target: Path, images: Iterable[NDArray[np.uint8]]) -> None:
    """Write an ONNX model with int8 convolutions, calibrated on uint8 (3, H, W) ``images``.

    Weights are symmetric, a scale for each output channel; activations uint8 over 99.999 % of the values seen. The
    first and the last convolution stay in float32: they are cheap, and they see the image and make the decision.
    """
    import onnx
    from onnxruntime import quantization as ort

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            image = next(self.rest, None)
            return None if image is None else {"images": image[None]}

    convolutions = [node.name for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    with _quiet():
        ort.quantize_static(
            str(path), str(target), Reader(), quant_format=ort.QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=["Conv"], nodes_to_exclude=[convolutions[0], convolutions[-1]],
            activation_type=ort.QuantType.QUInt8, weight_type=ort.QuantType.QInt8,
            calibrate_method=ort.CalibrationMethod.Percentile, extra_options={"CalibPercentile": 99.999},
        )  # fmt: skip
    model = onnx.load(target)
    onnx.helper.set_model_props(model, {p.key: p.value for p in onnx.load(path).metadata_props})
    onnx.save(model, target)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own deprecation warnings and progress off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class ExportedModel:
    """Runs an exported file.

    Args:
        path: an .onnx or .pt2 file that `write` made.
        device: cpu or cuda.
        trusted: the user made the file. A pt2 can run any code when it is opened, so others are refused; an ONNX model
            of others runs within the bounds of `segnet.deployment.onnx_model`.

    Attributes:
        classes, colors, image_size: as in `segnet.training.module.SegmentationModule`, from the metadata.
        on_crops, scale, operating_point: of `segnet.training.segmenter.Segmenter`, likewise.
        device: where it takes and gives tensors without a copy; ONNX Runtime goes from the CPU to a GPU by itself.

    Raises:
        UserError: not a model of this project, damaged, or not trusted.
    """

    def __init__(self, path: str | Path, device: str = "cpu", trusted: bool = False) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"ckpt_path={path}: no such file; export.py writes model.onnx or model.pt2")
        onnx = self.path.suffix != ".pt2"
        if not onnx and not trusted:
            raise UserError(
                f"ckpt_path={path}: a pt2 file can run any code when it is opened; use the ONNX model instead "
                f"(export.py format=onnx), or, if you made the file yourself, add trust=true"
            )
        self.device = torch.device("cpu" if onnx else device)
        try:
            run, text = _open_onnx(self.path, device, trusted) if onnx else _open_pt2(self.path, self.device)
            self.metadata: dict[str, Any] = json.loads(text)
            self.classes = [str(name) for name in self.metadata["classes"]]
            self.colors: list[list[int]] | None = self.metadata["colors"]
            check_classes(self.classes, len(self.classes), self.colors)
            for color in self.colors or []:
                if len(color) != 3 or any(type(value) is not int or not 0 <= value < 256 for value in color):
                    raise ValueError(f"{color} is no colour")
            height, width = (int(side) for side in self.metadata["image_size"])
            rules.check("scale", scale := self.metadata.get("scale", 1.0), CropScale)
        except ModuleNotFoundError as error:
            raise UserError(f"ckpt_path={path}: {error}; pip install 'segnet-lightning[export]'") from error
        except Exception as error:  # both runtimes raise many kinds for a damaged file
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"ckpt_path={path}: not a model that export.py wrote ({reason})") from error
        self._run = run
        stored = self.metadata.get(POINT)
        source = f"ckpt_path={path}"
        self.operating_point = None if stored is None else OperatingPoint.read(stored, self.classes, source)
        self.image_size = (height, width)
        self.on_crops, self.scale = self.metadata.get("crop") is not None, scale

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 RGB (N, 3, H, W) to float32 probabilities (N, C, H, W)."""
        return self._run(images, len(self.classes))


Run = Callable[[Tensor, int], Tensor]


def _open_onnx(path: Path, device: str, trusted: bool) -> tuple[Run, str]:
    model = OnnxModel(path, KEY, device, trusted)
    return model, model.metadata


def _open_pt2(path: Path, device: torch.device) -> tuple[Run, str]:
    extra = {KEY: ""}
    module = torch.export.load(path, extra_files=extra).module().to(device)

    def run(images: Tensor, classes: int) -> Tensor:
        with torch.no_grad():
            out: Tensor = module(images.to(device))
        return out

    return run, extra[KEY]
