"""Large images in validation and test: loss over windows, counts over blended pixels, by plain loops."""

from functools import partial

import numpy as np
import pytest
import torch

from segnet.data.masks import IGNORE_INDEX
from segnet.networks.segnet import SegNet
from segnet.networks.window import starts
from segnet.training import metrics
from segnet.training.losses import CrossEntropy
from segnet.training.metrics import BINS, Counts
from segnet.training.module import SegmentationModule

CROP = 32


@pytest.fixture(params=[1, 3])
def module(request):
    torch.manual_seed(request.param)
    net = SegNet(request.param, widths=(4, 6, 8, 8, 8))
    torch.nn.init.normal_(net.classifier.weight)
    torch.nn.init.zeros_(net.classifier.bias)
    made = SegmentationModule(
        net, CrossEntropy(request.param), partial(torch.optim.SGD, lr=0.1), classes=list("abc")[: request.param],
        image_size=CROP,
    )  # fmt: skip
    made.config = {"data": {"crop": CROP, "scale": 1.0}}
    with torch.no_grad():
        made.logits(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    return made.eval()


@pytest.mark.parametrize("size", [(70, 100), (20, 45)])
def test_loss_and_counts_of_an_image(module, size, monkeypatch):
    monkeypatch.setattr(metrics, "STRIP", 7 * size[1])  # several strips, the last one shorter
    rng = np.random.default_rng(0)
    classes = len(module.classes)
    image = torch.from_numpy(rng.integers(0, 256, (1, 3, *size), dtype=np.uint8))
    truth = rng.integers(0, max(classes, 2), size).astype(np.uint8)
    truth[rng.random(size) < 0.2] = IGNORE_INDEX
    with torch.no_grad():
        result = module.test_step(
            {"image": image, "mask": torch.from_numpy(truth)[None], "index": torch.tensor([0])}, 0
        )

    pad = [max(0, CROP - side) for side in size]
    wide = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (0, 0), (0, pad[0]), (0, pad[1])], mode="reflect"))
    known = np.pad(truth, [(0, pad[0]), (0, pad[1])], constant_values=IGNORE_INDEX)
    losses = []
    for top in starts(wide.shape[-2], CROP):
        for left in starts(wide.shape[-1], CROP):
            part = slice(top, top + CROP), slice(left, left + CROP)
            with torch.no_grad():
                logits = module.logits(wide[:, :, part[0], part[1]])
            losses.append(module.loss(logits, torch.from_numpy(known[part])[None].long()).item())
    assert result["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)

    with torch.no_grad():
        blended = module.slide(image).numpy()
    assert blended.shape == (classes, *size)
    decided = blended[0] > 0.5 if classes == 1 else blended.argmax(0)
    expected = np.zeros((max(classes, 2),) * 2, int)
    np.add.at(expected, (truth[truth != IGNORE_INDEX], decided[truth != IGNORE_INDEX].astype(int)), 1)
    assert np.array_equal(result["confusion"].numpy(), expected)
    assert np.array_equal(module.decided(image).numpy(), decided)
    assert len(set(decided.ravel().tolist())) > 1


@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_are_counted_as_logits_are(classes, monkeypatch):
    monkeypatch.setattr(metrics, "STRIP", 100)
    torch.manual_seed(0)
    counts = Counts(classes, calibration=True)
    logits = torch.randn(1, classes, 23, 31)
    probabilities = logits.sigmoid() if classes == 1 else logits.softmax(1)
    target = torch.randint(0, max(classes, 2), (1, 23, 31), dtype=torch.uint8)
    target[0, :3] = IGNORE_INDEX
    one, other = counts.count(logits, target), counts.count_probabilities(probabilities[0], target[0])
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert one[1].sum() == 20 * 31
    assert one[1].shape == (2, BINS)
