import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from segnet.data.masks import IGNORE_INDEX
from segnet.training.metrics import BINS, Counts, MeanLoss, calibration, calibration_error, names, scores


def by_hand(truth, guess, k):
    """Confusion matrix by plain loops over the classes."""
    return np.array([[np.sum((truth == i) & (guess == j)) for j in range(k)] for i in range(k)])


def run(logits, target, classes, batches=1):
    counts = Counts(len(classes))
    for part, mask in zip(logits.chunk(batches), target.chunk(batches), strict=True):
        counts.update(*counts.count(part, mask))
    return counts.compute()


@pytest.mark.parametrize("classes", [["defect"], ["a", "b", "c", "d"]])
def test_counts_and_scores_against_numpy(classes):
    torch.manual_seed(0)
    k = max(len(classes), 2)
    logits = torch.randn(6, len(classes), 9, 8)
    target = torch.randint(0, k, (6, 9, 8)).to(torch.uint8)
    target[0, :3] = IGNORE_INDEX
    confusion, histogram = run(logits, target, classes, batches=3)

    guess = (logits[:, 0] > 0).long() if len(classes) == 1 else logits.argmax(1)
    known = (target != IGNORE_INDEX).numpy()
    matrix = by_hand(target.numpy()[known], guess.numpy()[known], k)
    assert (confusion.numpy() == matrix).all()

    found = scores(confusion, histogram, classes)
    hit, truth, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    pick = (lambda v: v[1]) if len(classes) == 1 else np.mean
    assert found["iou"].item() == pytest.approx(pick(hit / (truth + predicted - hit)))
    assert found["dice"].item() == pytest.approx(pick(2 * hit / (truth + predicted)))
    assert found["precision"].item() == pytest.approx(pick(hit / predicted))
    assert found["recall"].item() == pytest.approx(pick(hit / truth))
    assert found["accuracy"].item() == pytest.approx(hit.sum() / matrix.sum())
    assert found["class_accuracy"].item() == pytest.approx((hit / truth).mean())
    each = (hit / (truth + predicted - hit))[1 if len(classes) == 1 else 0 :]
    assert [found[f"iou/{name}"].item() for name in classes] == pytest.approx(each.tolist())
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_counts_span_the_split_and_not_single_images():
    """Two images: 10 of 10 right, then 0 of 1 right. Over pixels 10/12, over images the mean would be 1/2."""
    logits = torch.full((2, 1, 4, 4), -5.0)
    target = torch.zeros(2, 4, 4, dtype=torch.uint8)
    logits[0, 0].view(-1)[:10] = 5
    target[0].view(-1)[:10] = 1
    logits[1, 0, 0, 0] = 5
    target[1, 3, 3] = 1
    assert scores(*run(logits, target, ["defect"]), ["defect"])["iou"].item() == pytest.approx(10 / 12)


def test_an_absent_class_is_nan_and_left_out_of_the_mean():
    target = torch.tensor([[[0, 0], [1, 1]]])
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 0, 0] = logits[0, 1, 1] = 1
    found = scores(*run(logits, target, ["a", "b", "c"]), ["a", "b", "c"])
    assert found["iou/c"].isnan()
    assert [found[name] for name in ("iou", "class_accuracy", "dice", "precision", "recall")] == [1] * 5


def test_average_precision_against_sorted_scores():
    torch.manual_seed(0)
    # Probabilities in the middle of bins, so that binning loses nothing.
    bins = torch.randint(0, BINS, (4, 1, 16, 16))
    probability = (bins + 0.5) / BINS
    target = (torch.rand(4, 16, 16) < probability[:, 0] * 0.5).long()
    found = scores(*run(probability.logit(), target, ["defect"]), ["defect"])["average_precision"].item()

    p, y = probability.numpy().ravel(), target.numpy().ravel()
    expected, before = 0.0, 0.0
    for threshold in sorted(set(p), reverse=True):
        taken = p >= threshold
        recall = y[taken].sum() / y.sum()
        expected += (recall - before) * y[taken].mean()
        before = recall
    assert found == pytest.approx(expected, abs=1e-6)


def test_average_precision_by_hand():
    """One pixel of the defect in the first bin and in the last, a false alarm between: 1/2 · 1 + 1/2 · 2/3."""
    histogram = torch.zeros(2, BINS, dtype=torch.int64)
    histogram[1, [0, 511]] = histogram[0, 300] = 1
    confusion = torch.tensor([[1, 0], [1, 1]])
    assert scores(confusion, histogram, ["defect"])["average_precision"].item() == pytest.approx(1 / 2 + 1 / 3)


def test_names_are_told_before_anything_is_counted():
    common = ["loss", "iou", "dice", "precision", "recall", "accuracy", "class_accuracy"]
    assert names(["defect"]) == [*common, "iou/defect", "average_precision"]
    assert names(["a", "b", "c"]) == [*common, "iou/a", "iou/b", "iou/c"]


@pytest.mark.parametrize("classes", [["defect"], ["a", "b"]])
def test_certain_probabilities_are_counted_too(classes):
    """Logits of 50 are a probability of 1 in float32: the last bin, no pixel beyond it."""
    target = torch.tensor([[[0, 0, 1, 1, 1, IGNORE_INDEX]]])
    binary = len(classes) == 1
    sign = torch.tensor([[[[-50.0, 50, 50, 50, -50, 50]]]])
    counts = Counts(len(classes), calibration=True)
    counts.update(*counts.count(sign if binary else torch.cat([-sign, sign], 1), target))
    histogram = counts.compute()[1]
    assert histogram.sum() == 5
    # Binary: negatives and positives by the defect's probability. Else wrong and right decisions, all of them certain.
    ends = [[histogram[row, 0].item(), histogram[row, -1].item()] for row in (0, 1)]
    assert ends == ([[1, 1], [1, 2]] if binary else [[0, 2], [0, 3]])


def test_the_mean_loss_weighs_images_and_forgets_an_epoch():
    mean = MeanLoss()
    mean.update(torch.tensor(2.0), 3)
    mean.update(torch.tensor(4.0), 1)
    assert mean.compute() == 2.5
    mean.reset()
    mean.update(torch.tensor(7.0), 2)
    assert mean.compute() == 7
    mean.update(torch.tensor(float("nan")), 1)
    assert mean.compute().isnan()


def test_calibration_by_hand():
    histogram = torch.zeros(2, BINS, dtype=torch.int64)
    histogram[:, 0] = torch.tensor([30, 10])  # 40 pixels of probability 0.5 / 512, of which a quarter comes true
    histogram[:, 511] = torch.tensor([0, 60])
    histogram[:, 510] = torch.tensor([20, 0])
    low, high = 0.5 / 512, (60 * 511.5 + 20 * 510.5) / 80 / 512
    pixels, confidence, frequency = calibration(histogram, bins=4)
    assert pixels.tolist() == [40, 0, 0, 80]
    assert confidence[[0, 3]].tolist() == pytest.approx([low, high])
    assert frequency[[0, 3]].tolist() == [0.25, 0.75]
    assert confidence[1:3].isnan().all()
    assert frequency[1:3].isnan().all()
    assert calibration(histogram).shape == (3, 16)
    error = (40 * (0.25 - low) + 80 * (high - 0.75)) / 120
    assert calibration_error(histogram).item() == pytest.approx(error)


@pytest.mark.parametrize("classes", [["defect"], ["a", "b", "c"]])
def test_calibration_error_against_torchmetrics(classes):
    torch.manual_seed(0)
    logits = 3 * torch.randn(4, len(classes), 40, 40)
    target = torch.randint(0, max(len(classes), 2), (4, 40, 40))
    counts = Counts(len(classes), calibration=True)
    counts.update(*counts.count(logits[:2], target[:2]))
    counts.update(*counts.count(logits[2:], target[2:]))
    histogram = counts.compute()[1]
    if len(classes) == 1:
        expected = binary_calibration_error(logits[:, 0].sigmoid().flatten(), target.flatten(), n_bins=16)
    else:
        expected = multiclass_calibration_error(logits.softmax(1), target, len(classes), n_bins=16)
    assert calibration_error(histogram).item() == pytest.approx(expected.item(), abs=1.5 / BINS)
    pixels, confidence, frequency = calibration(histogram)
    assert pixels.sum() == target.numel()
    assert (confidence.diff()[~confidence.diff().isnan()] > 0).all()
    assert ((frequency >= 0) & (frequency <= 1) | frequency.isnan()).all()


@pytest.mark.parametrize("on", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("k", [1, 4])
def test_a_batch_is_counted_as_numpy_counts_it(k, on):
    """A GPU counts by an operator that neither waits nor sorts; IGNORE_INDEX is left out, NaN is in the lowest bin."""
    rng = np.random.default_rng(0)
    size = max(k, 2)
    bins = rng.integers(0, BINS, (3, 1, 40, 50))
    logits = torch.from_numpy((bins + 0.5) / BINS).logit().float() if k == 1 else torch.randn(3, k, 40, 50)
    logits[0, 0, 0, :20] = float("nan")
    target = rng.integers(0, size, (3, 40, 50)).astype(np.uint8)
    target[rng.random(target.shape) < 0.2] = IGNORE_INDEX
    counts = Counts(k).to(on)

    torch.use_deterministic_algorithms(True)
    try:
        confusion, histogram = counts.count(logits.to(on), torch.from_numpy(target).to(on))
    finally:
        torch.use_deterministic_algorithms(False)
    guess = (logits[:, 0] > 0).long().numpy() if k == 1 else logits.argmax(1).numpy()
    known = target != IGNORE_INDEX
    assert confusion.device.type == histogram.device.type == on
    assert confusion.dtype == histogram.dtype == torch.int64
    assert (confusion.cpu().numpy() == by_hand(target[known], guess[known], size)).all()
    assert confusion.sum() == known.sum()
    if k == 1:
        bins[0, 0, 0, :20] = 0
        expected = [np.bincount(bins[:, 0][known & (target == row)], minlength=BINS) for row in (0, 1)]
        assert (histogram.cpu().numpy() == np.stack(expected)).all()
    else:
        assert not histogram.numel()
    assert not counts.confusion.any()  # counting changes nothing
