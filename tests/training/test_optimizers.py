"""Muon against its definition: numpy's singular vectors of the gradient, and AdamW for what is no matrix."""

import numpy as np
import pytest
import torch
from timm.optim import muon as timm_muon
from timm.optim.muon import zeropower_via_newtonschulz

from segnet.training.optimizers import muon, one_by_one, orthogonal


@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (40, 2, 3, 3)])
def test_a_convolution_steps_along_the_orthogonal_factor_of_its_gradient(shape):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(shape)
    muon([weight], lr=0.5, momentum=0.95, nesterov=True).step()
    rows, columns = shape[0], int(np.prod(shape[1:]))
    u, _, v = np.linalg.svd(weight.grad.reshape(rows, columns).numpy(), full_matrices=False)
    step = -weight.detach().reshape(rows, columns).numpy() / (0.5 * 0.2 * max(rows, columns) ** 0.5)
    inside = u.T @ step @ v.T
    # Five iterations bring singular values near 1, not to it; bfloat16 would leave a hundredth off the diagonal.
    assert np.diag(inside).min() > 0.6
    assert np.diag(inside).max() < 1.3
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-4)
    np.testing.assert_allclose(u @ inside @ v, step, atol=1e-4)


@pytest.mark.parametrize("pad", [False, True])
def test_together_is_as_one_matrix_after_the_other(pad):
    torch.manual_seed(0)
    matrices = [torch.randn(shape) for shape in [(8, 27), (16, 30), (8, 72), (30, 16), (8, 27), (16, 10)]]
    options = {"steps": 5, "coefficients": [(3.4445, -4.7750, 2.0315)]}
    found = orthogonal(matrices, pad, **options)
    for matrix, together in zip(matrices, found, strict=True):
        alone = zeropower_via_newtonschulz(matrix, dtype=torch.float32, **options)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def after_four_steps(make, options):
    torch.manual_seed(0)
    shapes = [(8, 3, 3, 3), (8, 8, 3, 3), (4, 8, 1, 1), (6, 10), (8,)]
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = make(parameters, lr=0.02, momentum=0.9, weight_decay=0.01, **options)
    for _ in range(4):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return parameters


@pytest.mark.parametrize("options", [{"nesterov": True}, {"nesterov": False}, {"conv_mode": "batched"}])
def test_steps_as_timm_does(options, monkeypatch):
    ours = after_four_steps(muon, options)
    monkeypatch.setattr(timm_muon, "muon", one_by_one)  # which muon() has made iterate in float32
    for one, other in zip(ours, after_four_steps(timm_muon.Muon, options), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_bias_steps_as_adamw():
    gradient = torch.tensor([1.0, -2.0, 0.5])
    parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    ours = muon([parameters[0]], lr=0.02, fallback_lr_scale=0.25, weight_decay=0.01, betas=(0.9, 0.95))
    stock = torch.optim.AdamW([parameters[1]], lr=0.005, weight_decay=0.01, betas=(0.9, 0.95))
    for factor in (1.0, 0.5, -1.0):
        for parameter, optimizer in zip(parameters, (ours, stock), strict=True):
            parameter.grad = gradient * factor
            optimizer.step()
    torch.testing.assert_close(parameters[0], parameters[1])


def test_a_checkpoint_trained_with_muon_loads(run_main, cable, tmp_path):
    code, err = run_main("train", tmp_path / "t", f"data.root={cable}", "optimizer=muon", "~callbacks.panels")
    assert code == 0, err
    best = tmp_path / "t" / "checkpoints" / "best.ckpt"
    code, err = run_main("eval", tmp_path / "e", f"ckpt_path={best}", "trainer=cpu")
    assert code == 0, err
