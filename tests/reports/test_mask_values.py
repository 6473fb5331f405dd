"""The values of masks, against numpy's own search over all pixels."""

import time
from pathlib import Path

import numpy as np
import pytest

from segnet.data.masks import Palette, Threshold
from segnet.reports.mask_values import MOST, Noting, ValueTable, distinct, guess


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
def test_the_values_are_those_of_a_full_search(kind):
    rng = np.random.default_rng(0)
    for top in (1, 2, 7, 200):
        raw = rng.integers(0, top, (40, 50)).astype(kind)
        assert np.array_equal(distinct(raw), np.unique(raw))
        assert distinct(raw).dtype == raw.dtype


def test_the_colours_are_those_of_a_full_search_and_come_at_once():
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (60, 70, 3), dtype=np.uint8)
    assert np.array_equal(distinct(noise), np.unique(noise.reshape(-1, 3), axis=0))
    areas = np.repeat(np.repeat(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), 60, 0), 60, 1)
    begin = time.process_time()
    found = distinct(areas)
    middle = time.process_time()
    expected = np.unique(areas.reshape(-1, 3), axis=0)
    assert np.array_equal(found, expected)
    assert 10 * (middle - begin) < time.process_time() - middle  # 91 s were spent on 60 masks


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1, 255], "data/mask=values with data.num_classes=1)"),
        ([7, 255], "'data.mask.classes=[0,7]', data.num_classes=1"),
        ([0, 3, 7, 255], "'data.mask.classes=[0,3,7]', data.num_classes=3"),
        ([[0, 0, i] for i in range(14)], f"data.mask.colors=[[0,0,0],{','.join(f'[0,0,{i}]' for i in range(1, 14))}]'"),
        ([[0, 0, i] for i in range(MOST)], f"it holds {MOST} or more colours: data/mask=palette)"),
    ],
)
def test_a_hint_names_all_values_in_a_form_to_paste(values, told):
    assert told in guess(values)


def test_the_table_keeps_each_list_once():
    table = ValueTable(5)
    for i, values in enumerate(([0, 255], None, [0, 255], [0, 1], [[0, 0, 0]])):
        table.put(i, values)
    assert [table[i] for i in range(5)] == [[0, 255], None, [0, 255], [0, 1], [[0, 0, 0]]]
    assert table[0] is table[2]
    assert list(table.everywhere().items()) == [("0", 3), ("255", 2), ("1", 1), ("[0, 0, 0]", 1)]


def test_all_files_of_a_mask_are_noted():
    noting = Noting(Threshold())
    for value in (255, 0, 255, 1):
        noting(np.full((4, 4), value, np.uint8), Path("mask.png"))
    assert (noting.values, noting.greatest) == ([0, 1, 255], 255)
    noting = Noting(Palette([[0, 0, 0], [9, 0, 0], [9, 0, 5]]))
    for colour in ([9, 0, 5], [0, 0, 0], [9, 0, 0]):
        noting(np.full((4, 4, 3), colour, np.uint8), Path("mask.png"))
    assert (noting.values, noting.greatest) == ([[0, 0, 0], [9, 0, 0], [9, 0, 5]], 0)
