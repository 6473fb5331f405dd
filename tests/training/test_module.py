from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
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
