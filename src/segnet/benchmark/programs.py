"""What the benchmark measures around a step: memory, loaders, deployment, whole programs as child processes."""

import gc
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import albumentations
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from segnet import environment
from segnet.benchmark.steps import SOURCE, Variant, short, training_step
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.dataset import EpochSampler, collate
from segnet.data.masks import Threshold
from segnet.data.splits import ByHash
from segnet.networks.segnet import SegNet
from segnet.training.losses import CrossEntropy
from segnet.training.module import SegmentationModule


def image_to_probabilities(size: int, folder: Path) -> Mapping[str, Callable[[], Any]]:
    """Forms of deployment on a CPU: uint8 image in, probabilities out; the exported program first."""
    from segnet.deployment import exported_model

    module = _module(size).eval()
    metadata = {"classes": module.classes, "colors": None, "image_size": module.image_size}
    exported_model.write(module, folder / "model.onnx", metadata)
    image = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)

    @torch.no_grad()
    def this(precision: str) -> None:
        environment.keep_freed_memory()
        with environment.autocast("cpu", precision):
            module.probabilities(module(image))

    found: dict[str, Callable[[], Any]] = {
        "ONNX Runtime, exported program, float32": partial(
            exported_model.ExportedModel(folder / "model.onnx", trusted=True), image
        )
    }
    for precision in dict.fromkeys(("32-true", environment.fastest_precision("cpu"))):
        found[f"this, checkpoint, {short(environment.arithmetic(precision))}"] = partial(this, precision)
    return found


def _module(size: int) -> SegmentationModule:
    sgd = partial(torch.optim.SGD, lr=0.01)
    return SegmentationModule(SegNet(1), CrossEntropy(1), sgd, classes=["defect"], image_size=size)


def peak_memory(variant: Variant, device: torch.device, size: int, batch: int) -> float:
    """MB that training steps of the variant take beyond what was held before; on a CPU in a fresh process only."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved() / 1e6 if on_gpu else _resident("VmRSS")
    step = training_step(variant, device, size, batch)
    step.warm_up()
    for _ in range(2):
        step()
    return (torch.cuda.max_memory_reserved() / 1e6 if on_gpu else _resident("VmHWM")) - before


def peak_memory_in_child(name: str, size: int, batch: int) -> float:
    """The same of a named variant on a CPU, in a process of its own."""
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import torch; from segnet.benchmark import programs, steps; "
        f"cpu = torch.device('cpu'); variant = steps.variants(cpu, [])[{name!r}]; "
        f"print(programs.peak_memory(variant, cpu, {size}, {batch}))"
    )
    return float(child(code).split()[-1])


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


def starts(scratch: Path) -> dict[str, Callable[[], Any]]:
    """Starts of programs by name: torch alone, ``--help``, the first steps of a training below ``scratch``."""
    script = str(SOURCE / "train.py")
    first = [
        script, "trainer=fast_dev_run", f"output_dir={scratch}/first", f"data.cache_dir={scratch}/cache",
        f"data.root={scratch}/first-cable", "data.prepare.images=24", "data.prepare.size=64", "data.image_size=64",
    ]  # fmt: skip
    return {
        "python -c 'import torch'": lambda: child("import torch"),
        "src/train.py --help": lambda: execute([script, "--help"]),
        "src/train.py trainer=fast_dev_run (fit, validate, test one batch)": lambda: execute(first),
    }


def drain(loader: DataLoader[dict[str, Tensor]]) -> int:
    """Read a loader to its end; the number of images."""
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


def training_loader(data: SegmentationDataModule, repeat: int) -> DataLoader[dict[str, Tensor]]:
    """The training loader, over the split several times."""
    samples = data.samples("train")
    samples.indices = list(samples.indices) * repeat
    sampler = EpochSampler(len(samples), 0, True)
    return DataLoader(samples, 4, sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]


def overhead(device: torch.device, size: int, batch: int) -> dict[str, Callable[[], Any]]:
    """The same eight steps on the same batches: a bare loop, and Lightning with this project's module and metrics."""
    image = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    mask = torch.randint(0, 2, (batch, size, size), dtype=torch.uint8)
    batches = [{"image": image, "mask": mask, "index": torch.arange(batch)}] * 8
    module = _module(size).to(device)
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
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip

    loader: DataLoader[Any] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def fit() -> None:
        trainer.fit_loop.epoch_loop.max_steps = trainer.global_step + 8
        trainer.should_stop = False
        trainer.fit(module, loader, loader)

    return {"bare loop": loop, "Lightning with module and metrics": fit}
