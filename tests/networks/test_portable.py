"""The exported form of pooling and unpooling, against torch's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segnet.networks import portable
from segnet.networks.pooling import max_pool, max_unpool


class ThereAndBack(nn.Module):
    """Pool, change the maxima, unpool; as the networks do it."""

    def forward(self, x):
        pooled, code = max_pool(x)
        return pooled, max_unpool(pooled * 3, code, (x.shape[-2], x.shape[-1]))


def stock(x):
    pooled, index = F.max_pool2d(x, 2, return_indices=True)
    return pooled, F.max_unpool2d(pooled * 3, index, 2, output_size=x.shape[-2:])


def maps(size, count=2, dtype=torch.float32):
    """Few distinct values, so that most windows have ties; some that differ in the last bit, tiny and huge ones."""
    torch.manual_seed(0)
    x = torch.randint(-2, 3, (count, 5, *size)).to(dtype)
    x[:, 1] *= torch.finfo(dtype).tiny
    x[:, 2] *= torch.finfo(dtype).max / 8
    x[:, 3] = torch.where(x[:, 3] > 0, 1 + torch.finfo(dtype).eps, 1)
    return x


SIZES = [(32, 32), (33, 50), (47, 35), (2, 2), (3, 2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_stock_operators(size, dtype):
    x = maps(size, dtype=dtype)
    pooled, masks = portable.pool(x)
    for found, expected in zip((pooled, portable.unpool(pooled * 3, masks, size)), stock(x), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("size", SIZES)
def test_equals_the_pooling_that_trains(size):
    x = maps(size)
    pooled, masks = portable.pool(x)
    expected, code = max_pool(x)
    assert torch.equal(pooled, expected)
    assert torch.equal(portable.unpool(pooled, masks, size), max_unpool(expected, code, size))


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("size", SIZES[1:3])
def test_exported_programs_equal_the_stock_operators(size, dynamic, tmp_path):
    """As a program of torch and in ONNX Runtime, of any size or of one."""
    import onnx
    import onnxruntime

    dims = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    x = maps(size)
    example = maps((16, 20)) if dynamic else x
    program = torch.export.export(ThereAndBack(), (example,), dynamic_shapes={"x": dims} if dynamic else None)
    onnx_program = torch.onnx.export(program, dynamo=True, opset_version=18, verbose=False, input_names=["x"])
    onnx_program.save(tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    for batch in (maps(size, 3), maps((31, 18))) if dynamic else (x,):
        expected = stock(batch)
        for found in (program.module()(batch), map(torch.from_numpy, session.run(None, {"x": batch.numpy()}))):
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    nodes = onnx.load(tmp_path / "a.onnx").graph.node
    operators = {node.op_type for node in nodes}
    assert not operators & {"MaxUnpool", "ScatterND", "ScatterElements", "Where", "ConstantOfShape"}
    assert [len(node.output) for node in nodes if node.op_type == "MaxPool"] == [1]  # no indices
    assert dynamic or not operators & {"Shape", "Range", "Expand"}


def test_masks_say_where_the_first_maximum_is():
    x = torch.tensor([[1.0, 5.0, 2.0, 2.0], [5.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0], [0.0, 7.0, 3.0, 0.0]])
    _, masks = portable.pool(x[None, None])
    first, second, third = (mask[0, 0].tolist() for mask in masks)
    assert (first, second, third) == ([[1, 0], [1, 1]], [[0, 0], [1, 1]], [[0, 0], [1, 0]])
    np.testing.assert_array_equal(np.unique(torch.stack(masks)), [0, 1])
