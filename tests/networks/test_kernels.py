"""The Triton kernels of pooling, and of batch norm with ReLU, against torch's own operators."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segnet.networks import folding
from segnet.networks.normalization import norm_relu
from segnet.networks.pooling import kernels_for, max_pool, max_unpool

FORMATS = [torch.contiguous_format, torch.channels_last]
HALVES = [torch.float16, torch.bfloat16]


def same(a, b):
    """Equal values of the same type, NaN where NaN is."""
    return (
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(nan=12345.0), b.nan_to_num(nan=12345.0))
    )


def few_values(size, dtype, device, layout=torch.channels_last):
    """Ties in most windows; NaN and -inf in some, alone and several in one window."""
    values = torch.tensor([-2.0, -1.0, 0.0, 0.0, 1.0, 2.0, float("-inf"), float("nan")], dtype=dtype)
    x = values[torch.randint(0, 8, size)]
    x[0, 0] = float("-inf")
    return x.to(device).contiguous(memory_format=layout)


def test_kernels_are_used(device):
    assert kernels_for(torch.zeros(1, device=device)).__name__ == "segnet.networks.kernels"


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize(
    ("size", "layout"),
    [
        ((2, 3, 4, 6), torch.contiguous_format),
        ((1, 2, 9, 12), torch.contiguous_format),
        ((2, 3, 7, 6), torch.channels_last),
        ((2, 1, 5, 5), torch.channels_last),
        ((1, 65, 2, 34), torch.channels_last),  # more than one block of a row
    ],
)
def test_pooling_equals_the_stock_operators_in_output_and_gradient(size, dtype, layout, device):
    torch.manual_seed(0)
    ours = few_values(size, dtype, device, layout).requires_grad_()
    theirs = ours.detach().cpu().requires_grad_()

    pooled, code = max_pool(ours)
    expected, index = F.max_pool2d(theirs, 2, return_indices=True)
    assert same(pooled.cpu(), expected)
    row, column = index // size[3] % 2, index % size[3] % 2
    assert torch.equal(code.cpu(), (2 * row + column).to(torch.uint8))

    values = torch.randn(pooled.shape, dtype=dtype)
    back = max_unpool(pooled * 0 + values.to(device), code, size[2:])
    expected_back = F.max_unpool2d(expected * 0 + values, index, 2, output_size=size[2:])
    assert same(back.cpu(), expected_back)

    gradient = torch.randn(back.shape, dtype=dtype)
    back.backward(gradient.to(device))
    expected_back.backward(gradient)
    assert same(ours.grad.cpu(), theirs.grad)


@pytest.mark.parametrize("layout", FORMATS)
def test_gradients_of_another_layout(layout, device):
    """The layers around may hand back gradients as NCHW where the map is channels-last, and the other way round."""
    other = FORMATS[layout is FORMATS[0]]
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, 6, device=device).contiguous(memory_format=layout).requires_grad_()
    pooled, code = max_pool(x)
    gradient = torch.randn(pooled.shape, device=device)
    (found,) = torch.autograd.grad(pooled, x, gradient.contiguous(memory_format=other))
    reference = x.detach().cpu().requires_grad_()
    (expected,) = torch.autograd.grad(F.max_pool2d(reference, 2), reference, gradient.cpu())
    assert torch.equal(found.cpu(), expected)

    small = pooled.detach().contiguous(memory_format=other).requires_grad_()
    back = max_unpool(small, code, (7, 6))
    assert torch.equal(max_pool(back.abs())[0], small.abs())
    gradient = torch.randn(back.shape, device=device).contiguous(memory_format=other)
    back.backward(gradient)
    index = F.max_pool2d(reference, 2, return_indices=True)[1]
    assert torch.equal(small.grad.cpu(), gradient.cpu().flatten(2).gather(2, index.flatten(2)).view(index.shape))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_folded_pooling_equals_the_plain_one(dtype, device):
    torch.manual_seed(0)
    x = few_values((2, 6, 6, 10), dtype, device)
    plain, folded = x.clone().requires_grad_(), x.clone().requires_grad_()
    gradient = torch.randn(x.shape, dtype=dtype).to(device)

    pooled, code = max_pool(folding.fold(folded), folded=True)
    expected, expected_code = max_pool(plain)
    assert same(pooled, expected)
    assert torch.equal(code, expected_code)
    back = folding.unfold(max_unpool(pooled.nan_to_num() + 1, code, (3, 5), folded=True), 6)
    expected_back = max_unpool(expected.nan_to_num() + 1, expected_code, (6, 10))
    assert same(back, expected_back)
    back.backward(gradient)
    expected_back.backward(gradient)
    assert same(folded.grad, plain.grad)


# -- batch norm and ReLU -----------------------------------------------------------------------------


def norms(channels, device, **options):
    """A batch norm with everything away from its start, and its twin in float64 on the CPU."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(channels, **options)
    for value in (norm.weight.data, norm.bias.data, norm.running_mean):
        nn.init.normal_(value)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    twin = nn.BatchNorm2d(channels, **options).double()
    twin.load_state_dict(norm.state_dict())
    return norm.to(device), twin


TOLERANCE = {
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1.6e-2},
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(2, 16, 8, 6), (3, 1, 5, 7), (2, 5, 33, 21), (1, 152, 6, 5), (2, 40, 1, 1)])
def test_batch_norm_and_relu_against_torch_in_float64(size, dtype, device):
    norm, twin = norms(size[1], device, momentum=0.3, eps=1e-3)
    # Far from zero, as sums of squares without a shift would not bear in float32.
    x = (torch.randn(size) * 3 + 50 * torch.randn(1, size[1], 1, 1)).to(dtype).to(device)
    if dtype != torch.float32:
        x = x / 50
    ours, theirs = x.requires_grad_(), x.detach().double().cpu().requires_grad_()
    out, expected = norm_relu(ours, norm, nn.ReLU()), twin(theirs).relu()
    close = TOLERANCE[dtype]
    torch.testing.assert_close(out.double().cpu(), expected, **close)
    assert out.dtype == dtype
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        found, wanted = getattr(norm, name).double().cpu(), getattr(twin, name).double()
        torch.testing.assert_close(found, wanted, **TOLERANCE[torch.float32])

    # Pixels that rounding could bring to the other side of the ReLU have no gradient.
    gradient = (torch.randn(size) * ((expected > 0.01) | (expected == 0))).to(dtype)
    out.backward(gradient.to(device))
    expected.backward(gradient.double())
    close = {"rtol": close["rtol"], "atol": close["atol"] * max(1, theirs.grad.abs().max().item())}
    torch.testing.assert_close(ours.grad.double().cpu(), theirs.grad, **close)
    for name in ("weight", "bias"):
        found, wanted = getattr(norm, name).grad, getattr(twin, name).grad
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double().cpu(), wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_norm_of_a_folded_map(dtype, device):
    x = torch.randn(2, 6, 8, 10).to(dtype).to(device)
    gradient = torch.randn(2, 6, 8, 10).to(dtype).to(device)
    results = []
    for folded in (False, True):
        norm, _ = norms(6, device)
        y = x.clone().requires_grad_()
        z = norm_relu(folding.fold(y) if folded else y, norm, nn.ReLU())
        z = folding.unfold(z, 6) if folded else z
        z.backward(gradient)
        results.append((z.detach(), y.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var))
    for plain, folded in zip(*results, strict=True):  # the rows are summed in another order
        torch.testing.assert_close(folded, plain, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-4)


def test_a_rerun_has_the_same_bits(device):
    x, gradient = (torch.randn(3, 24, 20, 17, device=device) for _ in range(2))
    results = []
    for _ in range(2):
        norm, _ = norms(24, device)
        y = x.clone().requires_grad_()
        norm_relu(y, norm, nn.ReLU()).backward(gradient)
        results.append((y.grad, norm.weight.grad, norm.running_var))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_eval_mode_uses_the_running_statistics(dtype, device):
    norm, twin = norms(5, device)
    norm.eval(), twin.eval()
    before = norm.state_dict()
    x = (torch.randn(2, 5, 9, 7) * 2).to(dtype)
    expected = twin(x.double()).relu()
    with torch.no_grad():
        found = norm_relu(x.to(device), norm, nn.ReLU())
    torch.testing.assert_close(found.double().cpu(), expected, **TOLERANCE[dtype])
    with_gradient = norm_relu(x.float().to(device).requires_grad_(), norm, nn.ReLU())  # a frozen batch norm
    torch.testing.assert_close(with_gradient.double().cpu(), expected, **TOLERANCE[dtype])
    with_gradient.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("options", [{"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_other_settings_stay_with_torch(options, device):
    """Without momentum, statistics are the mean of all batches: so they are counted anew after a training."""
    x = torch.randn(4, 6, 5, 5, device=device)
    norm, twin = nn.BatchNorm2d(6, **options).to(device), nn.BatchNorm2d(6, **options).to(device)
    for batch in (x, 2 * x):
        assert torch.equal(norm_relu(batch, norm, nn.ReLU()), twin(batch).relu())
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in norm.state_dict().items())


def test_a_single_value_per_channel_is_torchs_error(device):
    norm, twin = norms(6, device)
    with pytest.raises(ValueError, match="more than 1 value per channel") as expected:
        twin(torch.randn(1, 6, 1, 1).double())
    with pytest.raises(ValueError, match="more than 1 value per channel") as found:
        norm_relu(torch.randn(1, 6, 1, 1, device=device), norm, nn.ReLU())
    assert str(found.value) == str(expected.value)


def test_nan_stays_nan(device):
    norm, _ = norms(4, device)
    x = torch.randn(2, 4, 4, 4, device=device)
    x[0, 1, 2, 2] = float("nan")
    out = norm_relu(x, norm, nn.ReLU())
    assert out[:, 1].isnan().all()
    assert out[:, [0, 2, 3]].isfinite().all()
    norm.eval()
    with torch.no_grad():
        assert norm_relu(x, norm, nn.ReLU())[0, [0, 2, 3]].isfinite().all()
