"""Training for int8: the rounding by NumPy, its gradients, and that nothing but the training knows it."""

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn

from segnet.networks import folding
from segnet.training.int8 import Int8, Rounding
from training.test_auxiliary import fit, same
from training.test_graph import OnGPU, loader, module, trainer


def rounding(kind=nn.Conv2d, decay=0.9, **options):
    model = module()
    model.net = nn.Sequential(kind(3, 4, 3, padding=1, **options), nn.Conv2d(4, 1, 1))
    part = Int8(decay)
    part.setup(trainer(), model, "fit")
    return model, part, model.net[0]


def levels(x, low, high):
    scale = np.float64(high - low) / 255
    zero = np.round(-low / scale)
    return (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale


def test_inputs_and_weights_have_the_levels_that_numpy_finds():
    _, _, layer = rounding(bias=False)
    low = high = None
    for shift in (0.0, 1.0, -3.0):
        x = torch.randn(2, 3, 6, 8) + shift
        given, a, b = x.double().numpy(), min(x.min().item(), 0), max(x.max().item(), 0)
        low, high = (a, b) if low is None else (0.9 * low + 0.1 * a, 0.9 * high + 0.1 * b)
        w = layer.weight.detach().double().numpy()
        scale = np.abs(w).max((1, 2, 3), keepdims=True) / 127
        rounded = torch.from_numpy(np.round(w / scale) * scale)
        expected = nn.functional.conv2d(torch.from_numpy(levels(given, low, high)), rounded, padding=1)
        torch.testing.assert_close(layer.train()(x).detach().double(), expected, rtol=1e-5, atol=1e-4)
        assert layer.bounds.tolist() == pytest.approx([low, high], rel=1e-5)


def test_gradients_pass_the_rounding_but_not_the_clipping():
    _, _, layer = rounding(bias=False)
    layer.bounds.copy_(torch.tensor([0.0, 1.0]))
    x = torch.tensor([-1.0, 0.2, 0.9, 3.0]).repeat(1, 3, 4, 1).requires_grad_()
    layer.decay = 1.0
    layer(x).sum().backward()
    plain = torch.autograd.functional.vjp(
        lambda v: nn.functional.conv2d(v, layer._levels_of_weight(layer.weight), padding=1),
        x.detach(),
        torch.ones(1, 4, 4, 4),
    )[1]
    inside = torch.tensor([0.0, 1.0, 1.0, 0.0])
    torch.testing.assert_close(x.grad, plain * inside)
    assert layer.weight.grad.abs().min() > 0


def test_a_map_of_zeros_stays_one():
    _, _, layer = rounding(bias=False)
    assert not layer(torch.zeros(1, 3, 4, 4)).any()


def test_only_training_rounds():
    model, part, layer = rounding()
    x = torch.randn(2, 3, 6, 8)
    plain = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
    assert not torch.equal(layer.train()(x), plain)
    seen = layer.bounds.clone()
    for mode in (layer.eval(), layer.train()):  # a test, and batch norms that are estimated anew
        with torch.no_grad():
            assert torch.equal(mode(3 * x), nn.functional.conv2d(3 * x, layer.weight, layer.bias, padding=1))
    assert torch.equal(seen, layer.bounds)
    part.teardown(trainer(), model, "fit")
    assert type(layer) is nn.Conv2d
    assert not {"bounds", "decay"} & vars(layer).keys()


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.parametrize("average", [(), (EMAWeightAveraging,)])
@pytest.mark.parametrize("last", [True, False])
def test_a_checkpoint_has_the_network_alone_and_a_resumed_run_the_bits_of_a_whole_one(tmp_path, average, last):
    def run(*others, **options):
        parts = [make(decay=0.9) for make in average]
        parts.insert(len(parts) if last else 0, Int8())
        return fit(*parts, *others, **options)

    expected = run()
    assert not same(expected, fit(*(make(decay=0.9) for make in average)))
    keep = ModelCheckpoint(tmp_path)
    run(keep, epochs=2)
    stored = torch.load(keep.best_model_path, weights_only=True)
    assert stored["state_dict"].keys() == module().state_dict().keys()
    assert same(expected, run(ckpt_path=keep.best_model_path))


def test_after_the_training_nothing_is_left_in_the_network():
    model = module()
    run = trainer(callbacks=[Int8()])
    run.fit(model, loader(4), loader(4))
    assert not any(isinstance(layer, Rounding) for layer in model.modules())


def test_there_is_no_graph():
    model = module(OnGPU)
    model.trainer = trainer(callbacks=[Int8()])
    model.graph.begin(model.trainer, model)
    assert model.graph.declined == "callbacks=int8 takes part in the step, which has not been tried in a graph"


def test_no_layer_is_folded(monkeypatch):
    monkeypatch.setattr(folding, "kernels_for", lambda x: object())
    model = module()
    x, layers = torch.zeros(1, 3, 32, 32, dtype=torch.bfloat16), list(model.net.modules())
    assert folding.pays(x, layers)
    Int8().setup(trainer(), model, "fit")
    assert not folding.pays(x, layers)


def test_what_was_not_tried_is_refused():
    with pytest.raises(ValueError, match=r"^callbacks=int8: serves neither .* nor model.compile; use "):
        Int8().setup(trainer(), module(compile="default"), "fit")
