"""What runs on a GPU, on tensors that only say they are on one.

torch's fake tensors have shape, type and device, but no values. So a tensor that was left on the CPU, types that do not
go together and whatever reads a value, for which a GPU would be waited for, are errors here too. Nothing is computed,
and the Triton kernels are not run: what they compute is tested in `networks/test_kernels.py`.
"""

from functools import partial
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchmetrics import Metric

from networks.test_segnet import build
from segnet.data.images import STEEPEST, resize_exact
from segnet.deployment.predictor import Predictor
from segnet.networks.folding import _positions
from segnet.networks.segnet import SegNet
from segnet.training.boundary import BoundaryCrossEntropy
from segnet.training.losses import CrossEntropy, DicePerImage, WeightedSum
from segnet.training.metrics import calibration_error, scores
from segnet.training.module import SegmentationModule
from segnet.training.ohem import HardPixels
from segnet.training.optimizers import Muon

GPU = torch.device("cuda", 0)


class Launch:
    """In place of a Triton kernel."""

    def __getitem__(self, grid):
        assert all(type(blocks) is int and 0 < blocks < 2**31 for blocks in grid)
        return self.launch

    @staticmethod
    def launch(*arguments, **_):
        assert all(value.is_cuda for value in arguments if isinstance(value, Tensor))


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """New tensors are fake ones; autocast and the kernels believe that there is a GPU."""
    kernel = pytest.importorskip("triton").runtime.jit.KernelInterface
    kernels = import_module("segnet.networks.kernels")
    for module in (kernels, import_module("segnet.networks.norm_kernels")):
        for name in [name for name, value in vars(module).items() if isinstance(value, kernel)]:
            monkeypatch.setattr(module, name, Launch())
    monkeypatch.setattr("segnet.networks.pooling._kernels", lambda: kernels)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    torch.use_deterministic_algorithms(True)
    _positions.cache_clear()
    yield
    _positions.cache_clear()  # it keeps fake ones
    torch.use_deterministic_algorithms(False)


def moved(module):
    """The module with what ``to("cuda")`` moves there: parameters, buffers and states of metrics."""
    for part in module.modules():
        for name, value in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            fake = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=GPU)
            own = part._parameters if name in part._parameters else part._buffers
            own[name] = nn.Parameter(fake, value.requires_grad) if own is part._parameters else fake
        for name in part._defaults if isinstance(part, Metric) else ():
            setattr(part, name, torch.zeros(part._defaults[name].shape, dtype=part._defaults[name].dtype, device=GPU))
    module._device = GPU  # as Lightning notes it
    return module


def made(net, classes):
    losses = [
        CrossEntropy(classes, label_smoothing=0.1),
        HardPixels(classes),
        BoundaryCrossEntropy(classes),
        DicePerImage(classes),
    ]
    loss = WeightedSum(losses, [1, 1, 1, 1])
    sgd = partial(torch.optim.SGD, lr=0.1)
    return SegmentationModule(net, loss, sgd, classes=list("abc"[:classes]), image_size=64)


def batch(count, height, width):
    images = torch.zeros(count, height, width, 3, dtype=torch.uint8, device=GPU).permute(0, 3, 1, 2)
    return {"image": images, "mask": torch.zeros(count, height, width, dtype=torch.uint8, device=GPU)}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "classes"), [("segnet", 1), ("segnet", 3), ("lmffnet", 1)])
def test_steps_stay_on_the_gpu(name, classes):
    """A training step, a validation at odd sizes, and a test by windows that are higher than the image."""
    module = made(build(name, classes), classes)
    with FakeTensorMode(), torch.autocast("cuda", torch.bfloat16):
        moved(module)
        for value in module._results(batch(2, 64, 96)):
            assert value.device == GPU
        module.eval()
        with torch.no_grad():
            found = module._step(batch(2, 67, 90), "val")
            assert found["logits"].dtype == torch.float32
            module.config = {"data": {"crop": [64, 64]}}
            found = module._step(batch(1, 40, 70), "test")
            assert found["probabilities"].shape == (1, classes, 40, 70)
            counts = module.test_counts.compute()
            figures = [*scores(*counts, module.classes).values(), calibration_error(counts[1])]
            assert all(value.device == GPU for value in figures)


@pytest.mark.parametrize("where", [GPU, torch.device("cpu")])
@pytest.mark.parametrize(
    "settings",
    [{"flips": True, "scales": [0.5, 1]}, {"mc_samples": 2, "precision": "bf16-mixed"}, {"tile": 64, "overlap": 0.5}],
    ids=str,
)
def test_predictions_are_where_the_images_are(settings, where):
    module = made(SegNet(3, widths=(4, 6, 8, 8, 8), dropout=0.5), 3).eval()
    with FakeTensorMode(), torch.no_grad():
        predict = Predictor(moved(module), **settings)
        predict._logits.record = {}
        images = [torch.zeros(1, 3, *size, dtype=torch.uint8, device=where) for size in ((64, 64), (50, 90), (130, 70))]
        found = [predict._slid(image) for image in images] if predict.window else predict._moments(images, (64, 64))
    values = 6 if "mc_samples" in settings else 3
    assert [tuple(one.shape) for one in found] == [(values, 64, 64), (values, 50, 90), (values, 130, 70)]
    assert all(one.device == where for one in found)


def test_muon_keeps_its_state_there():
    net = SegNet(1, widths=(4, 6, 8, 8, 8))
    with FakeTensorMode():
        optimizer = Muon(moved(net).parameters())
        optimizer._orthogonal.record = {}
        for _ in range(2):
            for parameter in net.parameters():
                parameter.grad = torch.empty_like(parameter)
            optimizer.step()
    assert {value.device for state in optimizer.state.values() for value in state.values()} == {GPU}


@pytest.mark.parametrize(("height", "where"), [(32 * STEEPEST, "cuda"), (32 * STEEPEST + 1, "cpu")])
def test_what_a_gpus_kernel_cannot_shrink_the_cpu_does(height, where, monkeypatch):
    """A block of the kernel has 48 KiB for 32 columns and a row, whose weights and products are of 8 bytes."""
    resized = []
    interpolate = F.interpolate

    def watched(images, size, **options):
        resized.append(images.device.type)
        if images.is_cuda:
            high, wide = (2 * -(-before // after) + 1 for before, after in zip(images.shape[-2:], size, strict=True))
            assert 8 * (32 * wide + 33 * high) <= 48 * 1024
        return interpolate(images, size, **options)

    monkeypatch.setattr(F, "interpolate", watched)
    with FakeTensorMode():
        found = resize_exact(torch.zeros(1, 3, height, height, dtype=torch.uint8, device=GPU), (32, 32))
    assert resized == [where]
    assert found.device == GPU
