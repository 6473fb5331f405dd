"""The formats of exported files: for each a module here that writes and opens it, and what it can and cannot do.

A module has ``write(module, form, path, metadata, opset)``, ``open_model(path, device, trusted, precision)``, which
gives a function of a tensor and the metadata, and where the format is quantised ``quantize(calibration, path, metadata,
opset)``, which says how it was done.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from torch import Tensor

KEY = "segnet.json"  # the metadata's name inside a file
# From a tensor as the file's form says, and the shape of the probabilities that it must give, to these.
Run = Callable[[Tensor, tuple[int, ...]], Tensor]

UNBOUNDED = "is read by its runtime in this process, without bounds of memory and time"


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        suffix: of its files.
        name: of the module in `segnet.deployment`.
        extra: of this package that installs what it needs.
        danger: what opening a stranger's file may do; None where files are checked and run within bounds.
        fixed: it has one size, and one number of images at a time.
        quantizes: to int8.
        half: weights are stored in float16.
        beside: suffix of a second file that belongs to it.
    """

    suffix: str
    name: str
    extra: str
    danger: str | None = UNBOUNDED
    fixed: bool = False
    quantizes: bool = False
    half: bool = False
    beside: str | None = None

    @property
    def module(self) -> ModuleType:
        """What writes and opens it."""
        return import_module(f"segnet.deployment.{self.name}")


FORMATS = {
    "onnx": Format(".onnx", "onnx_format", "export", None, quantizes=True),
    "openvino": Format(".xml", "openvino_format", "openvino", quantizes=True, half=True, beside=".bin"),
    "executorch": Format(".pte", "executorch_format", "executorch", fixed=True, quantizes=True),
    "litert": Format(".tflite", "litert_format", "litert", fixed=True, quantizes=True),
    "pt2": Format(".pt2", "pt2_format", "export", "can run any code when it is opened"),
}
SUFFIXES = {format_.suffix: format_ for format_ in FORMATS.values()}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' own deprecation warnings and progress off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
