"""Pruning: what is left of a network whose other channels are silent computes the same."""

import pytest
import torch
from torch import nn

from segnet.networks.pruning import prune
from segnet.networks.segnet import SegNet

WIDE, NARROW = (6, 8, 10, 12, 14), (3, 4, 5, 6, 7)


def norms(net):
    return [[m for m in stage.modules() if isinstance(m, nn.BatchNorm2d)] for stage in (*net.encoder, *net.decoder)]


def lively(net, seed=0):
    """Batch norms as after a training."""
    torch.manual_seed(seed)
    for norm in (n for stage in norms(net) for n in stage):
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(0, 0.2)
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
    nn.init.normal_(net.classifier.weight)
    return net.eval()


def silence(norm, count):
    silent = torch.randperm(norm.num_features)[:count]
    norm.weight.data[silent] = 0
    norm.bias.data[silent] = 0


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"dropout": 0.5}])
def test_without_its_silent_channels_a_network_computes_the_same(options):
    wide, narrow = lively(SegNet(2, WIDE, **options)), SegNet(2, NARROW, **options).eval()
    stages = norms(wide)
    for i, stage in enumerate(stages):
        for k, norm in enumerate(stage):
            # The end of the encoder's stage `level` and that of decoder stage 8 - level share their channels.
            if not (i > 4 and k == len(stage) - 1 and i < 9):
                silence(norm, norm.num_features // 2)
    for level in range(4):
        end, partner = stages[level][-1], stages[8 - level][-1]
        partner.weight.data[end.weight == 0] = 0
        partner.bias.data[end.weight == 0] = 0
    image = torch.randn(2, 3, 64, 32)
    prune(wide, narrow)
    expected = wide(image)
    assert expected.std() > 0.1
    torch.testing.assert_close(narrow(image), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_both_ends_of_an_unpooling_keep_the_channels_that_are_strong_in_both():
    wide, narrow = lively(SegNet(1, WIDE)), SegNet(1, NARROW)
    for stage in norms(wide):
        stage[-1].running_mean.copy_(torch.arange(stage[-1].num_features))  # names of the channels
    end, partner = norms(wide)[0][-1], norms(wide)[8][-1]
    end.weight.data = torch.tensor([8.0, -7.0, 6.0, 1.0, 1.0, 0.1])
    partner.weight.data = torch.tensor([0.0, 0.3, 0.0, 0.1, 0.4, 0.4])  # sums 1, 1.625, 0.75, 0.375, 1.125, 1.0125
    prune(wide, narrow)
    kept = [stage[-1].running_mean.tolist() for stage in norms(narrow)]
    assert kept[0] == kept[8] == [1, 4, 5]
    assert all(kept[level] == kept[8 - level] for level in range(4))
    assert torch.equal(norms(narrow)[0][-1].weight, torch.tensor([-7.0, 1.0, 0.1]))


def test_of_an_equal_width_everything_is_kept():
    wide, narrow = lively(SegNet(3, WIDE)), SegNet(3, WIDE)
    prune(wide, narrow)
    state = wide.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in narrow.state_dict().items())
