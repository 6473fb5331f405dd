"""Formats beside ONNX and pt2, each written and run by its makers' own tools; skipped where they are not installed."""

from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from exports import about, measured, module_of, photos, probabilities
from segnet.deployment import device_folder, exported_model
from segnet.deployment.calibration import Calibration
from segnet.deployment.exported_model import ExportedModel
from segnet.deployment.form import Form
from segnet.deployment.formats import FORMATS
from segnet.networks.segnet import SegNet, SegNetBasic
from segnet.settings import COMMANDS

# Sixteen-bit weights change probabilities in the third digit.
RUNTIMES = {
    "openvino": (Form(), 0.01),
    "executorch": (Form((48, 64), 1), 1e-5),
    "litert": (Form((48, 64), 1, "inside", "nhwc", "uint8"), 1e-5),
}
PACKAGES = {"openvino": "openvino", "executorch": "executorch", "litert": "litert_torch"}


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return module_of(SegNet(2, widths=(4, 6, 8, 8, 8)), ("good", "defect"))


@pytest.fixture(scope="module", params=RUNTIMES)
def written(request, module, tmp_path_factory):
    pytest.importorskip(
        PACKAGES[request.param], reason=f"pip install 'segnet-lightning[{FORMATS[request.param].extra}]'"
    )
    path = tmp_path_factory.mktemp(request.param) / f"model{FORMATS[request.param].suffix}"
    form, tolerance = RUNTIMES[request.param]
    exported_model.write(module, path, about(module), form)
    return path, form, tolerance


def test_it_equals_the_module(written, module):
    path, form, tolerance = written
    exported = ExportedModel(path, trusted=True)
    assert (exported.classes, exported.form) == (["good", "defect"], form)
    for size in [(48, 64)] if form.size else [(48, 64), (75, 51)]:
        images = photos(3, size)
        found, expected = exported(images), probabilities(module, images)
        assert found.shape == expected.shape
        assert (found - expected).abs().mean() < tolerance


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_file_of_another_size_than_the_networks_equals_it(name, module, tmp_path):
    pytest.importorskip(PACKAGES[name], reason=f"pip install 'segnet-lightning[{FORMATS[name].extra}]'")
    path, form = tmp_path / f"model{FORMATS[name].suffix}", Form((75, 90), 1 if FORMATS[name].fixed else None)
    exported_model.write(module, path, about(module), form)
    images = photos(1, (75, 90))
    found = ExportedModel(path, trusted=True)(images)
    assert (found - probabilities(module, images)).abs().mean() < 4e-4  # with 16-bit weights of resizing 8e-4


def test_a_strangers_file_is_refused(written):
    path, _, _ = written
    with pytest.raises(
        ValueError, match=r"without bounds of memory and time; use the ONNX model instead .* trust=true"
    ):
        ExportedModel(path)


def test_the_script_beside_it_runs_it(written, module):
    path, form, _ = written
    images = photos(2, (48, 64)).permute(0, 2, 3, 1).numpy()
    samples = device_folder.of_pairs(module, form, [(image, image[..., 0] // 128) for image in images])
    device_folder.write(path, about(module), form, samples)
    found = measured(path.parent, "--threads=1")
    for file in ("measure.py", "measure.json", "samples.npz"):
        (path.parent / file).unlink()
    assert found["decisions"] > 0.99
    assert found["file MB"] == pytest.approx(ExportedModel(path, trusted=True).bytes / 1e6, rel=1e-5)
    assert found["p50 ms"] > 0


def test_only_these_files_are_written(written):
    path, _, _ = written
    files = {file.name for file in path.parent.iterdir()}
    assert files == {path.name, *([f"{path.stem}.bin"] if path.suffix == ".xml" else [])}
    assert ExportedModel(path, trusted=True).bytes == sum(file.stat().st_size for file in path.parent.iterdir())


def alike(found, expected):
    """Correlation of the probabilities of the defect."""
    return torch.corrcoef(torch.stack([found[:, 1].flatten(), expected[:, 1].flatten()]))[0, 1]


def test_openvino_in_bfloat16(written, module):
    path, _, _ = written
    if path.suffix != ".xml":
        pytest.skip("of OpenVINO alone")
    pytest.importorskip("nncf", reason="pip install 'segnet-lightning[openvino]'")
    images = photos(6, (48, 64))
    expected = probabilities(module, images)
    half = ExportedModel(path, trusted=True, precision="bf16-mixed")(images)
    assert 0 < (half - expected).abs().mean() < 0.1
    assert alike(half, expected) > 0.9


def test_openvino_in_int8_says_what_stayed_in_float32(module, tmp_path):
    """With room for any drop nothing does: putting layers back costs minutes, and a trained network is to need none."""
    pytest.importorskip("nncf", reason="pip install 'segnet-lightning[openvino]'")
    images = photos(6, (48, 64))
    expected = probabilities(module, images)
    masks = expected.argmax(1).byte().numpy()  # the network's own decisions: its IoU is 1
    arrays = list(images.permute(0, 2, 3, 1).numpy())
    form, path = Form((48, 64), 1), tmp_path / "int8.xml"
    calibration = Calibration(module, form, arrays, list(zip(arrays, masks, strict=True)), 0.99)
    found = exported_model.quantize(calibration, path, about(module))
    small = ExportedModel(path, trusted=True)
    assert alike(small(images), expected) > 0.7  # random weights; a trained network's is export.py's to verify
    assert small.form == form
    text = path.read_text()
    assert text.count('element_type="i8"') == 26
    assert found["float32"] == {}
    assert text.count('type="FakeQuantize"') > 20
    assert "> <" not in text
    assert "\n" not in text.partition("<layers>")[2].rstrip()


def test_openvino_puts_the_layer_back_that_costs_the_iou(tmp_path):
    """One channel before the classifier is 10,000 times as wide as the others, which int8 cannot tell apart then."""
    pytest.importorskip("nncf", reason="pip install 'segnet-lightning[openvino]'")
    torch.manual_seed(0)
    module = module_of(SegNetBasic(1, width=16))
    images = photos(4, (48, 64))
    wide = [layer for layer in module.net.modules() if isinstance(layer, nn.BatchNorm2d)][-1]
    with torch.no_grad():
        module.net.classifier.bias.sub_(probabilities(module, images).logit().median())
        expected = probabilities(module, images)
        for weights in (wide.weight, wide.bias):
            weights[0] *= 1e4
        module.net.classifier.weight[:, 0] /= 1e4
    assert torch.allclose(probabilities(module, images), expected, atol=1e-5)
    pairs = list(zip(images.permute(0, 2, 3, 1).numpy(), (expected[:, 0] > 0.5).byte().numpy(), strict=True))
    calibration = Calibration(module, Form((48, 64), 1), [image for image, _ in pairs], pairs, 0.5)
    found = exported_model.quantize(calibration, tmp_path / "model.xml", about(module) | {"card": "a  /> b >  c"})
    assert list(found["float32"]) == ["convolution 9 of 9 (16 to 1 channels)"]
    exported = ExportedModel(tmp_path / "model.xml", trusted=True)
    assert exported.metadata["card"] == "a  /> b >  c"
    assert calibration.iou(lambda array: exported(torch.from_numpy(array))) > 0.5


def test_onnx_runtime_puts_the_layer_back_that_costs_the_iou(tmp_path):
    """One input channel's weights are 10,000 times as large as the others', which int8 cannot tell from zero then."""
    torch.manual_seed(0)
    module = module_of(SegNetBasic(1, width=16))
    images = photos(4, (48, 64))
    convolutions = [layer for layer in module.net.modules() if isinstance(layer, nn.Conv2d)]
    before = [layer for layer in module.net.modules() if isinstance(layer, nn.BatchNorm2d)][3]
    with torch.no_grad():
        module.net.classifier.bias.sub_(probabilities(module, images).logit().median())
        expected = probabilities(module, images)
        for weights in (before.weight, before.bias):
            weights[0] /= 1e4
        convolutions[4].weight[:, 0] *= 1e4
    assert torch.allclose(probabilities(module, images), expected, atol=1e-5)
    pairs = list(zip(images.permute(0, 2, 3, 1).numpy(), (expected[:, 0] > 0.5).byte().numpy(), strict=True))
    calibration = Calibration(module, Form((48, 64), 1), [image for image, _ in pairs], pairs, 0.3)
    found = exported_model.quantize(calibration, tmp_path / "model.onnx", about(module))
    exported = ExportedModel(tmp_path / "model.onnx")
    assert calibration.iou(lambda array: exported(torch.from_numpy(array))) >= 0.7
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    layers = [node for node in nodes if node.op_type == "Conv"]
    producers = {name: node.op_type for node in nodes for name in node.output}
    plain = [node.name for node in layers if producers.get(node.input[1]) != "DequantizeLinear"]
    assert list(found["float32"]) == plain == [layers[i].name for i in (0, 4, 8)]
    assert found["float32"][layers[4].name] == "in int8 the IoU fell by more than 0.3"


@pytest.mark.parametrize(("name", "package"), [("executorch", "executorch"), ("litert", "litert_torch")])
def test_int8_of_phones_holds_for_what_one_image_alone_has(name, package, module, tmp_path):
    """The weights in the file are those of each convolution with its batch norm, rounded to its channel's scale."""
    pytest.importorskip(package, reason=f"pip install 'segnet-lightning[{name}]'")
    images = photos(1, (48, 64))
    black = [np.zeros((48, 64, 3), np.uint8)] * 4  # a mean of ranges would cut off what the only photo has
    form, path = Form((48, 64), 1), tmp_path / f"model{FORMATS[name].suffix}"
    calibration = Calibration(module, form, [*black, images[0].permute(1, 2, 0).numpy(), *black], [], 0.003)
    found = exported_model.quantize(calibration, path, about(module))
    assert found["float32"] == {}
    exported = ExportedModel(path, trusted=True)
    assert exported.form == form
    assert alike(exported(images), probabilities(module, images)) > 0.95
    layers = [layer for layer in module.net.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    data, stored = path.read_bytes(), 0
    for layer, norm in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.Conv2d):
            factor = norm.weight / (norm.running_var + norm.eps).sqrt() if norm else torch.ones(layer.out_channels)
            weights = layer.weight.detach() * factor.detach().view(-1, 1, 1, 1)
            scale = weights.abs().amax((1, 2, 3), keepdim=True) / 127
            stored += (weights / scale).round().to(torch.int8).permute(0, 2, 3, 1).numpy().tobytes() in data
    assert stored >= 24  # of 26; a value in the middle of two may be rounded to either


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_damaged_file_is_one_line(name, tmp_path):
    pytest.importorskip(PACKAGES[name], reason=f"pip install 'segnet-lightning[{FORMATS[name].extra}]'")
    file = tmp_path / f"a{FORMATS[name].suffix}"
    file.write_bytes(b"no model at all")
    with pytest.raises(ValueError, match=r"not a model that export\.py wrote"):
        ExportedModel(file, trusted=True)


def test_the_command_knows_every_format():
    assert set(get_args(COMMANDS["export"]["format"])) == set(FORMATS)
