"""Published networks on a hub: what the client sends to one on this machine, and refusals as on the public one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from hub_server import REVISION, serving
from segnet import hub

FILES = {
    "SHA256SUMS": b"sums",
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "onnx/model.onnx": b"x",
}
NEEDED = ["SHA256SUMS", "config.json", "model.safetensors"]


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / "release" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "release" / name).write_bytes(content)
    return tmp_path / "release"


@pytest.fixture
def call(tmp_path):
    """``call(url, *expressions)``: what they print, by somebody who is logged in to a hub: the client reads it once."""

    def run(url, *expressions):
        surroundings = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_of_a_test"}
        lines = [f"try: print({text})\nexcept ValueError as error: print(error)" for text in expressions]
        code = "\n".join([f"import sys; sys.path[:0] = {sys.path!r}", "from segnet import hub", *lines])
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, **surroundings},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines(), done.stderr

    return run


@pytest.mark.parametrize("private", [True, False])
def test_a_pushed_folder_is_fetched_at_its_revision(call, folder, private):
    pinned = f"hf://user/name@{REVISION}"
    with serving() as local:
        (checked, pushed, *fetched), told = call(
            local.url, f"hub.check('user/name', {private})", f"hub.push({str(folder)!r}, 'user/name', {private})",
            f"*hub.fetch('hf://user/name', {NEEDED}).iterdir()", f"*hub.fetch({pinned!r}, {NEEDED}).iterdir()",
        )  # fmt: skip
    assert (checked, pushed, local.private, local.files) == ("None", pinned, private, FILES)
    for line in fetched:
        assert {path.name: path.read_bytes() for path in map(Path, line.split())} == {n: FILES[n] for n in NEEDED}
    assert told.count(f"weights: {pinned}") == len(fetched) == 2
    assert not any("onnx" in request for request in local.requests)


def test_a_hub_that_says_no_is_one_line(call, folder):
    with serving() as local:
        local.private = False
        (open_to_all,), _ = call(local.url, "hub.check('user/name', True)")
        assert [request for request in local.requests if request.startswith("POST")] == []
    assert open_to_all == (
        "push=user/name: is there, and everybody can read it; add private=false, or choose another name"
    )
    silent, _ = call(
        local.url, "hub.fetch('hf://user/name', [])", "hub.check('user/name', True)",
        f"hub.push({str(folder)!r}, 'user/name', True)",
    )  # fmt: skip
    for line, (start, end) in zip(
        silent,
        [
            ("weights=hf://user/name: cannot be fetched (", "give a folder: weights=<folder>"),
            ("push=user/name: the hub does not answer (", "leave push out, or try later"),
            ("push=user/name: the hub does not take it (", f"{folder} is whole: hf upload user/name {folder}"),
        ],
        strict=True,
    ):
        assert (line.startswith(start), line.endswith(end)) == (True, True), line


def test_who_is_not_logged_in_is_told(monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(
        ValueError, match=r"push=user/name: nobody is logged in .*; run `hf auth login`, or set HF_TOKEN"
    ):
        hub.check("user/name", private=True)


@pytest.mark.parametrize(
    "url", ["hf://name", "hf://user/name@main", "hf://user/name@123", "hf://../name", "hf://a/b/c"]
)
def test_what_is_no_name_is_told(url):
    with pytest.raises(ValueError, match=rf"weights={url}: must be hf://<user>/<name>, or hf://<user>/<name>@<commit"):
        hub.fetch(url, [])
