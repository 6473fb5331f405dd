import pytest
import torch
import torch.nn.functional as F

from segnet.data.masks import IGNORE
from segnet.training.losses import CrossEntropy, WeightedSum, dice, focal, lovasz


def sample(num_classes, ignored=False):
    torch.manual_seed(0)
    logits = torch.randn(2, num_classes, 6, 7, requires_grad=True)
    target = torch.randint(0, max(num_classes, 2), (2, 6, 7))
    if ignored:
        target[:, 2:4] = IGNORE
    return logits, target


@pytest.mark.parametrize("weight", [None, [4.0]])
def test_binary_is_bce_over_the_counted_pixels(weight):
    logits, target = sample(1, ignored=True)
    known = target != IGNORE
    expected = F.binary_cross_entropy_with_logits(
        logits[:, 0][known], target[known].float(), pos_weight=torch.tensor(weight or [1.0])
    )
    torch.testing.assert_close(CrossEntropy(1, weight)(logits, target), expected)


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.0]])
def test_multiclass_is_softmax_cross_entropy(weight):
    logits, target = sample(3, ignored=True)
    w = None if weight is None else torch.tensor(weight)
    expected = F.cross_entropy(logits, target, w, ignore_index=IGNORE)
    torch.testing.assert_close(CrossEntropy(3, weight)(logits, target), expected)


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("make", [CrossEntropy, dice, focal, lovasz])
def test_ignored_pixels_change_nothing(make, num_classes):
    logits, target = sample(num_classes, ignored=True)
    other = logits.detach().clone()
    other[:, :, 2:4] += 10
    other.requires_grad_()
    loss = make(num_classes)
    value = loss(logits, target)
    torch.testing.assert_close(loss(other, target), value)
    value.backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[:, :, 0].abs().sum() > 0
    assert logits.grad[:, :, 2:4].abs().sum() == 0


@pytest.mark.parametrize("num_classes", [1, 3])
def test_a_batch_without_a_counted_pixel_is_zero_not_nan(num_classes):
    logits, target = sample(num_classes)
    loss = CrossEntropy(num_classes)(logits, torch.full_like(target, IGNORE))
    loss.backward()
    assert loss == 0
    assert logits.grad.abs().sum() == 0


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("make", [CrossEntropy, dice, focal, lovasz])
def test_a_perfect_prediction_costs_less_than_a_wrong_one(make, num_classes):
    _, target = sample(num_classes)
    right = F.one_hot(target, max(num_classes, 2)).permute(0, 3, 1, 2).float()[:, -num_classes:] * 20 - 10
    assert make(num_classes)(right, target) < 0.05 < make(num_classes)(-right, target)


def test_weighted_sum():
    logits, target = sample(1)
    bce, overlap = CrossEntropy(1), dice(1)
    total = WeightedSum([bce, overlap], [1.0, 0.5])(logits, target)
    torch.testing.assert_close(total, bce(logits, target) + 0.5 * overlap(logits, target))
    with pytest.raises(ValueError, match="needs 1, one per loss"):
        WeightedSum([bce], [1.0, 2.0])


def test_wrong_weights_and_channels_are_named():
    with pytest.raises(ValueError, match=r"needs 3 non-negative factor"):
        CrossEntropy(3, [1.0])
    logits, target = sample(3)
    with pytest.raises(ValueError, match="loss=bce serves binary data only, use loss=cross_entropy"):
        CrossEntropy(1)(logits, target)
