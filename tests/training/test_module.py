from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from segnet.networks.segnet import SegNet
from segnet.training.losses import CrossEntropy, dice
from segnet.training.metrics import scores
from segnet.training.module import SegmentationModule


def module(classes=("defect",), scheduler=None, **options):
    torch.manual_seed(0)
    options = {"image_size": 64} | options
    net = SegNet(len(classes), widths=(4, 4, 4, 4, 4))
    sgd = partial(torch.optim.SGD, lr=0.1)
    return SegmentationModule(net, CrossEntropy(len(classes)), sgd, scheduler, classes=classes, **options).eval()


def noise(height, width):
    torch.manual_seed(1)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)


def test_forward_normalises_uint8_as_numpy_would():
    model = module()
    x = noise(64, 64)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normal = (x.permute(0, 2, 3, 1).numpy() / 255 - mean) / std
    with torch.no_grad():
        expected = model.net(torch.from_numpy(normal).float().permute(0, 3, 1, 2))
        torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(50, 33), (64, 64), (100, 130)])
def test_forward_takes_any_size_and_resizes_as_the_data_path_does(size):
    from segnet.data.images import resize_exact, resize_pair

    model = module()
    x = noise(*size)
    small = resize_exact(x, (64, 64))
    cached, _ = resize_pair(x[0].permute(1, 2, 0).numpy(), np.zeros(size, np.uint8), (64, 64))
    assert np.abs(small[0].permute(1, 2, 0).numpy() - cached).max() <= 1  # the data path rounds
    with torch.no_grad():
        out = model(x)
        back = nn.functional.interpolate(model.logits(small), size, mode="bilinear")
    assert out.shape == (2, 1, *size)
    torch.testing.assert_close(out, back, atol=1e-5, rtol=1e-5)


def test_resizing_is_close_to_pillows():
    from segnet.data.images import resize

    y, x = np.mgrid[:120, :90]
    smooth = np.stack([y, x, x + y], 2).astype(np.uint8)
    expected = np.asarray(Image.fromarray(smooth).resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    found = resize(torch.from_numpy(smooth).permute(2, 0, 1)[None], (64, 64))[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("classes", [("defect",), ("a", "b", "c")])
def test_decisions_are_the_most_probable_class(classes):
    model = module(classes)
    logits = torch.randn(2, len(classes), 8, 8)
    probability = model.probabilities(logits)
    if len(classes) == 1:
        assert torch.equal(model.decide(logits), (probability[:, 0] > 0.5).long())
    else:
        torch.testing.assert_close(probability.sum(1), torch.ones(2, 8, 8))
        assert torch.equal(model.decide(logits), probability.argmax(1))


@pytest.mark.parametrize("classes", [("defect",), ("a", "b", "c")])
def test_samples_are_averaged_as_probabilities(classes):
    """What comes back are logits of the mean, so that softmax or sigmoid gives it; the mean of logits is another."""
    model = module(classes)
    model.net = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(3, len(classes), 1))
    x = noise(8, 8)
    activate = torch.sigmoid if len(classes) == 1 else partial(torch.softmax, dim=1)
    with torch.no_grad():
        torch.manual_seed(7)
        found = model.mean_of_samples(x, 5)
        torch.manual_seed(7)
        samples = torch.stack([model.logits(x) for _ in range(5)])
    assert (samples[0] != samples[1]).any()
    torch.testing.assert_close(activate(found), activate(samples.flatten(0, 1)).view_as(samples).mean(0))
    assert (activate(found) - activate(samples.mean(0))).abs().max() > 0.01


@pytest.mark.parametrize("classes", [("defect",), ("a", "b")])
def test_the_mean_of_certain_samples_has_finite_logits(classes):
    model = module(classes)
    model.net = nn.Conv2d(3, len(classes), 1)
    nn.init.zeros_(model.net.weight)
    for sign in (-1, 1):
        nn.init.constant_(model.net.bias, 0)
        model.net.bias.data[0] = 300 * sign
        with torch.no_grad():
            found = model.mean_of_samples(noise(8, 8), 2)
        assert found.isfinite().all()
        assert (model.probabilities(found)[:, 0] - (sign + 1) / 2).abs().max() < 1e-6


def test_dropout_is_drawn_by_seed_epoch_and_process(monkeypatch):
    """Each epoch of each process draws its own, and again the same after a resume."""
    model = module()
    model.graph = SimpleNamespace(check=lambda *_: None)

    def drawn(seed, epoch, rank):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        model._trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
        model.on_train_epoch_start()
        return torch.rand(4).tolist()

    keys = [(seed, epoch, rank) for seed in (0, 1) for epoch in (0, 1, 2) for rank in (0, 1)]
    assert len({tuple(drawn(*key)) for key in keys}) == len(keys)
    assert drawn(1, 2, 1) == drawn(1, 2, 1)


class Figures(Callback):
    """Keeps what each epoch logged."""

    def __init__(self):
        self.found = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.found.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def test_figures_of_an_epoch_are_its_own_and_weigh_every_image(tmp_path):
    """Batches of three images and of one, two epochs at a rate of 0, so that both have the same figures."""
    model = SegmentationModule(
        nn.Conv2d(3, 1, 1), CrossEntropy(1), partial(torch.optim.SGD, lr=0.0), classes=["defect"], image_size=32
    )
    nn.init.normal_(model.net.weight)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (7, 3, 32, 32), dtype=np.uint8))
    masks = torch.from_numpy((rng.random((7, 32, 32)) < np.linspace(0.1, 0.9, 7)[:, None, None]).astype(np.uint8))
    parts = {"train": (slice(0, 3), slice(3, 4)), "val": (slice(4, 6), slice(6, 7))}
    batches = {n: [{"image": images[p], "mask": masks[p], "index": torch.arange(7)[p]} for p in ps]
               for n, ps in parts.items()}  # fmt: skip
    figures = Figures()
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False, max_epochs=2,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[figures], num_sanity_val_steps=1,
    )  # fmt: skip
    trainer.fit(model, *(DataLoader(batches[name], batch_size=None) for name in ("train", "val")))
    for stage, which in (("train", slice(0, 4)), ("val", slice(4, 7))):
        with torch.no_grad():
            logits = model.logits(images[which])
        truth, guess = masks[which].numpy() == 1, logits[:, 0].numpy() > 0
        loss = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], masks[which].float()).item()
        for epoch in range(2):
            assert figures.found[epoch][f"{stage}/loss"] == pytest.approx(loss, rel=1e-5)
            assert figures.found[epoch][f"{stage}/iou"] == pytest.approx((truth & guess).sum() / (truth | guess).sum())
        assert model.counts[stage][0].sum() == truth.size


class WithoutDeterministicKernel(TorchDispatchMode):
    """Notes what `torch.use_deterministic_algorithms` refuses on a GPU, from the list in its documentation."""

    NAMES = ("max_unpool2d", "histc", "put_", "median", "adaptive_max_pool2d", "grid_sampler_2d")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.NAMES or (name == "nll_loss2d_forward" and args[3] != 0):  # 0: no sum over pixels
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_that_list_holds_what_torch_would_choose():
    x, mask = torch.randn(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)
    with WithoutDeterministicKernel() as refused:
        nn.functional.cross_entropy(x, mask)
        nn.functional.max_unpool2d(*nn.functional.max_pool2d(x, 2, return_indices=True), 2)
    assert refused.found == ["nll_loss2d_forward", "max_unpool2d"]


@pytest.mark.parametrize("classes", [("defect",), ("a", "b", "c")])
def test_a_step_and_its_metrics_have_deterministic_kernels_on_a_gpu(classes):
    model = module(classes).train()
    batch = {"image": noise(64, 64), "mask": torch.randint(0, 2, (2, 64, 64), dtype=torch.uint8)}
    with WithoutDeterministicKernel() as refused:
        loss, *counted = model._results(batch)
        model._keep("train", loss, counted, batch)
        (loss + dice(len(classes))(model.logits(batch["image"]), batch["mask"].long())).backward()
        scores(*model.train_counts.compute(), classes)
    assert refused.found == []
    assert model.net.encoder[0][0].weight.grad.abs().sum() > 0


class Fake:
    """What `configure_optimizers` asks of a trainer."""

    estimated_stepping_batches = 50
    check_val_every_n_epoch = 1


@pytest.mark.parametrize(
    ("scheduler", "interval", "length"),
    [
        (partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1), "step", ("total_steps", 50)),
        (torch.optim.lr_scheduler.CosineAnnealingLR, "step", ("T_max", 50)),
        (partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=7), "epoch", ("T_max", 7)),
        (partial(torch.optim.lr_scheduler.StepLR, step_size=3), "epoch", ("step_size", 3)),
    ],
)
def test_a_schedule_without_a_length_lasts_the_run_and_steps_per_batch(scheduler, interval, length):
    model = module(scheduler=scheduler)
    model._trainer = Fake()
    config = model.configure_optimizers()["lr_scheduler"]
    assert config["interval"] == interval
    assert getattr(config["scheduler"], length[0]) == length[1]


def test_unknown_monitor_lists_the_known():
    with pytest.raises(ValueError, match=r"monitor=val/mIoU: no such metric; known are .*val/iou/defect"):
        module(monitor="val/mIoU")


@pytest.mark.parametrize("classes", [("defect",), ("a", "b", "c")])
def test_a_test_counts_every_image_by_itself(classes, tmp_path):
    model = module(classes)
    rng = np.random.default_rng(0)
    masks = rng.integers(0, max(len(classes), 2), (5, 64, 64)).astype(np.uint8)
    masks[1, :9] = 255
    images = torch.cat([noise(64, 64), noise(64, 64).flip(1), noise(64, 64)[:1] // 2])
    parts = [slice(0, 3), slice(3, 5)]
    batches = [{"image": images[p], "mask": torch.from_numpy(masks)[p], "index": torch.arange(5)[p]} for p in parts]
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = Trainer(default_root_dir=tmp_path, enable_model_summary=False, **options)
    for _ in range(2):  # a second test forgets the first
        trainer.test(model, DataLoader(batches, batch_size=None), verbose=False)
    assert [index for index, _ in model.image_counts.found] == list(range(5))
    with torch.no_grad():
        decided = model.decide(model.logits(images)).numpy()
    size = max(len(classes), 2)
    for index, found in model.image_counts.found:
        expected = [[((masks[index] == i) & (decided[index] == j)).sum() for j in range(size)] for i in range(size)]
        assert found.tolist() == expected
    assert torch.equal(sum(found for _, found in model.image_counts.found), model.counts["test"][0])


def test_a_configuration_is_plain():
    model = module()
    assert model.config == {}
    model.config = {"data": {"colors": [[1, 2, 3]], "root": None}, "seed": 0, "share": 0.5}
    assert model.colors == [[1, 2, 3]]
    for bad in ({"root": Path()}, {"sizes": [(1, 2)]}, {1: torch.zeros(1)}, OmegaConf.create({"a": 1})):
        with pytest.raises(TypeError, match="as configuration: only containers, numbers and strings"):
            model.config = bad
