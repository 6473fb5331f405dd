"""Auxiliary classifiers: their loss by hand, and that nothing but the training knows them."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.optim.lr_scheduler import StepLR

from segnet.data.masks import IGNORE_INDEX
from segnet.training.auxiliary import Auxiliary
from segnet.training.optimizers import Muon
from training.test_graph import OnGPU, loader, module, trainer


def fit(*callbacks, epochs=4, ckpt_path=None):
    model = module(optimizer=Muon, scheduler=partial(StepLR, step_size=1, gamma=0.5))
    run = trainer(
        max_epochs=epochs, callbacks=list(callbacks), precision="bf16-mixed",
        enable_checkpointing=any(isinstance(part, ModelCheckpoint) for part in callbacks),
    )  # fmt: skip
    run.fit(model, loader(), loader(6, (64, 48)), ckpt_path=ckpt_path, weights_only=True)
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_what_is_added_by_hand():
    model, part = module(), Auxiliary(weight=0.4)
    part.setup(trainer(), model, "fit")
    torch.manual_seed(1)
    for parameter in part.heads.parameters():
        torch.nn.init.normal_(parameter)
    mask = torch.randint(0, 2, (2, 32, 48))
    mask[:, :9] = IGNORE_INDEX
    model.train().logits(torch.randint(0, 256, (2, 3, 32, 48)))
    seen, losses = {index: value.detach().double().numpy() for index, value in part.features.items()}, []
    for (index, x), step in zip(seen.items(), (8, 4, 2), strict=True):
        weight = part.heads[index].weight.detach().double().numpy()[0, :, 0, 0]
        z = np.einsum("nchw,c->nhw", x, weight) + part.heads[index].bias.item()
        y = mask.numpy()[:, ::step, ::step]
        losses.append(np.log1p(np.exp(np.where(y == 1, -z, z)))[y != IGNORE_INDEX].mean())
    assert part.added(mask).item() == pytest.approx(0.4 * np.mean(losses), rel=1e-4)
    assert not part.features


@pytest.mark.parametrize(
    ("average", "last"), [((), True), ((EMAWeightAveraging,), True), ((EMAWeightAveraging,), False)]
)
def test_without_weight_the_network_has_the_bits_of_a_run_without_them(average, last):
    plain = fit(*(make(decay=0.9) for make in average), epochs=1)
    for weight, equal in ((0.0, True), (0.4, False)):
        parts = [make(decay=0.9) for make in average]
        parts.insert(len(parts) if last else 0, Auxiliary(weight))
        assert same(plain, fit(*parts, epochs=1)) is equal


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
def test_a_checkpoint_has_the_network_alone_and_a_resumed_run_the_bits_of_a_whole_one(tmp_path):
    whole, stopped = Auxiliary(), Auxiliary()
    expected = fit(whole)
    keep = ModelCheckpoint(tmp_path)
    fit(stopped, keep, epochs=2)
    stored = torch.load(keep.best_model_path, weights_only=True)
    assert stored["state_dict"].keys() == module().state_dict().keys()
    resumed = Auxiliary()
    assert same(expected, fit(resumed, ckpt_path=keep.best_model_path))
    assert same(whole.heads.state_dict(), resumed.heads.state_dict())
    assert not same(whole.heads.state_dict(), stopped.heads.state_dict())


def test_after_the_training_nothing_is_left_in_the_network():
    model, part = module(), Auxiliary()
    trainer(callbacks=[part]).fit(model, loader(4), loader(4))
    assert model.auxiliary is None
    assert not any(stage._forward_hooks for stage in model.net.modules())


def test_there_is_no_graph():
    model = module(OnGPU)
    model.trainer = trainer(callbacks=[Auxiliary()])
    model.graph.begin(model.trainer, model)
    assert model.graph.declined == "callbacks=auxiliary takes part in the step, which has not been tried in a graph"


def test_what_was_not_tried_is_refused():
    with pytest.raises(ValueError, match=r"^callbacks=auxiliary: serves neither .* nor model.compile; use "):
        Auxiliary().setup(trainer(), module(compile="default"), "fit")
    other = module()
    other.net = torch.nn.Conv2d(3, 1, 1)
    with pytest.raises(ValueError, match=r"^callbacks=auxiliary: needs the decoder .* of a SegNet; use model=segnet$"):
        Auxiliary().setup(trainer(), other, "fit")
