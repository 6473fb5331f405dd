"""What the benchmark measures: every method of `Bench` is a part; variants take turns, medians count."""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from segnet import environment, synthetic
from segnet.baseline import StockNetwork, read_batch
from segnet.data import SegmentationDataModule
from segnet.losses import CrossEntropy
from segnet.masks import Threshold
from segnet.model import SegNet, SegNetCompact
from segnet.pooling import max_pool, max_unpool
from segnet.samples import EpochSampler, collate
from segnet.splits import ByHash

BASELINE = "baseline: compact, NCHW, float32, stock indices"
SOURCE = Path(__file__).resolve().parents[1]


@dataclass
class Row:
    """A measured figure: median, least and greatest of the rounds."""

    part: str
    name: str
    unit: str
    median: float
    least: float
    greatest: float
    ratio: float | None = None  # to the part's first row; greater is better
    note: str = ""


class Step:
    """One training step: forward, loss, backward, update."""

    def __init__(self, net: nn.Module, device: torch.device, fast: bool, size: int, batch: int) -> None:
        layout = torch.channels_last if fast else torch.contiguous_format
        torch.manual_seed(0)
        self.net = net.to(device).to(memory_format=layout)  # type: ignore[call-overload]
        self.loss = CrossEntropy(1).to(device)
        self.optimizer = torch.optim.SGD(net.parameters(), 0.01)
        self.pictures = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=layout)
        self.masks = torch.randint(0, 2, (batch, size, size), device=device)
        self.device, self.fast = device, fast

    def forward(self) -> Tensor:
        """Logits of the fixed batch."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast):
            out: Tensor = self.net(self.pictures)
        return out

    def __call__(self) -> None:
        """The step."""
        self.optimizer.zero_grad()
        self.loss(self.forward().float(), self.masks).backward()
        self.optimizer.step()

    def flops(self) -> int:
        """Floating-point operations of a step: the convolutions of forward and backward."""
        with FlopCounterMode(display=False) as counter:
            self()
        return int(counter.get_total_flops())


def nets() -> dict[str, Callable[[], tuple[nn.Module, bool]]]:
    """Variants of the training step: network, and whether it runs channels-last in bfloat16."""
    return {
        BASELINE: lambda: (StockNetwork(SegNetCompact(1)), False),
        "compact, channels-last, bfloat16, stock indices": lambda: (StockNetwork(SegNetCompact(1)), True),
        "compact, channels-last, bfloat16": lambda: (SegNetCompact(1), True),
        "segnet, channels-last, bfloat16, stock indices": lambda: (StockNetwork(SegNet(1)), True),
        "segnet, channels-last, bfloat16": lambda: (SegNet(1), True),
    }


class Bench:
    """Holds the rows; each public method below measures one part."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(wanted if cfg.device == "auto" else cfg.device)
        self.rows: list[Row] = []
        self.peak = 0.0  # GFLOP/s of a bfloat16 matrix product

    def _sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _rounds(self, part: str, variants: Mapping[str, Callable[[], Any]], warmup: int = 1) -> dict[str, list[float]]:
        """Seconds of every variant, in turn, so that a noisy machine favours none."""
        for call in variants.values():
            for _ in range(warmup):
                call()
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for _ in tqdm(range(self.cfg.repeats), part, leave=False):
            for name, call in variants.items():
                self._sync()
                start = time.perf_counter()
                call()
                self._sync()
                seconds[name].append(time.perf_counter() - start)
        return seconds

    def _add(self, part: str, unit: str, values: dict[str, list[float]], better: int, notes: dict[str, str]) -> None:
        """Rows of a part; ``better`` is 1 where greater is better, -1 where less is."""
        first = statistics.median(next(iter(values.values())))
        for name, series in values.items():
            median = statistics.median(series)
            ratio = (median / first) ** better
            self.rows.append(Row(part, name, unit, median, min(series), max(series), ratio, notes.get(name, "")))

    def ceiling(self) -> None:
        """Measure 2048³ matrix products in float32 and bfloat16."""
        sides = {t: torch.randn(2048, 2048, device=self.device, dtype=t) for t in (torch.float32, torch.bfloat16)}
        names = {str(t).removeprefix("torch."): partial(torch.matmul, a, a) for t, a in sides.items()}
        seconds = self._rounds("ceiling", names, warmup=3)
        rate = {name: [2 * 2048**3 / s / 1e9 for s in series] for name, series in seconds.items()}
        self.peak = max(rate["bfloat16"])
        self._add("matrix product", "GFLOP/s", rate, 1, {})

    def training(self) -> None:
        """Measure training steps, with the share of the ceiling that each reaches."""
        size, batch = self.cfg.image_size, self.cfg.batch_size
        steps = {name: Step(*self._net(make), size, batch) for name, make in nets().items()}
        if self.cfg.compile:
            for name in [n for n in steps if n.startswith("segnet,")]:
                compiled = Step(*self._net(nets()[name]), size, batch)
                compiled.net.compile()
                steps[f"{name}, compiled"] = compiled
        work = {name: step.flops() for name, step in steps.items() if "compiled" not in name}
        seconds = self._rounds("training", dict(steps), warmup=2)
        rate = {name: [batch / s for s in series] for name, series in seconds.items()}
        notes = {}
        for name, flops in work.items():
            share = flops / statistics.median(seconds[name]) / 1e9 / self.peak if self.peak else 0
            notes[name] = f"{flops / batch / 1e9:.0f} GFLOP an image" + (
                f", {share:.0%} of the ceiling" if share else ""
            )
        self._add("training step", "images/s", rate, 1, notes)

    def _net(self, make: Callable[[], tuple[nn.Module, bool]]) -> tuple[nn.Module, torch.device, bool]:
        net, fast = make()
        return net, self.device, fast

    def index(self) -> None:
        """Measure pooling and unpooling, forward and backward, against the stock operators."""
        for dtype in (torch.float32, torch.bfloat16):
            shape = (self.cfg.batch_size, 16, self.cfg.image_size, self.cfg.image_size)
            x = torch.randn(shape, device=self.device).relu().to(dtype).contiguous(memory_format=torch.channels_last)
            x.requires_grad_()

            def stock(x: Tensor = x) -> None:
                pooled, index = F.max_pool2d(x, 2, return_indices=True)
                torch.autograd.backward(F.max_unpool2d(pooled, index, (2, 2), output_size=x.shape[-2:]), x.detach())

            def ours(x: Tensor = x) -> None:
                pooled, code = max_pool(x)
                torch.autograd.backward(max_unpool(pooled, code, (x.shape[-2], x.shape[-1])), x.detach())

            name = str(dtype).removeprefix("torch.")
            seconds = self._rounds("index", {f"stock, {name}": stock, f"this, {name}": ours}, warmup=2)
            millis = {key: [s * 1e3 for s in series] for key, series in seconds.items()}
            bytes_each = {f"stock, {name}": "8 bytes a maximum", f"this, {name}": "1 byte a maximum"}
            self._add("pool + unpool, forward + backward", "ms", millis, -1, bytes_each)

    def memory(self) -> None:
        """Measure the peak memory of three training steps, each variant in a process of its own."""
        peaks: dict[str, list[float]] = {}
        for number, name in enumerate(tqdm(nets(), "memory", leave=False)):
            code = (
                f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from segnet.measure import peak_memory; "
                f"print(peak_memory({number}, {self.device.type!r}, {self.cfg.image_size}, {self.cfg.batch_size}))"
            )
            peaks[name] = [float(_child(code).split()[-1])]
        self._add("peak memory of training", "MB", peaks, -1, {})

    def data(self) -> None:
        """Measure pictures a second: decoded in every epoch as in the original, from cache, through the loader."""
        count, size = self.cfg.images, self.cfg.image_size
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch) / "cable"
            synthetic.write(root, images=count, size=512, seed=self.cfg.seed)
            pairs = [(p, root / "masks" / p.name) for p in sorted((root / "images").iterdir())]
            rng = np.random.default_rng(self.cfg.seed)
            batches = [pairs[i : i + 4] for i in range(0, count, 4)]
            variants: dict[str, Callable[[], Any]] = {
                "baseline: decode, resize, flip each epoch": lambda: [read_batch(b, size, rng) for b in batches]
            }
            samples = _module(root, size, None).samples("train")
            variants["this, decoding each epoch"] = lambda: [samples[(0, i)] for i in range(len(samples))]
            cached = _module(root, size, str(Path(scratch) / "cache"))
            per_round = dict(zip(variants, (count, len(samples)), strict=True))
            for workers in self.cfg.workers:
                loader = _loader(cached, workers, repeat=20)
                name = f"this, cached, loader with {workers} workers"
                variants[name] = partial(_drain, loader)
                per_round[name] = 20 * len(samples)
            seconds = self._rounds("data", variants)
            rate = {name: [per_round[name] / s for s in series] for name, series in seconds.items()}
            self._add("data path", "images/s", rate, 1, {})

    def inference(self) -> None:
        """Measure the latency of batch 1 and the throughput of batch 8."""
        for batch in (1, 8):
            steps = {name: Step(*self._net(make), self.cfg.image_size, batch) for name, make in nets().items()}
            chosen = {name: steps[name] for name in (BASELINE, "segnet, channels-last, bfloat16")}
            for step in chosen.values():
                step.net.eval()
            calls = {name: torch.no_grad()(step.forward) for name, step in chosen.items()}
            seconds = self._rounds(f"inference {batch}", calls)
            values = {name: [s * 1e3 if batch == 1 else batch / s for s in series] for name, series in seconds.items()}
            unit, better = ("ms", -1) if batch == 1 else ("images/s", 1)
            self._add(f"inference, batch {batch}", unit, values, better, {})

    def program(self) -> None:
        """Measure the program from outside: --help against importing torch, command to first step, the overhead."""
        script = str(SOURCE / "train.py")
        with tempfile.TemporaryDirectory() as scratch:
            first = [
                script, "trainer=fast_dev_run", f"output_dir={scratch}/run", f"data.cache_dir={scratch}/cache",
                f"data.root={scratch}/cable", "data.prepare.images=24", "data.prepare.size=64", "data.image_size=64",
            ]  # fmt: skip
            variants: dict[str, Callable[[], Any]] = {
                "python -c 'import torch'": lambda: _child("import torch"),
                "src/train.py --help": lambda: _execute([script, "--help"]),
                "src/train.py trainer=fast_dev_run (fit, validate, test one batch)": lambda: _execute(first),
            }
            self._add("whole program", "s", self._rounds("program", variants), -1, {})
        seconds = self._rounds("overhead", _overhead(self.device, self.cfg.image_size, self.cfg.batch_size))
        self._add("an epoch of 8 steps, default network", "s", seconds, -1, {})

    # -- reports -----------------------------------------------------------------------------------

    def results(self) -> dict[str, Any]:
        """Rows and surroundings, plain."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "hardware": environment.hardware(self.device),
            "versions": environment.versions(),
            "commit": environment.commit(),
            "image_size": self.cfg.image_size,
            "batch_size": self.cfg.batch_size,
            "repeats": self.cfg.repeats,
        }

    def table(self) -> str:
        """Markdown."""
        lines = [f"{environment.hardware(self.device)}; torch {torch.__version__}; median (least to greatest)", ""]
        part = ""
        for row in self.rows:
            if row.part != part:
                part = row.part
                lines += ["", f"| {part} | {row.unit} | spread | ratio | |", "|---|---:|---:|---:|---|"]
            shown = f"{row.median:.3g} | {row.least:.3g} to {row.greatest:.3g} | {row.ratio:.2f}× | {row.note} |"
            lines.append(f"| {row.name} | {shown}")
        return "\n".join(lines)

    def figure(self) -> Figure:
        """Ratios of every part as bars."""
        rows = [row for row in self.rows if row.ratio is not None and row.part != "matrix product"]
        figure = Figure(figsize=(9, 1 + 0.28 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh([f"{row.part}: {row.name}"[:80] for row in rows][::-1], [row.ratio or 0 for row in rows][::-1])
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(xlabel="times the part's first row; greater is better", xscale="log")
        axes.tick_params(axis="y", labelsize=7)
        return figure


def peak_memory(number: int, device: str, size: int, batch: int) -> float:
    """MB that three steps of the variant take beyond what the process held before; called in a fresh process."""
    environment.keep_freed_memory()
    make = list(nets().values())[number]
    on = torch.device(device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    step = Step(*make()[:1], on, make()[1], size, batch)
    for _ in range(3):
        step()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6


def _execute(arguments: Sequence[str]) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _child(code: str) -> str:
    return _execute(["-c", code])


def _drain(loader: DataLoader[dict[str, Tensor]]) -> int:
    return sum(len(batch["image"]) for batch in loader)


def _module(root: Path, size: int, cache_dir: str | None) -> SegmentationDataModule:
    import albumentations

    data = SegmentationDataModule(
        str(root), "images/*.png", "masks/{name}", Threshold(), ["defect"], 1, ByHash(0.7, 0.15, 0.15),
        image_size=size, cache_dir=cache_dir, augment=[albumentations.HorizontalFlip(p=0.5)],
    )  # fmt: skip
    data.find()
    return data


def _loader(data: SegmentationDataModule, workers: int, repeat: int) -> DataLoader[dict[str, Tensor]]:
    """The training loader, over the split several times so that starting the workers does not count."""
    samples = data.samples("train")
    samples.indices = list(samples.indices) * repeat
    sampler = EpochSampler(len(samples), 0, True)
    return DataLoader(
        samples, 4, sampler=sampler, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0  # type: ignore[arg-type]
    )  # fmt: skip


def _overhead(device: torch.device, size: int, batch: int) -> dict[str, Callable[[], Any]]:
    """The same eight steps on the same batches: a bare loop, and Lightning with this project's module and metrics."""
    from lightning.pytorch import Trainer

    from segnet.module import SegmentationModule

    picture = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    mask = torch.randint(0, 2, (batch, size, size), dtype=torch.uint8)
    batches = [{"image": picture, "mask": mask, "index": torch.arange(batch)}] * 8
    module = SegmentationModule(
        SegNet(1), CrossEntropy(1), partial(torch.optim.SGD, lr=0.01), classes=["defect"], image_size=size
    ).to(device)
    bare = torch.optim.SGD(module.parameters(), 0.01)

    def loop() -> None:
        for item in batches:
            on = {key: value.to(device) for key, value in item.items()}
            bare.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                logits = module.logits(on["image"])
            module.loss(logits, on["mask"].long()).backward()
            bare.step()

    trainer = Trainer(
        accelerator=device.type, devices=1, precision="bf16-mixed", max_epochs=-1, max_steps=8, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip

    def fit() -> None:
        trainer.fit_loop.epoch_loop.max_steps = trainer.global_step + 8
        trainer.should_stop = False
        trainer.fit(module, batches)

    return {"bare loop": loop, "Lightning with module and metrics": fit}
