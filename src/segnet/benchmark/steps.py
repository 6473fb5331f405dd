"""What the benchmark measures: training steps, loaders, an epoch with and without Lightning, child processes."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import albumentations
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from segnet import environment
from segnet.benchmark.reference import StockNetwork
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.dataset import EpochSampler, collate
from segnet.data.masks import Threshold
from segnet.data.splits import ByHash
from segnet.networks.segnet import SegNet, SegNetCompact
from segnet.training.losses import CrossEntropy
from segnet.training.module import SegmentationModule

BASELINE = "baseline: compact, NCHW, float32, stock indices"
SOURCE = Path(__file__).resolve().parents[2]


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
        environment.keep_freed_memory(self.fast)  # the original leaves memory to the C library
        precision = environment.fastest_precision(self.device.type) if self.fast else "32-true"
        with environment.autocast(self.device.type, precision):
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


def fastest(device: str) -> torch.dtype:
    """What ``trainer.precision=auto`` computes in on this device."""
    return environment.arithmetic(environment.fastest_precision(device))


def short(dtype: torch.dtype) -> str:
    """``float32`` of ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def nets(device: str) -> dict[str, Callable[[], tuple[nn.Module, bool]]]:
    """Variants of the training step: network, and whether channels-last in the fastest precision; the last is ours."""
    form = f"channels-last, {short(fastest(device))}"
    return {
        BASELINE: lambda: (StockNetwork(SegNetCompact(1)), False),
        f"compact, {form}, stock indices": lambda: (StockNetwork(SegNetCompact(1)), True),
        f"compact, {form}": lambda: (SegNetCompact(1), True),
        f"segnet, {form}, stock indices": lambda: (StockNetwork(SegNet(1)), True),
        f"segnet, {form}": lambda: (SegNet(1), True),
    }


def peak_memory(number: int, device: str, size: int, batch: int) -> float:
    """MB that three steps of the variant take beyond what the process held before; called in a fresh process."""
    make = list(nets(device).values())[number]
    on = torch.device(device)
    before = _resident("VmRSS")
    step = Step(*make()[:1], on, make()[1], size, batch)
    for _ in range(3):
        step()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    """MB of this process now (``VmRSS``) or at its peak (``VmHWM``); ru_maxrss would hold the parent's peak too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith(field))


def execute(arguments: Sequence[str]) -> str:
    """Run this Python with the arguments; its standard output, or an error that quotes its standard error."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def child(code: str) -> str:
    """Run code in a fresh Python; its standard output."""
    return execute(["-c", code])


def drain(loader: DataLoader[dict[str, Tensor]]) -> int:
    """Read a loader to its end; the number of pictures."""
    return sum(len(batch["image"]) for batch in loader)


def data_module(root: Path, size: int, cache_dir: str | None) -> SegmentationDataModule:
    """Rendered cables below ``root`` as training reads them, with or without a cache."""
    data = SegmentationDataModule(
        str(root), "images/*.png", "masks/{name}", Threshold(), ["defect"], 1, ByHash(0.7, 0.15, 0.15),
        image_size=size, cache_dir=cache_dir, augment=[albumentations.HorizontalFlip(p=0.5)],
    )  # fmt: skip
    data.prepare_data()
    data.setup()
    return data


def training_loader(data: SegmentationDataModule, workers: int, repeat: int) -> DataLoader[dict[str, Tensor]]:
    """The training loader, over the split several times so that starting the workers does not count."""
    samples = data.samples("train")
    samples.indices = list(samples.indices) * repeat
    sampler = EpochSampler(len(samples), 0, True)
    return DataLoader(
        samples, 4, sampler=sampler, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0  # type: ignore[arg-type]
    )  # fmt: skip


def overhead(device: torch.device, size: int, batch: int) -> dict[str, Callable[[], Any]]:
    """The same eight steps on the same batches: a bare loop, and Lightning with this project's module and metrics."""
    picture = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    mask = torch.randint(0, 2, (batch, size, size), dtype=torch.uint8)
    batches = [{"image": picture, "mask": mask, "index": torch.arange(batch)}] * 8
    module = SegmentationModule(
        SegNet(1), CrossEntropy(1), partial(torch.optim.SGD, lr=0.01), classes=["defect"], image_size=size
    ).to(device)
    precision = environment.fastest_precision(device.type)
    bare = torch.optim.SGD(module.parameters(), 0.01)

    def loop() -> None:
        for item in batches:
            on = {key: value.to(device) for key, value in item.items()}
            bare.zero_grad()
            with environment.autocast(device.type, precision):
                logits = module.logits(on["image"])
            module.loss(logits, on["mask"].long()).backward()
            bare.step()

    trainer = Trainer(
        accelerator=device.type, devices=1, precision=precision, max_epochs=-1, max_steps=8, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip

    loader: DataLoader[Any] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def fit() -> None:
        trainer.fit_loop.epoch_loop.max_steps = trainer.global_step + 8
        trainer.should_stop = False
        trainer.fit(module, loader)

    return {"bare loop": loop, "Lightning with module and metrics": fit}
