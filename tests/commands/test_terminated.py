"""SIGTERM, from ``kill`` or ``timeout``: nothing half-made stays, and what is measured is kept."""

import json
import signal
import threading

import pytest

from helpers import SMALL, call_main


@pytest.fixture
def terminated_in(monkeypatch):
    """``terminated_in(name, there)``: where a function is called, ``there()`` is true, and the process gets SIGTERM."""

    def arrange(name, there):
        def instead(*args, **kwargs):
            assert there()
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("it went on")

        monkeypatch.setattr(name, instead)

    before = signal.signal(signal.SIGTERM, lambda number, frame: None)  # else it would end all tests
    yield arrange
    signal.signal(signal.SIGTERM, before)


def made(folder):
    return [path for path in folder.rglob("*") if path.is_file() and ".hydra" not in path.parts]


def test_an_export(trained, tmp_path, terminated_in):
    out = tmp_path / "exported"
    terminated_in("segnet.deployment.exported_model.write", lambda: any(out.glob(".draft-*")))
    code = call_main("export", f"ckpt_path={trained}/checkpoints/best.ckpt", "format=onnx", f"output_dir={out}")
    assert code == 143
    assert not made(out)
    assert not list(out.glob(".draft-*"))


def test_a_calibration(trained, tmp_path, terminated_in):
    out = tmp_path / "calibrated"
    terminated_in("segnet.reports.calibration._default", lambda: any(tmp_path.rglob(".predictions-*/*")))
    code = call_main(
        "calibrate", f"ckpt_path={trained}/checkpoints/best.ckpt", "target=f1", "confirm=null", f"output_dir={out}"
    )
    assert code == 143
    assert not list(tmp_path.rglob(".predictions-*"))
    assert not made(out)


def test_an_evaluation(trained, tmp_path, terminated_in):
    out = tmp_path / "evaluated"
    terminated_in("segnet.reports.decided.predicted", lambda: any(out.glob("*.part")))
    code = call_main("eval", f"ckpt_path={trained}/checkpoints/best.ckpt", "trainer=cpu", f"output_dir={out}")
    assert code == 143
    assert not made(out)


def test_images_that_are_drawn(tmp_path, terminated_in):
    root = tmp_path / "sets" / "cables"
    terminated_in("segnet.synthetic.cables.render", lambda: any(root.parent.glob(".cables-*/data/masks")))
    code = call_main("train", *SMALL, f"data.root={root}", f"output_dir={tmp_path / 'run'}")
    assert code == 143
    assert not list(root.parent.iterdir())


def test_a_benchmark_keeps_what_it_has_measured(tmp_path, monkeypatch, terminated_in):
    scratch, out = tmp_path / "scratch", tmp_path / "b"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    terminated_in("segnet.benchmark.suite.Bench.data", lambda: any(path.is_dir() for path in scratch.iterdir()))
    code = call_main(
        "benchmark", "device=cpu", "parts=[ceiling,data,index]", "repeats=1", "cpu.matrix=64", "cpu.copy_mb=1",
        "turn=0.001", f"output_dir={out}",
    )  # fmt: skip
    assert code == 143
    results = json.loads((out / "results.json").read_text())
    assert {row["part"] for row in results["rows"]} == {"matrix product, 64³", "memory bandwidth"}
    assert not [path for path in scratch.iterdir() if path.is_dir()]


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
