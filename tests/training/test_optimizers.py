"""Muon against its definition: numpy's singular vectors, the same steps in plain numpy, torch's AdamW for the rest."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from segnet.configuration import instantiate
from segnet.networks import SegNet
from segnet.training.optimizers import COEFFICIENTS, Muon, orthogonal

SHAPES = [(8, 3, 3, 3), (8,), (8, 8, 3, 3), (16, 8, 1, 1), (10, 16), (10,), (3, 10), (3,)]
MATRICES = [0, 2, 3, 4]  # (3, 10) is the classifier


def parameters():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def draw(parameters):
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape)


def recipe():
    root = next(folder for folder in Path(__file__).parents if (folder / "conf").is_dir())
    return OmegaConf.load(root / "conf" / "optimizer" / "muon.yaml")


@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (40, 2, 3, 3)])
def test_a_convolution_steps_along_the_orthogonal_factor_of_its_gradient(shape):
    torch.manual_seed(0)
    weight, classifier = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(1, 8, 1, 1))
    weight.grad = torch.randn(shape)
    Muon([weight, classifier], lr=0.5).step()
    rows, columns = shape[0], int(np.prod(shape[1:]))
    u, _, v = np.linalg.svd(weight.grad.reshape(rows, columns).numpy(), full_matrices=False)
    step = -weight.detach().reshape(rows, columns).numpy() / (0.5 * 0.2 * max(rows, columns) ** 0.5)
    inside = u.T @ step @ v.T
    # Five iterations bring singular values near 1, not to it; bfloat16 would leave a hundredth off the diagonal.
    assert np.diag(inside).min() > 0.97
    assert np.diag(inside).max() < 1.04
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-4)
    np.testing.assert_allclose(u @ inside @ v, step, atol=1e-4)


def iterated(matrix, steps):
    """Newton-Schulz on one matrix in float64, each polynomial applied to the singular values."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for i in range(steps):
        a, b, c = COEFFICIENTS[min(i, len(COEFFICIENTS) - 1)]
        s = a * s + b * s**3 + c * s**5
    return u * s @ v


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("steps", [2, 5, 8])
def test_together_is_as_one_matrix_after_the_other(pad, steps):
    torch.manual_seed(0)
    matrices = [torch.randn(shape) for shape in [(8, 27), (16, 30), (8, 72), (30, 16), (8, 27), (16, 10)]]
    found = orthogonal(matrices, steps, 1e-8, pad)
    for matrix, together in zip(matrices, found, strict=True):
        np.testing.assert_allclose(together, iterated(matrix.double().numpy(), steps), atol=1e-5)


@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_as_written_out_in_numpy(nesterov):
    ours = parameters()
    lr, momentum, decay, scale, (beta1, beta2), eps = 0.03, 0.9, 0.05, 0.5, (0.8, 0.99), 1e-6
    options = {"weight_decay": decay, "fallback_lr_scale": scale, "betas": (beta1, beta2), "eps": eps}
    optimizer = Muon(ours, lr=lr, momentum=momentum, nesterov=nesterov, **options)
    weights = [p.detach().double().numpy().copy() for p in ours]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step in range(1, 6):
        draw(ours)
        optimizer.step()
        for i, w in enumerate(weights):
            gradient = ours[i].grad.double().numpy()
            if i in MATRICES:
                first[i] = momentum * first[i] + (1 - momentum) * gradient
                along = momentum * first[i] + (1 - momentum) * gradient if nesterov else first[i]
                flat = along.reshape(len(along), -1)
                along = 0.2 * np.sqrt(max(flat.shape)) * iterated(flat, 5).reshape(w.shape)
                rate = lr
            else:
                first[i] = beta1 * first[i] + (1 - beta1) * gradient
                second[i] = beta2 * second[i] + (1 - beta2) * gradient**2
                root = np.sqrt(second[i] / (1 - beta2**step))
                along = first[i] / (1 - beta1**step) / (root + eps)
                rate = lr * scale
            weights[i] = w - rate * decay * w - rate * along
    for mine, theirs in zip(ours, weights, strict=True):
        np.testing.assert_allclose(mine.detach(), theirs, atol=1e-5)


def test_the_rest_steps_as_torchs_adamw_in_the_recipe_itself():
    ours, theirs = parameters(), parameters()
    optimizer = instantiate(recipe(), "optimizer")(ours)
    rest = [theirs[i] for i in range(len(SHAPES)) if i not in MATRICES]
    rate = recipe().lr * recipe().fallback_lr_scale
    stock = torch.optim.AdamW(rest, rate, betas=(0.9, 0.95), weight_decay=recipe().weight_decay)
    for _ in range(5):
        draw(ours)
        for mine, other in zip(ours, theirs, strict=True):
            other.grad = mine.grad
        optimizer.step()
        stock.step()
    for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.equal(mine, other) == (i not in MATRICES)


@pytest.mark.parametrize("classes", [1, 11])
def test_of_segnet_convolutions_are_matrices_and_all_else_is_not(classes):
    net = SegNet(classes)
    names = {parameter: name for name, parameter in net.named_parameters()}
    matrices, rest = ({names[p] for p in group["params"]} for group in Muon(net.parameters()).param_groups)
    convolutions = {f"{name}.weight" for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    assert matrices == convolutions - {"classifier.weight"}
    assert rest == set(names.values()) - matrices


def test_options_that_are_not_given():
    expected = {
        "lr": 0.02, "momentum": 0.95, "nesterov": True, "weight_decay": 0.01, "fallback_lr_scale": 0.25,
        "betas": (0.9, 0.95), "eps": 1e-8, "ns_steps": 5,
    }  # fmt: skip
    assert [{key: group[key] for key in expected} for group in Muon(parameters()).param_groups] == [expected] * 2


def test_a_depthwise_filter_is_no_matrix():
    net = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1))
    matrices, rest = (group["params"] for group in Muon(net.parameters()).param_groups)
    assert matrices == [net[1].weight]
    assert len(rest) == 5


def test_onecycle_drives_both_groups():
    ours = parameters()
    optimizer = instantiate(recipe(), "optimizer")(ours)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=20)
    rates, shares = [], []
    for _ in range(19):
        draw(ours)
        before = [p.detach().clone() for p in ours]
        optimizer.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
        shares.append([group["betas"][0] for group in optimizer.param_groups])
        matrix = (ours[0] - before[0]).norm().item()
        # 8×27, of rank 8: 0.2·√27·√8 lr, but for singular values up to 4 % from 1 and for the weight decay.
        assert matrix == pytest.approx(rates[-1][0] * 0.2 * (27 * 8) ** 0.5, rel=0.05)
        if len(rates) == 1:  # all steps of AdamW's first are as long as its rate
            assert (ours[1] - before[1]).abs().tolist() == pytest.approx([0.25 * rates[0][0]] * 8, rel=0.05)
        scheduler.step()
    assert all(one == other for one, other in rates)
    assert max(rates)[0] == pytest.approx(0.02, rel=0.02)
    assert rates[0][0] == pytest.approx(0.02 / 25)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.95}
    assert min(shares)[0] == pytest.approx(0.85, abs=2e-3)


def test_a_resumed_optimizer_continues_to_the_same_bits():
    def trained(interrupted):
        ours = parameters()
        optimizer = Muon(ours)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=9)
        for step in range(8):
            if step == 4 and interrupted:
                file = io.BytesIO()
                torch.save({"weights": ours, "states": [optimizer.state_dict(), scheduler.state_dict()]}, file)
                saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
                ours = saved["weights"]
                optimizer = Muon(ours)
                scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=9)
                for part, state in zip((optimizer, scheduler), saved["states"], strict=True):
                    part.load_state_dict(state)
            draw(ours)
            optimizer.step()
            scheduler.step()
        return ours

    for whole, parts in zip(trained(False), trained(True), strict=True):
        assert torch.equal(whole, parts)


def test_the_state_of_another_optimizer_is_refused():
    stock = torch.optim.SGD(parameters(), 0.1)
    with pytest.raises(ValueError, match=r"not of this Muon.*weights=<checkpoint>"):
        Muon(parameters()).load_state_dict(stock.state_dict())


def test_neither_autocast_nor_layout_changes_a_bit():
    plain, other = parameters(), parameters()
    for i in (0, 2, 3):
        other[i].data = other[i].data.to(memory_format=torch.channels_last)
    for ours, cast in ((plain, False), (other, True)):
        torch.manual_seed(1)
        optimizer = Muon(ours)
        for _ in range(3):
            draw(ours)
            for parameter in ours:
                parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
            with torch.autocast("cpu", torch.bfloat16, enabled=cast):
                optimizer.step()
    for one, two in zip(plain, other, strict=True):
        assert torch.equal(one, two)


def test_what_has_no_gradient_stays_and_a_closure_has_one():
    ours = parameters()
    before = [p.detach().clone() for p in ours]
    optimizer = Muon(ours)
    optimizer.step()
    assert not optimizer.state_dict()["state"]

    def closure():
        loss = ours[0].square().sum() + ours[1].square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx((before[0].square().sum() + before[1].square().sum()).item())
    assert [torch.equal(p, old) for p, old in zip(ours, before, strict=True)] == [False] * 2 + [True] * 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr=-1.0: must be a number of at least 0"),
        ({"lr": float("inf")}, "lr=inf: must be a number of at least 0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1: must be a number"),
        ({"fallback_lr_scale": -1}, "fallback_lr_scale=-1: must be a number"),
        ({"momentum": -0.1}, r"momentum=-0.1: must lie in \[0, 1\)"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\]=1.0: must lie"),
        ({"eps": float("nan")}, "eps=nan: must be"),
        ({"momentum": 1.0}, r"momentum=1.0: must lie in \[0, 1\)"),
        ({"betas": (0.9, 1.5)}, r"betas\[1\]=1.5: must lie"),
        ({"ns_steps": 0}, "ns_steps=0: must be at least 1"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Muon(parameters(), **options)
    Muon(parameters(), lr=0, weight_decay=0, fallback_lr_scale=0, eps=0, momentum=0, betas=(0, 0), ns_steps=1)


@pytest.mark.slow
def test_a_checkpoint_trained_with_muon_loads(run_main, cable, tmp_path):
    code, err = run_main("train", tmp_path / "t", f"data.root={cable}", "optimizer=muon", "~callbacks.panels")
    assert code == 0, err
    best = tmp_path / "t" / "checkpoints" / "best.ckpt"
    code, err = run_main("eval", tmp_path / "e", f"ckpt_path={best}", "trainer=cpu")
    assert code == 0, err


def test_a_loaded_state_lies_where_the_parameters_are():
    """A checkpoint is loaded on the CPU, and the steps of AdamW's fused kernel must be on the GPU."""
    params = parameters()
    draw(params)
    optimizer = Muon(params)
    optimizer.step()
    twin = Muon([nn.Parameter(p.detach().to("meta")) for p in params])
    twin.load_state_dict(optimizer.state_dict())
    assert {value.device.type for state in twin.state.values() for value in state.values()} == {"meta"}
