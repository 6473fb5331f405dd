"""Sums over mirror images, scales, samples and tiles: on the CPU to the bit, on a GPU within rounding."""

import copy
import json
from functools import partial

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F

from segnet.data.images import resize_exact
from segnet.decisions import OperatingPoint
from segnet.deployment import predictor as predictor_module
from segnet.deployment.exported_model import ExportedModel
from segnet.deployment.measures import areas, grey
from segnet.deployment.prediction import Prediction
from segnet.deployment.predictor import Predictor, load_model
from segnet.environment import autocast
from segnet.networks.segnet import SegNet
from segnet.training.losses import CrossEntropy
from segnet.training.module import SegmentationModule

SIZES = [(64, 64), (50, 70), (33, 90), (80, 110), (64, 64), (40, 60)]
SETTINGS = [
    {"flips": True},
    {"scales": [0.5, 1, 1.5]},
    {"flips": True, "scales": [1, 1.25], "batch_size": 3},
    {"tile": 64},
    {"tile": 64, "flips": True, "overlap": 0.5},
    {"mc_samples": 3},
    {"tile": 64, "mc_samples": 2, "flips": True},
    {"precision": "bf16-mixed"},
]


@pytest.fixture(params=[1, 3])
def module(request):
    """An untrained network whose decisions change from pixel to pixel."""
    torch.manual_seed(request.param)
    net = SegNet(request.param, widths=(4, 6, 8, 8, 8), dropout=0.5)
    torch.nn.init.normal_(net.classifier.weight)
    made = SegmentationModule(
        net, CrossEntropy(request.param), partial(torch.optim.SGD, lr=0.1), classes=list("abc")[: request.param],
        image_size=64,
    )  # fmt: skip
    with torch.no_grad():
        made.logits(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))  # running statistics
    return made.eval()


def images(sizes=SIZES):
    return [np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8) for i, size in enumerate(sizes)]


def reference(module, arrays, tile=None, overlap=0.25, flips=False, scales=(1,), mc_samples=0, batch_size=4,
              precision="32-true"):  # fmt: skip
    """The same by plain loops on the CPU, without graphs and devices: mean and variance of each image."""

    def one_pass(tensors, size):
        views = [(f, s) for f in ([[], [-1], [-2], [-1, -2]] if flips else [[]]) for s in scales]
        sums = [0] * len(tensors)
        for flip, scale in views:
            sides = tuple(max(32, round(side * scale)) for side in size)
            batch = torch.cat([resize_exact(t.flip(flip), sides) for t in tensors])
            with autocast("cpu", precision):
                logits = module.logits(batch.contiguous(memory_format=torch.channels_last))
            for i, t in enumerate(tensors):
                own = logits[i : i + 1]
                if own.shape[-2:] != t.shape[-2:]:
                    own = F.interpolate(own, t.shape[-2:], mode="bilinear")
                p = own.sigmoid() if len(module.classes) == 1 else own.softmax(1)
                sums[i] = sums[i] + p[0].flip(flip) / len(views)
        return sums

    def moments(tensors, size):
        if not mc_samples:
            return one_pass(tensors, size)
        totals = [0] * len(tensors)
        for _ in range(mc_samples):
            totals = [a + torch.cat([p, p**2]) for a, p in zip(totals, one_pass(tensors, size), strict=True)]
        return [total / mc_samples for total in totals]

    def starts(side):
        if side <= tile:
            return [0]
        count = -(-(side - tile) // max(1, int(tile * (1 - overlap)))) + 1
        return [round(i * (side - tile) / (count - 1)) for i in range(count)]

    def tiled(t):
        height, width = t.shape[-2:]
        window = min(tile, height), min(tile, width)
        corners = [(y, x) for y in starts(height) for x in starts(width)]
        ramp = 1 - torch.linspace(-1, 1, tile + 2)[1:-1].abs()
        weight = ramp[: window[0], None] * ramp[None, : window[1]]
        total = weights = 0
        for start in range(0, len(corners), batch_size):
            part = corners[start : start + batch_size]
            found = moments([t[..., y : y + window[0], x : x + window[1]] for y, x in part], window)
            for (y, x), values in zip(part, found, strict=True):
                pad = (x, width - x - window[1], y, height - y - window[0])
                total, weights = total + F.pad(values * weight, pad), weights + F.pad(weight, pad)
        return total / weights

    tensors = [torch.from_numpy(a).permute(2, 0, 1)[None] for a in arrays]
    whole = [i for i, t in enumerate(tensors) if tile is None or max(t.shape[-2:]) <= tile]
    with torch.no_grad():
        out = {}
        for start in range(0, len(whole), batch_size):
            part = whole[start : start + batch_size]
            out |= zip(part, moments([tensors[i] for i in part], module.image_size), strict=True)
        out |= {i: tiled(t) for i, t in enumerate(tensors) if i not in out}
    classes = len(module.classes)
    split = [(out[i][:classes], out[i][classes:]) for i in range(len(arrays))]
    return [(m, (s - m**2).clamp(min=0).mean(0) if mc_samples else None) for m, s in split]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_on_a_cpu_it_has_the_bits_of_plain_loops(module, settings):
    found = Predictor(module, **settings)
    torch.manual_seed(5)
    found = found(images())
    torch.manual_seed(5)
    for prediction, (mean, variance) in zip(found, reference(module, images(), **settings), strict=True):
        assert torch.equal(prediction.probabilities, mean)
        assert (prediction.variance is None) == (variance is None)
        assert variance is None or torch.equal(prediction.variance, variance)
        expected = mean[0] > 0.5 if len(mean) == 1 else mean.argmax(0)
        assert np.array_equal(prediction.mask(), expected.numpy())


class Recorder(torch.nn.Module):
    """Notes the corner of each window of an image whose red is the column and green the row; decides by the column."""

    def __init__(self):
        super().__init__()
        self.corners = []

    def forward(self, x):
        self.corners += [tuple(round(255 * v) for v in w[:2, 0, 0].tolist()) for w in x]
        left = (255 * x[:, :1, :1, :1]).round().expand(-1, -1, *x.shape[2:])
        return torch.where(left < 12, 0.25, 0.75).logit()


def coordinates(height, width):
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([x, y, x], 2)


def recording():
    """No weights, and images as they are: what a window's pixels say is where it lies."""
    made = SegmentationModule(
        Recorder(), CrossEntropy(1), partial(torch.optim.SGD, lr=0.1), classes=["a"], image_size=32, mean=[0] * 3,
        std=[1] * 3,
    )  # fmt: skip
    return made.eval()


@pytest.mark.parametrize(
    ("side", "overlap", "starts"),
    [
        (80, 0.25, [0, 24, 48]),
        (70, 0.25, [0, 19, 38]),  # evenly spread, so they overlap more than asked
        (64, 0.0, [0, 32]),
        (64, 0.5, [0, 16, 32]),
        (40, 0.9, [0, 3, 5, 8]),
        (34, 0.999, [0, 1, 2]),
        (32, 0.25, [0]),
    ],
)
def test_windows_of_a_known_side(side, overlap, starts):
    model = recording()
    Predictor(model, tile=32, overlap=overlap)([coordinates(side, 33), coordinates(33, side)])
    for turn in (1, -1):
        expected = {corner[::turn] for start in starts for corner in [(0, start), (1, start)]}
        assert expected <= set(model.net.corners)
    assert len(model.net.corners) == 2 * 2 * len(starts)


def test_two_windows_are_blended_by_their_distance_from_the_border():
    """Windows at columns 0 and 24 say 0.25 and 0.75; the weight of a pixel is its distance from its window's border."""
    (found,) = Predictor(recording(), tile=32, overlap=0.25)([coordinates(32, 56)])
    expected = []
    for x in range(56):
        first, second = (max(0, min(x - start + 1, 32 - x + start)) for start in (0, 24))
        expected.append((0.25 * first + 0.75 * second) / (first + second))
    assert 0.25 < expected[24] < expected[27] < 0.5 < expected[28] < expected[31] < 0.75
    np.testing.assert_allclose(found.probabilities[0], np.tile(expected, (32, 1)), rtol=1e-5)


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_the_network_computes_in_the_precision_asked_for(precision, dtype):
    model = recording()
    model.net, seen = torch.nn.Conv2d(3, 1, 1), []
    model.net.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    (found,) = Predictor(model, precision)([coordinates(32, 32)])
    assert seen == [dtype]
    assert found.probabilities.dtype == torch.float32


def test_a_prediction_of_one_class_by_hand():
    p = torch.tensor([[[0.5, 0.6], [1.0, 0.0]]])
    one = Prediction(p)
    assert one.mask().tolist() == [[0, 1], [1, 0]]
    assert torch.equal(one.confidence(), p[0])
    half = -(0.6 * np.log2(0.6) + 0.4 * np.log2(0.4))
    torch.testing.assert_close(one.entropy(), torch.tensor([[1, half], [0, 0]]), check_dtype=False)
    assert one.decided()[1] == 1.0
    assert Prediction(p[:, :1]).decided()[1] == pytest.approx(0.6)
    assert grey(one.confidence()).tolist() == [[128, 153], [255, 0]]  # 127.5 and the like round to even
    assert areas(one.mask(), 1) == [2, "50.000"]
    assert areas(np.zeros((2, 4), np.uint8), 1) == [0, "0.000"]


def test_a_prediction_of_three_classes_by_hand():
    p = torch.tensor([[1 / 3, 0.2, 0.0], [1 / 3, 0.7, 0.0], [1 / 3, 0.1, 1.0]])[:, None]
    three = Prediction(p)
    assert three.mask().tolist() == [[0, 1, 2]]
    torch.testing.assert_close(three.confidence(), torch.tensor([[1 / 3, 0.7, 1.0]]))
    uneven = -sum(v * np.log(v) for v in (0.2, 0.7, 0.1)) / np.log(3)
    torch.testing.assert_close(three.entropy(), torch.tensor([[1, uneven, 0]]), check_dtype=False)
    assert three.decided()[1] == pytest.approx((1 / 3 + 0.7 + 1) / 3)
    assert areas(np.array([[0, 2, 2], [0, 2, 2]], np.uint8), 3) == [2, "33.333", 0, "0.000", 4, "66.667"]


def test_grey_levels_end_at_black_and_white():
    assert grey(torch.tensor([[-0.2, 1.2, 0.2]])).tolist() == [[0, 255, 51]]


@pytest.fixture
def exported(tmp_path):
    """A model whose probability is the mean of the channels, at any size; trained at 32×48."""
    make = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Cast", ["images"], ["x"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=1),
        onnx.helper.make_node("Div", ["mean", "white"], ["probabilities"]),
    ]
    graph = onnx.helper.make_graph(
        nodes, "mean", [make("images", onnx.TensorProto.UINT8, ["n", 3, "h", "w"])],
        [make("probabilities", onnx.TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [onnx.numpy_helper.from_array(np.array([1]), "axis"),
         onnx.numpy_helper.from_array(np.array(255, np.float32), "white")],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    about = {"classes": ["defect"], "colors": None, "image_size": [32, 48]}
    onnx.helper.set_model_props(model, {"segnet.json": json.dumps(about)})
    onnx.save(model, tmp_path / "model.onnx")
    return load_model(str(tmp_path / "model.onnx"), "cpu")


@pytest.mark.parametrize("views", [{}, {"flips": True, "scales": [0.5, 0.75, 1, 1.25, 1.5]}, {"scales": [1] * 11}])
@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_a_probability_of_one_in_every_view_is_one(views, temperature):
    """Twenty times a twentieth is more than 1 in float32, and what is beyond it has no root."""

    class Sure(torch.nn.Module):
        def forward(self, x):
            return 40 * x.mean(1, keepdim=True) - 20

    made = SegmentationModule(
        Sure(), CrossEntropy(1), partial(torch.optim.SGD, lr=0.1), classes=["a"], image_size=64,
        mean=[0, 0, 0], std=[1, 1, 1],
    ).eval()  # fmt: skip
    made.operating_point = OperatingPoint((0.5,), (0.5,), (1,), temperature=temperature)
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:48, 16:48] = 255
    (found,) = Predictor(made, **views)([image])
    mask, score = found.decided()
    assert (mask == (image[..., 0] > 0)).mean() > 0.97  # of an edge half a pixel may blur
    assert mask[20:44, 20:44].all()
    assert score == pytest.approx(1, abs=1e-6)
    assert 0 <= found.probabilities.min() <= found.probabilities.max() <= 1
    assert found.entropy().isfinite().all()


@pytest.mark.parametrize("flips", [False, True])
def test_an_exported_model_predicts_each_image_at_its_own_size(exported, flips):
    assert isinstance(exported, ExportedModel)
    arrays = images([(50, 70), (32, 48), (33, 90)])
    for array, found in zip(arrays, Predictor(exported, flips=flips, batch_size=2)(arrays), strict=True):
        np.testing.assert_allclose(found.probabilities[0], array.mean(2) / 255, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mc_samples": 2}, "model.onnx: an exported model has one scale and no dropout; use a checkpoint"),
        ({"scales": [1, 2]}, "model.onnx: an exported model has one scale and no dropout"),
        ({"tile": 32}, "tile=32: .*model.onnx takes 32×48; set tile to its size or leave it out"),
        ({"tile": 48}, "tile=48: .*model.onnx takes 32×48"),
    ],
)
def test_what_an_exported_model_cannot_do(exported, options, told):
    with pytest.raises(ValueError, match=told):
        Predictor(exported, **options)


def test_an_exported_model_takes_tiles_of_its_own_size(exported):
    exported.image_size = (48, 48)
    (array,) = images([(60, 100)])
    (found,) = Predictor(exported, tile=48)([array])
    np.testing.assert_allclose(found.probabilities[0], array.mean(2) / 255, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tile": 31}, "tile=31: must be null or a side of at least 32 pixels"),
        ({"tile": 32.5}, "tile=32.5: must be null or a side"),
        ({"overlap": 1}, r"overlap=1: must lie in \[0, 1\)"),
        ({"overlap": -0.1}, r"overlap=-0.1: must lie in"),
        ({"batch_size": 0}, "batch_size=0: must be an integer of at least 1"),
        ({"batch_size": 1.5}, "batch_size=1.5: must be an integer"),
        ({"mc_samples": 1}, "mc_samples=1: must be 0, or at least 2"),
        ({"mc_samples": -2}, "mc_samples=-2: must be 0, or at least 2"),
        ({"mc_samples": 2}, "mc_samples=2: the network has no dropout to sample from"),
        ({"scales": []}, r"scales=\[\]: must be positive factors"),
        ({"flips": "vertical"}, r"flips=vertical: must be true, false or horizontal"),
        ({"scales": [1, 0]}, r"scales=\[1, 0\]: must be positive factors"),
    ],
)
def test_bad_options(options, told):
    with pytest.raises(ValueError, match=rf"^{told}"):
        Predictor(recording(), **options)


@pytest.mark.cuda
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_sums_on_a_gpu_are_those_on_the_cpu(module, settings, monkeypatch):
    predict = Predictor(module.cuda(), **settings)
    torch.manual_seed(5)
    found = predict(images())
    monkeypatch.setattr(predictor_module, "SHARE", 0)  # nothing fits
    torch.manual_seed(5)
    for a, b in zip(found, predict(images()), strict=True):
        assert a.probabilities.device.type == "cpu"
        torch.testing.assert_close(a.probabilities, b.probabilities, atol=1e-5, rtol=0)
        if a.variance is not None:
            torch.testing.assert_close(a.variance, b.variance, atol=1e-5, rtol=0)


@pytest.fixture
def exact_convolutions():
    """cuDNN's, without TF32; pytest's monkeypatch cannot put the setting back."""
    before, torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.conv.fp32_precision, "ieee"
    yield
    torch.backends.cudnn.conv.fp32_precision = before


@pytest.mark.cuda
@pytest.mark.parametrize("settings", [s for s in SETTINGS if not {"mc_samples", "precision"} & s.keys()], ids=str)
def test_a_gpu_decides_as_the_cpu(module, settings, exact_convolutions):
    """All but a few pixels: where two values of a pooling window are all but equal, rounding picks one."""
    expected = reference(module, images(), **settings)
    predict = Predictor(copy.deepcopy(module).cuda(), **settings)
    for _ in range(4):  # plainly, captured, replayed
        for prediction, (mean, _) in zip(predict(images()), expected, strict=True):
            far = (prediction.probabilities - mean).abs() > 1e-4
            assert far.float().mean() < 0.01


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_graphs_change_no_bit_of_a_prediction(module, precision):
    """Samples of dropout included: replayed kernels draw what started ones would draw."""
    module = module.cuda()
    for settings in ({"flips": True}, {"mc_samples": 3}, {"tile": 64}):
        predict = Predictor(module, precision, **settings)
        torch.manual_seed(1)
        replayed = [predict(images()) for _ in range(3)]
        assert any(form.recording for form in predict._logits._forms.values())
        predict._logits.record = {}
        torch.manual_seed(1)
        for first in replayed:
            for a, b in zip(first, predict(images()), strict=True):
                assert torch.equal(a.probabilities, b.probabilities)
                assert a.variance is None or torch.equal(a.variance, b.variance)


@pytest.mark.cuda
def test_weights_may_change_and_move_between_predictions(module):
    module = module.cuda()
    predict, arrays = Predictor(module), images([(64, 64)] * 4)
    for _ in range(4):
        predict(arrays)
    with torch.no_grad():
        module.net.classifier.weight.neg_()
    changed = predict(arrays)[0].probabilities
    assert torch.equal(changed, Predictor(module)(arrays)[0].probabilities)
    module.cpu()
    on_cpu = predict(arrays)[0].probabilities
    module.cuda()
    assert torch.equal(predict(arrays)[0].probabilities, changed)
    assert (on_cpu - changed).abs().mean() < 0.05
