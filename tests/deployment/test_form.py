"""Exported files of every form: what they hold, what they take, and that they equal the module."""

import json
from functools import cache, partial

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from exports import about, module_of, photos, probabilities
from segnet.deployment import exported_model
from segnet.deployment.exported_model import ExportedModel
from segnet.deployment.form import Form, parsed
from segnet.deployment.onnx_format import PORTABLE
from segnet.deployment.onnx_model import OPERATORS
from segnet.networks.ensemble import Ensemble
from segnet.networks.segnet import SegNet, SegNetBasic, SegNetCompact

# Operators that TensorRT's parser has, of those that are written here (onnx-tensorrt, docs/operators.md). It has no
# MaxUnpool, no pooling with indices, and slices only along axes that are constants.
TENSORRT = """
    Add Cast Ceil Clip Concat Conv DepthToSpace Div Exp Log MatMul Max MaxPool Mul Neg ReduceLogSumExp ReduceMax
    ReduceSum Relu Reshape Resize Sigmoid Slice Softmax Sub Transpose Unsqueeze
"""
SIZES = {"Shape", "Size", "ConstantOfShape", "Range", "Expand", "Squeeze", "Gather"}


@pytest.fixture(scope="module")
def module():
    return module_of(SegNet(2, widths=(4, 6, 8, 8, 8)), ("good", "defect"))


FORMS = {
    "any size, opset 17": (Form(), 17, ("batch", 3, "height", "width")),
    "the network's size": (Form((48, 64), 1), 18, (1, 3, 48, 64)),
    "another size, float32 NHWC, opset 17": (Form((75, 51), 2, "inside", "nhwc", "float32"), 17, (2, 75, 51, 3)),
    "outside": (Form((48, 64), 1, "outside", "nchw", "float32"), 20, (1, 3, 48, 64)),
}


@pytest.fixture(scope="module")
def file_of(module, tmp_path_factory):
    """``file_of(name)``: the ONNX file of one of the forms, written once."""
    folder = tmp_path_factory.mktemp("forms")

    @cache
    def file(name):
        form, opset, _ = FORMS[name]
        path = folder / f"{list(FORMS).index(name)}.onnx"
        exported_model.write(module, path, about(module), form, opset)
        return path

    return file


@pytest.fixture(params=FORMS)
def written(request, file_of):
    return file_of(request.param), *FORMS[request.param]


def test_a_file_of_one_size_has_portable_operators_only(written):
    path, form, _, _ = written
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {"MaxUnpool", "ScatterND", "ScatterElements", "Where", "GreaterOrEqual"}
    if form.size:
        assert operators <= PORTABLE
        assert not operators & SIZES


def test_portable_operators_are_those_of_tensorrt_too():
    assert set(TENSORRT.split()) >= PORTABLE
    assert OPERATORS >= PORTABLE  # those that predict.py opens
    assert not PORTABLE & SIZES


def test_old_runtimes_read_the_file(written):
    """IR version 8 is what ONNX Runtime 1.15 knows for opsets 17 and 18, and 9 for 20 is its newest."""
    path, _, opset, _ = written
    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [opset]
    assert model.ir_version == (8 if opset < 19 else 9)


def test_the_input_is_what_the_form_says(written):
    path, form, _, shape = written
    (given,) = onnxruntime.InferenceSession(path).get_inputs()
    assert given.type == ("tensor(uint8)" if form.input == "uint8" else "tensor(float)")
    assert tuple(side if isinstance(side, int) else "free" for side in given.shape) == tuple(
        side if isinstance(side, int) else "free" for side in shape
    )


def test_it_equals_the_module(written, module):
    """Fed by hand, as a program on a device would."""
    path, form, _, _ = written
    size = form.size or (75, 51)
    images = photos(form.batch or 3, size)
    given = images.float() if form.input == "float32" else images
    given = (given / 255 - module.mean) / module.std if form.outside else given
    given = given.permute(0, 2, 3, 1).contiguous() if form.layout == "nhwc" else given
    (found,) = onnxruntime.InferenceSession(path).run(None, {"images": given.numpy()})
    found = np.moveaxis(found, -1, 1) if form.layout == "nhwc" else found
    expected = probabilities(module, images).numpy()
    assert np.ptp(expected) > 0.2
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("size", [(48, 64), (75, 51), (33, 90)])
def test_an_exported_model_takes_any_images(written, module, size):
    """Three images, whatever their size, whatever the file's: resized as the form says, without trust."""
    path, form, _, _ = written
    images = photos(3, size)
    if form.size in (None, size) or form.outside:
        expected = probabilities(module, images)
    else:  # to the file's size first, as bytes where it takes these; logits back
        given = images if form.input == "uint8" else images.double()
        small = nn.functional.interpolate(given, form.size, mode="bilinear", antialias=True)
        with torch.no_grad():
            logits = nn.functional.interpolate(module(small), size, mode="bilinear")
        expected = logits.softmax(1)
    torch.testing.assert_close(ExportedModel(path)(images), expected, atol=1e-4, rtol=0)


def test_opencv_runs_the_file(module, file_of):
    """OpenCV's network module, in a program without ONNX Runtime."""
    images = photos(1, (48, 64))
    net = cv2.dnn.readNetFromONNX(str(file_of("outside")))
    net.setInput(((images / 255 - module.mean) / module.std).numpy())
    np.testing.assert_allclose(net.forward(), probabilities(module, images).numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "net",
    [
        partial(SegNetBasic, 1, width=4, dropout=0.5),
        partial(SegNetCompact, 1),
        lambda: Ensemble([SegNet(1, widths=(4, 4, 4, 4, 4), dropout=0.5) for _ in range(2)]),
    ],
    ids=["basic", "compact", "ensemble"],
)
def test_every_network_has_portable_operators(net, tmp_path):
    module = module_of(net())
    exported_model.write(module, tmp_path / "a.onnx", about(module), Form((48, 64), 1))
    operators = {node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node}
    assert operators <= PORTABLE | {"Exp", "Log", "Neg", "ReduceLogSumExp", "ReduceMax"} <= set(TENSORRT.split())
    images = photos(1, (48, 64))
    found = ExportedModel(tmp_path / "a.onnx")(images)
    torch.testing.assert_close(found, probabilities(module, images), atol=1e-4, rtol=1e-4)


def test_files_without_a_form_have_the_first(written, module, tmp_path):
    """Those of earlier versions."""
    path, form, _, _ = written
    model = onnx.load(path)
    (entry,) = model.metadata_props
    metadata = json.loads(entry.value)
    assert metadata.pop("form") == form.stored()
    entry.value = json.dumps(metadata)
    onnx.save(model, tmp_path / "a.onnx")
    assert ExportedModel(tmp_path / "a.onnx").form == Form()


@pytest.mark.parametrize(
    "stored",
    [
        {"layout": "nwhc"}, {"input": "int8"}, {"size": [48]}, {"size": [48, -1]}, {"batch": 0}, {"batch": 1.5},
        {"preprocessing": "outside"}, {"preprocessing": "outside", "size": [48, 64]}, {"unknown": 1},
    ],
)  # fmt: skip
def test_no_form(stored):
    with pytest.raises((ValueError, TypeError)):
        Form.read(stored)


@pytest.mark.parametrize("size", ["480", "480x", "x480", "480x480x3", "480,480", "31x480", "-480x480", "4.5x480", ""])
def test_bad_sizes(size):
    with pytest.raises(ValueError, match=r"must be <height>x<width>, at least 32 each, such as 480x480"):
        parsed(size)


def test_sizes():
    assert parsed(None) is None
    assert parsed("480x640") == (480, 640)
