"""What lies beside an exported file for its device: a script that measures it there, and its data."""

import ast
import inspect
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segnet.data.images import resize_pair
from segnet.deployment import runtimes
from segnet.deployment.form import Form
from segnet.deployment.formats import SUFFIXES
from segnet.deployment.prediction import Prediction
from segnet.training.module import SegmentationModule

SCRIPT, ABOUT, SAMPLES = "measure.py", "measure.json", "samples.npz"
_OPENER = "from segnet.deployment.runtimes import onnx as open_model\n"  # the only line that needs this project
Samples = dict[str, NDArray[np.uint8]]


def write(
    model: Path,
    metadata: dict[str, Any],
    form: Form,
    samples: Samples | None = None,
    opener: Callable[..., runtimes.Run] | None = None,
) -> None:
    """Write the script and its data beside an exported file.

    Args:
        model: the exported file, ``model.<suffix>``.
        metadata: of the file.
        form: of the file.
        samples: from `of_pairs`; the script then also counts how the file decides on them.
        opener: what runs the file; None for its format's (`segnet.deployment.runtimes`).
    """
    opener = opener or getattr(runtimes, SUFFIXES[model.suffix].name.removesuffix("_format"))
    about = {
        **form.stored(),
        "file": model.name,
        "size": list(form.size or metadata["image_size"]),
        "axis": 1 if form.layout == "nchw" else -1,
        **{key: metadata[key] for key in ("classes", "mean", "std")},
    }
    (model.parent / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (model.parent / SCRIPT).write_text(script(opener), encoding="utf-8")
    if samples is not None:
        np.savez_compressed(model.parent / SAMPLES, **samples)  # type: ignore[arg-type]


def script(opener: Callable[..., runtimes.Run]) -> str:
    """The script with the function that runs the file instead of the import of it."""
    (function,) = ast.parse(inspect.getsource(opener)).body
    assert isinstance(function, ast.FunctionDef)
    function.name, function.body = "open_model", function.body[1:]  # without its docstring
    for node in ast.walk(function):  # nor annotations
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    source = Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8")
    assert _OPENER in source
    return source.replace(_OPENER, f"\n{ast.unparse(function)}\n")


def of_pairs(
    module: SegmentationModule, form: Form, pairs: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
) -> Samples | None:
    """Images and masks at the file's size, and what the checkpoint decides on them: the most probable class.

    Returns:
        uint8 ``images`` (N, H, W, 3), ``masks`` (N, H, W) and ``decided`` (N, H, W); None without a pair.
    """
    size = form.size or module.image_size
    found: dict[str, list[NDArray[np.uint8]]] = {"images": [], "masks": [], "decided": []}
    for pair in pairs:
        image, mask = resize_pair(*pair, size)
        with torch.no_grad():
            p = module.probabilities(module(torch.tensor(image).permute(2, 0, 1)[None]))[0]
        for name, array in (("images", image), ("masks", mask), ("decided", Prediction(p).mask())):
            found[name].append(array)
    return {name: np.stack(arrays) for name, arrays in found.items()} if found["images"] else None
