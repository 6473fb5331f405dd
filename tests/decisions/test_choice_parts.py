"""What a choice is made of: targets, temperature, thresholds of several classes, filled holes."""

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from scipy import ndimage

from decisions.test_choosing import LOWS, counts, loss, samples
from segnet.command_line import texts_quoted
from segnet.decisions import OperatingPoint
from segnet.decisions.choosing import between, choose
from segnet.decisions.regions import without_holes
from segnet.decisions.sweeps import Verdicts
from segnet.decisions.tables import tables
from segnet.decisions.targets import Target, parse, require
from segnet.decisions.temperature import Pixels, fit, likelihood
from segnet.errors import UserError


@pytest.mark.parametrize("text", ["escape<=0.34", "cost=3:1", "f1"])
def test_several_classes(text):
    """What is chosen comes out as counted, and no common threshold of all classes in proportion is better."""
    given = samples(5, classes=3, images=12, levels=60)
    found, target = tables(given, 3, LOWS), parse(text)
    defective = [bool(((m > 0) & (m < 255)).any()) for _, m in given]
    names = [str(i) for i in range(len(given))]
    verdicts = Verdicts.of(names, defective)
    choice = choose(found, verdicts, target)
    point, option = choice.point(1.0), choice.option
    numbers = sum(defective), len(defective) - sum(defective)
    assert loss(target, counts(point, given, names), *numbers) == pytest.approx((option.loss, option.second))
    if target.kind == "f1":
        return
    good = [
        [max((float(v) for v in np.where(p[1:].argmax(0) == k, p[k + 1], 0)[m != 255]), default=0) for k in range(2)]
        for (p, m), bad in zip(given, defective, strict=True)
        if not bad
    ]
    for share in np.linspace(0, 0.999, 60):
        thresholds = []
        for k in range(2):
            values = sorted({0.0, *(one[k] for one in good)})
            shares = [sum(one[k] <= v for one in good) / (len(good) + 1) for v in values]
            thresholds.append(float(np.interp(share, [*shares, 1.0], [*values, 1.0])))
        plain = OperatingPoint(tuple(thresholds), tuple(thresholds), (1, 1))
        other = loss(target, counts(plain, given, names), *numbers)
        assert other is None or other[0] >= option.loss - 1e-9


def test_a_temperature_is_found_again():
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 4, (3, 60_000)).astype(np.float32)
    p = np.exp(logits / 2.5)
    truth = (draw.random(60_000) > (p / p.sum(0)).cumsum(0)).sum(0).astype(np.uint8)
    found = fit(logits, truth)
    assert found == pytest.approx(2.5, rel=0.03)
    tried = [likelihood(logits, truth, t) for t in np.linspace(0.5, 5, 46)]
    assert likelihood(logits, truth, found) <= min(tried) + 1e-9


def test_pixels_of_a_binary_task_leave_ignored_ones_out():
    pixels = Pixels(1)
    p = np.array([[[0.9, 0.9, 0.9, 0.9, 0.0, 1.0]]], np.float32)
    pixels.add(p, np.array([[1, 1, 0, 255, 255, 255]], np.uint8))
    assert pixels.fitted() == pytest.approx(np.log(9) / np.log(2), rel=1e-3)  # two of three: 0.9 becomes 2/3


@pytest.mark.parametrize(("defective", "rate", "refused"), [(19, 0.05, True), (20, 0.05, False), (100, 0.01, False)])
def test_a_rate_needs_images(defective, rate, refused):
    target = Target(f"escape<={rate}", "escape", rate)
    if not refused:
        return require(target, defective, 1, "split=val")
    with pytest.raises(
        UserError, match=r"at least 20 defective ones, and 72 without a wrong one .*'target=escape<=0.06'"
    ):
        require(target, defective, 1, "split=val")
    return None


@pytest.mark.parametrize(
    ("text", "kind", "rate", "cost"),
    [
        ("escape <= .5", "escape", 0.5, (1, 1)),
        ("OVERKILL<=1e-2", "overkill", 0.01, (1, 1)),
        ("cost=2.5:1", "cost", None, (2.5, 1)),
    ],
)
def test_forms_of_a_target(text, kind, rate, cost):
    found = parse(text)
    assert (found.kind, found.cost) == (kind, cost)
    assert rate is None or found.rate == rate


@pytest.mark.parametrize("text", ["escape<=0.01", "cost=10:1", "f1", "a b", "5", "null", "[a]", "${x}"])
def test_a_target_comes_through_hydra_s_grammar(text):
    for key in ("target", "+target"):
        (word,) = texts_quoted([f"{key}={text}"])
        (parsed,) = OverridesParser.create().parse_overrides([word])
        assert parsed.value() == text.replace("${", "\\${")  # OmegaConf takes the backslash away
    assert texts_quoted([f'target="{text}"', "-m", "split=val"]) == [f'target="{text}"', "-m", "split=val"]


def test_a_sweep_over_targets():
    (word,) = texts_quoted(["target=escape<=0.1,f1"])
    (parsed,) = OverridesParser.create().parse_overrides([word])
    assert list(parsed.sweep_string_iterator()) == ['"escape<=0.1"', "f1"]


def test_holes_as_scipy_fills_them():
    draw = np.random.default_rng(0)
    for _ in range(100):
        mask = ndimage.gaussian_filter(draw.normal(size=draw.integers(1, 25, 2)), draw.random()) > 0
        assert np.array_equal(without_holes(mask), ndimage.binary_fill_holes(mask))


def test_a_number_between_others_is_short_and_not_at_the_edge():
    assert between(0.2, 0.4) == 0.3
    assert between(0.10001, 0.10003) == 0.10002
    assert between(0.5, 0.5) == 0.5
