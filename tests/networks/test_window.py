"""The sliding window against plain loops over pixels."""

import numpy as np
import pytest
import torch

from segnet.networks.window import padded, pyramid, reflect, size_at, slide, starts


@pytest.mark.parametrize("side", [*range(1, 40), 150, 151, 999])
@pytest.mark.parametrize(("window", "overlap"), [(32, 0.25), (32, 0.0), (33, 0.5), (32, 0.99)])
def test_windows_cover_a_side_and_overlap_enough(side, window, overlap):
    found = starts(side, window, overlap)
    covered = np.zeros(side, int)
    for start in found:
        covered[start : start + window] += 1
    assert covered.min() >= 1
    if side > window:
        assert found[0] == 0
        assert found[-1] == side - window
        steps = np.diff(found)
        assert steps.min() >= 1
        assert steps.max() <= max(1, int(window * (1 - overlap))) + 1  # rounding
        assert steps.max() - steps.min() <= 1


def test_answers_are_blended_by_a_pyramid():
    """Each window answers with noise of its own; the reference weighs pixel by pixel."""
    image = torch.arange(37 * 50.0).view(1, 1, 37, 50).expand(1, 3, 37, 50)
    answers = {}

    def run(windows, corners):
        for window, (top, left) in zip(windows, corners, strict=True):
            assert torch.equal(window[0], image[0, :, top : top + 16, left : left + 20])
            answers[top, left] = torch.rand(2, 16, 20, generator=torch.Generator().manual_seed(100 * top + left))
        assert len(windows) <= 3
        return [answers[corner] for corner in corners]

    found = slide(image, (16, 20), run, 2, 0.3, 3)
    assert set(answers) == {(top, left) for top in starts(37, 16, 0.3) for left in starts(50, 20, 0.3)}

    def weight(at, side):  # from 1 in the middle down towards 0 one pixel outside
        return 1 - abs(at + 0.5 - side / 2) / ((side + 1) / 2)

    expected = np.zeros((2, 37, 50))
    for y in range(37):
        for x in range(50):
            over = [
                (weight(y - top, 16) * weight(x - left, 20), answer[:, y - top, x - left].double().numpy())
                for (top, left), answer in answers.items()
                if top <= y < top + 16 and left <= x < left + 20
            ]
            expected[:, y, x] = sum(w * a for w, a in over) / sum(w for w, _ in over)
    assert np.abs(found.numpy() - expected).max() < 1e-6
    assert pyramid((16, 20)).min() > 0


@pytest.mark.parametrize(("side", "length"), [(1, 5), (2, 9), (3, 3), (5, 32), (40, 64), (31, 32)])
def test_mirror_images_continue_a_side(side, length):
    expected = np.pad(np.arange(side), (0, length - side), mode="reflect") if side > 1 else np.zeros(length)
    assert np.array_equal(reflect(side, length), expected)


def test_only_short_sides_are_padded():
    image = torch.rand(1, 3, 20, 50)
    assert padded(image, (20, 32)) is image
    found = padded(image, (32, 64))
    assert np.array_equal(found.numpy(), np.pad(image.numpy(), [(0, 0), (0, 0), (0, 12), (0, 14)], mode="reflect"))


def test_a_scale_leaves_at_least_a_pixel():
    assert size_at((151, 200), 0.5) == (76, 100)
    assert size_at((3, 1), 0.1) == (1, 1)
