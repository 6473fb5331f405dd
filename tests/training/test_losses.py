import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segnet.data.masks import IGNORE_INDEX
from segnet.training.boundary import BoundaryCrossEntropy
from segnet.training.losses import (
    CrossEntropy,
    DicePerImage,
    WeightedSum,
    dice,
    focal,
    lovasz,
    median_frequency,
    set_class_weights,
)
from segnet.training.ohem import HardPixels

SINGLE = [
    HardPixels,
    CrossEntropy,
    DicePerImage,
    dice,
    focal,
    lovasz,
    BoundaryCrossEntropy,
]


def sample(num_classes, ignored=False):
    torch.manual_seed(0)
    logits = torch.randn(2, num_classes, 6, 7, requires_grad=True)
    target = torch.randint(0, max(num_classes, 2), (2, 6, 7))
    if ignored:
        target[:, 2:4] = IGNORE_INDEX
    return logits, target


@pytest.mark.parametrize("weight", [None, [4.0]])
def test_binary_is_bce_over_the_counted_pixels(weight):
    logits, target = sample(1, ignored=True)
    known = target != IGNORE_INDEX
    expected = F.binary_cross_entropy_with_logits(
        logits[:, 0][known], target[known].float(), pos_weight=torch.tensor(weight or [1.0])
    )
    torch.testing.assert_close(CrossEntropy(1, weight)(logits, target), expected)


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.0]])
def test_multiclass_is_softmax_cross_entropy(weight):
    logits, target = sample(3, ignored=True)
    w = None if weight is None else torch.tensor(weight)
    expected = F.cross_entropy(logits, target, w, ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(CrossEntropy(3, weight)(logits, target), expected)


@pytest.mark.parametrize("num_classes", [1, 4])
def test_smoothed_labels_spread_a_share_over_the_classes(num_classes):
    """Against the definition: the cross-entropy of the mixture of the label and the even distribution."""
    logits, target = sample(num_classes, ignored=True)
    z = logits.detach().double().numpy()
    z = (
        np.concatenate([np.zeros_like(z), z], 1) if num_classes == 1 else z
    )  # a sigmoid is the softmax of 0 and the logit
    log = z - np.log(np.exp(z).sum(1, keepdims=True))
    known = (target != IGNORE_INDEX).numpy()
    wanted = np.eye(z.shape[1])[np.where(known, target, 0)].transpose(0, 3, 1, 2) * 0.8 + 0.2 / z.shape[1]
    expected = -(wanted * log).sum(1)[known].mean()
    assert CrossEntropy(num_classes, label_smoothing=0.2)(logits, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("make", SINGLE)
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


def bce_dice(num_classes):
    return WeightedSum([CrossEntropy(num_classes), dice(num_classes)], [1.0, 1.0])


def focal_lovasz(num_classes):
    return WeightedSum([focal(num_classes, alpha=0.25), lovasz(num_classes)], [0.5, 2.0])


EVERY = [*SINGLE, bce_dice, focal_lovasz]


@pytest.mark.parametrize("num_classes", [1, 3])
def test_a_single_counted_pixel_weighs_all(num_classes):
    logits, target = sample(num_classes)
    target[:] = IGNORE_INDEX
    target[0, 0, 0] = 1
    pixel = logits[0, :, 0, 0].double()
    expected = -pixel.sigmoid().log() if num_classes == 1 else -pixel.log_softmax(0)[1]
    assert CrossEntropy(num_classes)(logits, target).item() == pytest.approx(expected.item())


def test_class_weights_may_be_zero():
    """Where only a class without weight is seen, there is nothing to learn."""
    logits, target = sample(3)
    loss = CrossEntropy(3, [0.0, 1.0, 2.0])(logits, torch.zeros_like(target))
    loss.backward()
    assert loss == 0
    assert logits.grad.abs().sum() == 0
    head = CrossEntropy(1)
    set_class_weights(head, [0], lambda: pytest.fail("nothing is counted"))
    assert head.weight.tolist() == [0]


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("make", EVERY)
def test_a_batch_without_a_counted_pixel_is_zero_not_nan(make, num_classes):
    logits, target = sample(num_classes)
    loss = make(num_classes)(logits, torch.full_like(target, IGNORE_INDEX))
    assert loss.shape == ()
    loss.backward()
    assert loss == 0
    assert logits.grad.abs().sum() == 0


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("make", EVERY)
def test_only_focal_and_lovasz_wait_for_a_gpu(make, num_classes):
    """The meta device has no values: whatever reads one, for which a GPU would be waited for, fails there."""
    loss = make(num_classes).to("meta")
    logits = torch.empty(2, num_classes, 6, 7, device="meta", requires_grad=True)
    target = torch.empty(2, 6, 7, dtype=torch.long, device="meta")
    if make in (focal, lovasz, focal_lovasz):
        with pytest.raises(RuntimeError, match="meta tensors"):
            loss(logits, target)
    else:
        loss(logits, target).backward()
        assert logits.grad.shape == logits.shape


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("make", EVERY)
def test_an_image_without_a_counted_pixel_changes_nothing(make, num_classes):
    logits, target = sample(num_classes)
    target[1] = IGNORE_INDEX
    loss = make(num_classes)
    torch.testing.assert_close(loss(logits, target), loss(logits[:1], target[:1]))
    loss(logits, target).backward()
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("make", SINGLE)
def test_a_perfect_prediction_costs_less_than_a_wrong_one(make, num_classes):
    _, target = sample(num_classes)
    right = F.one_hot(target, max(num_classes, 2)).permute(0, 3, 1, 2).float()[:, -num_classes:] * 20 - 10
    assert make(num_classes)(right, target) < 0.05 < make(num_classes)(-right, target)


@pytest.mark.parametrize("num_classes", [1, 3])
def test_dice_of_each_image_by_plain_loops(num_classes):
    logits, target = sample(num_classes, ignored=True)
    target[1][target[1] == 1] = 0  # an image without the class
    x = logits.detach().double().numpy()
    p = 1 / (1 + np.exp(-x)) if num_classes == 1 else np.exp(x) / np.exp(x).sum(1, keepdims=True)
    lost = []
    for image, mask in zip(p, target.numpy(), strict=True):
        for channel, label in enumerate([1] if num_classes == 1 else range(num_classes)):
            pairs = [
                (image[channel][at], mask[at] == label) for at in np.ndindex(mask.shape) if mask[at] != IGNORE_INDEX
            ]
            hit = 2 * sum(value for value, shown in pairs if shown)
            lost.append(1 - (hit + 0.42) / (sum(value + shown for value, shown in pairs) + 0.42))
    assert DicePerImage(num_classes, smooth=0.01)(logits, target).item() == pytest.approx(np.mean(lost))


def test_a_small_defect_that_is_missed_costs_as_much_as_a_large_one():
    target = torch.zeros(2, 64, 64, dtype=torch.long)
    target[0, :, 4:60], target[1, 30:34, 30:34] = 1, 1
    found = torch.where(target == 1, 20.0, -20.0)[:, None]
    missed = {i: found.clone().index_fill_(0, torch.tensor([i]), -20.0) for i in (0, 1)}
    alike = {i: DicePerImage(1)(logits, target).item() for i, logits in missed.items()}
    assert alike[1] > 0.75 * alike[0] > 0.3  # 16 pixels, of which the smoothing has 4
    assert dice(1)(missed[1], target) < 0.01 < 0.5 < dice(1)(missed[0], target)  # over the batch
    alarm = torch.full((1, 1, 64, 64), -20.0)
    alarm[0, 0, :4, :4] = 20
    empty = torch.zeros(1, 64, 64, dtype=torch.long)
    assert dice(1)(alarm, empty) == 0
    assert DicePerImage(1)(alarm, empty) > 0.5


def by_class(logits, target):
    """Probabilities and truth (K, pixels) of what is counted, all images of the batch as one; K = 1 is binary."""
    count = logits.shape[1]
    known = (target != IGNORE_INDEX).numpy().ravel()
    x = logits.detach().double().numpy().transpose(1, 0, 2, 3).reshape(count, -1)[:, known]
    y = target.numpy().ravel()[known]
    if count == 1:
        return x, 1 / (1 + np.exp(-x)), (y == 1)[None].astype(float)
    return x, np.exp(x) / np.exp(x).sum(0), np.stack([y == c for c in range(count)]).astype(float)


def lovasz_by_hand(errors, truth):
    """Sum of the sorted errors times what each adds to 1 - IoU (Berman et al., algorithm 1), by a plain loop."""
    total = before = 0.0
    order = np.argsort(-errors)
    wrong = np.zeros(len(order), bool)
    for i in order:
        wrong[i] = True
        hit = (truth * ~wrong).sum()
        jaccard = 1 - hit / (truth.sum() + (wrong * (1 - truth)).sum())
        total, before = total + max(errors[i], 0) * (jaccard - before), jaccard
    return total


@pytest.mark.parametrize("num_classes", [1, 3])
def test_lovasz_by_hand_over_the_batch(num_classes):
    logits, target = sample(num_classes, ignored=True)
    target[0, 0] = 1  # the images differ in their share of each class
    x, p, y = by_class(logits, target)
    errors = 1 - x * (2 * y - 1) if num_classes == 1 else np.abs(y - p)
    expected = np.mean([lovasz_by_hand(e, truth) for e, truth in zip(errors, y, strict=True)])
    assert lovasz(num_classes)(logits, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("alpha", [None, 0.8])
@pytest.mark.parametrize("gamma", [2.0, 0.5])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_focal_by_hand(num_classes, gamma, alpha):
    logits, target = sample(num_classes, ignored=True)
    x, _, y = by_class(logits, target)
    p = 1 / (1 + np.exp(-x))  # also of several classes, each against the rest
    right = np.where(y == 1, p, 1 - p)
    weight = 1 if alpha is None else np.where(y == 1, alpha, 1 - alpha)
    expected = (weight * (1 - right) ** gamma * -np.log(right)).mean()
    assert focal(num_classes, alpha, gamma)(logits, target).item() == pytest.approx(expected, rel=1e-5)
    if gamma == 2.0:
        assert focal(num_classes, alpha)(logits, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("num_classes", [1, 4])
def test_dice_by_hand(num_classes):
    logits, target = sample(num_classes, ignored=True)
    target[target == 3] = 2  # the last class does not occur and costs nothing
    _, p, y = by_class(logits, target)
    each = 1 - 2 * (p * y).sum(1) / (p + y).sum(1)
    assert dice(num_classes)(logits, target).item() == pytest.approx((each * y.any(1)).mean(), rel=1e-5)


def test_weighted_sum():
    logits, target = sample(1)
    bce, overlap = CrossEntropy(1), dice(1)
    total = WeightedSum([bce, overlap], [2.0, 0.5])(logits, target)
    torch.testing.assert_close(total, 2 * bce(logits, target) + 0.5 * overlap(logits, target))
    with pytest.raises(ValueError, match="needs 1, one per loss"):
        WeightedSum([bce], [1.0, 2.0])


def test_wrong_weights_and_channels_are_named():
    for bad in ([1.0], [1.0, 1.0, -0.5]):
        with pytest.raises(ValueError, match=r"needs 3 non-negative factor"):
            CrossEntropy(3, bad)
    assert CrossEntropy(3, [0.0, 1.0, 1.0]).weight.tolist() == [0, 1, 1]
    logits, target = sample(3)
    with pytest.raises(ValueError, match="loss=bce serves binary data only, use loss=cross_entropy"):
        CrossEntropy(1)(logits, target)


def test_median_frequency_by_hand():
    # Class 0: 60 of 100 pixels; class 1: 10 of 50; class 2: 2 of 50.
    weights = median_frequency(torch.tensor([[60, 100], [10, 50], [2, 50]]))
    torch.testing.assert_close(weights, torch.tensor([0.2 / 0.6, 1.0, 0.2 / 0.04]))
    torch.testing.assert_close(median_frequency(torch.tensor([[90, 100], [5, 50]])), torch.tensor([0.9 / 0.1]))
    with pytest.raises(ValueError, match=r"class\(es\) \[1\] do not occur in the training split"):
        median_frequency(torch.tensor([[90, 100], [0, 0]]))


def test_class_weights_reach_every_cross_entropy_of_a_loss():
    loss = WeightedSum([CrossEntropy(3), dice(3), WeightedSum([CrossEntropy(3)], [1.0])], [1.0, 1.0, 0.5])
    set_class_weights(loss, [1, 2, 0.5], lambda: pytest.fail("nothing is counted"))
    counted = np.array([[60, 100], [10, 50], [2, 50]])
    for part in (loss.losses[0], loss.losses[2].losses[0]):
        assert part.weight.tolist() == [1, 2, 0.5]
    set_class_weights(loss, "median_frequency", lambda: counted)
    for part in (loss.losses[0], loss.losses[2].losses[0]):
        torch.testing.assert_close(part.weight, torch.tensor([0.2 / 0.6, 1.0, 0.2 / 0.04]))


@pytest.mark.parametrize(
    ("loss", "weights", "message"),
    [
        (
            dice(1),
            [4.0],
            r"class_weights=\[4\.0\]: loss DiceLoss takes no weights; use loss=cross_entropy or loss=bce_dice",
        ),
        (CrossEntropy(1), "median", "class_weights=median: must be median_frequency, a list or null"),
        (CrossEntropy(1), 4, "class_weights=4: must be median_frequency, a list or null"),
        (CrossEntropy(1), [1, 2], r"class_weights=\[1\.0, 2\.0\]: needs 1 non-negative factor"),
        (CrossEntropy(2), [1, -2], r"class_weights=\[1\.0, -2\.0\]: needs 2 non-negative factor"),
    ],
)
def test_bad_class_weights(loss, weights, message):
    with pytest.raises(ValueError, match=message):
        set_class_weights(loss, weights, lambda: pytest.fail("nothing is counted"))
