"""Crops of large images: where they lie, what they show, that they depend on nothing but what is said."""

import math

import cv2
import numpy as np
import pytest
from PIL import Image

from segnet.data import crops, loading
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.masks import IGNORE_INDEX, Threshold, Values
from segnet.data.splits import All, ByHash

CROP = 64


@pytest.fixture(scope="module")
def folder(shared):
    """Images whose red is the column and whose green is the row, so that a crop tells where it comes from."""

    def make(root):
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True)
        for i, (height, width) in enumerate([(150, 200), (200, 150), (64, 64), (150, 200), (90, 128), (150, 200)]):
            rows, columns = np.mgrid[:height, :width]
            image = np.stack([columns, rows, np.full_like(rows, 40 * i)], 2).astype(np.uint8)
            mask = np.random.default_rng(i).integers(0, 50, (height, width)).astype(np.uint8)
            mask = np.where(mask == 0, 2, np.where((rows // 8 + columns // 8) % 2, 1, 0)).astype(np.uint8)
            if i == 3:
                mask[mask == 2] = 0
            cv2.imwrite(str(root / "images" / f"{i}.png"), image[..., ::-1])
            cv2.imwrite(str(root / "masks" / f"{i}.png"), mask)

    return shared("crops", make)


def data(folder, binary=True, split=None, **settings):
    kind = {"mask": Threshold(above=1), "classes": ["dot"], "num_classes": 1}
    kind = kind if binary else {"mask": Values(3), "classes": ["a", "b", "c"], "num_classes": 3}
    made = SegmentationDataModule(
        root=str(folder), images="images/*", masks="masks/{stem}.png", split=split or everything,
        **{"crop": CROP, **kind, **settings},
    )  # fmt: skip
    made.setup()
    return made


def everything(root, images):
    return {"train": list(images), "val": [], "test": []}


def original(folder, index):
    image = cv2.imread(str(folder / "images" / f"{index}.png"))[..., ::-1]
    return image, cv2.imread(str(folder / "masks" / f"{index}.png"), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("cached", [True, False])
def test_a_crop_is_what_the_file_shows_there(folder, tmp_path, cached):
    made = data(folder, binary=False, cache_dir=str(tmp_path) if cached else None)
    seen = set()
    for batch in made.loader("train"):
        for image, mask, index in zip(batch["image"], batch["mask"].numpy(), batch["index"].tolist(), strict=True):
            pixels = image.permute(1, 2, 0).numpy()
            left, top, number = pixels[0, 0].tolist()
            assert number == 40 * index
            whole, truth = original(folder, index)
            assert np.array_equal(pixels, whole[top : top + CROP, left : left + CROP])
            assert np.array_equal(mask, truth[top : top + CROP, left : left + CROP])
            seen.add((index, top, left))
    assert len(seen) > 20


def test_positions_are_uniform(folder):
    samples = data(folder).samples("train")
    corners = np.array([samples.corner(np.random.default_rng(i), 0, crops.ANYWHERE) for i in range(8000)])
    for places, there in zip(corners.T, (150 - CROP + 1, 200 - CROP + 1), strict=True):
        assert places.min() == 0
        assert places.max() == there - 1
        counts = np.bincount(places, minlength=there)
        expected = 8000 / there
        chi = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi - (there - 1)) < 5 * math.sqrt(2 * (there - 1))


def test_images_are_drawn_in_proportion_to_their_area(folder):
    made = data(folder, crop_share=0.0, crops_per_epoch=500)
    keys = list(made.loader("train").sampler)
    areas = np.array([150 * 200, 200 * 150, 64 * 64, 150 * 200, 90 * 128, 150 * 200])
    counts = np.bincount([image for _, image, _, _ in keys], minlength=6)
    assert np.abs(counts - 500 * areas / areas.sum()).max() <= 1
    assert {label for *_, label in keys} == {crops.ANYWHERE}
    assert sorted(key[:3] for key in keys) == [(0, i, draw) for i in range(6) for draw in range(counts[i])]


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_share_around_the_class_is_met(folder, share):
    """Image 3 does not show it; of the others each has an equal part."""
    made = data(folder, crop_share=share, crops_per_epoch=100)
    loader = made.loader("train")
    keys = [key for key in loader.sampler if key[3] == 1]
    assert len(keys) == round(100 * share)
    assert set(np.bincount([image for _, image, _, _ in keys], minlength=6)[[0, 1, 2, 4, 5]]) <= {
        math.floor(20 * share), math.ceil(20 * share),
    }  # fmt: skip
    assert all((loader.dataset[key]["mask"] == 1).any() for key in keys)
    assert all(image != 3 for _, image, _, _ in keys)


def test_the_pixel_of_the_class_lies_anywhere_in_its_crop(tmp_path):
    """Far from the edges of the image: each place in the crop is as likely."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    mask = np.zeros((400, 400), np.uint8)
    mask[200, 210] = 255
    cv2.imwrite(str(tmp_path / "images" / "0.png"), mask)
    cv2.imwrite(str(tmp_path / "masks" / "0.png"), mask)
    samples = data(tmp_path).samples("train")
    places = np.array([np.subtract((200, 210), samples.corner(np.random.default_rng(i), 0, 1)) for i in range(4000)])
    assert places.min() == 0
    assert places.max() == CROP - 1
    for one in places.T:
        counts = np.bincount(one, minlength=CROP)
        assert abs(((counts - 62.5) ** 2 / 62.5).sum() - 63) < 5 * math.sqrt(2 * 63)


def test_of_several_classes_the_rare_ones_have_equal_parts(tmp_path):
    """4 classes: below an eighth of the pixels is rare, and 2 and 3 are."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for i in range(4):
        mask = np.zeros((100, 100), np.uint8)
        mask[:40] = 1
        if i < 2:
            mask[50:60, 50:60] = 2
        if i == 3:
            mask[90, 90:] = 3
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), mask)
        cv2.imwrite(str(tmp_path / "masks" / f"{i}.png"), mask)
    made = data(tmp_path, mask=Values(4), classes=list("abcd"), num_classes=4, crop=32, crops_per_epoch=60)
    loader = made.loader("train")
    labels = [label for *_, label in loader.sampler]
    assert {label: labels.count(label) for label in set(labels)} == {crops.ANYWHERE: 30, 2: 15, 3: 15}
    for key in loader.sampler:
        assert key[3] == crops.ANYWHERE or (loader.dataset[key]["mask"] == key[3]).any()
    told = loading.told(made.arrays, made.indices["train"], made.plan, made.classes)
    assert told == "data.crop: an epoch draws 60 crops of 32×32 at scale 1, 50% around c, d"


def batches(made, epoch, workers):
    made.num_workers = workers
    loader = made.loader("train")
    loader.sampler.set_epoch(epoch)
    return [{name: value.numpy().copy() for name, value in batch.items()} for batch in loader]


def equal(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a
    )


def test_draws_depend_on_seed_and_epoch_alone(folder, tmp_path):
    """Not on loader processes, the cache or the order of epochs; transforms after the crop included."""
    import albumentations

    def made(seed=0, **settings):
        return data(folder, seed=seed, crops_per_epoch=24, augment=[albumentations.D4()], **settings)

    one = made(cache_dir=str(tmp_path))
    first = batches(one, 0, 0)
    assert not equal(first, batches(one, 1, 0))
    assert equal(batches(one, 1, 0), batches(one, 1, 2))
    assert equal(first, batches(one, 0, 1))
    assert equal(first, batches(made(), 0, 0))
    assert not equal(first, batches(made(seed=1, cache_dir=str(tmp_path)), 0, 0))


def test_ranks_share_an_epoch_without_overlap(folder):
    made = data(folder, crops_per_epoch=21)
    given = made.arrays, made.indices["train"], made.plan, None, 0, True
    whole = list(loading.sampler(*given, 0, 1, None))
    parts = [list(loading.sampler(*given, rank, 2, None)) for rank in range(2)]
    assert [len(part) for part in parts] == [10, 10]
    assert len({*parts[0], *parts[1]}) == 20
    assert {*parts[0], *parts[1]} < {*whole}


def test_at_half_the_scale(folder, tmp_path):
    made, plain = (data(folder, scale=0.5, crop=32, cache_dir=cache) for cache in (str(tmp_path), None))
    for index in range(6):
        whole, truth = original(folder, index)
        size = (whole.shape[0] // 2, whole.shape[1] // 2)
        image, mask = made.load(index)
        assert image.shape == (*size, 3)
        smaller = np.asarray(Image.fromarray(whole).resize(size[::-1], Image.Resampling.BILINEAR), np.int16)
        assert np.abs(image.astype(np.int16) - smaller).max() <= 1
        rows, columns = (((np.arange(n) + 0.5) * 2).astype(int) for n in size)
        assert np.array_equal(mask, truth[rows][:, columns] > 1)
    assert equal(batches(made, 0, 0), batches(plain, 0, 0))


def test_images_smaller_than_a_crop_go_on_as_mirror_images_that_are_ignored(folder):
    made = data(folder, crop=[180, 160], crops_per_epoch=30)
    seen = set()
    for batch in made.loader("train"):
        for image, mask, index in zip(batch["image"], batch["mask"].numpy(), batch["index"].tolist(), strict=True):
            whole, truth = original(folder, index)
            missing = [max(0, a - b) for a, b in zip((180, 160), truth.shape, strict=True)]
            left, top, _ = image[:, 0, 0].tolist()
            padding = [(0, missing[0]), (0, missing[1])]
            wide = np.pad(whole, [*padding, (0, 0)], mode="reflect")[top : top + 180, left : left + 160]
            assert np.array_equal(image.permute(1, 2, 0).numpy(), wide)
            known = np.pad(truth > 1, padding, constant_values=False)[top : top + 180, left : left + 160]
            outside = np.pad(np.zeros(truth.shape, bool), padding, constant_values=True)
            outside = outside[top : top + 180, left : left + 160]
            assert np.array_equal(mask, np.where(outside, IGNORE_INDEX, known))
            seen.add(index)
    assert seen == set(range(6))


def test_counts_are_those_of_the_masks(folder, tmp_path):
    expected = np.zeros((3, 2), np.int64)
    for index in range(6):
        mask = original(folder, index)[1]
        for label in range(3):
            expected[label] += (mask == label).sum(), mask.size * (mask == label).any()
    for cache in (None, str(tmp_path)):
        made = data(folder, binary=False, cache_dir=cache)
        assert np.array_equal(made.class_frequencies(), expected)
        assert [made.arrays.shows(index) for index in range(6)] == [True] * 6
        assert made.arrays.absent([3]) == [2]


def test_masks_that_no_cache_keeps_are_read_once_and_it_is_told(folder, tmp_path, caplog):
    with caplog.at_level("INFO"):
        for cache in (None, str(tmp_path)):
            made = data(folder, binary=False, cache_dir=cache)
            for _ in range(2):
                made.class_frequencies()
    told = [record.message for record in caplog.records if "masks once" in record.message]
    assert told == ["data.crop: reading 6 masks once, because no data.cache_dir keeps what they show"]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(3000, 4000)] * 8, round(8 * 3000 * 4000 / 480**2)),
        ([(200, 200)] * 3000, 3000),  # smaller than a crop: each counts as one
        ([(3000, 4000)] * 100, 1000),
        ([(3000, 4000)] * 2500, 2500),
    ],
)
def test_an_epoch_is_as_long_as_the_area_says_within_bounds(sizes, expected):
    plan, _ = crops.plan(480, 1.0, 0.5, None, None, None, "auto")
    assert crops.epoch_length(sizes, plan) == expected


def test_validation_gives_whole_images_one_by_one(folder):
    made = data(folder, split=All(), batch_size=4)
    made.indices["val"] = made.indices["all"]
    shapes = [tuple(batch["image"].shape) for batch in made.loader("val")]
    assert shapes == [(1, 3, *original(folder, i)[1].shape) for i in range(6)]
    whole = [tuple(batch["image"].shape) for batch in data(folder).loader("train", whole=True)]
    assert whole == shapes


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"crop": 64, "image_size": 96}, r"data\.image_size=96 beside data\.crop=64: .*leave data\.image_size out"),
        ({"crop": 16}, r"data\.crop=16: must be one side or"),
        ({"crop": None, "scale": 0.5}, r"data\.scale=0\.5 without data\.crop: add data\.crop=480"),
        ({"crop": None, "crops_per_epoch": 9}, r"data\.crops_per_epoch=9 without data\.crop"),
        ({"crop": 64, "scale": 0.0}, r"data\.scale=0\.0: must be a number in \[0\.01, 4\]"),
        ({"crop": 64, "positive_share": 0.5}, r"data\.positive_share=0\.5 beside data\.crop=64: data\.crop_share"),
        (
            {"crop": 64, "device_cache": True},
            r"data\.device_cache=true beside data\.crop=64: .*data\.device_cache=auto",
        ),
    ],
)
def test_settings_that_contradict_each_other(folder, settings, told):
    with pytest.raises(ValueError, match=told):
        data(folder, **settings)


def test_the_size_of_the_crop_is_that_of_the_network(folder):
    assert data(folder, crop=[64, 96]).image_size == (64, 96)
    assert data(folder, crop=64, image_size=64).image_size == (64, 64)
    assert data(folder, crop=None, split=ByHash(0.5, 0.5, 0.0)).image_size == (480, 480)
