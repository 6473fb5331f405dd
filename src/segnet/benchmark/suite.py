"""What the benchmark measures: every method of `Bench` is a part; variants take turns, medians count."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
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
from tqdm import tqdm

from segnet import environment
from segnet.benchmark.reference import read_batch
from segnet.benchmark.steps import (
    BASELINE,
    SOURCE,
    Step,
    child,
    data_module,
    drain,
    execute,
    fastest,
    nets,
    overhead,
    short,
    training_loader,
)
from segnet.networks.pooling import max_pool, max_unpool
from segnet.synthetic import cables


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


class Bench:
    """Holds the rows; each public method below measures one part."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(wanted if cfg.device == "auto" else cfg.device)
        self.rows: list[Row] = []
        self.nets = nets(self.device.type)
        self.dtypes = list(dict.fromkeys((torch.float32, fastest(self.device.type))))
        self.peak = 0.0  # GFLOP/s of a matrix product in the fastest of them

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
        """Measure 2048³ matrix products in float32 and in what `precision=auto` takes here."""
        sides = {t: torch.randn(2048, 2048, device=self.device, dtype=t) for t in self.dtypes}
        names = {short(t): partial(torch.matmul, a, a) for t, a in sides.items()}
        seconds = self._rounds("ceiling", names, warmup=3)
        rate = {name: [2 * 2048**3 / s / 1e9 for s in series] for name, series in seconds.items()}
        self.peak = max(rate[short(self.dtypes[-1])])
        self._add("matrix product", "GFLOP/s", rate, 1, {})

    def training(self) -> None:
        """Measure training steps, with the share of the ceiling that each reaches."""
        size, batch = self.cfg.image_size, self.cfg.batch_size
        steps = {name: Step(*self._net(make), size, batch) for name, make in self.nets.items()}
        if self.cfg.compile:
            for name in [n for n in steps if n.startswith("segnet,")]:
                compiled = Step(*self._net(self.nets[name]), size, batch)
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
        for dtype in self.dtypes:
            shape = (self.cfg.batch_size, 16, self.cfg.image_size, self.cfg.image_size)
            x = torch.randn(shape, device=self.device).relu().to(dtype).contiguous(memory_format=torch.channels_last)
            x.requires_grad_()

            def stock(x: Tensor = x) -> None:
                pooled, index = F.max_pool2d(x, 2, return_indices=True)
                torch.autograd.backward(F.max_unpool2d(pooled, index, (2, 2), output_size=x.shape[-2:]), x.detach())

            def ours(x: Tensor = x) -> None:
                pooled, code = max_pool(x)
                torch.autograd.backward(max_unpool(pooled, code, (x.shape[-2], x.shape[-1])), x.detach())

            name = short(dtype)
            seconds = self._rounds("index", {f"stock, {name}": stock, f"this, {name}": ours}, warmup=2)
            millis = {key: [s * 1e3 for s in series] for key, series in seconds.items()}
            bytes_each = {f"stock, {name}": "8 bytes a maximum", f"this, {name}": "1 byte a maximum"}
            self._add("pool + unpool, forward + backward", "ms", millis, -1, bytes_each)

    def memory(self) -> None:
        """Measure the peak memory of three training steps, each variant in a process of its own."""
        peaks: dict[str, list[float]] = {}
        for number, name in enumerate(tqdm(self.nets, "memory", leave=False)):
            code = (
                f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from segnet.benchmark.steps import peak_memory; "
                f"print(peak_memory({number}, {self.device.type!r}, {self.cfg.image_size}, {self.cfg.batch_size}))"
            )
            peaks[name] = [float(child(code).split()[-1])]
        self._add("peak memory of training", "MB", peaks, -1, {})

    def data(self) -> None:
        """Measure pictures a second: decoded in every epoch as in the original, from cache, through the loader."""
        count, size = self.cfg.images, self.cfg.image_size
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch) / "cable"
            cables.write(root, images=count, size=512, seed=self.cfg.seed)
            pairs = [(p, root / "masks" / p.name) for p in sorted((root / "images").iterdir())]
            rng = np.random.default_rng(self.cfg.seed)
            batches = [pairs[i : i + 4] for i in range(0, count, 4)]
            variants: dict[str, Callable[[], Any]] = {
                "baseline: decode, resize, flip each epoch": lambda: [read_batch(b, size, rng) for b in batches]
            }
            samples = data_module(root, size, None).samples("train")
            variants["this, decoding each epoch"] = lambda: [samples[i] for i in range(len(samples))]
            cached = data_module(root, size, str(Path(scratch) / "cache"))
            per_round = dict(zip(variants, (count, len(samples)), strict=True))
            for workers in self.cfg.workers:
                loader = training_loader(cached, workers, repeat=20)
                name = f"this, cached, loader with {workers} workers"
                variants[name] = partial(drain, loader)
                per_round[name] = 20 * len(samples)
            seconds = self._rounds("data", variants)
            rate = {name: [per_round[name] / s for s in series] for name, series in seconds.items()}
            self._add("data path", "images/s", rate, 1, {})

    def inference(self) -> None:
        """Measure the latency of batch 1 and the throughput of batch 8."""
        for batch in (1, 8):
            steps = {name: Step(*self._net(make), self.cfg.image_size, batch) for name, make in self.nets.items()}
            chosen = {name: steps[name] for name in (BASELINE, list(self.nets)[-1])}
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
                "python -c 'import torch'": lambda: child("import torch"),
                "src/train.py --help": lambda: execute([script, "--help"]),
                "src/train.py trainer=fast_dev_run (fit, validate, test one batch)": lambda: execute(first),
            }
            self._add("whole program", "s", self._rounds("program", variants), -1, {})
        seconds = self._rounds("overhead", overhead(self.device, self.cfg.image_size, self.cfg.batch_size))
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
