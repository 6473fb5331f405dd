import math

import pytest
import torch

from segnet.training.schedules import warmup_cosine


def rates(steps, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = warmup_cosine(optimizer, steps, **options)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return [*found, scheduler.get_last_lr()[0]]


def test_rises_in_a_line_and_falls_as_half_a_cosine():
    found = rates(100, warmup=0.1, floor=0.2)
    assert found[:10] == pytest.approx([0.5 * (i + 1) / 11 for i in range(10)])
    assert found[10] == max(found) == 0.5
    middle = 0.5 * (0.2 + 0.8 * (1 + math.cos(math.pi / 2)) / 2)
    assert found[55] == pytest.approx(middle)
    assert found[100] == pytest.approx(0.1)


def test_without_warmup_it_is_pytorchs_cosine():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    stock = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    expected = []
    for _ in range(30):
        expected.append(stock.get_last_lr()[0])
        optimizer.step()
        stock.step()
    assert rates(30, warmup=0.0)[:30] == pytest.approx(expected)


@pytest.mark.parametrize("options", [{"warmup": 1.0}, {"warmup": -0.1}, {"floor": 2.0}])
def test_bad_values(options):
    with pytest.raises(ValueError, match="must lie in"):
        rates(10, **options)
