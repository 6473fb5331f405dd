"""Declared types: what passes, what does not, and how a type is told."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

import pytest
import torch
from annotated_types import Ge, Gt, Interval, Lt, MinLen

from segnet import rules


class Encoding(Protocol):
    kind: str


@pytest.mark.parametrize(
    ("annotation", "right", "wrong", "told"),
    [
        (int, [1, -5], [True, 1.0, "1", None, [1]], "an integer"),
        (float, [1, 0.5], [True, "1", math.nan, math.inf, None], "a number"),
        (bool, [True], [1, "true", None], "true or false"),
        (str, ["a", ""], [1, None, ["a"]], "text"),
        (int | None, [1, None], ["a"], "an integer or null"),
        (Annotated[int, Ge(1)] | Literal["auto"], [1, "auto"], [0, "a"], "an integer of at least 1 or auto"),
        (Annotated[float, Gt(0), Lt(1)] | None, [0.5, None], [0, 1], "a number above 0 and below 1 or null"),
        (Annotated[float, Interval(ge=0, lt=1)], [0, 0.9], [1], r"a number in [0, 1)"),
        (Annotated[str, MinLen(1)], ["a"], [""], "text that is not empty"),
        (Annotated[int | str, "a path"], ["a", 5], [[1]], "a path"),
        (int | Sequence[int], [1, [1, 2]], ["ab", [1, "a"]], "an integer or a list, each an integer"),
        (tuple[float, float], [[0.9, 1]], [[0.9], 5], "a list of 2: a number, a number"),
        (Mapping[str, int], [{"a": 1}], [{"a": "b"}, [1]], "a mapping"),
        (torch.nn.Module, [], [5, "a", None], "an object, that is a mapping with _target_"),
        (Encoding, [], [5, "a"], "an object, that is a mapping with _target_"),
        (Callable[..., Any] | None, [None], [5, "a"], "an object, that is a mapping with _target_ or null"),
        (Any, [1, "a", None], [], "anything"),
    ],
)
def test_values_and_words(annotation, right, wrong, told):
    for value in right:
        rules.check("a.b", value, annotation)
    for value in wrong:
        with pytest.raises(rules.SettingError) as error:
            rules.check("a.b", value, annotation)
        assert str(error.value) == f"a.b={rules.shown(value)}: must be {told}"
    if annotation is not Any:
        assert rules.words(annotation) == told


@pytest.mark.parametrize("value", [2**32, -(2**32), 10**30, [1, 2**40], {"a": [2**32]}])
def test_whole_numbers_are_bounded(value):
    kinds = int | list[int] | dict[str, list[int]]
    with pytest.raises(rules.SettingError, match=r"a\.b=.*: must be .*; whole numbers are at most 4294967295"):
        rules.check("a.b", value, kinds)
    rules.check("a.b", 2**32 - 1, kinds)


def test_values_are_shown_as_they_are_typed():
    value = {"a": [None, True, 1.5, "x"], "b": ""}
    assert rules.shown(value) == "{a:[null,true,1.5,x],b:''}"
