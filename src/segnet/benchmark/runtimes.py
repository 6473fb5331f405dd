"""All formats of one checkpoint side by side, each measured by the script that lies beside an exported file.

A measurement is a process of its own, so that start-up and peak memory are a runtime's and nobody else's; the processes
of all runtimes take turns, round by round.
"""

import shutil
import statistics
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tqdm import tqdm

from segnet import environment
from segnet.benchmark import programs
from segnet.benchmark.steps import SOURCE
from segnet.configuration import instantiate
from segnet.data.datamodule import SegmentationDataModule
from segnet.deployment import device_folder, exported_model, request, runtimes, verification
from segnet.deployment.calibration import Calibration
from segnet.deployment.form import Form
from segnet.deployment.formats import FORMATS
from segnet.errors import UserError
from segnet.runs import checkpoint_data
from segnet.training.checkpoint import load_module
from segnet.training.module import SegmentationModule

SHORT = {"f32": "float32", "bf16": "bfloat16"}
DECIDED = ("decisions", "IoU")
NAMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "executorch": "ExecuTorch", "litert": "LiteRT", "pt2": "pt2"}


@dataclass(frozen=True)
class Runtime:
    """One way to run the network.

    Args:
        name: for people.
        folder: where its file and the script lie.
        precision: that it computes in, ``f32`` or ``bf16``.
        batches: it takes any number of images at once.
    """

    name: str
    folder: Path
    precision: str = "f32"
    batches: bool = True

    def measure(self, threads: int, batch: int, seconds: float) -> dict[str, float]:
        """Figures by column, in a process of its own.

        Raises:
            RuntimeError: the process failed; what it said.
        """
        script = self.folder / device_folder.SCRIPT
        given = {"threads": threads, "batch": batch, "seconds": seconds, "precision": self.precision}
        words = [str(script), *(f"--{name}={value}" for name, value in given.items())]
        # An exported file needs nothing of this project; the checkpoint does.
        path = f"import sys, runpy; sys.path.insert(0, {str(SOURCE)!r}); sys.argv = {words!r}; "
        own = ["-c", f"{path}runpy.run_path({str(script)!r})"]
        printed = programs.execute(own if (self.folder / "model.ckpt").exists() else ["-I", *words])
        names, _, values = ([cell.strip() for cell in row.strip("| ").split("|")] for row in printed.splitlines()[-3:])
        return {name: float(value) for name, value in zip(names, values, strict=True)}


@dataclass
class SideBySide:
    """What was measured.

    Attributes:
        rows: for each runtime and number of threads ``runtime``, ``threads`` and of each figure median, least and
            greatest of the rounds; a figure that nobody can know, such as the IoU without masks, is missing.
        left_out: for each runtime that is not among them the reason.
        images: that decisions and IoU are of.
        size: height and width of the images, which are the network's.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    images: int = 0
    size: tuple[int, int] = (0, 0)


def measure(cfg: DictConfig, scratch: Path, found: SideBySide) -> None:
    """Export the checkpoint in every format and measure all in turn; ``found`` holds what is known after each round.

    Raises:
        UserError: there is no checkpoint, or the data that the command line names are not there.
    """
    if cfg.get("ckpt_path") is None:
        raise UserError("parts=[runtimes]: needs a checkpoint; add ckpt_path=logs/train/<run>/checkpoints/best.ckpt")
    if Path(cfg.ckpt_path).is_dir():
        raise UserError(f"ckpt_path={cfg.ckpt_path}: is a folder; give the file, <run folder>/checkpoints/best.ckpt")
    module = load_module(cfg.ckpt_path, cfg.trust)
    data = _data(cfg, module, found)
    chosen = _exported(cfg, module, data, scratch, found)
    series: dict[tuple[int, str], list[dict[str, float]]] = {}
    decided: dict[str, dict[str, float]] = {}  # decisions and IoU, which no later turn changes
    for _ in tqdm(range(cfg.repeats), "runtimes", leave=False):
        for threads in cfg.threads:
            for runtime in chosen:
                if runtime.name in found.left_out:
                    continue
                try:
                    figures = runtime.measure(threads, 1, cfg.runtimes.seconds)
                    if runtime.batches and cfg.runtimes.batch > 1:
                        many = runtime.measure(threads, cfg.runtimes.batch, cfg.runtimes.seconds)
                        figures["images/s"] = many["images/s"]
                except RuntimeError as error:
                    found.left_out[runtime.name] = str(error).strip().splitlines()[-1]
                    continue
                decided.setdefault(runtime.name, {name: figures[name] for name in DECIDED if name in figures})
                series.setdefault((threads, runtime.name), []).append(figures | decided[runtime.name])
            for runtime in chosen:
                (runtime.folder / device_folder.SAMPLES).unlink(missing_ok=True)
        found.rows = [
            {"runtime": name, "threads": threads, **_summary(rounds)}
            for (threads, name), rounds in series.items()
            if name not in found.left_out
        ]


def checkpoint(path: Path, threads: int, precision: str) -> runtimes.Run:
    """Open a checkpoint in PyTorch, as trusted: the process that measures has checked it before."""
    import torch

    from segnet import environment
    from segnet.training.checkpoint import load_module

    torch.set_num_threads(threads)
    environment.keep_freed_memory()
    kind = environment.autocast("cpu", "bf16-mixed" if precision == "bf16" else "32-true")
    module = load_module(path, trusted=True)

    @torch.no_grad()
    def run(images: Any) -> Any:
        with kind:
            return module.probabilities(module(torch.from_numpy(images))).float().numpy()

    return run


def _data(cfg: DictConfig, module: SegmentationModule, found: SideBySide) -> SegmentationDataModule | None:
    """The checkpoint's data; None where they are not here and the command line names no others, which is told."""
    try:
        settings = checkpoint_data.settings(module.config, cfg)
        checkpoint_data.check_sizes(settings, module.config["data"], "an exported model")
        data: SegmentationDataModule = instantiate(settings, "data")
        data.prepare_data()
        data.setup()
        data.require("val", "train")
    except UserError as error:
        if any(override.startswith("data") for override in HydraConfig.get().overrides.task):
            raise
        found.left_out["decisions, IoU and int8"] = f"the data of the checkpoint are not here ({error})"
        return None
    print(data.used("val", "train"))
    return data


def _exported(
    cfg: DictConfig, module: SegmentationModule, data: SegmentationDataModule | None, scratch: Path, found: SideBySide
) -> list[Runtime]:
    """The checkpoint, and a folder for each format that can be written here; why others are left out is noted."""
    metadata = verification.metadata(module, Path(cfg.ckpt_path))
    size = module.image_size
    form = Form(size)
    pairs = [] if data is None else list(verification.pairs(data, "val", cfg.runtimes.images))
    samples = device_folder.of_pairs(module, form, pairs)
    found.images, found.size = len(pairs), size
    fast = ["f32", *(["bf16"] if environment.fastest_precision("cpu") == "bf16-mixed" else [])]
    if len(fast) == 1:
        found.left_out["bfloat16"] = "this CPU does not compute in it"
    folder = scratch / "checkpoint"
    folder.mkdir()
    shutil.copyfile(cfg.ckpt_path, folder / "model.ckpt")
    device_folder.write(folder / "model.ckpt", metadata, form, samples, checkpoint)
    chosen = [Runtime(f"PyTorch, {SHORT[precision]}", folder, precision) for precision in fast]
    for name, kind in FORMATS.items():
        form = request.of_network(Form(size), kind, size)
        plain = scratch / name / f"model{kind.suffix}"
        for int8 in (False, True)[: 1 + (kind.quantizes and data is not None)]:
            path = scratch / f"{name}-int8" / plain.name if int8 else plain
            path.parent.mkdir()
            label = f"{NAMES[name]}, int8" if int8 else NAMES[name]
            try:
                if int8 and data is not None:
                    images = [image for image, _ in verification.pairs(data, "train", cfg.runtimes.calibration)]
                    calibration = Calibration(module, form, images, pairs, cfg.runtimes.max_drop)
                    exported_model.quantize(calibration, path, metadata)
                else:
                    exported_model.write(module, plain, metadata, form)
            except ImportError as error:
                found.left_out[label] = f"{error}; pip install 'segnet-lightning[{kind.extra}]'"
                break
            except UserError as error:  # this network, or its accuracy in this format
                found.left_out[label] = str(error)
                continue
            device_folder.write(path, metadata, form, samples)
            for precision in fast if name == "openvino" else fast[:1]:
                words = [NAMES[name], *["int8"] * int8, *[SHORT[precision]] * (precision == "bf16" or not int8)]
                chosen.append(Runtime(", ".join(words), path.parent, precision, form.batch is None))
    return chosen


def _summary(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median, least and greatest of each figure that is finite."""
    columns = [name for name in rounds[0] if name not in ("threads", "batch")]
    series = {name: [figures[name] for figures in rounds] for name in columns}
    return {
        name: {"median": statistics.median(values), "least": min(values), "greatest": max(values)}
        for name, values in series.items()
        if all(map(isfinite, values))
    }
