"""What the evaluation of a split leaves behind: results.json, a row an image, plots, the worst images and a grid."""

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from omegaconf import DictConfig

from segnet.data.datamodule import SegmentationDataModule
from segnet.environment import surroundings
from segnet.files import atomic_write
from segnet.networks.segnet import count_parameters
from segnet.runs.record import recorded
from segnet.training.metrics import calibration, calibration_error, scores
from segnet.training.module import SegmentationModule
from segnet.visualization.figures import confusion_figure, reliability_figure
from segnet.visualization.overlays import grid, palette, panel, save


def write(trainer: Trainer, module: SegmentationModule, data: SegmentationDataModule, cfg: DictConfig) -> float:
    """Write and print the report of ``cfg.split``, which the trainer has just tested; its IoU."""
    folder = Path(cfg.output_dir)
    confusion, histogram = module.counts["test"]
    metrics = {k.replace("test/", f"{cfg.split}/", 1): v.item() for k, v in trainer.callback_metrics.items()}
    error = metrics[f"{cfg.split}/calibration_error"] = calibration_error(histogram).item()
    shown = {name: None if math.isnan(value) else value for name, value in sorted(metrics.items())}
    results = {
        "metrics": shown,
        "checkpoint": str(cfg.ckpt_path),
        "images": len(module.image_counts.found),
        "parameters": count_parameters(module.net),
        "overrides": recorded(folder),
        **surroundings(trainer.strategy.root_device, str(trainer.precision)),
    }
    with atomic_write(folder / "results.json") as part:
        part.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    write_images(folder / "images.csv", module, data, cfg.split)
    confusion_figure(confusion, module.classes).savefig(folder / "confusion.png", dpi=120)
    reliability_figure(calibration(histogram), error, module.classes).savefig(folder / "reliability.png", dpi=120)
    ranked = sorted((iou, index) for index, iou in image_ious(module) if not math.isnan(iou))
    draw = drawer(trainer, module, data, cfg.split)
    (folder / "worst").mkdir(exist_ok=True)
    for rank, (iou, index) in enumerate(ranked[: cfg.worst]):
        save(folder / "worst" / f"{rank:02d}_iou{iou:.3f}.png", draw(index))
    if ranked and cfg.grid:
        # In the middle of equal shares of the ranking: 4 rows are the 12th, 37th, 62nd and 87th of 100.
        ranks = [int((row + 0.5) * len(ranked) / cfg.grid) for row in range(cfg.grid)][::-1]
        save(folder / "grid.jpg", grid([draw(ranked[rank][1]) for rank in ranks]))
    for name, value in shown.items():
        print(f"{name:32s} {'–' if value is None else f'{value:.4f}'}")
    print(f"written to {folder}")
    return metrics[f"{cfg.split}/iou"]


def image_ious(module: SegmentationModule) -> Sequence[tuple[int, float]]:
    """Index within the split and IoU of each tested image; nan where neither truth nor prediction has a class."""
    empty = torch.zeros(2, 1)
    return [(i, scores(confusion, empty, module.classes)["iou"].item()) for i, confusion in module.image_counts.found]


def write_images(path: Path, module: SegmentationModule, data: SegmentationDataModule, split: str) -> None:
    """One row an image of the split: file, IoU, and its confusion matrix, so that runs can be compared in pairs."""
    files = [data.pairs[i].image.relative_to(data.root).as_posix() for i in data.indices[split]]
    size = max(len(module.classes), 2)
    header = ["file", "iou"] + [f"{i}>{j}" for i in range(size) for j in range(size)]
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for (index, iou), (_, confusion) in zip(image_ious(module), module.image_counts.found, strict=True):
            shown = "" if math.isnan(iou) else f"{iou:.6f}"
            writer.writerow([files[index], shown, *confusion.flatten().tolist()])


def drawer(
    trainer: Trainer, module: SegmentationModule, data: SegmentationDataModule, split: str
) -> Callable[[int], NDArray[np.uint8]]:
    """A function from an index within the split to the panel of that image, (H, 4 W + 3·8, 3) uint8 RGB."""
    samples, table = data.samples(split), palette(len(module.classes), data.colors)
    module.eval()  # without the dropout of Monte-Carlo samples

    def draw(index: int) -> NDArray[np.uint8]:
        image, mask = samples.load(samples.indices[index])
        tensor = torch.tensor(image).permute(2, 0, 1)[None].to(module.device)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            guess = module.decide(module.logits(tensor))[0].cpu().numpy()
        return panel(image, mask, guess, table, binary=len(module.classes) == 1)

    return draw
