import copy
import csv
import os
import struct

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segnet.data.images import read_rgb
from segnet.deployment import video
from segnet.deployment.prediction import Prediction
from segnet.deployment.predictor import Predictor
from segnet.training.checkpoint import load_module


@pytest.fixture(scope="module")
def module(trained):
    return load_module(trained / "checkpoints" / "best.ckpt")


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def video_of(path, code, frames):
    """A video of so many frames of 64×48, 10 a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10.0, (64, 48))
    for seed in range(frames):
        writer.write(image(48, 64, seed))
    writer.release()
    return path


def table(folder):
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("sizes", [[(64, 64)] * 3, [(50, 70), (64, 64), (130, 40), (33, 90), (64, 64)]])
def test_equals_the_modules_forward_in_any_batch(module, sizes):
    images = [image(*size, seed=i) for i, size in enumerate(sizes)]
    found = Predictor(module, batch_size=2)(images)
    for array, prediction in zip(images, found, strict=True):
        with torch.no_grad():
            expected = module(torch.from_numpy(array).permute(2, 0, 1)[None]).sigmoid()[0]
        torch.testing.assert_close(prediction.probabilities, expected, atol=1e-5, rtol=1e-5)


def test_one_tile_is_the_whole(module):
    array = image(64, 64)
    tiled, whole = (Predictor(module, tile=tile)([array])[0].probabilities for tile in (64, None))
    assert torch.equal(tiled, whole)


@pytest.mark.parametrize(("size", "overlap"), [((150, 100), 0.25), ((64, 200), 0.0), ((97, 65), 0.5)])
def test_tiles_of_a_pointwise_network_equal_the_whole_without_seams(trained, size, overlap):
    """Where a pixel's logit depends on that pixel alone, any tiling must give what one pass gives."""
    module = load_module(trained / "checkpoints" / "best.ckpt")
    module.net = nn.Conv2d(3, 1, 1)
    array = image(*size)
    found = Predictor(module, tile=64, overlap=overlap)([array])[0].probabilities
    with torch.no_grad():
        expected = module.logits(torch.from_numpy(array).permute(2, 0, 1)[None]).sigmoid()[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_flips_average_the_mirror_images(module):
    array = image(64, 64)
    found = Predictor(module, flips=True)([array])[0].probabilities
    x = torch.from_numpy(array).permute(2, 0, 1)[None]
    with torch.no_grad():
        parts = [module(x.flip(f)).flip(f).sigmoid() for f in ([], [-1], [-2], [-1, -2])]
    torch.testing.assert_close(found, torch.stack(parts).mean(0)[0], atol=1e-5, rtol=1e-5)
    found = Predictor(module, flips="horizontal")([array])[0].probabilities
    torch.testing.assert_close(found, torch.stack(parts[:2]).mean(0)[0], atol=1e-5, rtol=1e-5)


def test_scales_average_the_image_at_several_sizes(module):
    array = image(64, 64)
    found = Predictor(module, scales=[0.5, 1.5])([array])[0].probabilities
    parts = []
    for side in (32, 96):
        other = copy.copy(module)
        other.image_size = (side, side)
        with torch.no_grad():
            parts.append(other(torch.from_numpy(array).permute(2, 0, 1)[None]).sigmoid()[0])
    torch.testing.assert_close(found, torch.stack(parts).mean(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tile", [None, 64])
def test_samples_of_dropout_give_mean_variance_and_entropy(trained, tile):
    """A network that is nothing but dropout over a constant: each pixel is p1 or p2 with equal odds."""
    module = load_module(trained / "checkpoints" / "best.ckpt")
    conv = nn.Conv2d(3, 1, 1)
    nn.init.zeros_(conv.weight)
    nn.init.constant_(conv.bias, 1.0)
    module.net = nn.Sequential(conv, nn.Dropout(0.5))
    torch.manual_seed(0)
    (found,) = Predictor(module, tile=tile, mc_samples=40)([image(64, 64)])
    low, high = 0.5, 1 / (1 + np.exp(-2))
    middle = (low + high) / 2
    assert found.probabilities.mean().item() == pytest.approx(middle, abs=0.005)
    assert found.variance.mean().item() == pytest.approx(((high - low) / 2) ** 2 * 39 / 40, rel=0.05)
    p = found.probabilities[0].double().numpy()
    expected = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    np.testing.assert_allclose(found.entropy().numpy(), expected, rtol=1e-4)


def test_entropy_of_several_classes_is_one_where_all_are_as_probable():
    probabilities = torch.tensor([[[0.25, 1.0]], [[0.25, 0.0]], [[0.25, 0.0]], [[0.25, 0.0]]])
    assert Prediction(probabilities).entropy().tolist() == [[pytest.approx(1.0), 0.0]]


def test_samples_write_maps_and_columns_and_repeat(run_main, tmp_path, trained):
    ckpt = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    ckpt["config"]["model"]["net"]["dropout"] = 0.5
    keys = {f"decoder.{i}": f"decoder.{i}.0" for i in (0, 1, 2)}  # dropout wraps the central decoder stages
    for key in [k for k in ckpt["state_dict"] if k.startswith("net.decoder.")]:
        stage = ".".join(key.split(".")[1:3])
        if stage in keys:
            ckpt["state_dict"][key.replace(stage, keys[stage], 1)] = ckpt["state_dict"].pop(key)
    torch.save(ckpt, tmp_path / "bayesian.ckpt")
    Image.fromarray(image(40, 50)).save(tmp_path / "a.png")
    maps = []
    for i in range(2):
        out = tmp_path / str(i)
        code, err = run_main(
            "predict", out, f"ckpt_path={tmp_path}/bayesian.ckpt", f"input={tmp_path}/a.png", "mc_samples=3"
        )
        assert code == 0, err
        (row,) = table(out)
        assert float(row["entropy"]) > 0
        assert float(row["variance"]) > 0
        maps.append([np.asarray(Image.open(out / f"a_{name}.png")) for name in ("entropy", "variance")])
        assert maps[-1][0].shape == (40, 50)
    assert all(np.array_equal(a, b) for a, b in zip(*maps, strict=True))


def test_writes_masks_overlays_probabilities_and_the_table(run_main, trained, module, cable, tmp_path):
    out = tmp_path / "out"
    images = cable / "images"
    code, err = run_main(
        "predict", out, f"ckpt_path={trained}/checkpoints/best.ckpt", f"input={images}", "probabilities=true",
        "precision=32-true",
    )  # fmt: skip
    assert code == 0, err
    rows = {row["file"]: row for row in table(out)}
    assert len(rows) == 24
    for path in sorted(images.iterdir())[:3]:
        mask = np.asarray(Image.open(out / f"{path.stem}.png"))
        with torch.no_grad():
            logits = module(torch.from_numpy(np.array(read_rgb(path))).permute(2, 0, 1)[None])
        assert np.array_equal(mask, (logits[0, 0] > 0).numpy() * np.uint8(255))
        assert int(rows[str(path)]["pixels_defect"]) == (mask > 0).sum()
        top = np.asarray(Image.open(out / f"{path.stem}_prob.png")).astype(int)
        assert np.abs(top - (logits[0, 0].sigmoid() * 255).numpy()).max() <= 1
        assert np.asarray(Image.open(out / f"{path.stem}_overlay.png")).shape == (64, 64, 3)


def test_an_unreadable_file_is_passed_over_and_told_at_the_end(run_main, trained, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "c"):
        Image.fromarray(image(40, 50)).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes(b"no image")
    out = tmp_path / "out"
    code, err = run_main("predict", out, f"ckpt_path={trained}/checkpoints/best.ckpt", f"input={folder}/*.png")
    assert code == 1
    assert "1 of 3 files could not be read" in err
    assert "b.png: cannot be read as an image" in err
    assert [row["file"][-5:] for row in table(out)] == ["a.png", "c.png"]
    assert (out / "a.png").is_file()
    assert (out / "c_overlay.png").is_file()


def test_a_video_becomes_an_overlay_video(run_main, trained, tmp_path):
    film = video_of(tmp_path / "film.mp4", "mp4v", 5)
    code, err = run_main("predict", tmp_path / "o", f"ckpt_path={trained}/checkpoints/best.ckpt", f"input={film}")
    assert code == 0, err
    reader = cv2.VideoCapture(str(tmp_path / "o" / "film_overlay.mp4"))
    frames = [reader.read() for _ in range(6)]
    reader.release()
    assert [got for got, _ in frames] == [True] * 5 + [False]
    assert frames[0][1].shape == (48, 64, 3)
    assert len(table(tmp_path / "o")) == 1


def test_a_video_that_gives_its_clock_as_the_frame_rate_becomes_one_too(run_main, trained, tmp_path):
    film = video_of(tmp_path / "film.avi", "MJPG", 3)
    content = bytearray(film.read_bytes())
    at = content.index(b"strh") + 28  # scale and rate of the stream's header
    content[at : at + 8] = struct.pack("<II", 1, 90_000)
    film.write_bytes(content)
    assert cv2.VideoCapture(str(film)).get(cv2.CAP_PROP_FPS) == 90_000
    code, err = run_main("predict", tmp_path / "o", f"ckpt_path={trained}/checkpoints/best.ckpt", f"input={film}")
    assert code == 0, err
    reader = cv2.VideoCapture(str(tmp_path / "o" / "film_overlay.mp4"))
    assert [reader.read()[0] for _ in range(4)] == [True] * 3 + [False]
    assert reader.get(cv2.CAP_PROP_FPS) == 25


def test_an_overlay_that_cannot_be_written_is_told(run_main, trained, tmp_path, monkeypatch):
    film = video_of(tmp_path / "film.mp4", "mp4v", 1)
    monkeypatch.setattr(video, "frame_rate", lambda reader: 90_000.0)  # which OpenCV's MPEG-4 cannot hold
    code, err = run_main("predict", tmp_path / "o", f"ckpt_path={trained}/checkpoints/best.ckpt", f"input={film}")
    assert code == 1
    assert "film.mp4: OpenCV cannot write its overlay, 64×48; convert" in err


def test_names_that_are_no_valid_utf8(run_main, trained, tmp_path):
    folder, odd = tmp_path / "in", os.fsdecode(b"caf\xe9")
    folder.mkdir()
    Image.fromarray(image(40, 50)).save(folder / f"{odd}.png")
    (folder / f"{odd}1.mp4").write_bytes(b"OpenCV crashes before it opens this")
    out = tmp_path / "out"
    code, err = run_main("predict", out, f"ckpt_path={trained}/checkpoints/best.ckpt", f"input={folder}")
    assert code == 1
    assert "1 of 2 files could not be read" in err
    assert "OpenCV cannot open a video whose path is not valid UTF-8; rename it" in err
    assert os.fsencode(folder / f"{odd}.png") in (out / "predictions.csv").read_bytes()
    with Image.open(out / f"{odd}_overlay.png") as found:
        assert found.size == (50, 40)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["input=/nowhere/*.png"], "input=/nowhere/\\*.png: no image or video there"),
        (["input={cable}"], "no image or video there"),
        (["input={cable}/images", "tile=16"], "tile=16: must be an integer of at least 32 or null"),
        (["input={cable}/*/*.png"], "would both become"),
        (["input={cable}/images", "mc_samples=5"], "has no dropout to sample from; train with model=bayesian_segnet"),
    ],
)
def test_bad_input(run_main, trained, cable, tmp_path, overrides, message):
    import re

    given = [o.replace("{cable}", str(cable)) for o in overrides]
    code, err = run_main("predict", tmp_path / "o", f"ckpt_path={trained}/checkpoints/best.ckpt", *given)
    assert code == 1
    assert re.search(message, err)
    assert not (tmp_path / "o").exists()
