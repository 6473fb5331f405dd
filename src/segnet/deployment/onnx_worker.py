"""Runs one ONNX model in a process of its own. `segnet.deployment.onnx_model` starts this file as a script.

It imports nothing of this project, so that it starts quickly. Messages are bytes, never pickles: the model first, then
nine int64 (whether the images are float32, their shape, that of the answer) and the images. An answer begins with
``good`` or ``fail``.
"""

import os
import sys
from multiprocessing.connection import Connection

import numpy as np


def main() -> None:
    """Open the model, then answer until the other end is closed."""
    link = Connection(int(sys.argv[1]))
    session = None
    while True:
        try:
            message = link.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            if session is None:
                session, answer = _open(message, sys.argv[2]), b""
            else:
                answer = _run(session, message)
            link.send_bytes(b"good" + answer)
        except Exception as error:  # whatever the runtime raises; the other end knows which file it is
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            link.send_bytes(b"fail" + text[:300].encode(errors="replace"))


def _open(model: bytes, device: str):  # type: ignore[no-untyped-def]
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    if device != "cpu":
        onnxruntime.preload_dlls()
    wanted = ["CPUExecutionProvider"] if device == "cpu" else ["CUDAExecutionProvider", "CPUExecutionProvider"]
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.load_model_format", "ONNX")  # else the bytes choose another parser
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0  # as PyTorch has; 0 is a thread a core
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    return onnxruntime.InferenceSession(model, options, providers=providers)


def _run(session, message: bytes) -> bytes:  # type: ignore[no-untyped-def]
    real, *sides = (int(side) for side in np.frombuffer(message, np.int64, 9))
    images = np.frombuffer(message, np.float32 if real else np.uint8, offset=72).reshape(sides[:4])
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    expected = tuple(sides[4:])
    if found.dtype != np.float32 or found.shape != expected:
        raise ValueError(f"it gave {found.dtype} {found.shape} instead of float32 {expected}")
    return bytes(found.tobytes())


if __name__ == "__main__":
    main()
