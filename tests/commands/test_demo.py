import re
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from helpers import ROOT
from segnet.data.images import read_rgb
from segnet.deployment.predictor import Predictor
from segnet.training.checkpoint import load_module

# gradio's own dependencies warn of their inner deprecations.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(load_module(trained / "checkpoints" / "best.ckpt"))


@pytest.fixture(scope="module")
def address(trained):
    """The real command on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "src" / "demo.py", f"ckpt_path={trained}/checkpoints/best.ckpt"]
    server = subprocess.Popen(
        [*command, f"port={port}", "max_pixels=10000", "max_upload_mb=0.2"],
        stdout=subprocess.PIPE,
        text=True,
        # A job that a shell started in the background ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    line = server.stdout.readline()
    yield line.split()[1]
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=30)
    assert server.returncode in (0, 1, 130, -signal.SIGINT)


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
        assert "defect" in tab.inner_text("body")
        browser.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["port=0"], "port=0: must lie in 1..65535"),
        (["ckpt_path=/nowhere.onnx"], "ckpt_path=/nowhere.onnx: no such file"),
        (["mc_samples=5"], "has no dropout to sample from"),
    ],
)
def test_bad_input(run_main, trained, tmp_path, overrides, message):
    given = [f"ckpt_path={trained}/checkpoints/best.ckpt"] if "ckpt_path" not in overrides[0] else []
    code, err = run_main("demo", tmp_path / "o", *given, *overrides)
    assert code == 1
    assert message in err
