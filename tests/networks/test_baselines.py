"""The small networks that SegNet is compared with: what their papers say of them, part by part."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

from segnet.benchmark.steps import flops
from segnet.networks.ddrnet import DAPPM, DDRNet
from segnet.networks.lmffnet import LMFFNet, PartitionAttention, PooledBeside, SplitExtractMerge, quarter_means
from segnet.networks.segnet import count_parameters


@pytest.mark.parametrize(
    ("net", "one", "nineteen", "published"),
    [
        # Table 4 of its paper. Theirs has 64 more: biases of the first two convolutions, before batch norms.
        (DDRNet, 5_694_753, 5_695_923, 5.7e6),
        # Its abstract: 1.4 million.
        (LMFFNet, 1_341_166, 1_346_692, 1.35e6),
    ],
)
def test_parameters_are_the_published_ones(net, one, nineteen, published):
    assert count_parameters(net(1)) == one
    assert count_parameters(net(19)) == nineteen == pytest.approx(published, rel=0.003)


def test_multiply_adds_are_the_published_ones():
    """36.3 G of DDRNet-23-slim at 1024×2048 (table 4), counted by torch at a 32nd of the pixels a side.

    What does not grow with the pixels, the pyramid's pooled maps, is under a per mille of it.
    """
    assert 32 * flops(DDRNet, 256, training=False) / 2 == pytest.approx(36.3e9, rel=0.003)


def test_forward_flops_are_those_of_the_convolutions_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(5, 2, 1))
    assert flops(lambda classes: net, 32, training=False) == 2 * 16 * 16 * (9 * 3 * 5 + 5 * 2)


@torch.no_grad()
def drawn(module):
    """The module in evaluation mode, its batch norms with statistics and factors of their own."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            (
                part.weight.uniform_(0.5, 2),
                part.bias.normal_(),
                part.running_mean.normal_(),
                part.running_var.uniform_(0.5, 2),
            )
        elif isinstance(part, nn.PReLU):
            part.weight.uniform_(-1, 1)
    return module.eval()


@torch.no_grad()
@pytest.mark.parametrize(("block", "into", "stride"), [("deep3", 64, 2), ("high3", 64, 1)])
def test_its_residual_blocks_are_resnets(block, into, stride):
    """The same weights in torchvision's block, which has its second ReLU at its end instead of at its beginning."""
    mine = drawn(getattr(DDRNet(1), block)[0])
    out = mine.body[0].out_channels
    theirs = BasicBlock(into, out, stride, mine.shortcut if stride == 2 else None).eval()
    for name, part in zip(("conv1", "bn1", "conv2", "bn2"), [mine.body[i] for i in (0, 1, 3, 4)], strict=True):
        getattr(theirs, name).load_state_dict(part.state_dict())
    x = torch.randn(2, into, 9, 12)
    torch.testing.assert_close(mine(x).relu(), theirs(x.relu()))


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (3, 8), (15, 20)])
def test_its_pyramid_sees_every_surrounding(size):
    """Means by NumPy, over windows of 5, 9 and 17 pixels (zeros beyond the border are counted) and of the whole map."""
    dappm = drawn(DAPPM(4, 3, 5))
    x = torch.randn(1, 4, *size)
    maps = [dappm.scales[0](x)]
    for i, reach in enumerate((2, 4, 8, None)):
        if reach is None:
            pooled = x.mean((2, 3), keepdim=True)
        else:
            around = np.pad(x.numpy(), ((0, 0), (0, 0), (reach, reach), (reach, reach)))
            rows, columns = (range(0, side, reach) for side in size)
            window = 2 * reach + 1
            means = [[around[..., r : r + window, c : c + window].mean((2, 3)) for c in columns] for r in rows]
            pooled = torch.from_numpy(np.moveaxis(np.array(means), (0, 1), (2, 3)).astype(np.float32))
        reduced = dappm.scales[i + 1][1:](pooled)
        maps.append(dappm.refine[i](F.interpolate(reduced, size, mode="bilinear") + maps[-1]))
    expected = dappm.merge(torch.cat(maps, 1)) + dappm.shortcut(x)
    torch.testing.assert_close(dappm(x), expected, rtol=1e-4, atol=1e-4)


def test_its_paths_have_the_papers_resolutions():
    net = DDRNet(2).eval()
    seen = {}
    for name in ("stem", "high3", "high5", "deep3", "deep4", "deep5", "context", "head"):
        getattr(net, name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: tuple(o.shape[1:])}))
    with torch.no_grad():
        assert net(torch.randn(1, 3, 128, 192)).shape == (1, 2, 128, 192)
    assert seen == {
        "stem": (64, 16, 24), "high3": (64, 16, 24), "high5": (128, 16, 24), "head": (64, 16, 24),
        "deep3": (128, 8, 12), "deep4": (256, 4, 6), "deep5": (512, 2, 3), "context": (128, 2, 3),
    }  # fmt: skip


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (8, 7), (60, 60)])
def test_quarter_means_are_adaptive_pooling(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(quarter_means(x), F.adaptive_avg_pool2d(x, 2))


@torch.no_grad()
def test_attention_is_a_factor_for_each_channel():
    part = PartitionAttention(16).eval()
    x = torch.rand(2, 16, 5, 6) + 1
    factors = part(x) / x
    torch.testing.assert_close(factors, factors[..., :1, :1].expand_as(x))
    corners = F.conv2d(F.adaptive_avg_pool2d(x, 2), part.quarters.weight, groups=16) + x.mean((2, 3), keepdim=True)
    down, act, up, _ = part.factors
    hidden = F.prelu(corners.flatten(1) @ down.weight.flatten(1).T, act.weight)
    torch.testing.assert_close(factors[..., 0, 0], (hidden @ up.weight.flatten(1).T).sigmoid())


@pytest.mark.parametrize("dilation", [2, 32])
def test_a_bottleneck_reaches_as_far_as_its_dilation(dilation):
    """The furthest pixel that changes the middle: three 3×3 convolutions in turn, the middle one dilated."""
    block = SplitExtractMerge(8, dilation).double().eval()
    x = torch.randn(1, 8, 1, 95, dtype=torch.float64, requires_grad=True)
    block(x)[0, :, 0, 47].sum().backward()
    touched = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert (touched.min().item(), touched.max().item()) == (47 - dilation - 2, 47 + dilation + 2)


@torch.no_grad()
def test_downsampling_keeps_the_maxima():
    part = drawn(PooledBeside(5, 8))
    part.norm = nn.Identity()
    x = torch.randn(1, 5, 5, 6)
    found = part(x)
    assert found.shape == (1, 8, 3, 3)
    bottom = F.pad(x, (0, 0, 0, 1), value=-torch.inf)  # of an odd side
    torch.testing.assert_close(found[:, 3:], F.max_pool2d(bottom, 2))


def test_gradients_in_bfloat16_are_those_in_float32():
    """On a CPU torch's own, of dilated depthwise filters, are arbitrary, infinite at times."""
    torch.manual_seed(0)
    block = SplitExtractMerge(64, 2).to(memory_format=torch.channels_last)
    x = torch.randn(8, 64, 32, 32).contiguous(memory_format=torch.channels_last)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = block(x)
        found.append(torch.autograd.grad((out.float() * x).mean(), block.far[0].weight)[0])
    assert (found[1] - found[0]).norm() < 0.05 * found[0].norm()


@pytest.mark.cuda
@pytest.mark.parametrize("net", [DDRNet, LMFFNet])
def test_training_on_a_gpu_is_deterministic(net):
    torch.use_deterministic_algorithms(True)
    try:
        gradients = []
        for _ in range(2):
            torch.manual_seed(0)
            made = net(3).cuda().to(memory_format=torch.channels_last)
            with torch.autocast("cuda", torch.bfloat16):
                out = made(torch.randn(2, 3, 65, 96, device="cuda"))
            out.float().square().mean().backward()
            gradients.append([p.grad for p in made.parameters()])
        for first, second in zip(*gradients, strict=True):
            assert torch.equal(first, second)
    finally:
        torch.use_deterministic_algorithms(False)
