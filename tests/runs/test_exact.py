"""What is promised to be equal in every bit, as users run it: with loader workers and all that has a state."""

import random
import signal
import zlib

import albumentations
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from helpers import SMALL, call_main, rows, start, wait_for
from segnet.data.dataset import EpochSampler, Samples, collate

EPOCHS = 5
# In one run: bfloat16, gradients of two batches together, averaged weights, Muon, a schedule per step, dropout, random
# transforms, images drawn more than once in an epoch.
EVERYTHING = (
    "trainer.precision=bf16-mixed", "trainer.accumulate_grad_batches=2", "callbacks=[ema,objects]",
    "callbacks.ema.update_starting_at_step=2", "optimizer=muon", "model.optimizer.lr=0.01", "scheduler=onecycle",
    "model.net.dropout=0.5", "model.net.widths=[4,8,8,8,8]", "augment=flips", "data.positive_share=0.6",
    "data.batch_size=3", "~callbacks.panels", "monitor=val/object_recall@fa1",
)  # fmt: skip


class Killed(BaseException):
    """Nothing tidies up after it."""


class Stop(Callback):
    """Ends a run at the moments in ``Stop.at``, each once: (hook, epoch, batch)."""

    at: list = []  # noqa: RUF012 - of the class, so that a resumed run, which builds its own, does not stop there again

    def _reach(self, *moment):
        if moment in Stop.at:
            Stop.at.remove(moment)
            raise Killed

    def on_train_epoch_start(self, trainer, pl_module):
        self._reach("train", trainer.current_epoch, 0)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._reach("train", trainer.current_epoch, batch_idx + 1)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self._reach("val", trainer.current_epoch, batch_idx + 1)


@pytest.fixture
def given(cable, cache):
    small = [s for s in SMALL if "max_epochs" not in s]
    return [
        *small, f"data.root={cable}", f"data.cache_dir={cache}", *EVERYTHING, f"trainer.max_epochs={EPOCHS}",
        f"+callbacks.stop._target_={Stop.__module__}.Stop",
    ]  # fmt: skip


def everything_in(folder):
    """All tensors and numbers of both checkpoints, but for names of folders and files."""
    found = {}

    def walk(name, value):
        if isinstance(value, dict):
            for key, part in value.items():
                walk(f"{name}/{str(key).rpartition('/')[2]}", part)
        elif isinstance(value, list | tuple):
            for i, part in enumerate(value):
                walk(f"{name}/{i}", part)
        elif not isinstance(value, str):
            found[name] = value

    for name in ("last", "best"):
        content = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        del content["config"], content["loops"]
        for callback in content["callbacks"].values():
            callback.pop("current_score", None)  # of the last epoch, whether or not it was kept
        walk(name, content)
    return found


def assert_same_bits(folder, other, averaged=True):
    ours, others = everything_in(folder), everything_in(other)
    assert ours.keys() == others.keys()
    tensors = [name for name, value in ours.items() if isinstance(value, torch.Tensor)]
    assert len([name for name in tensors if name.startswith("last/state_dict")]) > 100
    assert not averaged or len([name for name in tensors if "current_model_state" in name]) > 100
    assert [name for name in tensors if not torch.equal(ours[name].cpu(), others[name].cpu())] == []
    computing = [name for name in tensors if "/callbacks/" not in name]  # a score that was loaded stays on the CPU
    assert [name for name in computing if ours[name].device != others[name].device] == []
    rest = [name for name in ours if name not in tensors and repr(ours[name]) != repr(others[name])]  # NaN is NaN
    assert rest == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """``whole(*command)``: the folder of the run without an interruption and without workers, once a module."""
    folders = {}

    def run(*command):
        if command not in folders:
            out = tmp_path_factory.mktemp("whole") / "run"
            assert call_main("train", *command, f"output_dir={out}", "data.num_workers=0") == 0
            folders[command] = out
        return folders[command]

    return run


def stop_and_resume(*command, moments):
    """Run a command that ends at each of these moments, resuming it each time, and at last to its end."""
    out = command[-1]
    Stop.at = list(moments)
    while Stop.at:
        left = len(Stop.at)
        with pytest.raises(Killed):
            call_main("train", *command)
        assert len(Stop.at) == left - 1
        command = [f"resume={out.partition('=')[2]}", "trust=true"]
    assert call_main("train", *command) == 0


# Before the first checkpoint, between epochs, in an epoch, in a validation.
MOMENTS = [("train", 0, 2), ("train", 1, 0), ("train", 2, 2), ("val", 3, 1)]
FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12


@FORKS
@pytest.mark.parametrize(("workers", "limit"), [(2, None), (1, 0.5), (0, 0.5), (2, 4)])
def test_stopped_at_every_stage_it_ends_with_the_same_bits(given, whole, tmp_path, workers, limit):
    given = given if limit is None else [*given, f"trainer.limit_train_batches={limit}"]
    out = tmp_path / "run"
    stop_and_resume(*given, f"data.num_workers={workers}", f"output_dir={out}", moments=MOMENTS)
    assert_same_bits(out, whole(*given))


@FORKS
@pytest.mark.filterwarnings("ignore:Swapping scheduler")
def test_stopped_while_weights_are_averaged_it_ends_with_the_same_bits(given, whole, tmp_path):
    """By `callbacks=swa`, whose average begins in the third epoch; dropout, and no accumulation of gradients."""
    changed = ("callbacks", "trainer.accumulate", "optimizer", "model.optimizer", "scheduler", "+callbacks")
    given = [
        *(g for g in given if not g.startswith(changed)), "callbacks=swa", "callbacks.swa.annealing_epochs=1",
        "callbacks.swa.swa_epoch_start=2", next(g for g in given if g.startswith("+callbacks")),
    ]  # fmt: skip
    out = tmp_path / "run"
    moments = [("train", 1, 0), ("train", 3, 2), ("train", 4, 0)]
    stop_and_resume(*given, "data.num_workers=2", f"output_dir={out}", moments=moments)
    assert_same_bits(out, whole(*given), averaged=False)


@FORKS
@pytest.mark.cuda
def test_on_a_gpu_with_a_graph_it_ends_with_the_same_bits(given, whole, tmp_path):
    given = [*(g for g in given if g != "trainer=cpu"), "trainer=gpu", "model.cuda_graph=true"]
    out = tmp_path / "run"
    stop_and_resume(*given, "data.num_workers=2", f"output_dir={out}", moments=MOMENTS)
    assert_same_bits(out, whole(*given))


@FORKS
def test_killed_with_workers_it_ends_with_the_same_bits(given, whole, tmp_path):
    out, log = tmp_path / "run", tmp_path / "log.txt"
    command = [*given, "data.num_workers=2", f"output_dir={out}"]
    for goal in (1, 3):
        process = start("train", *command, log=log)
        wait_for(lambda goal=goal: len(rows(out)) >= goal, process, log)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        command = [f"resume={out}", "trust=true"]
    assert call_main("train", *command) == 0
    assert_same_bits(out, whole(*given))


class Loaded:
    """Images and masks by their numbers, for workers that are not forked (Python 3.14)."""

    def __init__(self, images, masks):
        self.images, self.masks = images, masks

    def __call__(self, i):
        return self.images[i], self.masks[i]


@FORKS
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (1, True), (2, True), (2, False)])
def test_order_and_draws_are_those_of_the_epoch_when_the_iterator_is_made(workers, persistent):
    """Against NumPy and one transform by itself; `set_epoch` comes too late and changes nothing."""
    rng = np.random.default_rng(0)
    images, masks = rng.integers(0, 256, (7, 8, 8, 3), np.uint8), rng.integers(0, 2, (7, 8, 8), np.uint8)
    flips = [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
    now = 3  # as in a resumed run
    sampler = EpochSampler(7, 5, True, epoch=lambda: now)
    samples = Samples(Loaded(images, masks), range(7), flips, 5)
    loader = DataLoader(
        samples, 2, sampler=sampler, num_workers=workers, persistent_workers=persistent, collate_fn=collate
    )
    orders = []
    for now in (3, 4, 5):
        batches = iter(loader)
        sampler.set_epoch(99)
        found = list(batches)
        orders.append(torch.cat([batch["index"] for batch in found]).tolist())
        order = np.arange(7)
        np.random.default_rng((5, now)).shuffle(order)
        assert orders[-1] == order.tolist()
        alone = albumentations.Compose(flips)
        for i, image in zip(order, torch.cat([batch["image"] for batch in found]), strict=True):
            seed = zlib.crc32(f"{zlib.crc32(f'5 {now} {i} 0'.encode())} 0".encode())
            alone.set_random_state(np.random.default_rng(seed), random.Random(seed))
            assert np.array_equal(image.permute(1, 2, 0), alone(image=images[i])["image"])
    assert len({tuple(order) for order in orders}) == 3
