"""SIGTERM, from ``kill`` or ``timeout``: nothing half-made stays, and what is measured is kept."""

import json
import signal
import threading
import time
from contextlib import contextmanager

from helpers import SMALL, call_main


@contextmanager
def terminated_when(there):
    """Send this process SIGTERM once ``there()`` is true; outside the command it would do nothing."""
    before, over = signal.signal(signal.SIGTERM, lambda number, frame: None), threading.Event()

    def watch():
        while not over.is_set():
            if there():
                signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)  # a thread that sleeps wakes up
                return
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)


def test_an_export(trained, tmp_path):
    out = tmp_path / "exported"
    with terminated_when(lambda: any(out.glob(".draft-*"))):
        code = call_main("export", f"ckpt_path={trained}/checkpoints/best.ckpt", "format=onnx", f"output_dir={out}")
    assert code == 143
    assert not [path for path in out.rglob("*") if ".hydra" not in path.parts]


def test_a_calibration(trained, tmp_path):
    out = tmp_path / "calibrated"
    with terminated_when(lambda: any(tmp_path.rglob(".predictions-*"))):
        code = call_main(
            "calibrate", f"ckpt_path={trained}/checkpoints/best.ckpt", "target=f1", "confirm=null", f"output_dir={out}"
        )
    assert code == 143
    assert not list(tmp_path.rglob(".predictions-*"))
    assert not list(out.glob("*.ckpt"))


def test_images_that_are_drawn(tmp_path):
    root = tmp_path / "sets" / "cables"
    with terminated_when(lambda: any(root.parent.glob(".cables-*/data/masks/*.png"))):
        code = call_main(
            "train", *SMALL, "data.prepare.images=400", f"data.root={root}", f"output_dir={tmp_path / 'run'}"
        )
    assert code == 143
    assert not list(root.parent.iterdir())


def test_a_benchmark_keeps_what_it_has_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "scratch").mkdir()
    out, begun = tmp_path / "b", threading.Event()

    def data(self):
        begun.set()
        for _ in range(6000):  # a signal that comes just before a long sleep would not end it
            time.sleep(0.01)

    monkeypatch.setattr("segnet.benchmark.suite.Bench.data", data)
    with terminated_when(begun.is_set):
        code = call_main(
            "benchmark", "device=cpu", "parts=[ceiling,data,index]", "repeats=1", "cpu.matrix=64", "cpu.copy_mb=1",
            "turn=0.001", f"output_dir={out}",
        )  # fmt: skip
    assert code == 143
    parts = {row["part"] for row in json.loads((out / "results.json").read_text())["rows"]}
    assert parts == {"matrix product, 64³", "memory bandwidth"}
    assert not [path for path in (tmp_path / "scratch").iterdir() if path.is_dir()]


def test_elsewhere_than_in_the_main_thread_it_is_left_alone(tmp_path):
    """A data set that is drawn by a thread, of a notebook's widget, say."""
    from segnet.synthetic.cables import write

    failed = []

    def draw():
        try:
            write(tmp_path / "cables", images=1, size=64)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=draw)
    thread.start()
    thread.join()
    assert not failed
    assert len(list((tmp_path / "cables" / "images").iterdir())) == 1
