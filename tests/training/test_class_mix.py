"""ClassMix: what is pasted by plain loops, and that draws follow from the run alone."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim.lr_scheduler import StepLR

from segnet.data.masks import IGNORE_INDEX
from segnet.training.class_mix import ClassMix, pasted
from training.test_graph import loader, module, trainer


def by_loops(mask, random, mixed):
    """Of each mask the classes with the least draws, half of those that it has, rounded up."""
    taken = np.zeros(mask.shape, bool)
    for n in range(len(mask)):
        has = sorted(set(mask[n].ravel()) & set(range(random.shape[1])), key=lambda c, n=n: random[n, c])
        if mixed[n]:
            taken[n] = np.isin(mask[n], has[: -(-len(has) // 2)])
    return taken


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("classes", [2, 3, 11])
def test_what_is_pasted_by_plain_loops(classes, dtype):
    draw = torch.Generator().manual_seed(classes)
    mask = torch.randint(0, classes, (6, 5, 7), generator=draw).to(dtype)
    mask[0, 2:], mask[1], mask[2] = IGNORE_INDEX, IGNORE_INDEX, classes - 1
    random = torch.rand(6, classes, generator=draw)
    mixed = torch.tensor([True, True, True, True, False, True])
    found = pasted(mask, random, mixed)
    np.testing.assert_array_equal(found.numpy(), by_loops(mask.numpy(), random.numpy(), mixed.numpy()))
    assert found[3].any()
    assert not found[1].any()


def batch():
    """Images in which each pixel says of which image it is, and its class."""
    mask = torch.arange(4).repeat(8, 6, 2)[:, :, :5] % torch.arange(2, 10)[:, None, None]
    image = torch.stack([torch.arange(8)[:, None, None].expand(mask.shape), mask, 255 - mask], 1)
    return {"image": image.to(torch.uint8), "mask": mask.to(torch.uint8)}


def mixed(share, batch_idx=3, epoch=0):
    given, run, model = batch(), trainer(), module()
    model.classes = ["a", "b", "c", "d"]
    run.fit_loop.epoch_progress.current.completed = epoch
    before = torch.get_rng_state()
    ClassMix(share).on_train_batch_start(run, model, given, batch_idx)
    assert torch.equal(torch.get_rng_state(), before)  # dropout draws what it would have
    return given


def test_image_and_mask_move_together_from_the_image_before():
    plain, given = batch(), mixed(1.0)
    source, classes = given["image"][:, 0].long(), given["image"][:, 1]
    assert torch.equal(classes, given["mask"])
    assert torch.equal(given["image"][:, 2], 255 - given["mask"])
    own = torch.arange(8)[:, None, None].expand(source.shape)
    assert ((source == own) | (source == (own - 1) % 8)).all()
    for n in range(8):
        assert set(source[n].unique().tolist()) >= {(n - 1) % 8}
    assert torch.equal(torch.where(source == own, plain["mask"], plain["mask"].roll(1, 0)), given["mask"])


def test_the_share_of_images_that_are_mixed():
    assert all(torch.equal(value, mixed(0.0)[name]) for name, value in batch().items())
    changed = [(mixed(0.25, n)["image"] != batch()["image"]).flatten(1).any(1) for n in range(100)]
    assert 150 <= sum(int(one.sum()) for one in changed) <= 250  # of 800


def test_draws_follow_from_seed_epoch_and_batch(monkeypatch):
    one = mixed(0.5)
    assert torch.equal(one["image"], mixed(0.5)["image"])
    others = [mixed(0.5, batch_idx=4), mixed(0.5, epoch=1)]
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    others.append(mixed(0.5))
    assert not any(torch.equal(one["image"], other["image"]) for other in others)


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
def test_a_resumed_run_has_the_bits_of_a_whole_one(tmp_path):
    def run(*callbacks, epochs=4, ckpt_path=None):
        model = module(scheduler=partial(StepLR, step_size=1, gamma=0.5))
        keep = any(isinstance(part, ModelCheckpoint) for part in callbacks)
        fit = trainer(max_epochs=epochs, callbacks=list(callbacks), enable_checkpointing=keep)
        fit.fit(model, loader(), loader(6), ckpt_path=ckpt_path, weights_only=True)
        return torch.cat([value.flatten().float() for value in model.state_dict().values()])

    whole, keep = run(ClassMix()), ModelCheckpoint(tmp_path)
    assert not torch.equal(whole, run())
    run(ClassMix(), keep, epochs=2)
    assert torch.equal(whole, run(ClassMix(), ckpt_path=keep.best_model_path))
