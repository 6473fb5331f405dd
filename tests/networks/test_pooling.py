import pytest
import torch
import torch.nn.functional as F

from segnet.networks.pooling import max_pool, max_unpool

FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [(32, 32), (33, 50), (47, 35), (2, 2), (3, 32766), (2, 32767), (3, 40000)])
def test_equals_the_stock_operators_in_output_and_gradient(size, dtype, layout):
    torch.manual_seed(0)
    # Few distinct values, so that most windows have ties; negative ones too.
    x = torch.randint(-2, 3, (2, 5, *size)).to(dtype).contiguous(memory_format=layout)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()

    pooled, code = max_pool(ours)
    expected, index = F.max_pool2d(theirs, 2, return_indices=True)
    assert torch.equal(pooled, expected)
    back = max_unpool(pooled * 3, code, size)
    expected_back = F.max_unpool2d(expected * 3, index, 2, output_size=size)
    assert torch.equal(back, expected_back)

    gradient = torch.randn(back.shape).to(dtype)
    back.backward(gradient)
    expected_back.backward(gradient)
    assert torch.equal(ours.grad, theirs.grad)


def test_code_is_the_place_of_the_first_maximum():
    x = torch.tensor([[1.0, 5.0, 2.0, 2.0], [5.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0], [0.0, 7.0, 3.0, 0.0]])
    _, code = max_pool(x[None, None])
    assert code.dtype == torch.uint8
    assert code[0, 0].tolist() == [[1, 0], [3, 2]]


def test_gradients_agree_with_finite_differences():
    torch.manual_seed(1)
    x = torch.randperm(2 * 3 * 5 * 6).double().view(2, 3, 5, 6).requires_grad_()

    def there_and_back(values):
        pooled, code = max_pool(values)
        return max_unpool(pooled.square(), code, (5, 6))

    assert torch.autograd.gradcheck(there_and_back, (x / 50,))


def test_saves_an_eighth_of_the_stock_index():
    x = torch.randn(1, 4, 32, 32)
    _, code = max_pool(x)
    _, index = F.max_pool2d(x, 2, return_indices=True)
    assert index.nbytes == 8 * code.nbytes


def test_runs_under_deterministic_algorithms_where_stock_refuses():
    x = torch.randn(1, 4, 32, 32).contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        pooled, code = max_pool(x)
        max_unpool(pooled, code, (32, 32)).sum().backward()
        with pytest.raises(RuntimeError, match="deterministic"):
            F.max_unpool2d(*F.max_pool2d(x.detach(), 2, return_indices=True), 2)
    finally:
        torch.use_deterministic_algorithms(False)
    assert x.grad.sum() == pooled.numel()


def test_keeps_channels_last():
    x = torch.randn(2, 8, 32, 32).contiguous(memory_format=torch.channels_last)
    pooled, code = max_pool(x)
    assert max_unpool(pooled, code, (32, 32)).is_contiguous(memory_format=torch.channels_last)


class There(torch.nn.Module):
    def forward(self, x):
        pooled, code = max_pool(x)
        return max_unpool(pooled * 3, code, (x.shape[-2], x.shape[-1]))


def test_exported_and_compiled_programs_pool_alike():
    """They get torch's own operators, whose indices are others."""
    torch.manual_seed(0)
    x = torch.randint(-2, 3, (2, 3, 7, 6)).float()
    expected = There()(x)
    assert torch.equal(torch.export.export(There(), (x,)).module()(x), expected)
    assert torch.equal(torch.compile(There(), backend="eager", fullgraph=True)(x), expected)
