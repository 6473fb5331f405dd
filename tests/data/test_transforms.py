"""Transforms of any library take one path, and what the recipes rely on of albumentations is measured here."""

import random
import zlib
from collections import Counter

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.stats import binom
from torchvision import tv_tensors
from torchvision.transforms import RandomHorizontalFlip, v2

from helpers import SMALL, call_main
from segnet import trust
from segnet.cli import CONF_DIR
from segnet.configuration import instantiate
from segnet.data.dataset import Samples
from segnet.data.transforms import Transforms
from segnet.errors import UserError

NAMES = sorted(path.stem for path in (CONF_DIR / "augment").glob("*.yaml"))


def named(name):
    """The transforms of conf/augment/<name>.yaml."""
    return instantiate(OmegaConf.load(CONF_DIR / "augment" / f"{name}.yaml").augment, "data.augment")


def drawn(transforms, image, mask, count, seed=0):
    """So many draws of one sample, as training draws them: (count, H, W, 3) and (count, H, W)."""
    samples = Samples(lambda _: (image, mask), [0], transforms, seed)
    batches = [samples[epoch, 0, 0] for epoch in range(count)]
    return np.stack([b["image"].numpy() for b in batches]), np.stack([b["mask"].numpy() for b in batches])


def coordinates(size=256):
    """An image whose red is its column and whose green is its row, and a mask with three values."""
    row, column = np.mgrid[:size, :size].astype(np.uint8)
    return np.dstack([column, row, np.zeros_like(row)]), np.uint8([0, 1, 255])[(row // 16 + column // 16) % 3]


def as_often(count, of, p=0.5):
    """Whether so many draws are within what happens with probability ``p`` in all but one of 10⁶ cases."""
    low, high = binom.interval(1 - 1e-6, of, p)
    return low <= count <= high


# -- what the recipes rely on of albumentations, or of whatever library conf/augment names ---------------------------


@pytest.mark.parametrize(
    ("name", "step", "axis"), [("flip", 0, 1), ("flips", 0, 1), ("flips", 1, 0), ("torchvision", 0, 1)]
)
def test_half_of_the_draws_are_mirrored_with_their_masks(name, step, axis):
    image, mask = coordinates(64)
    images, masks = drawn([named(name)[step]], image, mask, 400)
    mirrored = images[:, 0, 0, 1 - axis] > 0
    assert as_often(mirrored.sum(), 400)
    for flipped, shown, shown_mask in zip(mirrored, images, masks, strict=True):
        assert (shown == (np.flip(image, axis) if flipped else image)).all()
        assert (shown_mask == (np.flip(mask, axis) if flipped else mask)).all()


@pytest.mark.parametrize("between", [[], [lambda image, mask: {"image": image, "mask": mask}]])
def test_each_transform_draws_for_itself(between):
    """Each of two mirrorings and a transposition happens in half of the draws, whatever the others do."""
    image, mask = coordinates(16)
    steps = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), *between, A.Transpose(p=0.5)]
    images, _ = drawn(steps, image, mask, 800)
    counts = Counter(shown.tobytes() for shown in images)
    assert len(counts) == 8
    assert all(as_often(count, 800, 1 / 8) for count in counts.values())


def test_half_of_the_images_stay_as_they_are_where_the_others_are_changed_by_several_transforms():
    image, mask = coordinates(64)
    images, masks = drawn(named("tile"), image, mask, 400)
    same = (images == image).all((1, 2, 3))
    assert as_often(same.sum(), 400)
    assert (masks[same] == mask).all()


@pytest.mark.parametrize("name", ["camvid", "crop384"])
def test_a_crop_is_as_large_whether_the_image_is_mirrored_or_not(name):
    images, _ = drawn(named(name)[:2], *coordinates(256), 300)
    red = images[..., 0].astype(float)
    mirrored = red[:, 0, 0] > red[:, 0, -1]
    width = (np.ptp(red, axis=(1, 2)) + 1) / 256
    assert as_often(mirrored.sum(), 300)
    assert abs(width[mirrored].mean() - width[~mirrored].mean()) < 0.07  # five deviations; by one stream each 0.2


@pytest.mark.parametrize(
    ("name", "side", "low", "high"), [("camvid", 384, 0.3, 1.0), ("crop384", 384, 0.3, 1.0), ("crop256", 256, 0.1, 0.6)]
)
def test_crops_show_a_share_of_the_image_in_the_range(name, side, low, high):
    """The share is measured by the coordinates that a crop shows, its aspect ratio by those of its sides."""
    (crop,) = [t for t in named(name) if isinstance(t, A.RandomResizedCrop)]
    images, masks = drawn([crop], *coordinates(256), 150)
    assert images.shape == (150, side, side, 3)
    assert masks.shape == (150, side, side)
    width, height = ((np.ptp(images[..., c].astype(float), axis=(1, 2)) + 1) / 256 for c in (0, 1))
    shares = width * height
    assert shares.min() >= low - 0.03
    assert shares.max() <= high + 0.03
    assert np.ptp(shares) > 0.7 * (high - low)  # the whole range is drawn
    assert (width / height > 3 / 4 - 0.05).all()
    assert (width / height < 4 / 3 + 0.05).all()


def test_crop128_shows_half_to_the_whole_height():
    (crop,) = [t for t in named("crop128") if isinstance(t, A.RandomSizedCrop)]
    images, _ = drawn([crop], *coordinates(128), 150)
    heights = np.ptp(images[..., 1].astype(float), axis=(1, 2)) + 1
    assert heights.min() >= 64 - 2
    assert heights.max() <= 128
    assert np.ptp(heights) > 50


@pytest.mark.parametrize(
    ("name", "most", "share", "hue"),
    [*((name, 0.3, 0.5, 0.05) for name in ("color", "crop384", "crop256", "torchvision")), ("camvid", 0.5, 0.9, 0.1)],
)
def test_colours_change_by_at_most_so_much_in_a_share_of_the_draws(name, most, share, hue):
    """Of a grey image only brightness changes the mean; the mean is what contrast and saturation leave alone."""
    color = [t for t in named(name) if "Flip" not in type(t).__name__ and "Crop" not in type(t).__name__]
    grey, mask = np.full((16, 16, 3), 100, np.uint8), np.zeros((16, 16), np.uint8)
    images, masks = drawn(color, grey, mask, 300)
    ratio = images.mean((1, 2, 3)) / 100
    assert as_often((abs(ratio - 1) > 0.005).sum(), 300, share * (1 - 0.005 / most))
    assert ratio.min() >= 1 - most - 0.01
    assert ratio.max() <= 1 + most + 0.01
    assert np.ptp(ratio) > most / 0.6
    assert not masks.any()
    red = np.full((8, 8, 3), (200, 40, 40), np.uint8)
    seen = [image for image in drawn(color, red, mask[:8, :8], 300)[0] if 0 < image.min() < image.max() - 60 < 195]
    assert len(seen) > 80  # in the others a clipped or grey colour has another hue
    hues = [cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[0, 0, 0] for image in seen]
    turn = (np.array(hues, float) / 180 + 0.5) % 1 - 0.5  # of the circle
    assert abs(turn).max() <= hue + 2 / 180
    assert np.ptp(turn) > 1.2 * hue


def test_tile_changes_scale_and_light_within_its_limits():
    (together,) = named("tile")
    _, _, affine, light = together.transforms
    grey = np.full((16, 16, 3), 128, np.uint8)
    images, _ = drawn([light], grey, grey[..., 0] * 0, 300)
    change = images.mean((1, 2, 3)) - 128
    assert as_often((abs(change) > 1).sum(), 300, 1 - 2 / 76)
    # Brightness is added as a share of 255, contrast multiplies 128 by 0.85 to 1.15.
    assert abs(change).max() <= 0.15 * 255 + 0.15 * 128 + 1
    images, masks = drawn([affine], *coordinates(256), 200)
    middle = images[:, 96:160, 128, 1].astype(float)  # rows that a column in the middle shows
    scale = 63 / (middle[:, -1] - middle[:, 0])
    assert as_often((abs(scale - 1) > 0.02).sum(), 200, 1 - 0.04 / 0.6)
    assert scale.min() >= 0.6 - 0.03
    assert scale.max() <= 1.2 + 0.03
    # What lies outside is the image reflected: the mask has no other class there than the image shows.
    assert set(np.unique(masks)) <= {0, 1, 255}
    smallest = scale.argmin()
    border = images[smallest, :, :8, 0].astype(int)
    assert border.min() > 0  # no black frame


def test_blur_reaches_as_far_as_its_sigma():
    blur = named("blur")[1]
    dot = np.zeros((33, 33, 3), np.uint8)
    dot[16, 16] = 255
    images, masks = drawn([blur], dot, dot[..., 0] // 255, 200)
    peak = images[:, 16, 16, 0]
    # A Gaussian of sigma 1 leaves 1 / (2 pi) of a dot in its middle.
    assert peak.min() >= 255 / (2 * np.pi) * 0.9
    assert as_often((peak < 255).sum(), 200, 0.5 * (1 - 0.03 / 0.8))  # a sigma below 0.23 changes nothing
    assert np.ptp(peak.astype(int)) > 180
    assert (masks == dot[..., 0] // 255).all()


def test_symmetries_of_the_square_are_drawn_alike():
    """Of `experiment=auto`."""
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    images, masks = drawn([A.SquareSymmetry(p=1.0)], np.dstack([image] * 3), image, 800)
    assert (images[..., 0] == masks).all()
    _, counts = np.unique(masks.reshape(800, -1), axis=0, return_counts=True)
    assert len(counts) == 8
    assert all(as_often(count, 800, 1 / 8) for count in counts)


@pytest.mark.parametrize("name", NAMES)
def test_masks_keep_their_values_and_draws_their_seed(name):
    size = {"crop128": 128, "crop256": 256, "patches": 256, "camvid": 256, "crop384": 256}.get(name, 64)
    image, mask = coordinates(size)
    images, masks = drawn(named(name), image, mask, 12)
    assert set(np.unique(masks)) <= {0, 1, 255}
    again, _ = drawn(named(name), image, mask, 12)
    assert (images == again).all()
    if name != "none":
        assert len({one.tobytes() for one in images}) > 1
        assert (images != drawn(named(name), image, mask, 12, seed=1)[0]).any()


# -- one path for all libraries ----------------------------------------------------------------------------------------

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
MASK = NOISE[..., 0] // 128


def test_torchvision_moves_masks_as_it_does_by_itself():
    step = v2.RandomAffine(degrees=30, translate=(0.1, 0.1), scale=(0.8, 1.2))
    image, mask = Transforms([step])(NOISE, MASK, seed=7)
    torch.manual_seed(7)
    expected = step(tv_tensors.Image(torch.tensor(NOISE).permute(2, 0, 1)), tv_tensors.Mask(torch.tensor(MASK)))
    assert (image == expected[0].permute(1, 2, 0).numpy()).all()
    assert (mask == expected[1].numpy()).all()
    assert (image != NOISE).any()


def own(image, mask):
    """Noise of each of the three global generators."""
    noise = random.randint(0, 50), np.random.randint(0, 50), int(torch.randint(0, 50, ()))  # noqa: NPY002
    return {"image": image // 2 + np.uint8(noise), "mask": mask}


class Shift:
    """A transform with a generator of its own."""

    def set_random_seed(self, seed):
        self.rng = np.random.default_rng(seed)

    def __call__(self, image, mask):
        by = int(self.rng.integers(1, 8))
        return {"image": np.roll(image, by, 1), "mask": np.roll(mask, by, 1)}


@pytest.mark.parametrize("transform", [own, Shift(), v2.RandomHorizontalFlip(0.5), v2.ElasticTransform()])
def test_any_transform_draws_by_the_seed_and_leaves_the_generators_alone(transform):
    mixed = [A.HorizontalFlip(p=0.5), transform, A.RandomBrightnessContrast(p=1)]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()  # noqa: NPY002
    first, masks = drawn(mixed, NOISE, MASK, 8)
    after = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    random.seed(2), np.random.seed(2), torch.manual_seed(2)  # noqa: NPY002
    assert (drawn(mixed, NOISE, MASK, 8)[0] == first).all()
    assert len({one.tobytes() for one in first}) == 8
    assert set(np.unique(masks)) <= {0, 1}


def test_transforms_of_albumentations_draw_as_one_compose():
    """Which was given one stream of numbers for all of them."""
    steps = [A.HorizontalFlip(p=0.5), A.RandomResizedCrop((24, 24), scale=(0.3, 1)), A.ColorJitter(p=0.5)]
    whole = A.Compose(steps, strict=True)
    for seed in range(5):
        one = zlib.crc32(f"{seed} 0".encode())
        whole.set_random_state(np.random.default_rng(one), random.Random(one))
        expected = whole(image=NOISE, mask=MASK)
        image, mask = Transforms(steps)(NOISE, MASK, seed)
        assert (image == expected["image"]).all()
        assert (mask == expected["mask"]).all()


def wrong(**changes):
    return lambda image, mask: {"image": image, "mask": mask} | {k: f(image, mask) for k, f in changes.items()}


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (RandomHorizontalFlip(), r"RandomHorizontalFlip is not called as transform\(image=…, mask=…\).*transforms\.v2"),
        (np.flipud, r"flipud is not called as .*; give a transform of albumentations"),
        (lambda image, mask: (image, mask), r"returns no image and mask; it must return"),
        (lambda image, mask: {"image": image}, r"returns no image and mask; it must return"),
        (wrong(image=lambda i, m: i / 255), r"turns the image into float64; it must stay uint8.*leave out"),
        (wrong(mask=lambda i, m: m.astype(int)), r"turns the mask into int64; it must stay uint8"),
        (wrong(image=lambda i, m: i[:16]), r"an image of \(16, 32, 3\) and a mask of \(32, 32\); they must be"),
        (wrong(image=lambda i, m: i.transpose(2, 0, 1)), r"leave out ToTensorV2"),
        (A.Normalize(), r"data\.augment: Normalize turns the image into float"),
        (A.ToTensorV2(), r"data\.augment: ToTensorV2 returns an image of \(3, 32, 32\)"),
        (v2.ToDtype(torch.float32, scale=True), r"data\.augment: ToDtype turns the image into float32"),
    ],
)
def test_what_is_no_transform_of_images_and_masks_is_told(transform, message):
    with pytest.raises(UserError, match=message) as error:
        Transforms([transform])(NOISE, MASK, 0)
    assert "\n" not in str(error.value)


def test_a_run_trains_resumes_and_reports_with_torchvision(cable, tmp_path, run_main):
    options = ["augment=torchvision", f"data.root={cable}", "trainer.limit_train_batches=2"]
    code, told = run_main("train", tmp_path / "run", *options)
    assert code == 0, told
    assert "| augmentation | RandomHorizontalFlip, RandomApply |" in (tmp_path / "run" / "README.md").read_text()
    # Without trust=true: the record names classes that a file may have built.
    code, told = run_main("train", tmp_path / "x", f"resume={tmp_path / 'run'}", "trainer.max_epochs=2")
    assert code == 0, told


def test_a_record_builds_no_transform_that_calls_what_it_is_given():
    def record(name):
        return {"data": {"augment": [{"_target_": f"torchvision.transforms.v2.{name}"}]}}

    trust.check(record("JPEG"), "run", trust.RUN)
    with pytest.raises(UserError, match=r"Lambda.*names code that a file must not run"):
        trust.check(record("Lambda"), "run", trust.RUN)


def test_a_wrong_argument_of_torchvision_is_one_line(cable, tmp_path, run_main):
    for setting, message in [
        ("{_target_:torchvision.transforms.v2.RandomHorizontalFlip,q:0.5}", "takes no such argument; it takes p"),
        ("{_target_:torchvision.transforms.v2.RandomHorizontalFlip,p:2}", "`p` should be a floating point value"),
        ("{_target_:torchvision.transforms.RandomHorizontalFlip}", "transforms.v2"),
    ]:
        code, told = run_main("train", tmp_path / "run", f"data.augment=[{setting}]", f"data.root={cable}")
        assert code == 1
        assert message in told
        assert told.count("\n") == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_crop_larger_than_the_images_is_one_line(workers, cable, cache, tmp_path, capfd):
    given = (*SMALL, f"data.root={cable}", f"data.cache_dir={cache}", "augment=patches", f"data.num_workers={workers}")
    assert call_main("train", *given, f"output_dir={tmp_path / 'run'}") == 1
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("error: "))
    assert line.startswith("error: data.augment: Crop size")
    assert "the images are 32×32 here" in line
