"""Duplicates between splits, against the comparison of every pair with every other."""

import itertools

import numpy as np
import pytest

from segnet.reports import duplicates
from segnet.reports.duplicates import Fingerprints

NAMES = ("train", "val", "test")


def random_set(count, seed, alike):
    """Digests, hashes and thumbnails of few originals with bits and grey levels changed."""
    rng = np.random.default_rng(seed)
    origin = rng.integers(0, alike, count)
    bits = (rng.random((alike, 64)) > 0.5)[origin] ^ (rng.random((count, 64)) < 0.04)
    thumbs = rng.integers(0, 240, (alike, 1))[origin] + rng.integers(0, 14, (count, 256))
    digests = [b"%d" % d for d in origin * 3 + rng.integers(0, 3, count)]
    return digests, bits, thumbs.astype(np.uint8), {i: NAMES[int(rng.integers(3))] for i in rng.permutation(count)}


def filled(digests, bits, thumbs):
    prints = Fingerprints(len(digests))
    for i, digest in enumerate(digests):
        prints.put(i, digest, bits[i], thumbs[i])
    return prints


@pytest.mark.parametrize("near", [0, 4, 9, 64])
def test_every_pair_is_found_block_by_block(monkeypatch, near):
    monkeypatch.setattr(duplicates, "BLOCK", 37)  # several blocks, and one that is not full
    digests, bits, thumbs, split_of = random_set(150, near, alike=20)
    exact, alike = [], []
    for i, j in itertools.combinations(split_of, 2):
        if split_of[i] == split_of[j]:
            continue
        if digests[i] == digests[j]:
            exact.append((i, j))
        elif (bits[i] != bits[j]).sum() <= near and np.abs(thumbs[i].astype(int) - thumbs[j]).mean() < 5:
            alike.append((i, j))
    found = filled(digests, bits, thumbs).twins(split_of, near)
    assert (found.exact, found.near, found.cut) == (exact, alike, False)
    assert len(exact) > 50
    assert alike
    assert sum(found.exact_found.values()) == len(exact)
    pairs = [tuple(sorted((split_of[i], split_of[j]))) for i, j in exact]
    counted = {tuple(sorted(key)): count for key, count in found.exact_found.items()}
    assert counted == {pair: pairs.count(pair) for pair in set(pairs)}


def test_a_set_of_one_image_fills_no_memory(monkeypatch):
    """6,000 copies have 8 million pairs: so many are counted, and few listed."""
    monkeypatch.setattr(duplicates, "LISTED", 100)
    count = 6000
    split_of = {i: "train" if i < 2000 else "val" for i in range(count)}
    same = [b"same"] * count, np.zeros((count, 64), bool), np.zeros((count, 256), np.uint8)
    found = filled(*same).twins(split_of, 4)
    assert (len(found.exact), found.near, found.exact_found) == (100, [], {("train", "val"): 8_000_000})
    differing = [b"%d" % i for i in range(count)], *same[1:]
    found = filled(*differing).twins(split_of, 4)
    assert (found.exact, len(found.near), found.cut) == ([], 100, True)
