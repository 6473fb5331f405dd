import math
from functools import partial

import pytest
import torch

from segnet.training.schedules import attach, warmup_cosine


def sgd():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)


def rates(steps, **options):
    optimizer = sgd()
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


def test_by_default_a_twentieth_of_the_steps_rises_and_the_end_is_zero():
    found = rates(40)
    assert found[:4] == pytest.approx([0.5 / 3, 1 / 3, 0.5, 0.25 * (1 + math.cos(math.pi / 38))])
    assert found[-1] == 0
    assert rates(2, warmup=0.9)[-1] == 0.5  # all of it rises, and nothing is divided by zero
    assert rates(10, warmup=0.0, floor=1.0) == [0.5] * 11


def test_beyond_the_end_it_stays_at_the_floor():
    scheduler = warmup_cosine(sgd(), 4, warmup=0, floor=0.1)
    assert [scheduler.lr_lambdas[0](step) for step in (4, 5, 8)] == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("options", [{"warmup": 1.0}, {"warmup": -0.1}, {"floor": 1.5}, {"floor": -0.1}])
def test_bad_values(options):
    both = {"warmup": 0.05, "floor": 0.0} | options
    told = r"^model.scheduler: warmup={warmup} must lie in \[0, 1\), floor={floor} in \[0, 1\]".format(**both)
    with pytest.raises(ValueError, match=told):
        rates(10, **options)


def test_a_schedule_that_spans_the_run_is_told_its_steps():
    optimizer = sgd()
    found = attach(partial(warmup_cosine, warmup=0.0), optimizer, 10.0, "val/loss")
    assert found["optimizer"] is optimizer
    spanning = found["lr_scheduler"]
    assert (spanning["interval"], spanning["monitor"]) == ("step", "val/loss")
    assert spanning["scheduler"].lr_lambdas[0](5) == pytest.approx(0.5)  # half of ten steps
    given = attach(partial(warmup_cosine, total_steps=20, warmup=0.0), sgd(), 10, "val/iou")["lr_scheduler"]
    assert given["interval"] == "epoch"
    assert given["scheduler"].lr_lambdas[0](10) == pytest.approx(0.5)


def test_a_schedule_that_spans_a_run_needs_its_end_and_enough_steps():
    with pytest.raises(ValueError, match=r"^model.scheduler lasts the whole run, which has no end; set trainer.max_ep"):
        attach(warmup_cosine, sgd(), math.inf, "val/iou")
    attach(partial(torch.optim.lr_scheduler.StepLR, step_size=3), sgd(), math.inf, "val/iou")  # lasts by itself
    with pytest.raises(ValueError, match=r"^model.scheduler: a run of 2 step\(s\) is too short for it; train longer$"):
        attach(partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, pct_start=0.5), sgd(), 2, "val/iou")
