"""predict.py of cameras and streams: a video file, RTSP and MJPEG go the way of a camera's frames."""

import csv
import os
import re
import signal
import threading
import time

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from helpers import call_main
from segnet.data.images import read_rgb
from segnet.training.checkpoint import load_module
from streams import Http, Rtsp, camera


@pytest.fixture(scope="module")
def images(cable):
    return [read_rgb(path) for path in sorted((cable / "images").iterdir())]


@pytest.fixture(scope="module")
def film(images, tmp_path_factory):
    """The rendered cables at 40 frames per second, and its frames as OpenCV decodes them, in RGB."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 40.0, (64, 64))
    for image in images:
        writer.write(image[..., ::-1])
    writer.release()
    reader = cv2.VideoCapture(str(path))
    frames = [reader.read()[1][..., ::-1].copy() for _ in images]
    reader.release()
    return path, frames


@pytest.fixture(scope="module")
def module(trained):
    return load_module(trained / "checkpoints" / "best.ckpt")


@pytest.fixture(scope="module")
def defective(film, module):
    """By the module's own forward pass: the masks of the frames."""
    batch = torch.from_numpy(np.stack(film[1])).permute(0, 3, 1, 2)
    with torch.no_grad():
        return (module(batch)[:, 0] > 0).numpy()


def predict(trained, out, *overrides):
    return call_main("predict", f"ckpt_path={trained}/checkpoints/best.ckpt", f"output_dir={out}", *overrides)


def table(folder, name="predictions"):
    with (folder / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def counts(out):
    """What is printed: frames read, predicted and dropped."""
    return [int(n) for n in re.search(r"(\d+) frames read, (\d+) predicted .*, (\d+) dropped", out).groups()]


def test_a_video_in_place_of_a_camera(trained, film, defective, tmp_path, capfd):
    path, frames = film
    code = predict(trained, tmp_path / "o", f"input=camera:{path}", "exit_code=verdict", "live.keep=2")
    out = capfd.readouterr().out
    rows = table(tmp_path / "o")
    read, predicted, dropped = counts(out)
    assert (read, predicted, dropped) == (24, len(rows), 24 - len(rows))
    numbers = [int(row["frame"]) for row in rows]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 24
    for row, mask in zip(rows, (defective[n - 1] for n in numbers), strict=True):
        assert abs(int(row["pixels_defect"]) - mask.sum()) <= 1
        assert row["verdict"] == ("defective" if mask.any() else "good")
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", row["time"])
    bad = [n for n, row in zip(numbers, rows, strict=True) if row["verdict"] == "defective"]
    assert bad, "no frame is defective"
    assert code == 10
    kept = sorted(file.name for file in (tmp_path / "o" / "defective").iterdir())
    names = [f"{n:09d}{end}" for n in bad[-2:] for end in (".png", "_frame.png", "_overlay.png")]
    assert kept == sorted(names)  # the newest two
    last = tmp_path / "o" / "defective" / f"{bad[-1]:09d}.png"
    assert np.count_nonzero((np.asarray(Image.open(last)) > 0) != defective[bad[-1] - 1]) <= 1
    frame = np.asarray(Image.open(last.with_name(f"{bad[-1]:09d}_frame.png")))
    assert np.array_equal(frame, frames[bad[-1] - 1])
    latest = np.asarray(Image.open(tmp_path / "o" / "latest.jpg"))
    assert latest.shape[1] == 64 < latest.shape[0]
    red = latest[66:70].reshape(-1, 3).mean(0)  # the line below the image is red or green
    assert (red[0] > red[1]) == (rows[-1]["verdict"] == "defective")
    assert not list((tmp_path / "o").glob("*.part"))


@pytest.mark.parametrize("kind", [Rtsp, Http])
def test_a_stream_that_is_lost_is_one_line_after_all_is_written(kind, trained, images, tmp_path, capfd):
    with camera(kind, images[:6], pause=0.02) as (address, _):
        address = address.replace("//", "//user:secret@")
        code = predict(trained, tmp_path / "o", f"input={address}", "live.tries=0", "live.keep=0")
    printed = capfd.readouterr()
    assert code == 1
    (error,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert re.search(r"input=\w+://\*\*\*@127\.0\.0\.1:\d+/: gives no more frames after 6", error)
    assert "secret" not in printed.out + printed.err
    read, predicted, dropped = counts(printed.out)
    assert (read, predicted + dropped) == (6, 6)
    rows = table(tmp_path / "o")
    assert len(rows) == predicted
    assert rows[-1]["frame"] == "6"
    assert not (tmp_path / "o" / "defective").exists()


def test_an_exported_model_decides_as_its_checkpoint(trained, film, defective, tmp_path, capfd):
    model = f"ckpt_path={trained}/checkpoints/best.ckpt"
    assert call_main("export", model, "images=0", "size=64x64", f"output_dir={tmp_path / 'e'}") == 0
    capfd.readouterr()
    given = (f"ckpt_path={tmp_path / 'e'}/model.onnx", f"input=camera:{film[0]}", f"output_dir={tmp_path / 'o'}")
    assert call_main("predict", *given) == 0
    assert "model.onnx is unverified" in capfd.readouterr().out
    for row in table(tmp_path / "o"):
        assert abs(int(row["pixels_defect"]) - defective[int(row["frame"]) - 1].sum()) <= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_it_with_everything_written(number, trained, images, tmp_path, capfd):
    """Of a camera that would otherwise last for a minute; afterwards signals do what they did before."""
    handler = signal.getsignal(number)
    with camera(Http, images * 100, pause=0.02) as (address, _):

        def interrupt():
            while not (tmp_path / "o" / "predictions_before.csv").exists():
                time.sleep(0.02)
            os.kill(os.getpid(), number)

        threading.Thread(target=interrupt, daemon=True).start()
        code = predict(trained, tmp_path / "o", f"input={address}", "live.rows=4")
    read, predicted, dropped = counts(capfd.readouterr().out)
    assert code == 0
    assert 0 < read < 2400
    assert predicted + dropped == read
    new, before = table(tmp_path / "o"), table(tmp_path / "o", "predictions_before")
    assert len(before) == 4
    assert len(new) == (predicted - 1) % 4 + 1
    assert int(before[-1]["frame"]) < int(new[0]["frame"])
    assert signal.getsignal(number) == handler


def test_it_ends_after_its_time(trained, images, tmp_path, capfd):
    with camera(Rtsp, images * 100, pause=0.02) as (address, _):
        assert predict(trained, tmp_path / "o", f"input={address}", "live.seconds=4", "overlay=false") == 0
    read, predicted, _ = counts(capfd.readouterr().out)
    assert 0 < predicted <= read < 2400


def test_a_password_in_a_variable_is_written_nowhere(trained, images, tmp_path, monkeypatch, capfd):
    with camera(Http, images[:2]) as (address, _):
        monkeypatch.setenv("CAMERA", address.replace("//", "//user:secret@"))
        assert predict(trained, tmp_path / "o", "input=${oc.env:CAMERA}", "live.tries=0") == 1
    for path in (tmp_path / "o").rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes()
    assert "secret" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["input=camera:987"], "input=camera:987: there is no /dev/video987; "),
        (["input=camera:"], "input=camera:: no such camera; give camera:<number>"),
        (["input=camera:no/such.mp4"], "input=camera:no/such.mp4: no such camera"),
        (["input=rtsp://127.0.0.1:9/a"], "input=rtsp://127.0.0.1:9/a: no stream there"),
        (["input=camera:{film}", "probabilities=true"], "probabilities=true: is for files"),
        (["input=camera:{film}", "watch=true"], "watch=true with input=camera:"),
        (["input={film}", "watch=true"], "is no folder; give one, or leave watch=true out"),
        (["input=camera:0", "live.tries=-1"], "live.tries=-1: must be an integer of at least 0"),
    ],
)
def test_bad_input(run_main, trained, film, tmp_path, overrides, message):
    given = [word.replace("{film}", str(film[0])) for word in overrides]
    code, err = run_main("predict", tmp_path / "o", f"ckpt_path={trained}/checkpoints/best.ckpt", *given)
    assert code == 1
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert message in err
    assert not (tmp_path / "o").exists()
