"""Which trainings get a CUDA graph, how losses are checked without waiting, and that a graph changes no bit."""

import gc
import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR, StepLR
from torch.utils.data import DataLoader

from segnet.benchmark.steps import Step
from segnet.networks.segnet import SegNet
from segnet.training import finite as finite_file
from segnet.training import graph as graph_file
from segnet.training.class_mix import ClassMix
from segnet.training.finite import when_to_look
from segnet.training.graph import WARM_UP, StepGraph, _Captured
from segnet.training.losses import CrossEntropy, lovasz
from segnet.training.module import SegmentationModule
from segnet.training.optimizers import Muon

GPU = torch.device("cuda")


class OnGPU(SegmentationModule):
    """Says that it is on a GPU, for decisions that are taken before anything runs there."""

    device = GPU


def module(kind=SegmentationModule, optimizer=None, scheduler=None, loss=None, dropout=0.0, **options):
    torch.manual_seed(0)
    net = SegNet(1, widths=(8, 8, 8, 8, 8), dropout=dropout)
    optimizer = optimizer or partial(SGD, lr=0.05, momentum=0.9)
    return kind(net, loss or CrossEntropy(1), optimizer, scheduler, classes=["defect"], image_size=32, **options)


def loader(images=26, size=(32, 32), batch=4):
    """Batches in the same order every time; the last one of an epoch is smaller."""
    draw = torch.Generator().manual_seed(images)
    image = torch.randint(0, 256, (images, 3, *size), dtype=torch.uint8, generator=draw)
    mask = torch.randint(0, 2, (images, *size), dtype=torch.uint8, generator=draw)
    samples = [{"image": i, "mask": m} for i, m in zip(image, mask, strict=True)]
    return DataLoader(samples, batch, generator=draw)  # else it draws a seed from the generator of the dropout


def trainer(**options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return Trainer(**quiet | {"accelerator": "cpu", "enable_checkpointing": False, "max_epochs": 1} | options)


# -- decisions, without a GPU ------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["on", "True", None, 1, 0])
def test_a_wrong_value_is_named(value):
    with pytest.raises(ValueError, match=rf"^model.cuda_graph={value}: must be auto, true or false$"):
        module(cuda_graph=value)


def test_true_on_a_cpu_is_one_clear_error():
    with pytest.raises(ValueError, match=r"^model.cuda_graph=true: the run is on cpu; use model.cuda_graph=auto$"):
        trainer().fit(module(cuda_graph=True), loader(4), loader(4))


@pytest.mark.parametrize("value", ["auto", False])
def test_a_cpu_trains_without_a_word(value, caplog, capfd):
    model = module(cuda_graph=value)
    trainer().fit(model, loader(6), loader(4))
    assert model.graph.declined == ("the run is on cpu" if value == "auto" else "model.cuda_graph=false")
    assert not [record for record in caplog.records if "graph" in record.message]
    assert "graph" not in "".join(capfd.readouterr())


def scaled():
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))


OBSTACLES = {
    "ddp": (lambda: trainer(strategy="ddp", devices=2), {}, "DDPStrategy exchanges gradients between processes"),
    "ddp of one": (lambda: trainer(strategy="ddp", devices=1), {}, "DDPStrategy exchanges gradients"),
    "16-mixed": (lambda: trainer(plugins=[scaled()]), {}, "trainer.precision=16-mixed scales the loss anew"),
    "swa": (lambda: trainer(callbacks=[StochasticWeightAveraging(0.1)]), {}, "callbacks=swa changes the batch norms"),
    "overhead": (trainer, {"compile": "reduce-overhead"}, "model.compile=reduce-overhead makes graphs of its own"),
    "autotune": (trainer, {"compile": "max-autotune"}, "model.compile=max-autotune makes graphs of its own"),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_auto_says_why_it_declines_and_true_is_an_error(case, caplog):
    make, options, reason = OBSTACLES[case]
    run = make()
    model = module(OnGPU, **options)
    with caplog.at_level("INFO"):
        model.graph.begin(run, model)
    assert model.graph.declined.startswith(reason)
    assert [record.message for record in caplog.records if "graph" in record.message] == [
        f"no CUDA graph: {model.graph.declined}"
    ]
    assert model.graph({"image": torch.zeros(1, 3, 2, 2), "mask": torch.zeros(1, 2, 2)}, 1) is None
    model = module(OnGPU, cuda_graph=True, **options)
    with pytest.raises(ValueError, match=rf"^model.cuda_graph=true: {reason}.*; use model.cuda_graph=auto$"):
        model.graph.begin(run, model)


def test_anomaly_detection_declines():
    model = module(OnGPU)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it makes training slow
        with torch.autograd.set_detect_anomaly(True):
            model.graph.begin(trainer(detect_anomaly=True), model)
    assert model.graph.declined == "trainer.detect_anomaly=true reads every gradient"


@pytest.mark.parametrize("options", [{}, {"compile": "default"}])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_the_usual_run_has_no_obstacle(precision, options, caplog):
    model = module(OnGPU, cuda_graph=True, **options)
    with caplog.at_level("INFO"):
        model.graph.begin(trainer(precision=precision, accumulate_grad_batches=2, gradient_clip_val=1.0), model)
    assert model.graph.declined is None
    assert not [record for record in caplog.records if "CUDA graph" in record.message]


def test_with_a_teacher_there_is_no_graph():
    model = module(OnGPU)
    model.teacher = lambda loss, logits, batch: loss
    model.graph.begin(trainer(), model)
    assert model.graph.declined == "a teacher takes part in the step, which has not been tried in a graph"


def test_false_asks_nothing_and_says_nothing(caplog):
    model = module(OnGPU, cuda_graph=False)
    with caplog.at_level("INFO"):
        model.graph.begin(OBSTACLES["ddp"][0](), model)
    assert model.graph.declined == "model.cuda_graph=false"
    assert not [record for record in caplog.records if "CUDA graph" in record.message]


def test_steps_are_captured_only_when_warm_and_forgotten_with_the_state(monkeypatch):
    model = module(OnGPU)
    run = trainer()
    model.graph.begin(run, model)
    model.graph.check(run, model)
    captured = []
    monkeypatch.setattr(StepGraph, "_capture", lambda self, step, accumulate: captured.append(len(step.inputs["mask"])))
    batches = {n: {"image": torch.zeros(n, 3, 2, 2), "mask": torch.zeros(n, 2, 2)} for n in (1, 2, 4)}
    for n in (4, 4, 2, 1, 4, 1):  # a third shape is never captured
        assert model.graph(batches[n], 1) is None
    assert captured == []
    model.graph(batches[4], 1)
    assert captured == [4]
    model.graph.check(run, model)  # nothing has changed
    model.graph(batches[4], 1)
    assert captured == [4, 4]

    def changes():
        model.net.encoder[0].requires_grad_(False)
        yield
        model.net.encoder[0].eval()
        yield
        model.net.encoder[0][1].momentum = None
        yield
        run.accumulate_grad_batches = 3
        yield
        model.net.double()
        yield

    for _ in changes():
        model.graph.check(run, model)
        for _ in range(WARM_UP):
            model.graph(batches[4], 1)
        assert len(captured) == 2
        model.graph.check(run, model)
        assert model.graph._captured
    model.on_train_end()
    assert not model.graph._captured


@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradients_of_a_replay_are_handed_over_as_autograd_would_add_them(accumulate):
    """The graph writes every step's gradients to the same place."""
    parameter, frozen = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    place, graph = torch.zeros(2), StepGraph("auto", lambda batch: pytest.fail("not called"))
    graph._last = _Captured({}, gradients=[(parameter, place)])
    total = torch.zeros(2)
    for step in range(accumulate):
        place.copy_(torch.tensor([1.0, 10.0]) * (step + 1))
        graph.hand_over(accumulate)
        total += place
        assert torch.equal(parameter.grad, total)
    assert frozen.grad is None
    parameter.grad = None
    place.fill_(5)
    graph.hand_over(accumulate)
    assert torch.equal(parameter.grad, place)
    assert (parameter.grad is place) == (accumulate == 1)


@pytest.fixture
def waits(monkeypatch):
    """``waits()`` says that the GPU is waited for now, as a GPU would say it; every run may have a graph."""
    noticing = []

    @contextmanager
    def notice():
        noticing.append([])
        try:
            yield noticing[-1]
        finally:
            noticing.pop()

    monkeypatch.setattr(graph_file, "noticing_waits", notice)
    monkeypatch.setattr(graph_file, "_obstacle", lambda *_: None)
    monkeypatch.setattr(StepGraph, "_capture", lambda *_: pytest.fail("captured"))

    def wait(*_):
        for noticed in noticing:
            noticed.append("called a synchronizing operation")

    return wait


class Waits(nn.Module):
    """A loss that waits in its forward or its backward pass."""

    def __init__(self, where, wait):
        super().__init__()
        self.where, self.wait, self.loss = where, wait, CrossEntropy(1)

    def forward(self, logits, mask):
        loss = self.loss(logits, mask)
        if self.where == "forward":
            self.wait()
        elif loss.requires_grad:
            loss.register_hook(self.wait)
        return loss


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_what_waits_in_either_pass_is_noticed_before_the_capture(where, waits, caplog):
    """A capture that fails would end the run."""
    model = module(loss=Waits(where, waits))
    with caplog.at_level("INFO"):
        trainer().fit(model, loader(28), loader(4))
    assert model.graph.declined.startswith("the step waits for the device")
    assert any("no CUDA graph: the step waits" in record.message for record in caplog.records)
    with pytest.raises(ValueError, match=r"^model.cuda_graph=true: the step waits for the device"):
        trainer().fit(module(loss=Waits(where, waits), cuda_graph=True), loader(28), loader(4))


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_so_it_is_where_a_step_is_measured(where, waits):
    model = module(loss=Waits(where, waits))
    batch = next(iter(loader(4)))
    step = Step(model.graph.step, model.optimizer(model.parameters()), batch, "auto", deterministic=False)
    for _ in range(WARM_UP + 2):
        step()
    assert step.graph.declined.startswith("the step waits for the device")


# -- losses that are not finite -----------------------------------------------------------------------


def test_when_a_loss_is_looked_at():
    cpu = torch.device("cpu")
    assert all(when_to_look(cpu, step, every=50, last=False) == "now" for step in range(120))
    looks = {step: when_to_look(GPU, step, every=50, last=step == 119) for step in range(120)}
    looks = {step: look for step, look in looks.items() if look}
    assert looks == dict.fromkeys([24, 49, 74, 99], "lately") | {119: "now"}
    assert all(when_to_look(GPU, step, every=1, last=False) == "lately" for step in range(9))


class Diverges(nn.Module):
    """A loss that is NaN in one training step."""

    def __init__(self, step):
        super().__init__()
        self.step, self.steps = step, 0
        self.loss = CrossEntropy(1)

    def forward(self, logits, mask):
        self.steps += logits.requires_grad
        return self.loss(logits, mask) * (float("nan") if self.steps == self.step + 1 else 1)


@pytest.fixture
def late(monkeypatch):
    """Losses are looked at as on a GPU."""
    monkeypatch.setattr(finite_file, "when_to_look", lambda device, *a, **k: when_to_look(GPU, *a, **k))


class Steps(Callback):
    def __init__(self):
        self.done = 0

    def on_train_batch_end(self, *args):
        self.done += 1


def diverge(step, *callbacks, **options):
    """How many steps a run ends that has a NaN in this one."""
    steps = Steps()
    options = {"max_epochs": 3, "log_every_n_steps": 4, "callbacks": [steps, *callbacks]} | options
    with pytest.raises(FloatingPointError, match=r"train/loss is not finite in epoch 0, step \d"):
        trainer(**options).fit(module(loss=Diverges(step)), loader(28), loader(4, (32, 64)))
    return steps.done


def test_a_cpu_notices_at_once():
    assert diverge(2) == 2


@pytest.mark.parametrize(("step", "done"), [(0, 3), (1, 3), (2, 5), (3, 5), (4, 6), (6, 6)])
def test_a_gpu_notices_after_a_few_steps_or_at_the_epochs_end(step, done, late):
    assert diverge(step) == done


def test_before_training_nothing_was_lost(tmp_path):
    run = trainer()
    run.strategy.connect(module())
    run.save_checkpoint(tmp_path / "untrained.ckpt")
    assert (tmp_path / "untrained.ckpt").is_file()


def test_also_where_the_epoch_ends_early(late):
    assert diverge(1, max_steps=3) == 3


@pytest.mark.parametrize("when", [{"every_n_train_steps": 1}, {"save_on_train_epoch_end": False}])
def test_no_checkpoint_is_written_after_it(when, late, tmp_path):
    keep = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{step}", **when)
    assert diverge(5, keep, enable_checkpointing=True, val_check_interval=1, log_every_n_steps=50) == 6
    written = [torch.load(path, weights_only=True) for path in tmp_path.iterdir()]
    assert sorted(state["global_step"] for state in written) == [1, 2, 3, 4, 5]
    for state in written:
        assert all(value.isfinite().all() for value in state["state_dict"].values())


# -- on a GPU -----------------------------------------------------------------------------------------


class Replays(Callback):
    """Which steps were replayed."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.steps.append(pl_module.graph.replayed)


class Reading(nn.Module):
    """A loss that reads its value, from some call on."""

    def __init__(self, begin=0):
        super().__init__()
        self.begin, self.calls = begin, 0
        self.loss = CrossEntropy(1)

    def forward(self, logits, mask):
        self.calls += 1
        loss = self.loss(logits, mask)
        if self.calls > self.begin:
            assert loss.item() < 1e9
        return loss


def fit(cuda_graph, ckpt_path=None, *, callbacks=(), accelerator="gpu", training=None, **options):
    """Five epochs of seven steps, the last one smaller, with validation at another size: what comes of them."""
    model, replays = module(cuda_graph=cuda_graph, **options), Replays()
    options = {"precision": "bf16-mixed", "deterministic": True, "max_epochs": 5} | (training or {})
    run = trainer(accelerator=accelerator, devices=1, callbacks=[*callbacks, replays], **options)
    try:
        run.fit(model, loader(), loader(6, (64, 48)), ckpt_path=ckpt_path, weights_only=True)
    finally:
        torch.use_deterministic_algorithms(False)
    metrics = dict(run.callback_metrics)
    state = run.optimizers[0].state_dict()["state"]
    optimizer = {f"{i} {name}": torch.as_tensor(value) for i, own in state.items() for name, value in own.items()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return model, weights | optimizer | metrics, replays.steps


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    # NaN where nothing is predicted: a precision
    different = [name for name, value in expected.items() if not ((found[name] == value) | value.isnan()).all()]
    assert not different
    assert not [name for name, value in expected.items() if not torch.equal(found[name].isnan(), value.isnan())]


RUNS = {
    "sgd": dict,
    "adamw": lambda: {"optimizer": partial(AdamW, lr=1e-2)},
    "muon": lambda: {"optimizer": partial(Muon, lr=0.02)},
    "onecycle": lambda: {"scheduler": partial(OneCycleLR, max_lr=0.1)},
    "accumulate": lambda: {"training": {"accumulate_grad_batches": 2}},
    "clipped": lambda: {"training": {"gradient_clip_val": 0.01}},
    "dropout": lambda: {"dropout": 0.5},
    "ema": lambda: {"callbacks": [EMAWeightAveraging(decay=0.9)]},
    "class_mix": lambda: {"callbacks": [ClassMix()]},
    "float32": lambda: {"training": {"precision": "32-true"}},
    "nchw": lambda: {"channels_last": False},
}


@pytest.mark.cuda
@pytest.mark.parametrize("case", RUNS)
def test_a_graph_changes_no_bit(case):
    _, expected, none = fit(False, **RUNS[case]())
    assert not any(none)
    model, found, replayed = fit(True, **RUNS[case]())
    full, last = replayed[:6], replayed[6::7]
    assert full == [False] * WARM_UP + [True] * 3
    assert all(step for i, step in enumerate(replayed) if i > 6 and i % 7 < 6)
    assert last == [False] * WARM_UP + [True] * 2  # the smaller batch has a graph of its own
    assert_same_bits(found, expected)
    assert not model.graph._captured  # its memory is given back


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the resumed run keeps no checkpoints
@pytest.mark.parametrize("case", ["adamw", "muon", "dropout"])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(case, tmp_path):
    options = RUNS[case]() | {"scheduler": partial(StepLR, step_size=2, gamma=0.5)}
    keep = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}", save_on_train_epoch_end=True)
    _, expected, _ = fit(True, callbacks=[keep], training={"enable_checkpointing": True}, **options)
    _, found, replayed = fit(True, str(tmp_path / "epoch=1.ckpt"), **options)
    assert len(replayed) == 3 * 7
    assert any(replayed)
    assert_same_bits(found, expected)


@pytest.mark.cuda
def test_a_loss_that_reads_values_trains_without_a_graph(caplog):
    """Noticed before the capture."""
    options, reason = {"dropout": 0.5}, "the step waits for the device"
    _, expected, _ = fit(False, loss=Reading(), **options)
    with caplog.at_level("INFO"):
        model, found, replayed = fit("auto", loss=Reading(), **options)
    assert model.graph.declined.startswith(reason)
    assert any(f"no CUDA graph: {reason}" in record.message for record in caplog.records)
    assert not any(replayed)
    assert_same_bits(found, expected)
    with pytest.raises(ValueError, match=f"model.cuda_graph=true: {reason}"):
        fit(True, loss=Reading(), **options)


@pytest.mark.cuda
def test_a_step_that_cannot_be_captured_is_one_clear_error():
    """Where only later steps read, the capture fails; in a process of its own, which a failed capture may harm."""
    code = "from training.test_graph import *; fit('auto', loss=Reading(WARM_UP))"
    tests = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, (tests, tests.parent / "src", *filter(None, [os.environ.get("PYTHONPATH")]))))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "model.cuda_graph=auto: the step cannot be captured (" in last
    assert last.endswith("); use model.cuda_graph=false")


@pytest.mark.cuda
def test_lovasz_picks_by_mask_and_declines():
    model, _, replayed = fit("auto", loss=lovasz(1), training={"deterministic": False, "max_epochs": 1})
    assert model.graph.declined.startswith("the step waits for the device")
    assert not any(replayed)


class NoWaits(Callback):
    """Whatever waits for the GPU between the beginning and the end of these steps is an error."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 4 and batch_idx < 6:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, *args):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("case", ["sgd", "adamw", "muon", "accumulate", "clipped"])
def test_replayed_steps_do_not_wait_for_the_gpu(case):
    options = RUNS[case]()
    options["training"] = options.get("training", {}) | {"log_every_n_steps": 50}
    _, _, replayed = fit(True, callbacks=[NoWaits()], **options)
    assert replayed[-1]


@pytest.mark.cuda
def test_the_graphs_memory_is_given_back():
    fit(True)  # what torch keeps for good, such as workspaces
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        fit(True)
    gc.collect()
    assert torch.cuda.memory_allocated() - before < 8 << 20
