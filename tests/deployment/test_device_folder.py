"""The script beside an exported file: run as a device would, without this project, its figures computed anew."""

import ast

import numpy as np
import pytest
import torch
from PIL import Image

from exports import about, measured, module_of, photos, probabilities
from segnet.benchmark.runtimes import checkpoint
from segnet.deployment import device_folder, exported_model, runtimes
from segnet.deployment.form import Form
from segnet.deployment.formats import FORMATS
from segnet.networks.segnet import SegNet

OPENERS = [getattr(runtimes, name) for name in FORMATS]


def pairs(count, classes, size):
    """Images and random masks, in which some pixels are ignored."""
    rng = np.random.default_rng(0)
    for image in photos(count, size).permute(0, 2, 3, 1).numpy():
        mask = rng.integers(0, classes, size, dtype=np.uint8)
        mask[rng.random(size) < 0.1] = 255
        yield image, mask


@pytest.mark.parametrize(
    ("classes", "form"),
    [
        (("defect",), Form()),
        (("good", "crack", "never"), Form((48, 64), 2, "inside", "nhwc", "float32")),
        (("good", "crack"), Form((48, 64), 1, "outside", "nchw", "float32")),
        ([f"class {i}" for i in range(20)], Form((48, 64))),  # whose pairs are no bytes
    ],
)
def test_it_measures_and_decides_alone(classes, form, tmp_path):
    module = module_of(SegNet(len(classes), widths=(4, 6, 8, 8, 8)), classes)
    exported_model.write(module, tmp_path / "model.onnx", about(module), form)
    samples = device_folder.of_pairs(module, form, pairs(5, max(len(classes), 2) - (len(classes) == 3), (48, 64)))
    p = probabilities(module, torch.tensor(samples["images"]).permute(0, 3, 1, 2))
    decided = (p[:, 0] > 0.5).numpy() if len(classes) == 1 else p.argmax(1).numpy()
    assert (samples["decided"] == decided).all()
    samples["decided"][0, :24] ^= 1  # the file and the checkpoint now differ in a tenth of the pixels
    device_folder.write(tmp_path / "model.onnx", about(module), form, samples)
    found = measured(tmp_path, "--threads=1", "--batch=3")
    assert found["decisions"] == pytest.approx(0.9, abs=2e-4)
    iou, known = [], samples["masks"] != 255
    for kind in range(len(classes)) if len(classes) > 1 else [1]:
        truth, guess = samples["masks"][known] == kind, decided[known] == kind
        if (truth | guess).any():  # a class that is nowhere does not count
            iou.append((truth & guess).sum() / (truth | guess).sum())
    assert found["IoU"] == pytest.approx(np.mean(iou), abs=5e-4)
    assert (found["threads"], found["batch"]) == (1, form.batch or 3)
    assert found["file MB"] == pytest.approx((tmp_path / "model.onnx").stat().st_size / 1e6, rel=1e-5)
    assert 0 < found["p50 ms"] <= found["p95 ms"]
    assert found["CPU ms"] > 0
    assert found["images/s"] == pytest.approx(found["batch"] * 1e3 / found["p50 ms"], rel=5)
    assert 0 < found["start-up s"] < 60
    assert 15 < found["memory MB"] < 2000  # Python, numpy and the runtime


def test_images_of_a_folder_and_no_samples(tmp_path):
    module = module_of(SegNet(1, widths=(4, 6, 8, 8, 8)))
    exported_model.write(module, tmp_path / "model.onnx", about(module))
    device_folder.write(tmp_path / "model.onnx", about(module), Form(), None)
    (tmp_path / "photos").mkdir()
    for i, size in enumerate([(30, 40), (64, 48)]):
        Image.fromarray(np.full((*size, 4), 40 * i, np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    found = measured(tmp_path, "--images", str(tmp_path / "photos"), "--batch=2")
    assert not {"decisions", "IoU"} & set(found)
    assert found["images/s"] > 0


@pytest.mark.parametrize("opener", [*OPENERS, checkpoint])
def test_each_script_is_short_whole_and_of_python_39(opener):
    source = device_folder.script(opener)
    assert len(source.splitlines()) < 60 or opener is checkpoint
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    project = {name for name in imported if name.startswith("segnet")}
    assert project == (set() if opener is not checkpoint else {"segnet", "segnet.training.checkpoint"})
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] == ["open_model", "timed"]
