"""The verification of an exported model, against an exported model whose distance is known."""

import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy import ndimage

from segnet.data.images import resize_pair
from segnet.decisions import OperatingPoint
from segnet.deployment.form import Form
from segnet.deployment.verification import check, compare, sizes, summary
from segnet.training.losses import CrossEntropy
from segnet.training.module import SegmentationModule

SIZES = [(64, 48), (49, 33), (85, 61), (32, 95)]
SHIFTS = dict(zip(SIZES, [0.01, 0.04, 0.02, 0.0], strict=True))  # of every probability, at each size


def test_sizes_are_the_training_size_odd_ones_and_a_long_one():
    assert sizes(64, 48) == SIZES
    assert sizes(32, 32) == [(32, 32), (33, 33), (43, 41), (32, 63)]  # none is below what a network takes


@pytest.fixture
def module():
    torch.manual_seed(0)
    made = SegmentationModule(
        torch.nn.Conv2d(3, 1, 1), CrossEntropy(1), partial(torch.optim.SGD, lr=0.1), classes=["defect"],
        image_size=[64, 48],
    )  # fmt: skip
    return made.eval()


@pytest.fixture
def exported(module, tmp_path):
    class Shifted:
        path = tmp_path / "model.onnx"
        form, bytes = Form(), 1500
        operating_point = None

        def __call__(self, batch):
            with torch.no_grad():
                return module.probabilities(module(batch)) + SHIFTS[tuple(batch.shape[-2:])]

    Shifted.path.write_bytes(bytes(1500))
    return Shifted()


def pair(i):
    rng = np.random.default_rng(i)
    return rng.integers(0, 256, (64, 48, 3), dtype=np.uint8), rng.integers(0, 2, (64, 48), dtype=np.uint8)


def test_every_figure_by_numpy(module, exported):
    loaded = []
    data = SimpleNamespace(indices={"val": [10, 11, 12, 13, 14]}, example=lambda i: (loaded.append(i), pair(i))[1])
    found = compare(module, exported, data, 3)
    assert loaded == [10, 12, 14]  # spread over the split
    expected = []
    for size in SIZES:
        images, masks = zip(*(resize_pair(*pair(i), size) for i in loaded), strict=True)
        with torch.no_grad():
            p = torch.cat([module(torch.tensor(image).permute(2, 0, 1)[None]) for image in images]).sigmoid()[:, 0]
        ours, theirs, truth = p.numpy() > 0.5, p.numpy() + SHIFTS[size] > 0.5, np.stack(masks) == 1
        iou = [(side & truth).sum() / (side | truth).sum() for side in (ours, theirs)]
        expected.append([SHIFTS[size], (ours == theirs).mean(), *iou])
    names = ("difference", "decisions", "iou_checkpoint", "iou_exported")
    assert [tuple(row["size"]) for row in found["sizes"]] == SIZES
    for row, values in zip(found["sizes"], expected, strict=True):
        assert [row[name] for name in names] == pytest.approx(values, abs=1e-6)
    assert found["difference"] == pytest.approx(0.04)  # the greatest of the rows
    apart = [abs(values[2] - values[3]) for values in expected]
    assert min(values[1] for values in expected) < 1 > max(apart) > 0
    assert found["decisions"] == pytest.approx(min(values[1] for values in expected))
    assert found["iou"] == pytest.approx(max(apart), abs=1e-6)
    assert (found["images"], found["bytes"]) == (3, 1500)
    text = summary(found).splitlines()
    assert len(text) == 5
    assert text[1].startswith("49×33: greatest difference 4.00e-02, equal decisions 0.9")
    assert re.fullmatch(r"0\.002 MB; one image: \d.*ms with the checkpoint, \d.*ms with the exported model", text[4])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("difference", 0.0101),
        ("decisions", 0.9989),
        ("iou", 0.0011),
        ("verdicts", 0.9687),
        ("objects", 0.989),
        (None, None),
    ],
)
def test_what_is_outside_its_tolerance_is_named(name, value):
    tolerance = OmegaConf.create(
        {"difference": 0.01, "decisions": 0.999, "iou": 0.001, "verdicts": 1.0, "objects": 0.99}
    )
    found = dict(tolerance) | {"operating_point": {}}  # just allowed
    if name is None:
        check(found, tolerance)
        check(
            found | {"verdicts": 0.0, "objects": 0.0, "operating_point": None}, tolerance
        )  # without one nobody says what is defective
        return
    told = f"^the exported model is outside its tolerance: {name} {value:.6f}, allowed {tolerance[name]};"
    with pytest.raises(ValueError, match=told):
        check(found | {name: value}, tolerance)


def test_decisions_and_verdicts_are_those_of_the_operating_point_that_each_carries(module, exported):
    """With scipy: a shift of all probabilities moves the objects of one side over its threshold."""
    data = SimpleNamespace(indices={"val": list(range(6))}, example=pair)
    p = {}
    for size in SIZES:
        images = [resize_pair(*pair(i), size)[0] for i in range(6)]
        with torch.no_grad():
            p[size] = [module(torch.tensor(i).permute(2, 0, 1)[None]).sigmoid()[0, 0].numpy() for i in images]
    peaks = sorted(float(values.max()) for values in p[SIZES[0]])
    point = OperatingPoint((sum(peaks[2:4]) / 2,), (peaks[0] - 0.02,), (2,))
    module.operating_point = exported.operating_point = point

    def decided(values):
        labels, count = ndimage.label(values > point.low[0], np.ones((3, 3)))
        kept = [
            i for i in range(1, count + 1)
            if (labels == i).sum() >= 2 and values[labels == i].max() > point.thresholds[0]
        ]  # fmt: skip
        return np.isin(labels, kept)

    def there(one, other):
        """Objects of one mask, and how many of them share a tenth of the smaller one with one of the other mask."""
        (a, n), (b, m) = (ndimage.label(mask, np.ones((3, 3))) for mask in (one, other))
        cover = [
            any(((a == i) & (b == j)).sum() >= 0.1 * min((a == i).sum(), (b == j).sum()) for j in range(1, m + 1))
            for i in range(1, n + 1)
        ]  # fmt: skip
        return n, sum(cover)

    found = compare(module, exported, data, 6)
    for row in found["sizes"]:
        size = tuple(row["size"])
        ours, theirs = ([decided(v + shift) for v in p[size]] for shift in (np.float32(0), np.float32(SHIFTS[size])))
        assert row["decisions"] == pytest.approx(np.mean([(a == b).mean() for a, b in zip(ours, theirs, strict=True)]))
        assert row["verdicts"] == np.mean([a.any() == b.any() for a, b in zip(ours, theirs, strict=True)])
        sides = [
            np.sum([there(*pair) for pair in zip(*way, strict=True)], 0) for way in ((ours, theirs), (theirs, ours))
        ]
        assert [row["objects_checkpoint"], row["objects_exported"]] == [count for count, _ in sides]
        assert row["objects"] == min((kept / count for count, kept in sides if count), default=1)
    assert found["verdicts"] == min(row["verdicts"] for row in found["sizes"]) < 1
    assert found["objects"] == min(row["objects"] for row in found["sizes"]) < 1
    assert found["operating_point"] == point.stored()
