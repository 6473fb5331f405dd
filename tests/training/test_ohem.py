import numpy as np
import pytest
import torch

from segnet.data.masks import IGNORE_INDEX
from segnet.training.losses import CrossEntropy, set_class_weights
from segnet.training.ohem import HardPixels


def sample(num_classes, defect=True):
    torch.manual_seed(num_classes)
    logits = (2 * torch.randn(2, num_classes, 12, 13)).requires_grad_()
    target = torch.randint(0, max(num_classes, 2), (2, 12, 13)) * defect
    target[:, 2:5] = IGNORE_INDEX
    return logits, target


def by_hand(logits, target, weight, smoothing, threshold, share):
    """Loss and the pixels that count, in double precision: probabilities sorted by NumPy, the rest in a loop."""
    z = logits.detach().double().numpy()
    binary = z.shape[1] == 1
    z = np.concatenate([np.zeros_like(z), z], 1) if binary else z
    log = z - np.log(np.exp(z).sum(1, keepdims=True))
    pixels = [(n, i, j) for n, i, j in np.ndindex(*target.shape) if target[n, i, j] != IGNORE_INDEX]
    right = {(n, i, j): np.exp(log[n, target[n, i, j], i, j]) for n, i, j in pixels}
    least = max(1, int(np.ceil(share * len(pixels))))
    limit = max(threshold, np.sort(list(right.values()))[least - 1])
    hard = [at for at in pixels if right[at] <= limit]
    lost = counted = 0.0
    for n, i, j in hard:
        label, each = int(target[n, i, j]), log[n, :, i, j] * ([1, weight[0]] if binary else weight)
        lost -= (1 - smoothing) * each[label] + smoothing * each.mean()
        counted += 1 if binary else weight[label]
    return lost / counted, hard


@pytest.mark.parametrize("num_classes", [1, 2, 4])
@pytest.mark.parametrize("defect", [True, False])
@pytest.mark.parametrize(("threshold", "share"), [(0.7, 0.0625), (0.01, 0.3), (0.0, 0.1), (0.0, 0.0), (0.5, 1.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_by_hand(num_classes, defect, threshold, share, smoothing):
    logits, target = sample(num_classes, defect)
    weight = [3.0] if num_classes == 1 else [0.5 + k for k in range(num_classes)]
    expected, hard = by_hand(logits, target, weight, smoothing, threshold, share)
    loss = HardPixels(num_classes, weight, smoothing, threshold, share)
    found = loss(logits, target)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert {tuple(at) for at in logits.grad.abs().sum(1).nonzero().tolist()} == set(hard)
    if (threshold, share) == (0.7, 0.0625):
        assert len(hard) > 0.0625 * 234  # the threshold decides
    if (threshold, share) == (0.0, 0.1):
        assert len(hard) == 24  # the share does: a tenth of 234 pixels, rounded up


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("all_of_them", [{"share": 1.0}, {"threshold": 1.0}])
def test_with_every_pixel_it_is_cross_entropy(num_classes, all_of_them):
    logits, target = sample(num_classes)
    assert torch.equal(
        HardPixels(num_classes, **all_of_them)(logits, target), CrossEntropy(num_classes)(logits, target)
    )


@pytest.mark.parametrize("num_classes", [1, 3])
def test_in_bfloat16_the_same_pixels_count(num_classes):
    """Probabilities are ranked in float32: in bfloat16 many would be equal, and the share kept would grow."""
    torch.manual_seed(0)
    logits = torch.randn(2, num_classes, 64, 64, dtype=torch.bfloat16, requires_grad=True)
    target = torch.randint(0, max(num_classes, 2), (2, 64, 64))
    loss = HardPixels(num_classes, threshold=0.0, share=0.05).to(torch.bfloat16)
    found = loss(logits, target)
    found.backward()
    expected, hard = by_hand(logits.float(), target, [1.0] * num_classes, 0.0, 0.0, 0.05)
    assert found.item() == pytest.approx(expected, rel=0.01)
    assert logits.grad.isfinite().all()
    assert int((logits.grad.abs().sum(1) > 0).sum()) == pytest.approx(len(hard), abs=4)  # in float32 some are equal too


def test_a_value_that_is_not_finite_is_not_left_out():
    logits, target = sample(3)
    with torch.no_grad():
        logits[0, 0, 0, 0] = float("nan")
    assert HardPixels(3)(logits, target).isnan()


def test_class_weights_are_set_as_in_cross_entropy():
    loss = HardPixels(2)
    set_class_weights(loss, [1, 3], lambda: pytest.fail("nothing is counted"))
    assert loss.weight.tolist() == [1, 3]
