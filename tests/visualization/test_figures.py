"""Plots are read back from matplotlib's own objects: what is drawn, where, and what it is called."""

import numpy as np
import pytest
import torch
from matplotlib.cbook import is_math_text

from segnet.visualization.figures import (
    bars,
    confusion_figure,
    curves,
    drawn,
    loss_figure,
    precision_recall_figure,
    reliability_figure,
)


@pytest.mark.parametrize(("classes", "names"), [(["defect"], ["background", "defect"]), (["a", "b"], ["a", "b"])])
def test_confusion_is_the_share_of_each_true_class(classes, names):
    axes = confusion_figure(torch.tensor([[90, 10], [12, 4]]), classes).axes[0]
    assert axes.images[0].get_array().tolist() == [[0.9, 0.1], [0.75, 0.25]]  # rows are the truth
    assert {t.get_position(): t.get_text() for t in axes.texts} == {
        (0, 0): "0.90", (1, 0): "0.10", (0, 1): "0.75", (1, 1): "0.25"
    }  # fmt: skip
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("prediction", "truth")
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert [t.get_color() for t in axes.texts] == ["white", "black", "white", "black"]


def test_of_many_classes_the_figure_stays_small_and_names_some():
    figure = confusion_figure(torch.eye(254), [f"class {i}" for i in range(254)])
    (axes,) = figure.axes
    assert not axes.texts
    assert max(figure.get_size_inches()) < 26
    named = axes.get_yticklabels()
    assert [label.get_text() for label in named] == [f"class {i}" for i in range(0, 254, 4)]
    assert drawn(figure).shape[2] == 3


@pytest.mark.parametrize("name", ["$a_$b", "$1", "$$", "a_b^c", "50%"])
def test_names_are_no_formulas(name):
    rows = [{"epoch": "0", "train/loss": "0.9", "val/loss": "0.9", "val/iou": "0.1"}]
    curve = torch.tensor([[30.0, 10], [0.25, 0.8], [0.2, 0.9]])
    for figure in (
        confusion_figure(torch.eye(2), [name, "b"]),
        reliability_figure(curve, 0.1, [name]),
        precision_recall_figure(np.array([0.5]), np.array([0.5]), name),
        bars([name, "b"], [1, 2], name),
        curves({name: rows}),
    ):
        drawn(figure)
    shown = confusion_figure(torch.eye(2), [name, "b"]).axes[0].get_xticklabels()[0]
    assert not is_math_text(shown.get_text())
    assert shown.get_text().replace(r"\$", "$") == name


def test_a_class_that_does_not_occur_has_an_empty_row():
    axes = confusion_figure(torch.tensor([[3, 1], [0, 0]]), ["a", "b"]).axes[0]
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0, 0]]


def test_losses_and_iou_stand_over_the_epochs_counted_from_one():
    rows = [{"epoch": "0", "val/loss": "0.9", "val/iou": "0.1"}, {"epoch": "1", "val/loss": "", "val/iou": "0.2"}]
    left, right = loss_figure(rows, "val").axes
    assert [line.get_xydata().tolist() for line in left.lines] == [[[1, 0.9]]]
    assert [line.get_xydata().tolist() for line in right.lines] == [[[1, 0.1], [2, 0.2]]]
    assert (left.get_ylabel(), right.get_ylabel()) == ("val/loss", "val/iou")
    assert left.get_title() == "validation loss and IoU"


def test_reliability_is_frequency_over_confidence():
    curve = torch.tensor([[30.0, 10], [0.25, 0.8], [0.2, 0.9]])
    upper, lower = reliability_figure(curve, 0.0625, ["defect"]).axes
    assert upper.lines[1].get_xydata() == pytest.approx(np.array([[0.25, 0.2], [0.8, 0.9]]))
    assert upper.get_title() == "calibration error 0.0625"
    assert [bar.get_x() + bar.get_width() / 2 for bar in lower.patches] == pytest.approx([0.25, 0.75])
    assert [bar.get_height() for bar in lower.patches] == pytest.approx([0.75, 0.25])
    assert lower.get_xlabel() == "probability of defect"


def test_bars_have_the_first_on_top():
    axes = bars(["best", "unknown", "worst"], [0.9, float("nan"), 0.1], "best val/iou").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.1, 0, 0.9]  # from below
    assert [label.get_text() for label in axes.get_yticklabels()] == ["worst", "unknown", "best"]
    assert axes.get_xlabel() == "best val/iou"
