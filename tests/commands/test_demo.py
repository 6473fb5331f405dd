import asyncio
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from scipy import ndimage

from helpers import ROOT
from segnet.commands.demo import answer, beside, exact, labels, movable, step
from segnet.commands.guard import Guard
from segnet.data.images import read_rgb
from segnet.decisions import OperatingPoint
from segnet.decisions.given import chosen
from segnet.deployment import writer
from segnet.deployment.measures import grey
from segnet.deployment.prediction import Prediction
from segnet.deployment.predictor import Predictor
from segnet.training.checkpoint import load_module
from segnet.visualization.overlays import palette

# gradio's own dependencies warn of their inner deprecations.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(load_module(trained / "checkpoints" / "best.ckpt"))


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    """The real command on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "src" / "demo.py", f"ckpt_path={trained}/checkpoints/best.ckpt"]
    uploads = tmp_path_factory.mktemp("uploads")
    server = subprocess.Popen(
        [*command, f"port={port}", "max_pixels=10000", "max_upload_mb=0.2", "max_files=40", "max_total_mb=2"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(uploads)},
        # A job that a shell started in the background ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    line = server.stdout.readline()
    yield line.split()[1], uploads
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=30)
    assert server.returncode in (0, 1, 130, -signal.SIGINT)
    assert list(uploads.iterdir()) == []  # nothing of what was uploaded stays


@pytest.fixture(scope="module")
def address(server):
    return server[0]


def request(address, method, path, body=None, **headers):
    """Status and text of an answer; headers as given, with ``_`` for ``-``."""
    link = http.client.HTTPConnection(address.split("/")[2], timeout=30)
    try:
        link.putrequest(method, path, skip_host="Host" in headers)
        if body is not None and "Content_Length" not in headers and "Transfer_Encoding" not in headers:
            link.putheader("Content-Length", str(len(body)))
        for name, value in headers.items():
            link.putheader(name.replace("_", "-"), value)
        link.endheaders(body)
        answer = link.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        link.close()


def upload(address, content, count=1):
    """Files as a browser sends them."""
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="%d.png"\r\n\r\n%s\r\n' % (i, content)
        for i in range(count)
    ]
    body = b"".join(parts) + b"--x--\r\n"
    return request(address, "POST", "/gradio_api/upload", body, Content_Type="multipart/form-data; boundary=x")


def ask(address, path):
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    try:
        return client.predict(handle_file(str(path)), api_name="/predict")
    finally:
        client.close()


def test_an_image_comes_back_as_overlay_mask_confidence_and_areas(address, predictor, cable):
    path = sorted((cable / "images").iterdir())[0]
    overlay, mask, confidence, areas = ask(address, path)
    (expected,) = predictor([read_rgb(path)])
    shown = np.asarray(Image.open(mask).convert("RGB"))
    assert np.array_equal(shown.any(-1), expected.mask() == 1)
    assert np.asarray(Image.open(overlay)).shape[:2] == np.asarray(Image.open(confidence)).shape[:2] == (64, 64)
    assert areas["data"] == [["defect", f"{100 * expected.mask().mean():.3f} %"]]


def test_deep_images_are_read_by_the_bits_of_the_training(predictor, tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 900, (64, 64)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "dark.png")
    monkeypatch.setitem(predictor.model.config["data"], "bits", 12)
    (expected,) = predictor([np.repeat((values >> 4).astype(np.uint8)[..., None], 3, axis=2)])
    _, _, confidence, *_ = answer(predictor, 10_000, 60)(str(tmp_path / "dark.png"))
    levels = grey(expected.confidence())
    assert np.array_equal(confidence, cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1])
    assert len(np.unique(levels)) > 9


def test_verdict_and_objects_are_those_of_the_mask(predictor, cable):
    path = sorted((cable / "images").iterdir())[0]
    (expected,) = predictor([read_rgb(path)])
    *_, verdict, objects = answer(predictor, 10_000, 60)(str(path))
    labels, count = ndimage.label(expected.mask(), np.ones((3, 3)))
    assert f"{count} object" in verdict
    assert ("**defective**" if count else "**good**") in verdict
    found = sorted(row[1] for row in objects)
    assert found == sorted(np.bincount(labels.ravel())[1:].tolist())


def test_another_threshold_is_decided_without_the_network(predictor, cable):
    calls = []

    class Counted:
        model, mc_samples = predictor.model, 0
        point = OperatingPoint((0.6,), (0.3,), (5,))

        def __call__(self, images):
            calls.append(len(images))
            return [replace(found, point=self.point) for found in predictor(images)]

    call = answer(Counted(), 10_000, 60)
    path = sorted((cable / "images").iterdir())[3]
    (found,) = predictor([read_rgb(path)])
    p = found.probabilities[0].numpy()
    for threshold in (0.6, 0.2, 0.95, None):
        shown = call(str(path), *([] if threshold is None else [threshold]))
        level = 0.6 if threshold is None else threshold
        labels, _ = ndimage.label(p > min(0.3, level), np.ones((3, 3)))
        kept = [i for i in range(1, labels.max() + 1) if (labels == i).sum() >= 5 and p[labels == i].max() > level]
        assert np.array_equal(shown[1].any(-1), np.isin(labels, kept))
        assert (f"**{'defective' if kept else 'good'}** · {len(kept)} object") in shown[4]
        assert len(shown[5]) == len(kept)
    assert calls == [1]


def test_beside_the_slider_are_the_rates_of_the_curve_or_the_reason_why_there_are_none():
    curve = {
        "threshold": [0.1, 0.4, 0.8],
        "escape": [[0.0, 0.0, 0.1], [0.05, 0.01, 0.15], [0.5, 0.4, 0.6]],
        "overkill": [[0.3, 0.2, 0.4], [0.02, 0.0, 0.08], [0.0, 0.0, 0.02]],
    }
    point = OperatingPoint((0.4,), (0.4,), (1,), record={"curve": curve})
    say = beside(SimpleNamespace(point=point))
    assert say(0.79).startswith(
        "escape rate 5.0 % (1.0 to 15.0), overkill rate 2.0 % (0.0 to 8.0) counted at 0.400 on the images"
    )
    assert say(0.99).startswith("escape rate 50.0 % (40.0 to 60.0), overkill rate 0.0 % (0.0 to 2.0) counted at 0.800")
    for bad in (
        {},
        {"curve": 5},
        {"curve": curve | {"escape": [[0.0, 0.0, 0.1]]}},
        {"curve": curve | {"threshold": []}},
    ):
        assert "does not hold them" in beside(SimpleNamespace(point=replace(point, record=bad)))(0.4)
    assert "carries no operating point" in beside(SimpleNamespace(point=None))(0.5)


THREE = OperatingPoint((0.52, 0.6004), (0.35, 0.4), (5, 3))


class Blobs:
    """A predictor of three classes that reads their probabilities from an image's colours, of which it makes blobs."""

    model = SimpleNamespace(classes=["background", "crack", "stain"], colors=None)
    mc_samples, point = 0, THREE

    def __call__(self, images):
        p = [torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255) for image in images]
        return [Prediction(one / one.sum(0), point=self.point) for one in p]


def test_each_kind_of_defect_has_a_threshold_of_its_own(tmp_path, monkeypatch):
    """What predict.py writes with an operating point of these thresholds."""
    values = ndimage.gaussian_filter(np.random.default_rng(0).random((60, 70, 3)), (2, 2, 0))
    values -= values.min((0, 1)) - 0.01
    Image.fromarray((values / values.max((0, 1)) * 255).astype(np.uint8)).save(tmp_path / "a.png")
    blobs = Blobs()
    call = answer(blobs, 10_000, 60)
    masks = []
    for place, thresholds in enumerate([(0.52, 0.6), (0.52, 0.45), (0.4, 0.6), (0.3, 0.2), (0.998, 0.998)]):
        *_, mask, _, _, told, listed = call(str(tmp_path / "a.png"), *thresholds)
        low = [min(asked, own) for asked, own in zip(thresholds, THREE.low, strict=True)]
        exact = thresholds if place else THREE.thresholds  # a slider has steps
        point = THREE.stored() | {"thresholds": exact, "low": low}
        (tmp_path / "point.json").write_text(json.dumps(point))
        monkeypatch.setattr(blobs, "point", chosen(str(tmp_path / "point.json"), None, blobs.model.classes))
        settings = {"output_dir": str(tmp_path / "out"), "batch_size": 1, "overlay": False, "probabilities": False}
        writer.write(blobs, [tmp_path / "a.png"], OmegaConf.create(settings | {"segmentation": "rle"}))
        monkeypatch.undo()
        written = np.asarray(Image.open(tmp_path / "out" / "a.png"))
        assert np.array_equal(mask, palette(3, None)[written])
        objects = sum(ndimage.label(written == kind, np.ones((3, 3)))[1] for kind in (1, 2))
        assert told.startswith(f"**{'defective' if objects else 'good'}** · {objects} object")
        assert [row[0] for row in listed].count("stain") == ndimage.label(written == 2, np.ones((3, 3)))[1]
        masks.append(written.tobytes())
    assert len(set(masks)) == 5
    assert not written.any()


def test_beside_the_sliders_of_several_kinds_are_the_rates_of_all_of_them():
    scores = {"defective": [[0.9, 0.2, 0.1, 0.5], [0.1, 0.7, 0.6, 0.1]], "good": [[0.4, 0.1], [0.2, 0.1]]}
    blobs = SimpleNamespace(point=replace(THREE, record={"scores": scores}))
    say = beside(blobs)
    # One of four defective images is above neither threshold; scipy.stats.binomtest(1, 4).proportion_ci() and (0, 2).
    assert say(0.52, 0.55).startswith(
        "escape rate 25.0 % (0.6 to 80.6), overkill rate 0.0 % (0.0 to 84.2) counted at 0.520, 0.550 on the images"
    )
    assert say(0.36, 0.1).startswith("escape rate 0.0 % (0.0 to 60.2), overkill rate 50.0 % (1.3 to 98.7) counted at")
    assert "counted at 0.360, 0.400 on" in say(0.36, 0.1)  # below its lower threshold regions have not been counted
    assert "counted at 0.520, 0.600 on" in say(0.52, 0.6)
    none = replace(THREE, record={"scores": None})
    assert "No rates: the record of the operating point does not hold them" in beside(SimpleNamespace(point=none))(0, 0)


@pytest.mark.parametrize("own", [0.0, 0.0004, 0.6004, 0.6005, 0.98437, 0.9994, 0.9996, 0.99999])
def test_a_slider_begins_at_the_points_own_threshold_and_every_other_place_is_another(own):
    point, places = OperatingPoint((own,), (own,), (1,)), [i / 1000 for i in range(1000)]
    kept = [place for place in places if exact(point, (place,)) == (own,)]
    assert kept == [step(own)]
    assert abs(kept[0] - own) <= 0.001
    assert all(exact(point, (place,)) == (place,) for place in places if place not in kept)


@pytest.mark.parametrize(
    ("point", "classes", "expected"),
    [
        (THREE, ["background", "crack", "stain"], ["crack above", "stain above"]),
        (None, ["background", "crack", "stain"], []),  # the most probable class
        (None, ["defect"], ["threshold"]),
    ],
)
def test_there_is_a_slider_for_each_kind_of_defect(point, classes, expected):
    base = movable(SimpleNamespace(point=point, model=SimpleNamespace(classes=classes)))
    assert labels(base, classes) == expected
    assert len(expected) == (len(base.thresholds) if base else 0)


def test_it_listens_on_this_machine_only(address):
    assert re.match(r"http://127\.0\.0\.1:\d+", address)


@pytest.mark.parametrize(
    ("content", "message"),
    [("large", r"large\.png: 101×100 pixels, more than the limit of 10,000"), ("heavy", "[Ss]ize|413|Payload")],
)
def test_large_images_and_uploads_are_refused(address, tmp_path, content, message):
    path = tmp_path / f"{content}.png"
    if content == "large":
        Image.new("RGB", (101, 100)).save(path)
    else:
        noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    with pytest.raises(Exception, match=message):
        ask(address, path)


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/queue/join", "/gradio_api/upload"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_host_name_or_site_is_not_served(address, path, method):
    """A name that a stranger's DNS points to this machine, and a page of another site."""
    own = address.split("/")[2]
    port = own.split(":")[1]
    body = b"{}" if method == "POST" else None
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1:1",
        "127.0.0.1",
        f"127.0.0.1.evil.example:{port}",
        "",
    ):
        assert request(address, method, path, body, Host=host) == (403, "this host name is not served")
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null", f"http://evil.example:{port}"):
        found = request(address, method, path, body, Origin=origin)
        assert found == (403, "requests of other sites are not served")
    assert request(address, "GET", "/", Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200
    assert request(address, "GET", "/", Host=own)[0] == 200


def test_what_is_uploaded_is_bounded(server):
    address, uploads = server
    assert upload(address, b"x" * 400_000)[0] == 413
    assert request(address, "POST", "/gradio_api/upload", b"0\r\n\r\n", Transfer_Encoding="chunked")[0] == 411
    assert upload(address, b"x", 39)[0] == 200  # other tests have uploaded some before
    status, text = upload(address, b"x", 39)
    assert (status, text) == (507, "too many files were uploaded lately; try again in some minutes")
    for file in uploads.rglob("*.png"):
        file.unlink()


@pytest.mark.parametrize("content", ["none", "cut"])
def test_a_failure_names_no_path_of_this_machine(address, cable, tmp_path, content):
    whole = sorted((cable / "images").iterdir())[0].read_bytes()
    (tmp_path / "x.png").write_bytes(whole[:2000] if content == "cut" else b"no image")
    with pytest.raises(Exception, match=r"^x\.png: " if content == "cut" else "exception") as error:
        ask(address, tmp_path / "x.png")
    assert "segnet-demo" not in str(error.value)
    assert "/uploads" not in str(error.value)


def guarded(app, host="127.0.0.1", **options):
    options = {"port": 80, "folder": Path(), "most": 10, "total": 10, "files": 1, "seconds": 0.2, **options}
    return Guard(app, host, **options)


def answers(guard, headers, path="/", method="GET"):
    """The status that an ASGI request gets."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b""}

    pairs = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"] if sent else None


async def good(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


@pytest.mark.parametrize(
    ("host", "header", "status"),
    [
        ("127.0.0.1", "localhost", 200),
        ("127.0.0.1", "LOCALHOST:80", 200),
        ("127.0.0.1", "192.168.0.7", 403),
        ("::1", "[::1]:80", 200),
        ("0.0.0.0", "192.168.0.7", 200),
        ("0.0.0.0", "[fe80::1]:80", 200),
        ("0.0.0.0", "evil.example", 403),
        ("192.168.0.7", "192.168.0.7:80", 200),
        ("pc.example", "pc.example", 200),
        ("pc.example", "evil.example", 403),
    ],
)
def test_which_host_names_are_its_own(host, header, status):
    assert answers(guarded(good, host), [("host", header)]) == status


def test_two_host_names_or_none_are_refused():
    assert answers(guarded(good), [("host", "localhost"), ("Host", "evil.example")]) == 403
    assert answers(guarded(good), []) == 403


def test_a_request_with_a_body_that_stays_open_is_ended():
    async def slow(scope, receive, send):
        await asyncio.sleep(60)

    before = time.monotonic()
    assert answers(guarded(slow), [("host", "localhost")], method="POST") == 408
    assert time.monotonic() - before < 5


def test_a_prediction_that_takes_too_long_is_ended_and_holds_up_nobody_for_longer(predictor, cable):
    gradio = pytest.importorskip("gradio")
    begun, go = threading.Event(), threading.Event()

    class Slow:
        model, mc_samples, point = predictor.model, 0, None

        def __call__(self, images):
            begun.set()
            go.wait(30)
            return predictor(images)

    call = answer(Slow(), 10_000, 0.3)
    path = str(sorted((cable / "images").iterdir())[0])
    before = time.monotonic()
    for _ in range(2):  # the second one waits for the first
        with pytest.raises(gradio.Error, match=r"longer than 0\.3 s"):
            call(path)
    assert begun.is_set()
    assert time.monotonic() - before < 5
    go.set()
    time.sleep(0.1)
    assert len(call(path)) == 6


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_in_a_real_browser(address, cable):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page()
        tab.goto(address)
        tab.set_input_files("input[type=file]", str(sorted((cable / "images").iterdir())[0]))
        tab.locator("text=/[0-9] %/").locator("visible=true").first.wait_for(timeout=30_000)
        assert tab.locator("img").count() >= 4  # the image, overlay, mask, confidence
        tab.locator("text=/good|defective/").locator("visible=true").first.wait_for(timeout=30_000)
        assert "defect" in tab.inner_text("body")
        assert "No rates: the model carries no operating point" in tab.inner_text("body")
        browser.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["port=0"], "port=0: must be an integer in [1, 65535]"),
        (["max_files=0"], "max_files=0: "),
        (["ckpt_path=/nowhere.onnx"], "ckpt_path=/nowhere.onnx: no such file"),
        (["mc_samples=5"], "has no dropout to sample from"),
    ],
)
def test_bad_input(run_main, trained, tmp_path, overrides, message):
    given = [f"ckpt_path={trained}/checkpoints/best.ckpt"] if "ckpt_path" not in overrides[0] else []
    code, err = run_main("demo", tmp_path / "o", *given, *overrides)
    assert code == 1
    assert message in err
