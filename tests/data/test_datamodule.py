"""From files to batches: every layout of conf/data, draws that depend on seed, epoch and index alone, told errors."""

import re

import albumentations as A
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image, ImageOps

from segnet.cli import CONF_DIR
from segnet.commands.choices import settle_data
from segnet.configuration import instantiate
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.dataset import EpochSampler, Samples
from segnet.data.masks import IGNORE_INDEX, Palette, Threshold, Values
from segnet.data.pairs import Layout
from segnet.data.splits import SPLITS, ByHash, ByPattern
from segnet.errors import UserError
from segnet.hydra_versions import BASE

HALVES = ByPattern("images/t*", "images/v*", "images/v*")


def configured(name, root, tmp_path, *overrides):
    """The data module of conf/data/<name>.yaml, as training composes it."""
    overrides = [f"data={name}", f"data.root={root}", f"output_dir={tmp_path}", *overrides]
    with initialize_config_dir(str(CONF_DIR), **BASE):
        cfg = compose("train", overrides=[*overrides, f"data.cache_dir={tmp_path / 'cache'}"])
    settle_data(cfg)
    return instantiate(cfg.data, "data")


def make(root, **changes):
    """A folder of images/ and masks/, binary, without a cache."""
    options = {
        "root": str(root),
        "images": "images/*",
        "masks": "masks/{stem}.png",
        "mask": Threshold(),
        "classes": ["x"],
        "num_classes": 1,
        "split": HALVES,
        "image_size": 32,
    }
    return SegmentationDataModule(**(options | changes))


def ready(module):
    module.prepare_data()
    module.setup("fit")
    return module


def put(root, name, array):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def fill(root, names, masks="masks/{}.png", values=(0, 255), shape=(32, 32), seed=0):
    """Noise images images/<name>.png and masks of the given values; what was written, by name."""
    rng = np.random.default_rng(seed)
    written = {}
    for name in names:
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        mask = rng.choice(np.array(values, np.uint8), shape)
        put(root, f"images/{name}.png", image)
        put(root, masks.format(name), mask)
        written[name] = image, mask
    return written


def epoch(module, number=0, split="train"):
    loader = module.loader(split)
    loader.sampler.set_epoch(number)
    return list(loader)


def same(ones, others):
    return len(ones) == len(others) and all(
        torch.equal(one[key], other[key]) for one, other in zip(ones, others, strict=True) for key in one
    )


# -- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False])
def test_batches_hold_the_files(tmp_path, cached):
    written = fill(tmp_path, [f"t{i}" for i in range(7)] + ["v0"], shape=(32, 48))
    module = ready(make(tmp_path, image_size=[32, 48], batch_size=3, cache_dir=str(tmp_path / "c") if cached else None))
    batches = epoch(module)
    assert [len(b["index"]) for b in batches] == [3, 3, 1]
    assert sorted(i for b in batches for i in b["index"].tolist()) == list(range(7))
    for b in batches:
        n = len(b["index"])
        assert (b["image"].shape, b["mask"].shape) == ((n, 3, 32, 48), (n, 32, 48))
        assert (b["image"].dtype, b["mask"].dtype, b["index"].dtype) == (torch.uint8, torch.uint8, torch.int64)
        assert b["image"].is_contiguous(memory_format=torch.channels_last)
        for image, mask, i in zip(b["image"], b["mask"], b["index"].tolist(), strict=True):
            assert np.array_equal(image.permute(1, 2, 0), written[f"t{i}"][0])
            assert np.array_equal(mask, written[f"t{i}"][1] // 255)


def test_images_are_resized_and_masks_stay_classes(tmp_path):
    written = fill(tmp_path, ["t0", "v0"], values=(0, 2, 255), shape=(64, 96))
    module = ready(
        make(tmp_path, mask=Values(3, ignore=[255]), classes=list("abc"), num_classes=3, image_size=[32, 48])
    )
    (batch,) = epoch(module)
    image, mask = written["t0"]
    assert np.array_equal(batch["mask"][0], mask[1::2, 1::2])  # the pixel at the centre of each 2 × 2, rounded up
    pillow = np.asarray(Image.fromarray(image).resize((48, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(batch["image"][0].permute(1, 2, 0).numpy() - pillow).max() <= 1


def test_cache_changes_no_batch(tmp_path, cable):
    def batches(**changes):
        module = ready(make(cable, split=ByHash(0.6, 0.2, 0.2), augment=[A.HorizontalFlip(p=0.5)], **changes))
        return [b for e in range(2) for b in epoch(module, e)] + epoch(module, split="val")

    plain = batches()
    assert same(plain, batches(cache_dir=str(tmp_path / "c")))
    assert same(plain, batches(cache_dir=str(tmp_path / "c")))  # mapped, not built
    with pytest.warns(UserWarning, match=r"24 images at 32×32 exceed data\.cache_gb=1e-06.*anew in every epoch"):
        assert same(plain, batches(cache_dir=str(tmp_path / "d"), cache_gb=1e-6))


def test_changed_image_is_seen(tmp_path):
    fill(tmp_path, ["t0", "v0"])
    cache = str(tmp_path / "c")
    before = epoch(ready(make(tmp_path, cache_dir=cache)))
    written = fill(tmp_path, ["t0"], seed=1)
    after = epoch(ready(make(tmp_path, cache_dir=cache)))
    assert not same(before, after)
    assert np.array_equal(after[0]["image"][0].permute(1, 2, 0), written["t0"][0])


@pytest.mark.parametrize("other", ["val", "test"])
def test_an_image_in_training_and_in_another_split_is_refused(tmp_path, other):
    fill(tmp_path, ["t0", "t1", "v0", "v1"])
    globs = {"train": "images/t*", "val": "images/v0*", "test": "images/v1*"} | {other: "images/?1*"}
    with pytest.raises(ValueError, match=r"data.split puts images/t1.png \(1 in all\) into train and val or test"):
        ready(make(tmp_path, split=ByPattern(**globs)))


@pytest.mark.parametrize("change", ["a mask", "the threshold"])
def test_masks_that_would_be_others_are_not_served_from_the_cache(tmp_path, change):
    fill(tmp_path, ["t0", "v0"], values=(0, 100, 255))
    cache = str(tmp_path / "c")
    before = epoch(ready(make(tmp_path, cache_dir=cache, mask=Threshold(127))))[0]
    if change == "a mask":
        mask = np.random.default_rng(5).choice(np.array([0, 100, 255], np.uint8), (32, 32))
        put(tmp_path, "masks/t0.png", mask)
    else:
        mask = np.asarray(Image.open(tmp_path / "masks" / "t0.png"))
    above = 127 if change == "a mask" else 50
    after = epoch(ready(make(tmp_path, cache_dir=cache, mask=Threshold(above))))[0]
    assert torch.equal(after["image"], before["image"])
    assert np.array_equal(after["mask"][0], mask > above)
    assert not torch.equal(after["mask"], before["mask"])


# -- draws -----------------------------------------------------------------------------------------

CROPS = [
    A.RandomCrop(32, 32),
    A.HorizontalFlip(p=0.5),
    A.OneOf([A.RandomBrightnessContrast(p=1), A.GaussNoise(p=1)], p=0.8),
]


def draws(cable, workers=0, seed=0, augment=CROPS, epochs=2):
    module = make(
        cable, split=ByHash(0.6, 0.2, 0.2), image_size=48, num_workers=workers, seed=seed, augment=list(augment)
    )
    loader = ready(module).train_dataloader()
    out = []
    for e in range(epochs):
        loader.sampler.set_epoch(e)
        out.append(list(loader))
    return out


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 and fork
def test_workers_change_no_draw(cable):
    first, second = draws(cable)
    assert not same(first, second)
    for workers in (0, 1, 2):
        again = draws(cable, workers)
        assert same(first, again[0])
        assert same(second, again[1])


def test_torch_and_numpy_seeds_change_no_draw(cable):
    torch.manual_seed(1)
    one = draws(cable, epochs=1)[0]
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert same(one, draws(cable, epochs=1)[0])


def test_seed_changes_order_and_draws(cable):
    one, two = draws(cable, seed=0, epochs=1)[0], draws(cable, seed=1, epochs=1)[0]
    order = [[i for b in batches for i in b["index"].tolist()] for batches in (one, two)]
    assert order[0] != order[1]
    assert sorted(order[0]) == sorted(order[1]) == list(range(len(order[0])))
    by_index = [
        {int(i): p for b in batches for i, p in zip(b["index"], b["image"], strict=True)} for batches in (one, two)
    ]
    assert sum(not torch.equal(by_index[0][i], by_index[1][i]) for i in by_index[0]) > len(order[0]) / 2


def ramp(root, count):
    """Images whose red is the column and green the row, masks the same column's parity."""
    y, x = np.mgrid[:64, :64].astype(np.uint8)
    for name in [*(f"t{i}" for i in range(count)), "v0"]:
        put(root, f"images/{name}.png", np.stack([x, y, x], 2))
        put(root, f"masks/{name}.png", (x % 2 + 2 * (x < 20)).astype(np.uint8))
    return {"mask": Values(4), "classes": list("abcd"), "num_classes": 4, "image_size": 64, "split": HALVES}


def test_draws_are_diverse(tmp_path):
    module = ready(make(tmp_path, **ramp(tmp_path, 20), augment=[A.RandomCrop(32, 32)]))
    corners = [tuple(p[:2, 0, 0].tolist()) for e in range(3) for b in epoch(module, e) for p in b["image"]]
    assert len(corners) == 60
    assert len(set(corners)) > 50  # of 33² possible
    for axis in range(2):
        side = [c[axis] for c in corners]
        assert min(side) < 8
        assert max(side) > 24


def test_flips_are_fair_and_take_the_mask_along(tmp_path):
    module = ready(make(tmp_path, **ramp(tmp_path, 20), augment=[A.HorizontalFlip(p=0.5), A.RandomCrop(40, 40)]))
    flipped = []
    for e in range(3):
        for b in epoch(module, e):
            x = b["image"][:, 0]
            assert torch.equal(b["mask"], x % 2 + 2 * (x < 20))
            flipped += [bool(p[0, 0] > p[0, -1]) for p in x]
    assert 15 < sum(flipped) < 45  # of 60
    assert len({tuple(flipped[i : i + 20]) for i in (0, 20, 40)}) == 3


@pytest.mark.parametrize("split", ["val", "test"])
def test_only_training_is_augmented(tmp_path, split):
    module = ready(make(tmp_path, **ramp(tmp_path, 4), augment=[A.HorizontalFlip(p=1), A.InvertImg(p=1)]))
    column = torch.arange(64, dtype=torch.uint8).expand(64, 64)
    assert all(torch.equal(b["image"][0, 0], column) for b in epoch(module, 1, split))
    assert all(torch.equal(p, 255 - column.flip(1)) for b in epoch(module, 1) for p in b["image"][:, 0])


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_comes_in_order(cable, split):
    module = ready(make(cable, split=ByHash(0.4, 0.3, 0.3)))
    for e in range(2):
        indices = [i for b in epoch(module, e, split) for i in b["index"].tolist()]
        assert indices == list(range(len(module.indices[split])))
    names = [module.pairs[i].image.name for i in module.indices[split]]
    assert names == sorted(names)


@pytest.mark.filterwarnings("ignore:Argument.* not valid for transform")
def test_an_argument_that_a_transform_does_not_know_is_refused():
    with pytest.raises(ValueError, match="sped"):
        Samples(lambda i: None, [0], [A.HorizontalFlip(sped=0.5)])


def test_without_other_processes_all_is_drawn():
    assert list(EpochSampler(5, 0, False)) == [(0, i, 0) for i in range(5)]
    assert sorted(i for _, i, _ in EpochSampler(5, 0, True)) == list(range(5))
    assert (len(EpochSampler(5, 0, True)), len(EpochSampler(0, 0, True))) == (5, 0)


# -- shares of processes ---------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "world"), [(11, 2), (12, 2), (7, 3), (1, 2)])
def test_ranks_share_out_an_evaluation(length, world):
    samplers = [EpochSampler(length, 0, False, rank, world) for rank in range(world)]
    shares = [[i for _, i, _ in sampler] for sampler in samplers]
    assert sorted(i for share in shares for i in share) == list(range(length))
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]


@pytest.mark.parametrize(("length", "world"), [(11, 2), (12, 2), (7, 3), (2, 2)])
def test_ranks_train_in_step_without_overlap(length, world):
    samplers = [EpochSampler(length, 0, True, rank, world) for rank in range(world)]
    seen = set()
    for e in range(12):
        for sampler in samplers:
            sampler.set_epoch(e)
        shares = [list(sampler) for sampler in samplers]
        drawn = [i for share in shares for _, i, _ in share]
        assert {len(share) for share in shares} == {length // world} == {len(sampler) for sampler in samplers}
        assert len(set(drawn)) == len(drawn)
        assert {number for share in shares for number, _, _ in share} == {e}
        seen |= set(drawn)
    assert seen == set(range(length))  # what one epoch drops, another draws


@pytest.mark.parametrize("world", [2, 3])
def test_fewer_training_images_than_ranks_stay_in_step(world):
    samplers = [EpochSampler(1, 0, True, rank, world) for rank in range(world)]
    assert len({len(list(sampler)) for sampler in samplers}) == 1
    assert all(len(list(sampler)) == len(sampler) for sampler in samplers)


# -- rare images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_rare_images_are_drawn_as_often_as_told_and_evenly(tmp_path, share):
    fill(tmp_path, ["t00", "t01", "t02"])
    fill(tmp_path, [f"t{i:02}" for i in range(3, 20)] + ["v0"], values=(0,))
    module = ready(make(tmp_path, positive_share=share, augment=[A.RandomCrop(16, 16)], batch_size=20))
    for number in range(3):
        (batch,) = epoch(module, number)
        (again,) = epoch(module, number)
        assert same([batch], [again])
        drawn = np.bincount(batch["index"], minlength=20)
        assert drawn.sum() == 20
        assert drawn[:3].sum() == round(share * 20)
        assert np.ptp(drawn[:3]) <= 1
        assert np.ptp(drawn[3:]) <= 1
        crops = {image.numpy().tobytes() for image, i in zip(batch["image"], batch["index"], strict=True) if i < 3}
        assert len(crops) > 0.8 * drawn[:3].sum()  # every draw of an image is cropped anew
    assert len(epoch(module, split="val")[0]["index"]) == 1


@pytest.mark.parametrize("length", [2, 3, 4, 9])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.8, 0.99])
def test_of_few_images_each_kind_is_drawn(length, share):
    sampler = EpochSampler(length, 0, True, positive=np.arange(length) == 1, share=share)
    drawn = np.bincount([image for _, image, _ in sampler], minlength=length)
    assert drawn.sum() == length
    assert drawn[1] == min(max(round(share * length), 1), length - 1)


def test_of_several_classes_all_but_the_first_are_rare(tmp_path):
    for i in range(12):
        fill(tmp_path, [f"t{i:02}"], values={0: (0, 1), 1: (0, 2), 2: (0, 255)}.get(i, (0,)))
    fill(tmp_path, ["v0"])
    masks = {"mask": Values(3, ignore=[255]), "classes": list("abc"), "num_classes": 3}
    (batch,) = epoch(ready(make(tmp_path, **masks, positive_share=0.5, batch_size=12)))
    drawn = np.bincount(batch["index"], minlength=12)
    assert drawn[:2].sum() == 6
    assert drawn[:2].tolist() == [3, 3]
    assert drawn[2:].max() == 1  # one whose pixels are ignored shows nothing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positive_share": 1.5}, "positive_share=1.5: must be a number between 0 and 1"),
        ({"positive_share": 1.0}, "positive_share=1.0: must be a number between 0 and 1"),
        ({"positive_share": 0.0}, "positive_share=0.0: must be a number between 0 and 1"),
        ({"positive_share": 0.5}, r"3 of 3 training images show the class .*, so there is nothing to balance"),
    ],
)
def test_shares_that_cannot_be(tmp_path, changes, message):
    fill(tmp_path, ["t0", "t1", "t2", "v0"])
    with pytest.raises(ValueError, match=message):
        epoch(ready(make(tmp_path, **changes)))


# -- class frequencies -----------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "values"), [(["x"], (0, 1, 255)), (list("abc"), (0, 2, 255))])
def test_class_frequencies(tmp_path, classes, values):
    written = fill(tmp_path, ["t0", "t1"], values=values) | fill(tmp_path, ["t2", "t3"], values=(0, 1), seed=1)
    fill(tmp_path, ["v0"], values=(1,))  # another split counts nothing
    put(tmp_path, "masks/t3.png", np.zeros((32, 32), np.uint8))
    masks = [written[f"t{i}"][1] for i in range(3)] + [np.zeros((32, 32), np.uint8)]
    count = len(classes)
    module = ready(make(tmp_path, mask=Values(count, ignore=[255]), classes=classes, num_classes=count))
    expected = [
        [
            sum((mask == c).sum() for mask in masks),
            sum((mask != IGNORE_INDEX).sum() for mask in masks if (mask == c).any()),
        ]
        for c in range(max(count, 2))
    ]
    found = module.class_frequencies()
    assert found.dtype == np.int64
    assert found.tolist() == expected


# -- layouts of conf/data --------------------------------------------------------------------------


def noise(i, shape=(32, 32, 3)):
    return np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)


def blob(i):
    mask = np.zeros((32, 32), np.uint8)
    mask[4 : 5 + i % 20, 3:9] = 255
    return mask


def expect(module, masks):
    """Every image of every split has the expected mask, and nothing else was found."""
    found = {}
    for split in SPLITS:
        for batch in epoch(module, split=split):
            for mask, i in zip(batch["mask"], batch["index"].tolist(), strict=True):
                path = module.pairs[module.indices[split][i]].image
                found[path.relative_to(module.root).as_posix()] = mask.numpy()
    assert sorted(found) == sorted(masks)
    assert all(np.array_equal(found[name], mask) for name, mask in masks.items())


def tree(root, good, bad, mask_of, count=15):
    """A tree with folders of good images and one folder a kind of defect; expected masks by image."""
    masks = {}
    for folder in good:
        for i in range(count):
            put(root, f"{folder}/{i:03d}.png", noise(i))
            masks[f"{folder}/{i:03d}.png"] = np.zeros((32, 32), np.uint8)
    for k, folder in enumerate(bad):
        for i in range(count):
            put(root, f"{folder}/{i:03d}.png", noise(i))
            put(root, mask_of.format(folder.split("/")[-1], i), blob(i + 5 * k))
            masks[f"{folder}/{i:03d}.png"] = blob(i + 5 * k) // 255
    return masks


def test_mvtec(tmp_path):
    masks = tree(
        tmp_path / "m", ["train/good", "test/good"], ["test/bent_wire", "test/poke"], "ground_truth/{}/{:03d}_mask.png"
    )
    expect(ready(configured("mvtec", tmp_path / "m", tmp_path, "data.image_size=32", "data.augment=[]")), masks)


def test_cable(tmp_path):
    masks = tree(tmp_path / "m", ["data/good"], ["data/bent", "data/cut"], "label/{}/{:03d}_mask.png")
    expect(ready(configured("cable", tmp_path / "m", tmp_path, "data.image_size=32", "data.augment=[]")), masks)


def test_magnetic_tile(tmp_path):
    masks = {}
    for kind in ("Blowhole", "Crack", "Free"):
        for i in range(12):
            stem = f"MT_{kind}/Imgs/exp{i}"
            put(tmp_path / "m", f"{stem}.jpg", noise(i, (32, 32)))
            mask = blob(i) * (kind != "Free")
            put(tmp_path / "m", f"{stem}.png", mask)
            masks[f"{stem}.jpg"] = mask // 255
    expect(ready(configured("magnetic_tile", tmp_path / "m", tmp_path, "data.image_size=32", "data.augment=[]")), masks)


def test_magnetic_tile_kinds(tmp_path):
    """The class of a mask by the order of the names, whatever the folders above the data are called."""
    root, masks = tmp_path / "MT_Other/m", {}
    for kind in ("Free", "Blowhole", "Break", "Crack", "Fray", "Uneven"):
        for i in range(8):
            stem = f"MT_{kind}/Imgs/exp{i}_num_{i}"
            put(root, f"{stem}.jpg", noise(i, (32, 32)))
            mask = blob(i) * (kind != "Free")
            put(root, f"{stem}.png", mask)
            label = {"Blowhole": 1, "Break": 2, "Crack": 3, "Fray": 4, "Uneven": 5}.get(kind, 0)
            masks[f"{stem}.jpg"] = np.where(mask > 127, label, 0)
    small = "data.image_size=32", "data.augment=[]"
    module = ready(configured("magnetic_tile_kinds", root, tmp_path, *small))
    expect(module, masks)
    assert module.classes[0] == "background"
    (root / "MT_Crack").rename(root / "MT_Dent")
    module = configured("magnetic_tile_kinds", root, tmp_path, *small)
    with pytest.raises(
        UserError, match=r"\.png: its path names 'Dent' by .*classes are Blowhole, .*correct the pattern"
    ):
        module.prepare_data()


def test_photographs_of_a_tile_are_in_one_split(tmp_path):
    images = [f"MT_Free/Imgs/exp{e}_num_{n + 20 * e}.jpg" for n in range(400, 300_000, 3700) for e in range(1, 7)]
    split = configured("magnetic_tile_parts", tmp_path, tmp_path).split(tmp_path, images)
    homes = {int(re.findall(r"\d+", image)[-1]) // 10_000: name for name in SPLITS for image in split[name]}
    assert [{image for name in SPLITS for image in split[name]}] == [set(images)]
    for name in SPLITS:
        assert split[name]
        assert all(homes[int(re.findall(r"\d+", image)[-1]) // 10_000] == name for image in split[name])


@pytest.mark.parametrize("held", ["0001TP", "0006R0", "0016E5"])
def test_camvid_drives(tmp_path, held):
    """A whole drive is held out, of both folders, and the test images are no part of it; 0016E5 is no number."""
    names = {
        "train": ["0001TP_6", "0006R0_f0", "0016E5_00390"],
        "val": ["0016E5_07959"],
        "test": ["Seq05VD_f0", "0001TP_8"],
    }
    for folder, stems in names.items():
        for stem in stems:
            put(tmp_path / "m", f"{folder}/{stem}.png", noise(0, (32, 64, 3)))
            put(tmp_path / "m", f"{folder}annot/{stem}.png", np.zeros((32, 64), np.uint8))
    given = [f"data.split.val={held}"] if held != "0006R0" else []
    module = configured("camvid_drives", tmp_path / "m", tmp_path, *given, "data.image_size=[32,64]")
    module.setup("fit")
    found = {s: sorted(module.pairs[i].image.stem for i in module.indices[s]) for s in SPLITS}
    pool = [*names["train"], *names["val"]]
    assert found["val"] == sorted(stem for stem in pool if stem.startswith(held))
    assert found["train"] == sorted(stem for stem in pool if not stem.startswith(held))
    assert not found["test"]


@pytest.mark.parametrize("test", [False, True])
def test_camvid(tmp_path, test):
    masks = {}
    for k, split in enumerate(SPLITS[: 3 if test else 2]):
        for i in range(3):
            mask = np.random.default_rng((k, i)).integers(0, 12, (32, 64), dtype=np.uint8)
            put(tmp_path / "m", f"{split}/{i}.png", noise(i, (32, 64, 3)))
            put(tmp_path / "m", f"{split}annot/{i}.png", mask)
            masks[f"{split}/{i}.png"] = np.where(mask == 11, IGNORE_INDEX, mask)
    more = ["data.split.test=test/*"] if test else []
    module = ready(configured("camvid", tmp_path / "m", tmp_path, "data.image_size=[32,64]", "data.augment=[]", *more))
    expect(module, masks)
    for split in SPLITS:
        folder = "val" if split == "test" and not test else split
        assert {module.pairs[i].image.parent.name for i in module.indices[split]} == {folder}


PUBLIC = {  # image, mask, and those of a test of one's own; the values that its masks hold, and what they mean
    "neu_seg": ("images/{:06d}.jpg", "annotations/{:06d}.png", {0: 0, 1: 1, 2: 2, 3: 3}),
    "crack_forest": ("Images/{:03d}.jpg", "Masks/{:03d}_label.PNG", {0: 0, 3: 0, 4: 0, 255: 1}),
    "drive": ("images/{:02d}_training.png", "1st_manual/{:02d}_manual1.gif", {0: 0, 255: 1}),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_sets(tmp_path, name):
    image, mask, meaning = PUBLIC[name]
    held = image.replace("training", "test")
    masks = {}
    for i in range(20):
        stored = np.random.default_rng(i).choice(np.array([*meaning], np.uint8), (32, 64))
        put(tmp_path / "m", image.format(i), noise(i, (32, 64, 3)))
        put(tmp_path / "m", mask.format(i), stored)
        put(tmp_path / "m/test", held.format(i), noise(i, (32, 64, 3)))
        put(tmp_path / "m/test", mask.format(i), stored)
        masks[image.format(i)] = np.vectorize(meaning.get)(stored)
    given = name, tmp_path / "m", tmp_path, "data.image_size=[32,64]", "data.augment=[]"
    module = ready(configured(*given))
    expect(module, masks)
    sizes = {split: len(found) for split, found in module.indices.items()}
    assert min(sizes.values()) > 0
    assert sizes["train"] > 10
    masks |= {f"test/{held.format(i)}": masks[image.format(i)] for i in range(20)}
    module = ready(configured(*given, "data.split.test=test/*"))
    expect(module, masks)
    assert {module.pairs[i].image.parts[-3] for i in module.indices["test"]} == {"test"}
    assert len(module.indices["test"]) == 20


@pytest.mark.parametrize("kind", ["binary", "classes", "colours", "missing"])
def test_folder(tmp_path, kind):
    root, masks = tmp_path / "m", {}
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    for i in range(30):
        suffix = ["png", "jpg", "bmp"][i % 3]
        put(root, f"images/{i}.{suffix}", noise(i))
        labels = np.random.default_rng(i).integers(0, 3, (32, 32), dtype=np.uint8)
        labels = labels // 2 if kind in ("binary", "missing") else labels
        if kind == "missing" and i % 2:
            labels[:] = 0
        else:
            stored = {"classes": labels, "colours": colours[labels]}.get(kind, labels * 255)
            put(root, f"masks/{i}.png", stored)
        masks[f"images/{i}.{suffix}"] = labels
    three = ["data.classes=[background,crack,stain]", "data.num_classes=3"]
    overrides = {
        "binary": [],
        "classes": [*three, "data/mask=values"],
        "colours": [*three, "data/mask=palette", "data.mask.colors=[[0,0,0],[255,0,0],[0,255,0]]"],
        "missing": ["data.missing_mask=empty"],
    }[kind]
    expect(ready(configured("folder", root, tmp_path, "data.image_size=32", "data.augment=[]", *overrides)), masks)


def test_oxford_pet(tmp_path):
    masks = {}
    for i in range(20):
        trimap = np.random.default_rng(i).integers(1, 4, (32, 32), dtype=np.uint8)  # pet, background, border
        put(tmp_path / "m", f"oxford-iiit-pet/images/Abyssinian_{i}.jpg", noise(i))
        put(tmp_path / "m", f"oxford-iiit-pet/annotations/trimaps/Abyssinian_{i}.png", trimap)
        masks[f"oxford-iiit-pet/images/Abyssinian_{i}.jpg"] = np.array([0, 1, 0, IGNORE_INDEX], np.uint8)[trimap]
    expect(ready(configured("oxford_pet", tmp_path / "m", tmp_path, "data.image_size=32", "data.augment=[]")), masks)


def test_synthetic_is_drawn_where_missing(tmp_path):
    module = configured(
        "synthetic", tmp_path / "new", tmp_path, "data.prepare.images=24", "data.prepare.size=32", "data.image_size=32"
    )
    module.prepare_data()
    drawn = {p: p.stat().st_mtime_ns for p in (tmp_path / "new").rglob("*.png")}
    assert len(drawn) == 48
    module.prepare_data()
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "new").rglob("*.png")} == drawn
    module.setup()
    assert sum(len(module.indices[split]) for split in SPLITS) == 24


# -- masks that are not there ----------------------------------------------------------------------


def test_image_without_mask(tmp_path):
    fill(tmp_path, ["t0", "t1", "v0"])
    (tmp_path / "masks/t1.png").unlink()
    told = r"^1 of 3 images without a mask: .*images/t1\.png: its mask .*masks/t1\.png is missing; add it, or set "
    told += r"data\.missing_mask=empty.*defect_free"
    with pytest.raises(ValueError, match=told):
        make(tmp_path).setup()
    for changes in ({"missing_mask": "empty"}, {"defect_free": "*/t1.*"}):
        (batch,) = epoch(ready(make(tmp_path, **changes)))
        masks = dict(zip(batch["index"].tolist(), batch["mask"], strict=True))
        assert masks[0].any()
        assert not masks[1].any()


def test_defect_free_excuses_no_other(tmp_path):
    fill(tmp_path, ["t0", "t1", "v0"])
    (tmp_path / "masks/t1.png").unlink()
    with pytest.raises(ValueError, match=r"t1\.png: its mask"):
        make(tmp_path, defect_free="*/t0*").setup()


def test_no_mask_at_all(tmp_path):
    fill(tmp_path, ["t0", "t1", "v0"])
    told = r"data\.masks='labels/\{stem\}\.png': none of 3 images has a mask; correct the pattern"
    with pytest.raises(ValueError, match=told):
        make(tmp_path, masks="labels/{stem}.png", missing_mask="empty").setup("fit")


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_size": 31}, r"data\.image_size=31: must be one side or \[height, width\], at least 32 pixels each"),
        ({"image_size": [64, 16]}, r"data\.image_size=\[64, 16\]: must be one side"),
        ({"image_size": [64, 64, 3]}, r"data\.image_size=\[64, 64, 3\]: must be one side"),
        ({"batch_size": 0}, r"data\.batch_size=0: must be an integer of at least 1"),
        ({"num_workers": -1}, r"data\.num_workers=-1: must be an integer in \[0, 1024\] or auto"),
        ({"num_workers": "many"}, r"data\.num_workers=many: must be an integer in \[0, 1024\] or auto"),
        ({"missing_mask": "skip"}, r"data\.missing_mask=skip: must be error or empty"),
        ({"num_classes": 2}, r"data\.num_classes=2, but data\.classes names 1: \['x'\]; they must agree"),
        ({"classes": ["a", "b"]}, r"data\.num_classes=1, but data\.classes names 2"),
        ({"colors": [[0, 0, 0], [1, 1, 1]]}, r"data\.colors has 2 colours for 1 classes; name one for each"),
    ],
)
def test_bad_settings(tmp_path, changes, told):
    with pytest.raises(ValueError, match=told):
        make(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": "scans/*"}, r"data\.root=.*: nothing matches data\.images=\['scans/\*'\]"),
        ({"images": "*.txt"}, r"nothing matches data\.images"),
        ({"images": "../x/*"}, r"data\.images='\.\./x/\*': must be a pattern below data\.root"),
        ({"images": "/x/*"}, r"data\.images='/x/\*': must be a pattern below data\.root"),
        (
            {"masks": "m/{typo}.png"},
            r"data\.masks='m/\{typo\}\.png': wrong placeholder \('typo'\); use \{stem\}, \{name\}, \{dir\}",
        ),
        (
            {"split": ByPattern("images/t*", "none/*", "none/*")},
            r"data\.split gives no image to val \(train 1",
        ),
    ],
)
def test_bad_patterns(tmp_path, changes, told):
    fill(tmp_path, ["t0", "v0"])
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        make(tmp_path, **changes).setup("fit")


def test_one_image_is_too_few_for_training(tmp_path):
    fill(tmp_path, ["t0"])
    with pytest.raises(ValueError, match=r"no image to val .* of the 1 there are; add images: 2 are the fewest"):
        make(tmp_path).setup("fit")


@pytest.mark.parametrize(
    ("stage", "filled", "told"),
    [
        (None, "", None),
        ("validate", "v", None),
        ("validate", "ts", r"no image to val \(train 1, val 0, test 1\)"),
        ("test", "s", None),
        ("test", "tv", r"no image to test \(train 1, val 1, test 0\)"),
        ("fit", "tv", None),
        ("fit", "vs", r"no image to train \(train 0, val 1, test 1\)"),
        ("fit", "s", r"no image to train, val \(train 0, val 0, test 1\)"),
    ],
)
def test_a_stage_needs_its_own_splits_only(tmp_path, stage, filled, told):
    fill(tmp_path, ["other", *filled])
    module = make(tmp_path, split=ByPattern("images/t.*", "images/v.*", "images/s.*"))
    if told is None:
        module.setup(stage)
    else:
        with pytest.raises(ValueError, match=told):
            module.setup(stage)
    for name, letter in (("train", "t"), ("val", "v"), ("test", "s")):
        if letter in filled:
            assert len(module.samples(name)) == len(list(module.loader(name))) == 1
            continue
        for use in (module.samples, module.loader):
            with pytest.raises(ValueError, match=f"no image to {name}"):
                use(name)


def test_preparing_makes_the_data_and_the_cache_and_another_process_maps_it(tmp_path):
    calls = []

    def prepare(root):
        calls.append(root)
        fill(tmp_path / "data", ["t0", "v0"])

    options = {"prepare": prepare, "cache_dir": str(tmp_path / "c")}
    make(tmp_path / "data", **options).prepare_data()
    assert calls == [str(tmp_path / "data")]
    built = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*.*")}
    assert len(built) == 4
    other = make(tmp_path / "data", **options)
    other.setup("validate")
    assert isinstance(other.load(0)[0].base, np.memmap)
    assert built == {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*.*")}


@pytest.mark.parametrize("masks", ["masks/{stem", "masks/{stem.foo}.png"])
def test_malformed_mask_pattern_is_named(tmp_path, masks):
    fill(tmp_path, ["t0", "v0"])
    with pytest.raises(ValueError, match=r"data\.masks="):
        make(tmp_path, masks=masks).setup()


def test_missing_root(tmp_path):
    with pytest.raises(ValueError, match=r"data\.root=.*nowhere: no such folder; set data\.root to the folder"):
        make(tmp_path / "nowhere").setup()


@pytest.mark.parametrize("cached", [True, False])
def test_size_mismatch(tmp_path, cached):
    fill(tmp_path, ["t0", "v0"])
    put(tmp_path, "masks/t0.png", np.zeros((40, 48), np.uint8))
    told = r"masks/t0\.png: mask is 48×40, its image .*images/t0\.png is 32×32; both must have the same size"
    with pytest.raises(ValueError, match=told):
        epoch(ready(make(tmp_path, cache_dir=str(tmp_path / "c") if cached else None)))


def test_wrong_class_count_names_the_file(tmp_path):
    fill(tmp_path, ["t0", "v0"], values=(0, 1, 2, 3))
    with pytest.raises(ValueError, match=r"masks/.*\.png: unknown mask value\(s\) \[3\].*correct data\.num_classes=3"):
        ready(make(tmp_path, mask=Values(3), classes=list("abc"), num_classes=3, cache_dir=str(tmp_path / "c")))


def test_more_colours_than_classes(tmp_path):
    """Index 2 of a two-class task would crash the loss, far from the setting at fault."""
    fill(tmp_path, ["t0", "v0"])
    palette = Palette([(0, 0, 0), (255, 255, 255), (255, 0, 0)])
    put(tmp_path, "masks/t0.png", np.full((32, 32, 3), (255, 0, 0), np.uint8))
    with pytest.raises(ValueError, match=r"data\.mask\.colors|num_classes"):
        epoch(ready(make(tmp_path, mask=palette, classes=["a", "b"], num_classes=2)))


def test_overlapping_patterns_find_an_image_once(tmp_path):
    fill(tmp_path, ["t0", "t1", "v0"])
    module = ready(make(tmp_path, images=["images/*", "images/t*"]))
    assert {split: len(module.indices[split]) for split in SPLITS} == {"train": 2, "val": 1, "test": 1}


def test_no_classes(tmp_path):
    with pytest.raises(ValueError, match=r"data\.num_classes=0"):
        make(tmp_path, classes=[], num_classes=0)


# -- files judged one by one -------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kinds", [("zero one",), ("white",), ("zero one", "white", "sixteen", "float", "alpha")])
def test_masks_of_any_range_are_read_alike_with_and_without_the_cache(tmp_path, cached, kinds):
    """0/1 masks, alone and beside others, were background, or an error only where there was a cache."""
    names = [f"t{i}" for i in range(6)] + ["v0"]
    written = fill(tmp_path, names)
    for i, name in enumerate(names):
        inside = written[name][1] // 255
        clear = np.full((32, 32, 4), 200, np.uint8)
        clear[..., 3] = inside * 255
        stored = {
            "zero one": inside, "white": inside * 255, "sixteen": inside.astype(np.uint16) * 65535,
            "float": inside.astype(np.float32), "alpha": clear,
        }[kinds[i % len(kinds)]]  # fmt: skip
        (tmp_path / f"masks/{name}.png").unlink()
        put(tmp_path, f"masks/{name}.{'tif' if stored.dtype == np.float32 else 'png'}", stored)
        if stored.dtype == np.float32:
            (tmp_path / f"masks/{name}.tif").rename(tmp_path / f"masks/{name}.png")
    module = ready(make(tmp_path, batch_size=6, cache_dir=str(tmp_path / "c") if cached else None))
    (batch,) = epoch(module)
    for mask, i in zip(batch["mask"], batch["index"].tolist(), strict=True):
        assert np.array_equal(mask, written[f"t{i}"][1] // 255)


@pytest.mark.parametrize("cached", [True, False])
def test_labels_under_threshold_are_told_with_and_without_the_cache(tmp_path, cached):
    fill(tmp_path, ["t0", "v0"])
    fill(tmp_path, ["t1"], values=(0, 3, 255))
    with pytest.raises(ValueError, match=r"masks/t1\.png: .* holds \[0, 3, 255\]; set data\.mask\.above=<value>"):
        epoch(ready(make(tmp_path, cache_dir=str(tmp_path / "c") if cached else None)))


@pytest.mark.parametrize("cached", [True, False])
def test_a_defect_that_training_never_shows_is_an_error(tmp_path, cached):
    fill(tmp_path, ["t0", "t1"], values=(0,))
    fill(tmp_path, ["v0"])
    module = make(tmp_path, cache_dir=str(tmp_path / "c") if cached else None)
    with pytest.raises(ValueError, match=r"no pixel of 2 training masks shows x; check_data\.py"):
        ready(module)
    module.setup("validate")  # which needs none


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    ("changes", "train", "val", "told"),
    [
        ({}, (0, 255), (0,), ["data: no val image shows x; see check_data.py"]),
        ({}, (0, 255), (0, 255), []),
        (
            {"mask": Values(3), "classes": list("abc"), "num_classes": 3}, (0, 1), (0, 2),
            ["data: no train image shows c; see check_data.py", "data: no val image shows b; see check_data.py"],
        ),
    ],
)  # fmt: skip
def test_classes_that_a_split_never_shows_are_told(tmp_path, caplog, cached, changes, train, val, told):
    fill(tmp_path, ["t0", "t1"], values=train)
    fill(tmp_path, ["v0", "v1"], values=val)
    with caplog.at_level("INFO"):
        ready(make(tmp_path, cache_dir=str(tmp_path / "c") if cached else None, **changes))
    assert [record.message for record in caplog.records if record.message.startswith("data: no")] == told


def rotated(root, name, orientation, shape, upright=True):
    """An image whose EXIF tag turns it, and its mask, drawn on it upright or as stored, without a tag."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask = np.zeros(shape, np.uint8)
    mask[: shape[0] // 2, : shape[1] // 3] = 255
    image = Image.fromarray(np.dstack([mask] * 3))
    image.save(root / f"images/{name}.png", exif=exif)
    shown = Image.open(root / f"images/{name}.png")
    turned = np.asarray(ImageOps.exif_transpose(shown))[..., 0]
    shown.close()
    Image.fromarray(turned if upright else mask).save(root / f"masks/{name}.png")
    return turned // 255


@pytest.mark.parametrize("cached", [True, False])
def test_the_bits_of_a_camera_hold_for_every_image(tmp_path, cached):
    fill(tmp_path, ["t0", "t1", "v0"])
    raw = {
        name: np.random.default_rng(0).integers(0, top, (32, 32), np.uint16)
        for name, top in (("t0", 4096), ("t1", 500))
    }
    for name, values in raw.items():
        put(tmp_path, f"images/{name}.png", values)
    cache = str(tmp_path / "c") if cached else None
    for bits, shifts in ((None, (4, 2 if raw["t1"].max() > 255 else 0)), (12, (4, 4))):
        module = ready(make(tmp_path, bits=bits, cache_dir=cache))
        for i, shift in enumerate(shifts):
            assert np.array_equal(module.load(i)[0][..., 0], raw[f"t{i}"] >> shift)
    with pytest.raises(ValueError, match=r"data\.bits=17: must be an integer in \[8, 16\] or null"):
        make(tmp_path, bits=17)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("upright", [True, False])
def test_the_size_of_a_mask_says_how_it_was_drawn(tmp_path, orientation, upright):
    fill(tmp_path, ["t0", "v0"])
    expected = rotated(tmp_path, "t0", orientation, (40, 64), upright)
    image, mask = Layout(tmp_path, ["images/*"], "masks/{stem}.png").pair("images/t0.png").load(Threshold(), None)
    assert np.array_equal(mask, expected)
    assert np.array_equal(image[..., 0] // 255, mask)


@pytest.mark.parametrize(("orientation", "shape"), [(6, (48, 48)), (3, (40, 64)), (2, (40, 64))])
def test_where_the_size_does_not_the_setting_says_how_it_was_drawn(tmp_path, orientation, shape):
    fill(tmp_path, ["t0", "v0"])
    told = (
        rf"images/t0\.png: states EXIF orientation {orientation} .*masks/t0\.png none.*set data\.mask_drawn=upright or"
    )
    for upright in (True, False):
        expected = rotated(tmp_path, "t0", orientation, shape, upright)
        with pytest.raises(ValueError, match=told):
            epoch(ready(make(tmp_path)))
        drawn = "upright" if upright else "stored"
        for cache in (None, str(tmp_path / "c")):
            module = ready(make(tmp_path, mask_drawn=drawn, image_size=list(expected.shape), cache_dir=cache))
            assert np.array_equal(module.load(0)[1], expected)
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "masks/t0.png")  # the same however it was drawn
        make(tmp_path).layout.pair("images/t0.png").load(Threshold(), None)


def test_a_mask_with_a_tag_of_its_own_turns_with_its_image(tmp_path):
    fill(tmp_path, ["t0", "v0"])
    expected = rotated(tmp_path, "t0", 6, (48, 48), upright=False)
    with Image.open(tmp_path / "images/t0.png") as image, Image.open(tmp_path / "masks/t0.png") as mask:
        mask.save(tmp_path / "masks/t0.png", exif=image.getexif())
    assert np.array_equal(make(tmp_path).layout.pair("images/t0.png").load(Threshold(), None)[1], expected)


# -- augmentations of conf/augment -------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF_DIR / "augment").glob("*.yaml")))
def test_a_named_augmentation_replaces_the_experiments_and_runs(tmp_path, name):
    side = {"crop128": 128, "crop256": 256, "patches": 256, "camvid": 384, "crop384": 384}.get(name, 48)
    module = configured("folder", tmp_path, tmp_path, "experiment=magnetic_tile", f"augment={name}", "data=folder")
    own = OmegaConf.load(CONF_DIR / "augment" / f"{name}.yaml").augment
    assert [type(transform).__name__ for transform in module.augment] == [t["_target_"].rpartition(".")[2] for t in own]
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8) if side > 48 else noise(0, (48, 48, 3))
    samples = Samples(lambda _: (image, image[..., 0] // 128), [0], module.augment)
    drawn = [samples[epoch, 0, 0] for epoch in range(8)]
    assert {tuple(sample["image"].shape) for sample in drawn} == {(side, side, 3)}
    assert len({sample["image"].numpy().tobytes() for sample in drawn}) > 1 or name == "none"
