"""Folded layers and networks against the plain ones, in float64 where rounding must not hide an error."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segnet.networks import folding
from segnet.networks.segnet import SegNet, SegNetBasic


@pytest.mark.parametrize("channels", [1, 2, 3, 16])
def test_fold_puts_the_pixels_of_a_window_side_by_side(channels):
    x = torch.randn(2, channels, 6, 8)
    folded = folding.fold(x)
    padded = channels + channels % 2
    assert folded.shape == (2, 4 * padded, 3, 4)
    assert folded.is_contiguous(memory_format=torch.channels_last)
    by_hand = folded.view(2, 2, 2, padded, 3, 4)
    for row in (0, 1):
        for column in (0, 1):
            assert torch.equal(by_hand[:, row, column, :channels], x[:, :, row::2, column::2])
    if channels % 2:
        assert not by_hand[:, :, :, channels:].any()
    else:
        assert torch.equal(folding.unfold(folded, channels), x)
        assert folding.unfold(folded, channels).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("side", [1, 3, 5, 7])
@pytest.mark.parametrize(("into", "out"), [(3, 16), (16, 16), (16, 1), (16, 11), (1, 2), (4, 5), (2, 8)])
def test_a_folded_convolution_is_the_convolution(into, out, side, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(into, out, side, padding=side // 2, bias=bias).double()
    twin = copy.deepcopy(conv)
    x = torch.randn(2, into, 10, 6, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    folded = folding.convolve(folding.fold(x), conv)
    assert folded.shape[1] % folding.ALIGNED == 0
    assert not folded[:, 4 * out :].any()
    found, expected = folding.unfold(folded, out), F.conv2d(y, twin.weight, twin.bias, padding=side // 2)
    torch.testing.assert_close(found, expected)

    gradient = torch.randn_like(expected)
    found.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(x.grad, y.grad)
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(conv.get_parameter(name).grad, parameter.grad)


NETWORKS = {
    "default": lambda: SegNet(1, widths=(16, 2, 2, 2, 2)),
    "basic": lambda: SegNetBasic(11, width=2),
    "odd": lambda: SegNet(2, widths=(5, 2, 1, 2, 3)),
}


@pytest.mark.parametrize(("name", "training"), [("default", True), ("basic", True), ("basic", False), ("odd", False)])
def test_a_folded_network_is_the_network(name, training, device, monkeypatch):
    """Autocast leaves float64 alone, so that 16 bits are asked for and none is lost."""
    torch.manual_seed(0)
    net = NETWORKS[name]().to(device, torch.float64, memory_format=torch.channels_last).train(training)
    nn.init.normal_(net.classifier.weight, std=0.1)
    plain = copy.deepcopy(net)
    heights = []
    net.encoder[0].register_forward_hook(lambda module, inputs, output: heights.append(output.shape[-2]))
    x = torch.randn(1, 3, 32, 34, dtype=torch.float64, device=device).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16):
        found = net(x)
    assert heights == [32 if name == "odd" else 16]  # an odd number of channels cannot be folded between layers
    gradient = torch.randn_like(found)
    if training:
        found.backward(gradient)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # on a CPU by torch's own operators
    expected = plain(x)
    torch.testing.assert_close(found, expected)
    if training:
        expected.backward(gradient)
    assert list(net.state_dict()) == list(plain.state_dict())
    for key, value in plain.state_dict(keep_vars=True).items():
        torch.testing.assert_close(net.state_dict()[key], value.detach())
        if training and value.requires_grad:
            grad = net.get_parameter(key).grad
            torch.testing.assert_close(grad, value.grad, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.03), (torch.bfloat16, 0.2)])
def test_folded_stages_in_16_bits(dtype, tolerance, device):
    """Without pooling between them: where 16 bits choose another maximum, nothing is near any more."""
    torch.manual_seed(0)
    net = SegNet(3, widths=(8, 4, 4, 4, 4)).to(device)
    nn.init.normal_(net.classifier.weight)
    first, last, classifier = layers = net.encoder[0], net.decoder[-1], net.classifier
    exact = copy.deepcopy(layers[:2]), copy.deepcopy(classifier)
    x, gradient = torch.randn(2, 3, 10, 12), torch.randn(2, 3, 10, 12)
    with torch.autocast(device.type, dtype):
        folded = last(first(folding.fold(x.to(device)), True), True)
        assert folded.dtype == dtype
        found = folding.unfold(folding.convolve(folded, classifier), 3)
    found.backward(gradient.to(device, dtype))
    stages = nn.Sequential(*exact[0], exact[1]).double().cpu()
    expected = stages(x.double())
    expected.backward(gradient.double())
    assert (found.double().cpu() - expected).norm() < 0.02 * expected.norm()
    for ours, theirs in zip(nn.ModuleList(layers).parameters(), stages.parameters(), strict=True):
        assert (ours.grad.double().cpu() - theirs.grad).norm() < tolerance * theirs.grad.norm()


def test_only_16_bits_and_even_sides_fold(device):
    net = SegNet(1, widths=(4, 4, 4, 4, 4)).to(device)
    layers = [*net.encoder[0].modules(), *net.decoder[-1].modules(), net.classifier]
    x = torch.zeros(1, 3, 32, 32, device=device)
    assert not folding.pays(x, layers)
    assert folding.pays(x.bfloat16(), layers)
    assert folding.pays(x.half(), layers)
    assert not folding.pays(x[..., 1:].bfloat16(), layers)
    assert not folding.pays(x[..., 1:, :].bfloat16(), layers)
    with torch.autocast(device.type, torch.bfloat16):
        assert folding.pays(x, layers)


def test_a_cpu_does_not_fold():
    assert not folding.pays(torch.zeros(1, 3, 32, 32).bfloat16(), [nn.Conv2d(3, 4, 3, padding=1)])


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 17, 3, padding=1),
        nn.Conv2d(3, 8, 3, padding=0),
        nn.Conv2d(3, 8, (1, 3), padding=(0, 1)),
        nn.Conv2d(3, 8, 2, padding=1),
        nn.Conv2d(4, 8, 3, padding=1, groups=2),
        nn.Conv2d(3, 8, 3, padding=2, dilation=2),
        nn.Conv2d(3, 8, 3, padding=1, stride=2),
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 8, 3, padding="same"),
    ],
)
def test_other_convolutions_stay(conv, device):
    assert not folding.pays(torch.zeros(1, 3, 32, 32, device=device).bfloat16(), [conv])
