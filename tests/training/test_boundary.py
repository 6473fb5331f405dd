import numpy as np
import pytest
import torch

from segnet.data.masks import IGNORE_INDEX
from segnet.training.boundary import BoundaryCrossEntropy
from segnet.training.losses import CrossEntropy, set_class_weights


def sample(num_classes):
    """Logits and masks: blobs, a class inside ignored pixels, and an image of one class alone."""
    torch.manual_seed(num_classes)
    logits = torch.randn(3, num_classes, 14, 17, requires_grad=True)
    target = torch.zeros(3, 14, 17, dtype=torch.long)
    target[0, 3:9, 4:11] = 1
    target[0, 8:, 9:] = max(num_classes, 2) - 1
    target[1, :, :8], target[1, :, 8:10] = 1, IGNORE_INDEX  # two columns between the classes
    target[2, 5:9, 6:10], target[2, 6, 7] = IGNORE_INDEX, 1
    return logits, target


def by_hand(target, distance):
    """Pixels with another class in the square around them, by a plain loop."""
    found = np.zeros(target.shape, bool)
    for n, i, j in np.ndindex(*target.shape):
        rows, columns = (slice(max(0, at - distance), at + distance + 1) for at in (i, j))
        around = set(target[n, rows, columns].ravel()) - {IGNORE_INDEX}
        found[n, i, j] = target[n, i, j] != IGNORE_INDEX and len(around) > 1
    return found


@pytest.mark.parametrize("num_classes", [1, 2, 4])
@pytest.mark.parametrize("defect", [True, False])
@pytest.mark.parametrize(("distance", "factor"), [(1, 4.0), (2, 0.5), (3, 10.0), (20, 2.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_by_hand(num_classes, defect, distance, factor, smoothing):
    logits, target = sample(num_classes)
    if not defect:
        target[(target != IGNORE_INDEX)] = 0
    weight = [3.0] if num_classes == 1 else [0.5 + k for k in range(num_classes)]
    near = by_hand(target.numpy(), distance)
    z = logits.detach().double().numpy()
    z = np.concatenate([np.zeros_like(z), z], 1) if num_classes == 1 else z
    log = z - np.log(np.exp(z).sum(1, keepdims=True))
    lost = counted = 0.0
    for n, i, j in np.ndindex(*target.shape):
        if (label := int(target[n, i, j])) == IGNORE_INDEX:
            continue
        times = factor if near[n, i, j] else 1
        each = log[n, :, i, j] * ([1, weight[0]] if num_classes == 1 else weight)
        lost -= times * ((1 - smoothing) * each[label] + smoothing * each.mean())
        counted += times * (1 if num_classes == 1 else weight[label])
    loss = BoundaryCrossEntropy(num_classes, weight, smoothing, distance, factor)
    assert loss.near(target).numpy().tolist() == near.tolist()
    assert near.any() == defect
    assert loss(logits, target).item() == pytest.approx(lost / counted, rel=1e-5)


def test_neither_ignored_pixels_nor_borders_make_a_boundary():
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[:, 3:5] = IGNORE_INDEX
    assert not BoundaryCrossEntropy(1, distance=2).near(target).any()


@pytest.mark.parametrize("num_classes", [1, 3])
def test_with_factor_1_it_is_cross_entropy(num_classes):
    logits, target = sample(num_classes)
    assert torch.equal(
        BoundaryCrossEntropy(num_classes, factor=1.0)(logits, target), CrossEntropy(num_classes)(logits, target)
    )


@pytest.mark.parametrize("num_classes", [1, 3])
def test_in_bfloat16(num_classes):
    logits, target = sample(num_classes)
    rounded = logits.detach().to(torch.bfloat16).requires_grad_()
    found = BoundaryCrossEntropy(num_classes).to(torch.bfloat16)(rounded, target)
    found.backward()
    assert rounded.grad.isfinite().all()
    assert found.item() == pytest.approx(BoundaryCrossEntropy(num_classes)(rounded.float(), target).item(), rel=0.01)


def test_class_weights_are_set_as_in_cross_entropy():
    loss = BoundaryCrossEntropy(2)
    set_class_weights(loss, [1, 3], lambda: pytest.fail("nothing is counted"))
    assert loss.weight.tolist() == [1, 3]
