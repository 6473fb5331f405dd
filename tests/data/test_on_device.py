"""Transforms by tensors against albumentations itself on the same sample and seed, and trainings that use them."""

import random
import zlib

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from segnet.data import SegmentationDataModule
from segnet.data.dataset import EpochSampler, Samples
from segnet.data.device_colour import steps_of
from segnet.data.device_transforms import DeviceTransforms, supported
from segnet.data.masks import Threshold
from segnet.data.on_device import Draws
from segnet.data.splits import ByHash

SIZE = (96, 128)
FLIPS = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
JITTER = A.ColorJitter(brightness=(0.5, 1.5), contrast=(0.5, 1.5), saturation=(0.2, 1.8), hue=(-0.1, 0.1), p=0.9)
CAMVID = [A.HorizontalFlip(p=0.5), A.RandomResizedCrop(size=(80, 64), scale=(0.3, 1.0)), JITTER]
LIGHT = A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.5)
TILE = [*FLIPS, A.Affine(scale=(0.6, 1.2), keep_ratio=True, border_mode=cv2.BORDER_REFLECT_101, p=0.5), LIGHT]
FILLED = A.Affine(
    scale=(0.6, 1.2), rotate=(-30, 30), shear=(-5, 5), translate_percent=(-0.1, 0.1), fill=(9, 99, 200), fill_mask=255
)
TRANSFORMS = {
    "camvid": (CAMVID, 1.0),
    "magnetic_tile": (TILE, 0.2),
    "together": ([A.HorizontalFlip(), A.Sequential(TILE, p=0.5), A.Sequential([A.ColorJitter(p=0.5)], p=0.7)], 1.0),
    "crop": ([A.RandomCrop(64, 80), *FLIPS], 0.0),
    "enlarged": ([A.RandomResizedCrop(size=(200, 230), scale=(0.05, 0.5)), *FLIPS], 0.5),
    "filled": ([A.RandomCrop(80, 90), *FLIPS, FILLED, A.HorizontalFlip()], 0.2),
    "rotated": ([A.Rotate(limit=180, border_mode=cv2.BORDER_REPLICATE, p=1), A.RandomCrop(64, 64)], 0.2),
    "hue": ([A.ColorJitter(hue=(-0.5, 0.5), p=1)], 1.0),
    "by_mean": ([A.RandomBrightnessContrast(brightness_by_max=False, p=1), A.HorizontalFlip()], 0.1),
}


def sample(size=SIZE, seed=0):
    """A smooth image of all colours and a mask of regions."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (*size, 3)), (0, 0), 3)
    image = np.clip(128 + 70 * noise / noise.std(), 0, 255).astype(np.uint8)
    blobs = cv2.GaussianBlur(rng.normal(0, 1, size), (0, 0), 6)
    return image, np.digitize(blobs / blobs.std(), [-1, -0.3, 0.3, 1]).astype(np.uint8)


def on_device(transforms, image, mask, seeds):
    device = DeviceTransforms(transforms, image.shape[:2])
    images = torch.from_numpy(image).expand(len(seeds), *image.shape).permute(0, 3, 1, 2)
    masks = torch.from_numpy(mask).expand(len(seeds), *mask.shape)
    out = device(images, masks, torch.stack([device.draw(seed) for seed in seeds]))
    assert out[0].shape == (len(seeds), 3, *device.size)
    assert out[1].shape == (len(seeds), *device.size)
    assert out[0].dtype == out[1].dtype == torch.uint8
    assert out[0].is_contiguous(memory_format=torch.channels_last)
    return out[0].permute(0, 2, 3, 1).numpy(), out[1].numpy()


def by_albumentations(transforms, image, mask, seeds):
    compose = A.Compose(transforms, strict=True)
    out = []
    for seed in seeds:
        one = zlib.crc32(f"{seed} 0".encode())
        compose.set_random_state(np.random.default_rng(one), random.Random(one))  # of all transforms
        out.append(compose(image=image, mask=mask))
    return np.stack([o["image"] for o in out]), np.stack([o["mask"] for o in out])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_as_albumentations(name):
    transforms, levels = TRANSFORMS[name]
    seeds = range(60)
    torch.use_deterministic_algorithms(True)
    try:
        images, masks = on_device(transforms, *sample(), seeds)
    finally:
        torch.use_deterministic_algorithms(False)
    expected, expected_masks = by_albumentations(transforms, *sample(), seeds)
    difference = np.abs(images.astype(int) - expected).mean((1, 2, 3))
    assert difference.max() <= levels
    agreement = (masks == expected_masks).mean((1, 2))
    assert agreement.min() > 0.99  # a column that lies between two pixels to the last bit
    assert agreement.mean() > 0.999
    assert len({expected[i].tobytes() for i in seeds}) > 2  # the draws do differ


@pytest.mark.parametrize("name", TRANSFORMS)
def test_nothing_is_read_back_from_the_device(name):
    """Tensors without values cannot be read: whatever would wait for a GPU fails on them."""
    device = DeviceTransforms(TRANSFORMS[name][0], SIZE)
    images = torch.empty(2, *SIZE, 3, dtype=torch.uint8, device="meta").permute(0, 3, 1, 2)
    masks = torch.empty(2, *SIZE, dtype=torch.uint8, device="meta")
    out = device(images, masks, torch.stack([device.draw(0), device.draw(1)]).to("meta"))
    assert out[0].shape == (2, 3, *device.size)


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_gpu_does_the_same_without_waiting(name):
    device = DeviceTransforms(TRANSFORMS[name][0], SIZE)
    image, mask = (torch.from_numpy(array).repeat(8, *[1] * array.ndim) for array in sample())
    inputs = image.permute(0, 3, 1, 2), mask, torch.stack([device.draw(seed) for seed in range(8)])
    expected = device(*inputs)
    moved = [tensor.cuda() for tensor in inputs]
    torch.use_deterministic_algorithms(True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        images, masks = device(*moved)
        again = device(*moved)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.use_deterministic_algorithms(False)
    assert torch.equal(images, again[0])
    assert torch.equal(masks, again[1])
    assert (images.cpu().float() - expected[0].float()).abs().mean() < 0.1
    assert (masks.cpu() == expected[1]).float().mean() > 0.999


def test_flips_quarter_turns_and_crops_are_exact():
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (97, 97, 3), np.uint8), rng.integers(0, 256, (97, 97), np.uint8)
    transforms = [*FLIPS, A.RandomRotate90(p=0.7), A.Transpose(), A.RandomCrop(64, 33)]
    images, masks = on_device(transforms, image, mask, range(60))
    expected, expected_masks = by_albumentations(transforms, image, mask, range(60))
    assert np.array_equal(images, expected)
    assert np.array_equal(masks, expected_masks)


def test_the_draws_are_albumentations_own():
    """Red is the column and green the row: every output pixel says where it comes from."""
    y, x = np.mgrid[:96, :128]
    image = np.stack([x, y, x], 2).astype(np.uint8)
    images, _ = on_device(CAMVID[:2], image, image[..., 0], range(200))
    expected, _ = by_albumentations(CAMVID[:2], image, image[..., 0], range(200))
    assert np.abs(images.astype(int) - expected).max() <= 1
    assert len({(*e[0, 0], *e[-1, -1]) for e in expected}) > 190


def test_not_applied_changes_nothing():
    image, mask = sample()
    never = [A.HorizontalFlip(p=0), A.Affine(scale=0.5, p=0), A.ColorJitter(p=0), A.RandomBrightnessContrast(p=0)]
    images, masks = on_device(never, image, mask, [0])
    assert np.array_equal(images[0], image)
    assert np.array_equal(masks[0], mask)


class Own(A.HorizontalFlip):
    """A transform of one's own, with a known name's behaviour or another."""


@pytest.mark.parametrize(
    ("transforms", "reason"),
    [
        ([A.HorizontalFlip(), A.GaussNoise()], "GaussNoise is not among albumentations' HorizontalFlip, "),
        ([A.OneOf([A.HorizontalFlip()])], "OneOf is not among"),
        ([Own()], "Own is not among"),
        ([A.RandomCrop(32, 32, pad_if_needed=True)], "RandomCrop has pad_if_needed=True"),
        ([A.RandomResizedCrop(size=(32, 32), interpolation=2)], "RandomResizedCrop has interpolation=2"),
        ([A.Affine(fit_output=True)], "Affine has fit_output=True"),
        ([A.Rotate(border_mode=cv2.BORDER_WRAP)], "Rotate has border_mode=3"),
        ([A.RandomRotate90()], "RandomRotate90 turns images that are not square"),
        ([A.RandomCrop(32, 32, p=0.5)], r"RandomCrop with p=0\.5 changes the size of some images only"),
        ([A.Sequential([A.RandomCrop(32, 32)], p=0.3)], r"RandomCrop with p=0\.3 changes the size of some"),
        ([A.ColorJitter(), A.RandomCrop(32, 32)], "RandomCrop follows ColorJitter; colour must come last"),
        ([A.RandomResizedCrop(size=(32, 32)), A.Affine()], "Affine follows RandomResizedCrop"),
        ([A.RandomBrightnessContrast(brightness_by_max=False, ensure_safe_range=True)], "has ensure_safe_range"),
    ],
)
def test_unsupported_says_which(transforms, reason):
    with pytest.raises(ValueError, match=reason):
        DeviceTransforms(transforms, SIZE)


def test_a_turned_hue_by_hand():
    """A third of a turn is 60 of OpenCV's 180 steps: red is green, green blue, blue red, and grey stays grey."""
    hue = steps_of(A.ColorJitter())[3]
    colours = torch.tensor([[200.0, 0, 0], [0, 90, 0], [0, 0, 255], [77, 77, 77], [100, 50, 50], [0, 0, 0]])
    thirds = [colours, colours.roll(1, 1), colours.roll(2, 1)]
    x = colours.T.reshape(1, 3, 1, -1)
    for turn, expected in zip((60.0, 120.0, 0.0, 180.0), (*thirds[1:], thirds[0], thirds[0]), strict=True):
        none, turned = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), turn)
        assert torch.equal(hue(x, none + 1, turned, none, none).view(3, -1).T, expected)


def test_supported():
    assert all(supported(transforms, SIZE) is None for transforms, _ in TRANSFORMS.values())
    assert supported([A.RandomCrop(64, 64), A.RandomRotate90(), A.Transpose()], SIZE) is None


def test_draws_depend_on_seed_epoch_index_and_draw_alone():
    def drawn(key, seed=0):
        return Draws(0, 9, DeviceTransforms(CAMVID, SIZE), seed)[key]["parameters"]

    keys = [(epoch, i, draw) for epoch in range(3) for i in range(3) for draw in range(3)]
    assert all(torch.equal(drawn(key), drawn(key)) for key in keys)
    assert len({tuple(drawn(key, seed).tolist()) for key in keys for seed in (0, 1)}) == 2 * len(keys)
    assert torch.equal(drawn(4), drawn((0, 4, 0)))


# -- in the data module ----------------------------------------------------------------------------


class Probe(LightningModule):
    """Keeps what it is given, and learns one number from it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {"train": [], "val": [], "test": []}

    def step(self, batch, stage):
        assert set(batch) == {"image", "mask", "index"}
        assert batch["image"].is_contiguous(memory_format=torch.channels_last)
        self.seen[stage].append({key: value.clone() for key, value in batch.items()})
        return (batch["image"].float().mean() / 255 - self.weight) ** 2

    def training_step(self, batch):
        return self.step(batch, "train")

    def validation_step(self, batch):
        self.step(batch, "val")

    def test_step(self, batch):
        self.step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def make(root, tmp_path, **changes):
    options = {"images": "images/*", "masks": "masks/{stem}.png", "mask": Threshold(), "classes": ["x"]}
    options |= {"num_classes": 1, "split": ByHash(0.6, 0.2, 0.2), "image_size": 64, "seed": 3}
    options |= {"augment": [A.HorizontalFlip(), A.RandomResizedCrop(size=(48, 48), scale=(0.3, 1)), JITTER]}
    options |= {"cache_dir": str(tmp_path / "cache"), "device_cache": True}
    return SegmentationDataModule(str(root), **(options | changes))


def run(cable, tmp_path, epochs=2, resume=None, test=False, **changes):
    data = make(cable, tmp_path, **changes)
    probe = Probe()
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, enable_checkpointing=False, use_distributed_sampler=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(probe, data, ckpt_path=resume)
    if test:
        trainer.test(probe, data, verbose=False)
    return probe.seen, trainer


def equal(ones, others):
    return len(ones) == len(others) and all(
        torch.equal(one[key], other[key]) for one, other in zip(ones, others, strict=True) for key in one
    )


def test_training_sees_what_the_loader_would_give(tmp_path, cable):
    kept, _ = run(cable, tmp_path, test=True)
    loaded, _ = run(cable, tmp_path, test=True, device_cache=False)
    assert equal(kept["val"], loaded["val"])
    assert equal(kept["test"], loaded["test"])
    assert len(kept["train"]) == len(loaded["train"]) > 0
    for one, other in zip(kept["train"], loaded["train"], strict=True):
        assert torch.equal(one["index"], other["index"])
        assert (one["mask"] == other["mask"]).float().mean() > 0.97
        assert (one["image"].float() - other["image"].float()).abs().mean() < 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 and fork
def test_workers_change_no_batch_and_a_resumed_epoch_repeats(tmp_path, cable):
    whole, _ = run(cable, tmp_path)
    for workers in (1, 2):
        assert equal(whole["train"], run(cable, tmp_path, num_workers=workers)[0]["train"])
    _, trainer = run(cable, tmp_path, epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    rest, _ = run(cable, tmp_path, resume=tmp_path / "one.ckpt")
    half = len(whole["train"]) // 2
    assert equal(whole["train"][half:], rest["train"])
    assert not equal(whole["train"][:half], rest["train"])


def test_loaders_outside_a_training_stay_whole(tmp_path, cable):
    data = make(cable, tmp_path)
    data.prepare_data()
    data.setup("fit")
    assert set(next(iter(data.train_dataloader()))) == {"image", "mask", "index"}


def test_auto_stays_with_the_loader_on_a_cpu(tmp_path, cable):
    automatic, trainer = run(cable, tmp_path, epochs=1, device_cache="auto")
    assert isinstance(trainer.train_dataloader.dataset, Samples)
    assert equal(automatic["train"], run(cable, tmp_path, epochs=1, device_cache=False)[0]["train"])
    _, trainer = run(cable, tmp_path, epochs=1)
    assert isinstance(trainer.train_dataloader.dataset, Draws)
    assert isinstance(trainer.train_dataloader.sampler, EpochSampler)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": [A.GaussNoise()]}, r"data\.device_cache=true: data\.augment: GaussNoise is not among.*=auto"),
        ({"cache_dir": None}, r"data\.device_cache=true: nothing is cached; set data\.cache_dir.*"),
        ({"device_cache": "yes"}, r"data\.device_cache=yes: must be true or false or auto"),
    ],
)
def test_true_tells_why_it_cannot(tmp_path, cable, changes, message):
    with pytest.raises(ValueError, match=message):
        run(cable, tmp_path, **changes)


@pytest.mark.parametrize(
    ("wanted", "free", "memory", "kept"),
    [
        ("auto", 10**9, 10**10, ["train", "val", "test"]),
        ("auto", 400_000, 10**10, ["train", "val", "test"]),  # a resumed run decides the same
        ("auto", 10**9, 1_000_000, ["train"]),
        ("auto", 10**9, 100_000, None),
        (True, 300_000, 300_000, ["train"]),
    ],
)
def test_on_a_gpu_its_memory_decides(tmp_path, cable, monkeypatch, caplog, wanted, free, memory, kept):
    """14 of 24 images of 16 kB are for training: 0.23 MB, and 0.39 MB in all."""
    data = make(cable, tmp_path, device_cache=wanted)
    data.setup()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, memory))
    monkeypatch.setattr("segnet.data.on_device.Resident", lambda cached, indices, *_: list(indices))
    with caplog.at_level("INFO"):
        assert data._keep(torch.device("cuda")) == kept
    told = "images stay with the loader's workers: the training split takes 0.000229 GB, over "
    assert (told + "a quarter of the 0.0001 GB of cuda" in caplog.text) == (kept is None)


def test_true_on_a_gpu_needs_room(tmp_path, cable, monkeypatch):
    data = make(cable, tmp_path)
    data.setup()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (200_000, 10**10))
    with pytest.raises(ValueError, match=r"data\.device_cache=true: the training split .* the 0\.0002 GB free on cuda"):
        data._keep(torch.device("cuda"))
