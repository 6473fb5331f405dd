"""The cache of images of different sizes: it holds what decoding gives, and never what a kill or a bad disk left."""

import json
import os

import cv2
import numpy as np
import pytest

from segnet.data import cache
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.decoded import Decoded
from segnet.data.flat_cache import POSITIONS, Flat, kept, look
from segnet.data.masks import Threshold
from segnet.data.splits import All

SIZES = [(8, 12), (200, 70), (3, 5), (40, 41)]


def pair(i):
    rng = np.random.default_rng(i)
    return rng.integers(0, 256, (*SIZES[i], 3), dtype=np.uint8), rng.choice([0, 1, 255], SIZES[i]).astype(np.uint8)


def never(i):
    raise AssertionError("decoded again")


def opened(folder, load=pair, key="k", limit=1.0):
    return kept(folder, key, Flat(load, SIZES, 2), limit)


def check(content):
    for i in range(len(SIZES)):
        image, mask = content[i]
        assert np.array_equal(image, pair(i)[0])
        assert np.array_equal(mask, pair(i)[1])
        found, expected = content.look(i), look(pair(i)[1], 2)
        assert np.array_equal(found.counts, expected.counts)
        assert all(np.array_equal(a, b) for a, b in zip(found.positions, expected.positions, strict=True))


def test_content_is_what_was_decoded_and_is_built_once(tmp_path):
    check(opened(tmp_path))
    content = opened(tmp_path, never)
    check(content)
    image, mask = content[1]
    assert np.shares_memory(image[3:5, 2:4], content.images)  # a view: a crop reads its own rows
    assert np.shares_memory(mask, content.masks)
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 0
    assert sorted(p.name for p in (tmp_path / cache.HOME / "k").iterdir()) == sorted([*cache.FILES, cache.MARKER])


def test_positions_are_of_the_class_bounded_and_anywhere_in_it():
    mask = np.zeros((300, 400), np.uint8)
    mask[100:250, 50:350] = 1
    mask[299, 399] = 2
    mask[0, :10] = 255
    found = look(mask, 4)
    assert found.counts.tolist() == [300 * 400 - 150 * 300 - 11, 150 * 300, 1, 0]
    assert [len(part) for part in found.positions] == [POSITIONS, POSITIONS, 1, 0]
    rows, columns = np.divmod(found.positions[1].astype(int), 400)
    assert (mask[rows, columns] == 1).all()
    assert len(set(found.positions[1].tolist())) == POSITIONS
    assert abs(rows.mean() - 174.5) < 5 * 43.3 / 64
    assert abs(columns.mean() - 199.5) < 5 * 86.6 / 64
    assert np.array_equal(look(mask, 4).positions[1], found.positions[1])


def test_over_the_bound_nothing_is_built(tmp_path):
    need = Flat(pair, SIZES, 2).need()
    assert opened(tmp_path, never, limit=(need - 1) / 1e9) is None
    assert list(tmp_path.iterdir()) == []
    check(opened(tmp_path, limit=(need + 1) / 1e9))
    used = sum(file.stat().st_size for file in tmp_path.rglob("*.npy"))
    assert used <= need + 3 * 128  # the headers


def image_zeroed(target):
    np.load(target / "images.npy", mmap_mode="r+")[100:200] = 0


def mask_turned(target):
    np.load(target / "masks.npy", mmap_mode="r+")[-1:] += 1


def positions_moved(target):
    np.load(target / "positions.npy", mmap_mode="r+")[:1] += 1


def truncated(target):
    os.truncate(target / "masks.npy", 200)


def positions_lost(target):
    (target / "positions.npy").unlink()


def other_sizes(target):
    content = json.loads((target / "cache.json").read_text())
    content["sizes"][0] = [12, 8]
    (target / "cache.json").write_text(json.dumps(content))


@pytest.mark.parametrize("damage", [image_zeroed, mask_turned, positions_moved, truncated, positions_lost, other_sizes])
def test_a_damaged_cache_is_told_and_built_anew(tmp_path, damage):
    opened(tmp_path)
    damage(tmp_path / cache.HOME / "k")
    with pytest.warns(UserWarning, match="damaged since it was built; it is built anew"):
        check(opened(tmp_path))
    check(opened(tmp_path, never))


@pytest.fixture
def folder(tmp_path):
    for kind, value in (("images", 100), ("masks", 255)):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(tmp_path / "set" / kind / f"{i}.png"), np.full((40 + i, 50), value, np.uint8))
    return tmp_path / "set"


def data(folder, **settings):
    made = SegmentationDataModule(
        root=str(folder), images="images/*", masks="masks/{stem}.png", mask=Threshold(), classes=["d"], num_classes=1,
        split=All(), crop=32, cache_dir=str(folder.parent / "cache"), **settings,
    )  # fmt: skip
    made.setup()
    return made


def test_a_changed_file_or_scale_has_a_cache_of_its_own(folder):
    assert data(folder).load(1)[0].mean() == 100
    cv2.imwrite(str(folder / "images" / "1.png"), np.full((41, 50), 7, np.uint8))
    assert data(folder).load(1)[0].mean() == 7
    assert data(folder, scale=0.5).load(1)[0].shape == (20, 25, 3)
    assert data(folder).load(1)[0].shape == (41, 50, 3)


def test_more_than_the_bound_is_told_and_decoded(folder):
    with pytest.warns(UserWarning, match=r"3 images at scale 1 take .* exceeds data\.cache_gb=1e-06; each is decoded"):
        made = data(folder, cache_gb=1e-6)
    assert made.arrays.content is None
    assert made.load(2)[0].shape == (42, 50, 3)
    assert made.load(2)[1].min() == 1


@pytest.mark.parametrize("scale", [None, 1.0])
def test_of_no_images_there_is_no_cache(tmp_path, scale):
    """A pattern that matches nothing, data.split.train=abc, ends in the line that says so and in no warning before."""
    empty = Decoded([], Threshold(), 1, (32, 32), scale)
    empty.use_cache(tmp_path, 1.0)
    assert empty.content is None
    assert not list(tmp_path.iterdir())


def test_a_failing_decoder_leaves_nothing(tmp_path):
    def broken(i):
        if i == 2:
            raise ValueError("2.png: cannot be read")
        return pair(i)

    with pytest.raises(ValueError, match=r"2\.png: cannot be read"):
        opened(tmp_path, broken)
    assert list((tmp_path / cache.HOME).iterdir()) == []
