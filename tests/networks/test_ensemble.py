"""An ensemble: the mean of probabilities, computed again in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from segnet.errors import UserError
from segnet.networks.ensemble import Ensemble
from segnet.networks.segnet import SegNetBasic, enable_mc_dropout


class Fixed(nn.Module):
    """Logits that depend on nothing."""

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, x):
        return self.logits.expand(len(x), -1, -1, -1).to(x.dtype)


def probabilities(logits):
    """Of logits (C, H, W), in float64."""
    z = logits.astype(np.float64)
    z = np.stack([np.zeros_like(z[0]), z[0]]) if len(z) == 1 else z
    z = np.exp(z - z.max(0))
    return (z / z.sum(0))[1:] if len(logits) == 1 else z / z.sum(0)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_it_is_the_mean_of_the_probabilities_and_finite(classes, scale):
    random = np.random.default_rng(classes)
    logits = (random.normal(size=(3, classes, 5, 6)) * scale).astype(np.float32)
    out = Ensemble([Fixed(z) for z in logits])(torch.zeros(2, 3, 5, 6))
    assert out.shape == (2, classes, 5, 6)
    assert out.isfinite().all()
    found = out.double().sigmoid() if classes == 1 else out.double().softmax(1)
    expected = np.mean([probabilities(z) for z in logits], 0)
    np.testing.assert_allclose(found[1].numpy(), expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("classes", [1, 3])
def test_networks_in_half_precision_are_averaged_in_float32(classes):
    torch.manual_seed(0)
    nets = [SegNetBasic(classes, width=4).eval() for _ in range(3)]
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        single = [net(x) for net in nets]
        out = Ensemble(nets)(x)
    assert {z.dtype for z in single} == {torch.bfloat16}
    assert out.dtype == torch.float32
    both = [[z.double().sigmoid() if classes == 1 else z.double().softmax(1) for z in part] for part in (single, [out])]
    torch.testing.assert_close(both[1][0], torch.stack(both[0]).mean(0), rtol=0, atol=1e-6)


def test_one_network_decides_as_it_does_alone():
    z = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32) * 20
    out = Ensemble([Fixed(z)])(torch.zeros(1, 3, 4, 4))
    np.testing.assert_allclose(out[0].numpy(), z, rtol=1e-5)


def test_dropout_is_sampled_in_every_network_and_none_is_refused():
    net = Ensemble([SegNetBasic(1, width=4, dropout=0.5) for _ in range(2)]).eval()
    assert enable_mc_dropout(net) == 2 * enable_mc_dropout(SegNetBasic(1, width=4, dropout=0.5))
    assert all(m.training for m in net.modules() if isinstance(m, nn.Dropout))
    with pytest.raises(UserError, match="at least one network"):
        Ensemble([])
