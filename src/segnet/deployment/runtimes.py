"""Each runtime by itself, without torch unless it is torch's own: from a file to a function of NumPy arrays.

`segnet.deployment.device_folder` copies the function of a format into the script that lies beside its file, so each has
all its imports inside, and the syntax of Python 3.9.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[[Any], Any]  # from a batch of images to their probabilities, both as the file's form says


def onnx(path: Path, threads: int, precision: str) -> Run:
    """Open a file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def openvino(path: Path, threads: int, precision: str) -> Run:
    """Open a file in OpenVINO, which computes in float32 (``f32``) or bfloat16 (``bf16``)."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(str(path), "CPU", options)
    return lambda images: model(images)[0]


def executorch(path: Path, threads: int, precision: str) -> Run:
    """Open a file in ExecuTorch; its Python runtime takes no number of threads, so the process gets so many cores."""
    import os

    import torch
    from executorch import runtime

    if hasattr(os, "sched_setaffinity"):  # of Linux
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    method = runtime.Runtime.get().load_program(path).load_method("forward")
    return lambda images: method.execute([torch.from_numpy(images)])[0].numpy()


def litert(path: Path, threads: int, precision: str) -> Run:
    """Open a file in LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path), num_threads=threads).get_signature_runner()
    name, result = next(iter(run.get_input_details())), next(iter(run.get_output_details()))
    return lambda images: run(**{name: images})[result]


def pt2(path: Path, threads: int, precision: str) -> Run:
    """Open a file in PyTorch."""
    import torch

    torch.set_num_threads(threads)
    program = torch.export.load(path).module()
    return lambda images: program(torch.from_numpy(images)).detach().numpy()
