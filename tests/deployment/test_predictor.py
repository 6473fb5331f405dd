"""Sums over mirror images, scales, samples and tiles: on the CPU to the bit, on a GPU within rounding."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segnet.data.images import resize_exact
from segnet.deployment import predictor as predictor_module
from segnet.deployment.predictor import Predictor
from segnet.environment import autocast
from segnet.networks.segnet import SegNet
from segnet.training.losses import CrossEntropy
from segnet.training.module import SegmentationModule

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
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


@pytest.mark.cuda
@on_cuda
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


@pytest.mark.cuda
@on_cuda
@pytest.mark.parametrize("settings", [s for s in SETTINGS if not {"mc_samples", "precision"} & s.keys()], ids=str)
def test_a_gpu_decides_as_the_cpu(module, settings, monkeypatch):
    """All but a few pixels: where two values of a pooling window are all but equal, rounding picks one."""
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")
    expected = reference(module, images(), **settings)
    predict = Predictor(copy.deepcopy(module).cuda(), **settings)
    for _ in range(4):  # plainly, captured, replayed
        for prediction, (mean, _) in zip(predict(images()), expected, strict=True):
            far = (prediction.probabilities - mean).abs() > 1e-4
            assert far.float().mean() < 0.01


@pytest.mark.cuda
@on_cuda
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
@on_cuda
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
