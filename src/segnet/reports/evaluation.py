"""What the evaluation of a split leaves behind: results.json, a row an image, plots, the worst images and a grid."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from omegaconf import DictConfig

from segnet.data.datamodule import SegmentationDataModule
from segnet.environment import surroundings
from segnet.files import csv_file, write_json
from segnet.networks.segnet import count_parameters
from segnet.reports import decisions, intervals, tested
from segnet.reports.decided import MOST, Decided, decide, known
from segnet.reports.wrong_verdicts import write_worst
from segnet.runs.record import recorded
from segnet.tables import figure
from segnet.training.metrics import calibration, calibration_error, scores
from segnet.training.module import SegmentationModule
from segnet.training.panels import draw_panel
from segnet.visualization.figures import confusion_figure, reliability_figure
from segnet.visualization.overlays import grid, palette, save


def write(trainer: Trainer, module: SegmentationModule, data: SegmentationDataModule, cfg: DictConfig) -> float:
    """Write and print the report of ``cfg.split``, which the trainer has just tested; its IoU, nan without a defect."""
    folder = Path(cfg.output_dir)
    confusion, histogram = module.counts["test"]
    own, device = None, trainer.strategy.root_device
    indices = [data.indices[cfg.split][index] for index, _ in module.image_counts.found]
    if cfg.own_size:
        bounds = cfg.boundary
        own = decide(module, device, data, indices, folder / "objects.csv", bounds.width, bounds.tolerance)
    matrices = own.confusions if own else None
    metrics = tested.figures(module, cfg.split, trainer, matrices)
    error = metrics[f"{cfg.split}/calibration_error"] = calibration_error(histogram).item()
    shown = known(dict(sorted(metrics.items())))
    limits = intervals.found(cfg.split, module, matrices)
    decided = known(own.metrics(cfg.split)) if own else {}
    results = {
        "metrics": shown | decided,
        "intervals": limits,
        "decisions": {cfg.split: own.described} if own else {},
        "checkpoint": str(cfg.ckpt_path),
        "images": len(module.image_counts.found),
        "image_size": list(data.image_size),
        "crop": list(data.plan.size) if data.plan else None,
        "scale": data.plan.scale if data.plan else None,
        "parameters": count_parameters(module.net),
        "overrides": recorded(folder),
        **surroundings(device, str(trainer.precision)),
    }
    write_json(folder / "results.json", results)
    write_images(folder / "images.csv", module, data, cfg.split, own)
    confusion_figure(confusion, module.classes).savefig(folder / "confusion.png", dpi=120)
    reliability_figure(calibration(histogram), error, module.classes).savefig(folder / "reliability.png", dpi=120)
    module.eval()  # without the dropout of Monte-Carlo samples
    if own:
        write_worst(folder, own.tally, module, device, data, [data.pairs[i] for i in indices], cfg.worst)
    _draw(module, data, cfg)
    notes = {f"{cfg.split}/{name}": note for name, note in sizes(module, data).items()}
    for name in (f"{cfg.split}/iou", f"{cfg.split}/iou_own_size"):
        if shown.get(name) is not None:
            told = intervals.note(limits.get(name), results["images"])
            notes[name] = f"{notes[name]}; 95 % interval over images {told}"
    for name, value in shown.items():
        print(f"{name:32s} {figure(value):6s}  {notes.get(name, '')}".rstrip())
    if f"{cfg.split}/false_alarm_images" in metrics:
        print("no pixel shows a defect, so there is no IoU; the false alarms say how good this is")
        counted = sum(int(matrix.sum()) for _, matrix in module.image_counts.found)
        if ignored := 1 - counted / sum(math.prod(data.arrays.size_at(index)) for index in indices):
            print(
                f"but {ignored:.1%} of the pixels are ignored by data.mask={data.mask}: if they are the defect, "
                f"as in masks of 0 and 255, set data/mask=threshold"
            )
    print("\n".join(decisions.lines(cfg.split, decided, own.described) if own else [decisions.WITHOUT]))
    if own and own.left_out:
        print(f"objects.csv lists the {MOST} largest false alarms of an image; it leaves out {own.left_out}")
    print(f"written to {folder}")
    return metrics[f"{cfg.split}/iou"]


def _draw(module: SegmentationModule, data: SegmentationDataModule, cfg: DictConfig) -> None:
    """``worst/``, the images with the least IoU, and ``grid.jpg``, some that are spread over the ranking."""
    folder, table = Path(cfg.output_dir), palette(len(module.classes), data.colors)
    wrong = {index: int(matrix.sum() - matrix.trace()) for index, matrix in module.image_counts.found}
    defined = [(iou, index) for index, iou in image_ious(module) if not math.isnan(iou)]
    ranked = sorted(defined, key=lambda image: (image[0], -wrong[image[1]]))

    def draw(index: int) -> NDArray[np.uint8]:
        return draw_panel(module, data, data.indices[cfg.split][index], table)

    for earlier in (folder / "grid.jpg", *(folder / "worst").glob("[0-9]*_iou*.png")):  # of another evaluation
        earlier.unlink(missing_ok=True)
    (folder / "worst").mkdir(exist_ok=True)
    for rank, (iou, index) in enumerate(ranked[: cfg.worst]):
        save(folder / "worst" / f"{rank:02d}_iou{iou:.3f}.png", draw(index))
    if ranked and cfg.grid:
        # In the middle of equal shares of the ranking: 4 rows are the 12th, 37th, 62nd and 87th of 100.
        ranks = [int((row + 0.5) * len(ranked) / cfg.grid) for row in range(cfg.grid)][::-1]
        save(folder / "grid.jpg", grid([draw(ranked[rank][1]) for rank in ranks]))


def sizes(module: SegmentationModule, data: SegmentationDataModule) -> dict[str, str]:
    """At which size ``iou`` and ``iou_own_size`` are counted, for people."""
    tested_at, trained_at = ("×".join(map(str, size)) for size in (data.image_size, module.image_size))
    if data.plan:
        return {
            "iou": f"of whole images at scale {data.plan.scale:g}, in windows of {tested_at} as predict.py slides",
            "iou_own_size": "at the images' own size, of masks as predict.py writes them",
        }
    return {
        "iou": f"at {tested_at}, as the network gets images and masks",
        "iou_own_size": f"at the images' own size, of masks as predict.py writes them (network at {trained_at})",
    }


def image_ious(module: SegmentationModule) -> Sequence[tuple[int, float]]:
    """Index within the split and IoU of each tested image; nan where neither truth nor prediction has a class."""
    return [(i, image_iou(confusion, module.classes)) for i, confusion in module.image_counts.found]


def image_iou(confusion: torch.Tensor, classes: Sequence[str]) -> float:
    """IoU of a confusion matrix (K, K): the defect's, or the mean over the classes that occur."""
    return scores(confusion, torch.zeros(2, 1), classes)["iou"].item()


def write_images(
    path: Path,
    module: SegmentationModule,
    data: SegmentationDataModule,
    split: str,
    own: Decided | None,
) -> None:
    """One row an image of the split: file, IoU, and its confusion matrix, so that runs can be compared in pairs.

    Of images that were decided at their own size there follow the IoU there, whether truth and prediction show a
    defect, the score and more, see `Decided.columns`.
    """
    files = [data.pairs[i].image.relative_to(data.root).as_posix() for i in data.indices[split]]
    size = max(len(module.classes), 2)
    header = ["file", "iou"] + [f"{i}>{j}" for i in range(size) for j in range(size)]
    columns = own.columns() if own else {}
    header += ["iou_own_size", *columns] if own else []
    with csv_file(path) as write_row:
        write_row(header)
        for row, ((index, iou), (_, confusion)) in enumerate(
            zip(image_ious(module), module.image_counts.found, strict=True)
        ):
            last = [] if own is None else [_cell(image_iou(torch.from_numpy(own.confusions[row]), module.classes))]
            last += [column[row] for column in columns.values()]
            write_row([files[index], _cell(iou), *confusion.flatten().tolist(), *last])


def _cell(iou: float) -> str:
    return "" if math.isnan(iou) else f"{iou:.6f}"
