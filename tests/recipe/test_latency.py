"""A width budget: the widest of the scaled networks, against trying them all."""

import numpy as np
import pytest

from segnet.errors import UserError
from segnet.networks.segnet import SegNet, count_parameters
from segnet.recipe.latency import PARTS, Latency, scaled, widest

DEFAULT = [16, 32, 80, 152, 184]


def of_parameters(widths):
    """As if a million parameters took a hundred milliseconds."""
    time = count_parameters(SegNet(1, widths)) / 1e4
    return Latency(time, time, time)


def test_it_is_the_widest_that_fits():
    assert scaled(DEFAULT, 16) == [8, 16, 40, 76, 92]
    assert scaled([1, 2, 3, 4, 5], 4) == [1, 1, 1, 1, 1]
    every = [scaled(DEFAULT, part) for part in PARTS]
    times = np.array([of_parameters(widths).median for widths in every])
    for budget in (times[0], times[3] + 1e-6, times[16] - 1e-6, times[-1], 1e9):
        tried = []

        def measured(widths, tried=tried):
            tried.append(widths)
            return of_parameters(widths)

        widths, found = widest(DEFAULT, budget, measured)
        best = int(np.flatnonzero(times <= budget).max())
        assert widths == every[best]
        assert found.median == times[best]
        assert len(tried) <= 5
    with pytest.raises(UserError, match=r"budget_ms=1: model.net.widths=\[2,4,10,19,23\], .* takes 4.9 ms .*; allow"):
        widest(DEFAULT, 1.0, of_parameters)
