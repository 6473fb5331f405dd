"""The embedded data: the same bytes for the same arguments, and masks that mark what is to be seen."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import pytest
from PIL import Image

from segnet.synthetic import cables
from segnet.synthetic.cables import KINDS, render

DEFECTS = [kind for kind in KINDS if kind != "good"]


def contents(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_same_arguments_same_bytes(tmp_path, cable):
    cables.write(tmp_path / "again", images=24, size=64, seed=0)
    assert contents(tmp_path / "again") == contents(cable)
    cables.write(tmp_path / "other", images=6, size=64, seed=1)
    for name, data in contents(tmp_path / "other").items():
        assert name.startswith("masks/good") or data != (cable / name).read_bytes()


def test_fewer_images_are_the_first_of_more(tmp_path, cable):
    cables.write(tmp_path / "few", images=8, size=64, seed=0)
    few, more = contents(tmp_path / "few"), contents(cable)
    assert len(few) == 16
    assert all(more[name] == data for name, data in few.items())


def test_files(cable):
    names = [p.name for p in sorted((cable / "images").iterdir())]
    assert names == sorted(f"{kind}_{n:03d}.png" for kind in KINDS for n in range(4))
    assert names == [p.name for p in sorted((cable / "masks").iterdir())]
    for name in names:
        image, mask = (np.asarray(Image.open(cable / part / name)) for part in ("images", "masks"))
        assert (image.shape, mask.shape) == ((64, 64, 3), (64, 64))
        assert set(np.unique(mask)) == ({0} if name.startswith("good") else {0, 255})
        kind, number = name.removesuffix(".png").split("_")
        seed = np.random.SeedSequence([0, crc32(kind.encode()), int(number)]).generate_state(1)[0]
        drawn, marked = render(kind, int(seed), 64)
        assert np.array_equal(image, drawn)  # red and blue where they belong
        assert np.array_equal(mask, marked)


@pytest.mark.parametrize("seed", range(4))
def test_of_a_swapped_conductor_the_insulation_is_the_defect(seed):
    """A ring: its colour is wrong, the copper within is not."""
    _, mask = render("swapped", seed, 128)
    cv2.floodFill(filled := mask.copy(), None, (0, 0), 1)
    ring, core = filled == 255, filled == 0
    assert 0.2 < core.sum() / (core | ring).sum() < 0.5  # 0.55 to 0.62 of the radius, squared


@pytest.mark.parametrize("kind", KINDS)
def test_render_is_deterministic(kind):
    one, two, other = render(kind, 3, 64), render(kind, 3, 64), render(kind, 4, 64)
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("kind", DEFECTS)
@pytest.mark.parametrize("seed", range(6))
def test_mask_marks_the_difference(kind, seed):
    """The defect is what a good cable of the same seed lacks."""
    good, defect = render("good", seed, 128), render(kind, seed, 128)
    inside = defect[1] == 255
    assert not good[1].any()
    assert 0.0005 < inside.mean() < 0.3
    change = np.abs(defect[0].astype(int) - good[0]).mean(2)
    assert change[inside].mean() > 4 * change[~inside].mean()


@pytest.mark.parametrize("content", ["file", "folder"])
def test_root_in_use_is_left_alone(tmp_path, content):
    root = tmp_path / "taken"
    if content == "file":
        root.write_text("mine")
    else:
        root.mkdir()
        (root / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"taken exists and is not an empty folder: remove it or choose another"):
        cables.write(root, images=1, size=32)
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
    assert (root if content == "file" else root / "mine.txt").read_text() == "mine"


def test_empty_root_and_missing_parents_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", tmp_path / "a" / "b"):
        cables.write(root, images=1, size=32)
        assert sorted(contents(root)) == ["images/good_000.png", "masks/good_000.png"]


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_of_two_at_once_the_first_one_stays(tmp_path, cable, seeds):
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(cables.write, tmp_path / "data", images=24, size=64, seed=seed) for seed in seeds]
    failures = [job.exception() for job in jobs if job.exception()]
    if seeds == (0, 0):
        assert failures == []
        assert contents(tmp_path / "data") == contents(cable)
    else:
        assert [type(failure) for failure in failures] == [OSError]  # neither overwrites the other's images
        assert len(contents(tmp_path / "data")) == 48


def test_kill_leaves_no_root(tmp_path):
    root = tmp_path / "data"
    code = f"from segnet.synthetic import cables; cables.write({str(root)!r}, images=100000, size=32)"
    environment = {**os.environ, "PYTHONPATH": str(Path(cables.__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL) as child:
        start = time.monotonic()
        while not any(tmp_path.rglob("bent_000.png")):
            assert child.poll() is None
            assert time.monotonic() - start < 60
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert not root.exists()
    cables.write(root, images=2, size=32)
    assert len(contents(root)) == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"images": 0}, "images=0 is below 1: ask for 1 or more"),
        ({"size": 31}, "size=31 is below 32 pixels: use 32 or more"),
        ({"seed": -1}, "seed=-1 is negative: use an integer of 0 or more"),
    ],
)
def test_bad_arguments(tmp_path, arguments, told):
    with pytest.raises(ValueError, match=told):
        cables.write(tmp_path / "data", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_unknown_kind():
    with pytest.raises(ValueError, match="kind='rusty' is unknown: use one of good, bent, missing"):
        render("rusty", 0, 32)
