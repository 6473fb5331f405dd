"""Folds: every image in one, alike in what their masks show, groups kept together."""

import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from segnet import trust
from segnet.data import folds
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.masks import Threshold, Values
from segnet.data.splits import ByGroup, ByHash, ByPattern
from segnet.errors import UserError


def counts(homes, members):
    """How many of these images each fold has."""
    return [sum(homes[i] == fold for i in members) for fold in range(max(homes) + 1)]


def even(numbers, by=1):
    return max(numbers) - min(numbers) <= by


@pytest.mark.parametrize("images", [12, 31, 100])
def test_folds_are_alike_in_number_defects_and_their_areas(images):
    random = np.random.default_rng(images)
    k, names = 4, [f"{i}.png" for i in range(images)]
    defects = np.where(random.random(images) < 0.4, random.integers(1, 900, images), 0)
    areas = np.stack([1000 - defects, defects], 1)
    homes = folds.assign(names, folds.labels(names, areas, k), k)
    assert even(counts(homes, range(images)))
    shown = [i for i in range(images) if defects[i]]
    assert even(counts(homes, shown))
    for start in range(0, len(shown) - k + 1, k):  # of each four of neighbouring areas one goes to each fold
        block = sorted(shown, key=lambda i: (defects[i], folds.draw(names[i])))[start : start + k]
        assert sorted(homes[i] for i in block) == list(range(k))


def test_folds_are_alike_in_every_class_the_rarest_above_all():
    random = np.random.default_rng(0)
    k, names = 5, [f"{i}.png" for i in range(200)]
    areas = (random.random((200, 6)) < [1, 0.8, 0.5, 0.2, 0.08, 0.03]) * random.integers(1, 99, (200, 6))
    homes = folds.assign(names, folds.labels(names, areas, k), k)
    spread = [counts(homes, np.flatnonzero(areas[:, c]).tolist()) for c in range(6)]
    assert even(spread[5])
    assert all(even(numbers, 3) for numbers in spread)
    assert even(counts(homes, range(200)), 3)
    chance = np.array_split(np.arange(200), k)  # what the order of the names would give
    assert not all(even([int((areas[part, c] > 0).sum()) for part in chance], 3) for c in range(6))


def test_order_changes_nothing_and_a_salt_does():
    names = [f"{i}.png" for i in range(20)]
    areas = np.stack([np.full(20, 90), np.arange(20) % 7], 1)
    first, other = (dict(zip(n, folds.assign(n, folds.labels(n, a, 4), 4), strict=True)) for n, a in
                    ((names, areas), (names[::-1], areas[::-1])))  # fmt: skip
    assert first == other
    salted = folds.assign(names, folds.labels(names, areas, 4, "b"), 4, "b")
    assert salted != [first[name] for name in names]


@pytest.fixture
def data(tmp_path):
    """``data(masks, split, classes)``: a data module of 8×8 images with these masks, after `setup`."""

    def make(masks, split, classes=("defect",)):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir()
        for name, mask in masks.items():
            Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
            Image.fromarray(np.pad(np.array(mask, np.uint8), (0, 1600 - len(mask))).reshape(40, 40)).save(
                tmp_path / "masks" / f"{name}.png"
            )
        encoding = Threshold() if len(classes) == 1 else Values(len(classes))
        module = SegmentationDataModule(
            tmp_path, "images/*", "masks/{name}", encoding, list(classes), len(classes), split, image_size=32
        )
        module.setup()
        return module

    return make


def test_groups_stay_together_and_every_image_is_validated_once(data, caplog):
    masks = {f"{g}_{i}": [255] * (i * g) for g in range(7) for i in range(4)}
    module = data(masks, ByHash(0.7, 0.15, 0.15, group=r"images/(\d)"))
    split = folds.divide(module, 3, keep_test=False)
    images = module.layout.list_images()
    times, homes = Counter(), defaultdict(set)
    for fold in range(3):
        parts = folds.ByFold(3, fold, split.assignment, split.names)(module.root, images)
        assert sorted(parts["train"] + parts["val"]) == images
        assert parts["test"] == []
        times.update(parts["val"])
        for image in parts["val"]:
            homes[re.search(r"images/(\d)", image)[1]].add(fold)
    assert times == Counter(images)
    assert all(len(found) == 1 for found in homes.values())
    groups = Counter(fold for found in homes.values() for fold in found)
    assert sorted(groups.values()) == [2, 2, 3]
    assert "of 28 images; no test images kept apart" in caplog.text


@pytest.mark.parametrize("test", [None, "3"])
def test_as_many_folds_as_groups_leave_each_out_once(data, test):
    """The group that ``val`` names is divided like the others; one that ``test`` names stays apart."""
    masks = {f"{g}_{i}": [255] * (i + g) for g in range(4) for i in range(2 * g + 1)}
    module = data(masks, ByGroup(r"images/(\d)", val="1", test=test))
    groups = "0123" if test is None else "012"
    split = folds.divide(module, len(groups), keep_test=True)
    images = module.layout.list_images()
    held = [
        {
            image[7]
            for image in folds.ByFold(len(groups), fold, split.assignment, split.names)(module.root, images)["val"]
        }
        for fold in range(len(groups))
    ]
    assert sorted(held, key=min) == [{group} for group in groups]


def test_test_images_stay_apart_and_those_in_no_split_too(data):
    masks = {f"{kind}{i}": [255] * i for kind in ("train", "val", "test", "other") for i in range(3)}
    module = data(masks, ByPattern("images/train*", "images/val*", "images/test*"))
    split = folds.divide(module, 2, keep_test=True)
    images = module.layout.list_images()
    whole = split(module.root, images)
    assert sorted(whole["test"]) == [i for i in images if "test" in i]
    assert sorted(whole["train"] + whole["val"]) == [i for i in images if "train" in i or "val" in i]
    one = folds.ByFold(2, 1, split.assignment, split.names)(module.root, images)
    assert (sorted(one["train"]), sorted(one["val"])) == (sorted(whole["val"]), sorted(whole["train"]))
    assert one["test"] == []
    assert split.caveat
    with pytest.raises(UserError, match="drawn for 12 images, and the 11 in"):
        split(module.root, images[1:])
    with pytest.raises(UserError, match="are not these"):
        split(module.root, ["images/new.png", *images[1:]])
    config = {"_target_": "segnet.data.folds.ByFold", **vars(split)}
    trust.check({"data": {"split": config}}, "a.ckpt")  # a stranger's checkpoint may name it


def test_too_few_are_refused_or_told(data, caplog):
    masks = {f"{i}": [1] * (i < 2) + [2] * i for i in range(6)}
    module = data(masks, ByHash(0.7, 0.15, 0.15), ("ground", "crack", "stain"))
    folds.divide(module, 3, keep_test=False)
    assert "folds=3: shown by fewer images than there are folds: crack in 2;" in caplog.text
    with pytest.raises(UserError, match="folds=7: there are only 6 images to divide; use at most folds=6"):
        folds.divide(module, 7, keep_test=False)


def test_test_images_alone_cannot_be_divided(data):
    module = data({f"{i}": [255] * i for i in range(3)}, ByPattern(test="images/*"))
    with pytest.raises(UserError, match="folds=2: there are only 0 images to divide; add some"):
        folds.divide(module, 2, keep_test=True)


def test_a_defect_in_one_image_cannot_be_validated_without_it(data):
    module = data({f"{i}": [255] * (i == 3) for i in range(6)}, ByHash(0.7, 0.15, 0.15))
    with pytest.raises(UserError, match="defect shows in one image only"):
        folds.divide(module, 3, keep_test=False)
