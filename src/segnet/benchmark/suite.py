"""What the benchmark measures: each part is a method of `Bench`; variants take turns, medians count."""

import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from segnet import environment
from segnet.benchmark import networks, programs, runtimes, steps
from segnet.benchmark.recipe import Recipe
from segnet.benchmark.reference import read_batch
from segnet.benchmark.steps import short
from segnet.benchmark.table import Row, Table
from segnet.synthetic import cables


class Bench(Table):
    """Measures the configured parts and holds their rows."""

    def __init__(self, cfg: DictConfig) -> None:
        self.device = torch.device(environment.device_of(cfg.device))
        given = {str(key): value for key, value in cfg.items() if value is not None}
        own = OmegaConf.to_container(cfg[self.device.type])  # what is measured on this device unless told otherwise
        self.cfg = OmegaConf.merge(own, given)
        self.rows: list[Row] = []
        self.variants = steps.variants(self.device, self.cfg.compile)
        self.dtypes = list(dict.fromkeys((torch.float32, steps.fastest(self.device.type))))
        self.side_by_side = runtimes.SideBySide()
        self.seconds = 0.0  # that measuring took
        self.peak = 0.0  # GFLOP/s of a matrix product in the fastest of them

    def measure(self) -> None:
        """Measure the parts one after the other."""
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            self.scratch = Path(scratch)
            for part in dict.fromkeys(self.cfg.parts):
                getattr(self, part)()
                torch.use_deterministic_algorithms(False)
                self._release()
                self.seconds = time.perf_counter() - start

    def _release(self) -> None:
        """Give memory back, so that no part counts an earlier one's."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @cached_property
    def _recipe(self) -> Recipe:
        return Recipe(self.scratch, self.cfg.loop, self.device)

    def _rounds(self, part: str, calls: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
        """Seconds of every call, warmed up and in turn, so that a noisy machine favours none.

        Short calls are repeated in their turn until it has lasted a while, and a GPU gets them without waiting.
        """
        times: dict[str, int] = {}
        for name, call in calls.items():
            call()
            times[name] = math.ceil(self.cfg.turn / steps.seconds_of(call, self.device))
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in tqdm(range(self.cfg.repeats), part, leave=False):
            for name, call in calls.items():
                seconds[name].append(steps.seconds_of(call, self.device, times[name]))
        return seconds

    def _add(
        self, part: str, unit: str, values: Mapping[str, Sequence[float]], better: int, notes: Mapping[str, str] = {}
    ) -> None:
        """Rows of a part; ``better`` is 1 where greater is better, -1 where less is."""
        first = statistics.median(next(iter(values.values())))
        for name, series in values.items():
            median = statistics.median(series)
            ratio = (median / first) ** better
            self.rows.append(Row(part, name, unit, median, min(series), max(series), ratio, notes.get(name, "")))

    def ceiling(self) -> None:
        """Measure matrix products in float32 and in what `precision=auto` takes here, and copies in memory."""
        side = self.cfg.matrix
        sides = {short(dtype): torch.randn(side, side, device=self.device, dtype=dtype) for dtype in self.dtypes}
        seconds = self._rounds("ceiling", {name: partial(torch.matmul, a, a) for name, a in sides.items()})
        rate = {name: [2 * side**3 / s / 1e9 for s in series] for name, series in seconds.items()}
        self.peak = max(rate[short(self.dtypes[-1])])
        self._add(f"matrix product, {side}³", "GFLOP/s", rate, 1)
        source = torch.zeros(self.cfg.copy_mb * 10**6, dtype=torch.uint8, device=self.device)
        copy = self._rounds(
            "bandwidth", {"copy, bytes read and written": partial(torch.empty_like(source).copy_, source)}
        )
        rate = {name: [2 * source.nbytes / s / 1e9 for s in series] for name, series in copy.items()}
        self._add("memory bandwidth", "GB/s", rate, 1)

    def training(self) -> None:
        """Measure training steps, with the share of the ceiling that each reaches."""
        size = self.cfg.image_size
        work = {net: steps.flops(net, size) for net in {variant.net for variant in self.variants.values()}}
        for batch in self.cfg.batch_sizes:
            torch.compiler.reset()  # else it would compile for batches of any size
            calls = {
                name: steps.training_step(variant, self.device, size, batch) for name, variant in self.variants.items()
            }
            first = {name: step.warm_up() for name, step in calls.items()}
            seconds = self._rounds(f"training {batch}", calls)
            rate = {name: [batch / s for s in series] for name, series in seconds.items()}
            notes = {}
            for name, variant in self.variants.items():
                step, flops = statistics.median(seconds[name]), work[variant.net]
                notes[name] = f"{step * 1e3:.3g} ms, {flops / 1e9:.0f} GFLOP an image"
                if self.peak:
                    notes[name] += f", {batch * flops / step / 1e9 / self.peak:.0%} of the ceiling"
                if variant.compile is not None:
                    notes[name] += f"; first step after {first[name]:.0f} s"
            self._add(f"training step, batch {batch}", "images/s", rate, 1, notes)
            del calls
            self._release()

    def loop(self) -> None:
        """Measure the training loop of ``train.py`` against the step alone on a fixed batch."""
        trained = self._recipe.train(self.cfg.loop.epochs)
        torch.set_float32_matmul_precision("high")  # as in train.py
        step = self._recipe.step()
        step.warm_up()
        (seconds,) = self._rounds("loop", {"step": step}).values()
        torch.set_float32_matmul_precision("highest")
        images = len(step.batch["image"])
        bare = "bare step, CUDA graph" if self.device.type == "cuda" else "bare step"
        rate = {bare: [images / s for s in seconds], "src/train.py experiment=camvid": trained}
        notes = {bare: f"{statistics.median(seconds) * 1e3:.3g} ms", "src/train.py experiment=camvid": "by epoch"}
        self._add(f"training loop, crops {self.cfg.loop.crop}, batch {images}", "images/s", rate, 1, notes)

    def index(self) -> None:
        """Measure pooling and unpooling, forward and backward, against the stock operators."""
        for batch in self.cfg.batch_sizes:
            for dtype in self.dtypes:
                shape = (batch, 16, self.cfg.image_size, self.cfg.image_size)
                x = torch.randn(shape, device=self.device).relu().to(dtype)
                x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
                part = f"pool + unpool, forward + backward, batch {batch}, {short(dtype)}"
                calls = {
                    "stock, 8 bytes a maximum": partial(steps.pool_and_unpool, x, stock=True),
                    "this, 1 byte a maximum": partial(steps.pool_and_unpool, x, stock=False),
                }
                self._add_millis(part, calls)
                if self.device.type == "cuda":  # kernels alone, as in a training step's graph
                    replays = {name: steps.captured(call) for name, call in calls.items()}
                    self._add_millis(f"{part}, CUDA graph", replays)

    def _add_millis(self, part: str, calls: Mapping[str, Callable[[], Any]], notes: Mapping[str, str] = {}) -> None:
        seconds = self._rounds(part, calls)
        self._add(part, "ms", {name: [s * 1e3 for s in series] for name, series in seconds.items()}, -1, notes)

    def inference(self) -> None:
        """Measure the latency of batch 1 and the throughput of batch 8, waiting for each result."""
        plain = {name: variant for name, variant in self.variants.items() if variant.compile is None}
        names = [name for name, variant in plain.items() if not variant.captured]
        for batch in (1, 8):
            calls: dict[str, Callable[[], Any]] = {
                name: steps.inference(plain[name], self.device, self.cfg.image_size, batch)
                for name in (names[0], names[-1])
            }
            if self.device.type == "cuda":
                calls[f"{names[-1]}, CUDA graph"] = steps.captured(calls[names[-1]])
            seconds = self._rounds(f"inference {batch}", {name: self._awaited(call) for name, call in calls.items()})
            values = {name: [s * 1e3 if batch == 1 else batch / s for s in series] for name, series in seconds.items()}
            unit, better = ("ms", -1) if batch == 1 else ("images/s", 1)
            self._add(f"inference, batch {batch}", unit, values, better)
        if self.device.type == "cpu":
            self._deployed()

    def _awaited(self, call: Callable[[], Any]) -> Callable[[], None]:
        def awaited() -> None:
            call()
            steps.synchronize(self.device)

        return awaited

    def _deployed(self) -> None:
        """Measure what a user waits for, against ONNX Runtime."""
        if find_spec("onnxruntime") is None:
            print("no comparison with ONNX Runtime: pip install segnet-lightning[export]")
            return
        calls = programs.image_to_probabilities(self.cfg.image_size, self.scratch)
        self._add_millis("image to probabilities, batch 1", calls)

    def memory(self) -> None:
        """Measure the peak memory of training steps; on a CPU each variant in a process of its own."""
        plain = {name: variant for name, variant in self.variants.items() if variant.compile is None}
        size = self.cfg.image_size
        for batch in self.cfg.batch_sizes:
            peaks = {}
            for name, variant in tqdm(plain.items(), f"memory {batch}", leave=False):
                if self.device.type == "cuda":
                    peaks[name] = [programs.peak_memory(variant, self.device, size, batch)]
                else:
                    peaks[name] = [programs.peak_memory_in_child(name, size, batch)]
            self._add(f"peak memory of training, batch {batch}", "MB", peaks, -1)

    def data(self) -> None:
        """Measure images a second: decoded in every epoch as in the original, from the cache, and on the device."""
        count, size = self.cfg.images, self.cfg.image_size
        root = self.scratch / "cable"
        cables.write(root, images=count, size=512, seed=self.cfg.seed)
        pairs = [(p, root / "masks" / p.name) for p in sorted((root / "images").iterdir())]
        rng = np.random.default_rng(self.cfg.seed)
        batches = [pairs[i : i + 4] for i in range(0, count, 4)]
        samples = programs.data_module(root, size, None).samples("train")
        loader = programs.training_loader(programs.data_module(root, size, str(self.scratch / "cache")), repeat=20)
        calls: dict[str, Callable[[], Any]] = {
            "baseline: decode, resize, flip each epoch": lambda: [read_batch(b, size, rng) for b in batches],
            "this, decoding each epoch": lambda: [samples[i] for i in range(len(samples))],
            "this, cached": partial(programs.drain, loader),
        }
        images = dict(zip(calls, (count, len(samples), 20 * len(samples)), strict=True))
        seconds = self._rounds("data", calls)
        rate = {name: [images[name] / s for s in series] for name, series in seconds.items()}
        self._add("data path", "images/s", rate, 1)
        calls = {f"loader with {n} workers": self._recipe.data(False, n) for n in self.cfg.workers}
        calls["device_cache=true"] = self._recipe.data(True, 0)
        seconds = self._rounds("data on the device", calls)
        rate = {name: [self.cfg.loop.images / s for s in series] for name, series in seconds.items()}
        self._add("experiment=camvid, images on the device", "images/s", rate, 1)

    def program(self) -> None:
        """Measure the program from outside: --help against importing torch, command to first step, the overhead."""
        calls = programs.starts(self.scratch)
        self._add("whole program", "s", self._rounds("program", calls), -1)
        epochs = programs.overhead(self.device, self.cfg.image_size, self.cfg.batch_sizes[0])
        self._add("an epoch of 8 steps, default network", "s", self._rounds("overhead", epochs), -1)

    def networks(self) -> None:
        """Measure the latency of every network, with its parameters and multiply-adds."""
        calls, notes = networks.side_by_side(self.cfg.networks, self.device, self.cfg.image_size)
        awaited = {name: self._awaited(call) for name, call in calls.items()}
        self._add_millis(f"networks, batch 1, {short(self.dtypes[-1])}", awaited, notes)

    def runtimes(self) -> None:
        """Measure every format of a checkpoint, by the script that lies beside an exported file."""
        runtimes.measure(self.cfg, self.scratch, self.side_by_side)
