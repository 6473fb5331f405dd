"""What a run leaves behind for people and programs: results.json, plots, pictures and a model card."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from segnet import environment
from segnet.data.datamodule import SegmentationDataModule
from segnet.networks.segnet import count_parameters
from segnet.reports.model_card import PHOTOS, card
from segnet.runs.resume import recorded
from segnet.training.callbacks import EpochTable, draw_panels
from segnet.training.metrics import calibration, calibration_error, scores
from segnet.training.module import SegmentationModule
from segnet.visualization.figures import confusion_figure, loss_figure, reliability_figure
from segnet.visualization.overlays import grid, palette, panel, save

# What TensorBoard's HPARAMS tab compares.
FINAL = ("test/iou", "test/loss", "val/iou", "val/loss")


def begin(trainer: Trainer, cfg: DictConfig) -> None:
    """Show the configuration in TensorBoard's text tab; note what the run runs on, and tell where that has changed."""
    text = OmegaConf.to_yaml(cfg, resolve=True)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("configuration", "    " + text.replace("\n", "\n    "))
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    file = Path(cfg.output_dir) / "environment.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    now = surroundings(trainer)
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        changed = [f"{k}: {before.get(k)} then, {v} now" for k, v in now.items() if before.get(k) != v]
        if changed:
            rank_zero_warn(f"resume: not the same machine or code, the end may differ in bits ({'; '.join(changed)})")
    part = file.with_suffix(".part")
    part.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    part.replace(file)  # a killed run leaves a whole note, or none


def surroundings(trainer: Trainer) -> dict[str, Any]:
    """Hardware, precision, versions and commit."""
    return {
        "hardware": environment.hardware(trainer.strategy.root_device),
        "precision": str(trainer.precision),
        "versions": environment.versions(),
        "commit": environment.commit(),
    }


def write(trainer: Trainer, module: SegmentationModule, data: SegmentationDataModule, cfg: DictConfig) -> None:
    """Write the whole report of a finished run into its folder."""
    if not trainer.is_global_zero:
        return
    folder = Path(cfg.output_dir)
    results = collect(trainer, module, data, cfg)
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    rows = _rows(trainer)
    for stage in ("train", "val"):
        loss_figure(rows, stage).savefig(folder / f"{stage}.png", dpi=100)
    (folder / "photo").mkdir(exist_ok=True)
    for i, drawn in enumerate(draw_panels(module, data, "test", PHOTOS)):
        save(folder / "photo" / f"{i}.png", drawn)
    write_pictures(folder / "pictures.csv", module, data, "test")
    (folder / "README.md").write_text(card(results, module, data), encoding="utf-8")
    log_hyperparameters(trainer, results, cfg)
    for name in ("val/iou", "test/iou", "test/loss"):
        value = results["metrics"].get(name)
        print(f"{name:10s} {'–' if value is None else f'{value:.4f}'}")
    print(f"model card {folder / 'README.md'}\ndashboard  tensorboard --logdir logs")


def collect(
    trainer: Trainer, module: SegmentationModule, data: SegmentationDataModule, cfg: DictConfig
) -> dict[str, Any]:
    """Everything that results.json holds."""
    rows = _rows(trainer)
    metrics = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
    checkpoint = trainer.checkpoint_callback
    best = _best_row(rows, cfg.monitor, cfg.mode)
    metrics |= {k: float(v) for k, v in best.items() if k.startswith(("train/", "val/")) and v}
    seconds = [float(row["seconds"]) for row in rows]
    timed = seconds[1:] or seconds  # the first epoch warms up
    rates = sorted(float(row["images_per_second"]) for row in rows[1:] or rows)
    return {
        "metrics": {k: None if math.isnan(v) else v for k, v in sorted(metrics.items())},
        "monitor": cfg.monitor,
        "best_epoch": int(best["epoch"]) if best else None,
        "epochs": trainer.current_epoch,
        "checkpoint": str(Path(checkpoint.best_model_path).name) if checkpoint else None,  # type: ignore[attr-defined]
        "parameters": count_parameters(module.net),
        "seconds": round(sum(seconds), 1),
        "seconds_per_epoch": round(sum(timed) / max(len(timed), 1), 2),
        "images_per_second": rates[len(rates) // 2] if rates else None,
        "images": {name: len(indices) for name, indices in data.indices.items()},
        "overrides": recorded(Path(cfg.output_dir)),
        "seed": cfg.seed,
        **surroundings(trainer),
    }


def _rows(trainer: Trainer) -> list[dict[str, str]]:
    tables = [c for c in trainer.callbacks if isinstance(c, EpochTable)]  # type: ignore[attr-defined]
    return tables[0].rows if tables else []


def _best_row(rows: list[dict[str, str]], monitor: str, mode: str) -> dict[str, str]:
    known = [row for row in rows if row.get(monitor) and not math.isnan(float(row[monitor]))]
    if not known:
        return rows[-1] if rows else {}
    choose = max if mode == "max" else min
    return choose(known, key=lambda row: float(row[monitor]))


def write_pictures(path: Path, module: SegmentationModule, data: SegmentationDataModule, split: str) -> None:
    """One row a picture of the split: file, IoU, and its confusion matrix, so that runs can be compared in pairs."""
    files = [data.pairs[i].image.relative_to(data.root).as_posix() for i in data.indices[split]]
    size = max(len(module.classes), 2)
    header = ["file", "iou"] + [f"{i}>{j}" for i in range(size) for j in range(size)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for index, confusion in module.pictures:
            iou = scores(confusion, torch.zeros(2, 1), module.classes)["iou"].item()
            shown = "" if math.isnan(iou) else f"{iou:.6f}"
            writer.writerow([files[index], shown, *confusion.flatten().tolist()])


def log_hyperparameters(trainer: Trainer, results: dict[str, Any], cfg: DictConfig) -> None:
    """Fill TensorBoard's HPARAMS tab: what a sweep varies, with the final metrics."""
    parameters = {
        "net": cfg.model.net._target_.rpartition(".")[2],
        "loss": cfg.model.loss._target_.rpartition(".")[2],
        "optimizer": cfg.model.optimizer._target_.rpartition(".")[2],
        "lr": cfg.model.optimizer.lr,
        "batch_size": cfg.data.batch_size,
        "image_size": str(cfg.data.image_size),
        "epochs": cfg.trainer.max_epochs,
        "seed": cfg.seed,
    }
    for override in results["overrides"]:
        key, _, value = override.lstrip("+").partition("=")
        if not key.startswith("~") and key.rpartition(".")[2] not in (*parameters, "max_epochs"):
            parameters[key] = value
    metrics = {f"final/{k}": v for k, v in results["metrics"].items() if v is not None and k in FINAL}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(parameters, metrics, step=trainer.global_step)


def write_evaluation(
    trainer: Trainer, module: SegmentationModule, data: SegmentationDataModule, cfg: DictConfig
) -> float:
    """Write results.json, pictures.csv, plots and pictures of an evaluated split; its IoU."""
    folder = Path(cfg.output_dir)
    confusion, histogram = module.counts["test"]
    metrics = {k.replace("test/", f"{cfg.split}/", 1): v.item() for k, v in trainer.callback_metrics.items()}
    metrics[f"{cfg.split}/calibration_error"] = calibration_error(histogram).item()
    results = {
        "metrics": {k: None if math.isnan(v) else v for k, v in sorted(metrics.items())},
        "checkpoint": str(cfg.ckpt_path),
        "images": len(module.pictures),
        "parameters": count_parameters(module.net),
        "overrides": recorded(folder),
        **surroundings(trainer),
    }
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    write_pictures(folder / "pictures.csv", module, data, cfg.split)
    confusion_figure(confusion, module.classes).savefig(folder / "confusion.png", dpi=120)
    error = metrics[f"{cfg.split}/calibration_error"]
    reliability_figure(calibration(histogram), error, module.classes).savefig(folder / "reliability.png", dpi=120)
    ranked = []
    for index, single in module.pictures:
        iou = scores(single, torch.zeros(2, 1), module.classes)["iou"].item()
        if not math.isnan(iou):
            ranked.append((iou, index))
    ranked.sort()
    _draw(trainer, module, data, cfg, ranked)
    iou = metrics[f"{cfg.split}/iou"]
    for name, value in results["metrics"].items():  # type: ignore[attr-defined]
        print(f"{name:32s} {'–' if value is None else f'{value:.4f}'}")
    print(f"written to {folder}")
    return iou


def _draw(
    trainer: Trainer,
    module: SegmentationModule,
    data: SegmentationDataModule,
    cfg: DictConfig,
    ranked: Sequence[tuple[float, int]],
) -> None:
    """Panels of the worst pictures, and a grid from the best to the worst; ``ranked`` has (IoU, index), rising."""
    folder, samples, table = Path(cfg.output_dir), data.samples(cfg.split), palette(len(module.classes), data.colors)
    module.eval()  # dropout sleeps again

    def drawn(index: int) -> NDArray[np.uint8]:
        picture, mask = samples.load(samples.indices[index])
        tensor = torch.tensor(picture).permute(2, 0, 1)[None].to(module.device)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            guess = module.decide(module.logits(tensor))[0].cpu().numpy()
        return panel(picture, mask, guess, table, len(module.classes) == 1)

    (folder / "worst").mkdir(exist_ok=True)
    for place, (iou, index) in enumerate(ranked[: cfg.worst]):
        save(folder / "worst" / f"{place:02d}_iou{iou:.3f}.png", drawn(index))
    if ranked and cfg.grid:
        # In the middle of equal shares of the ranking: 4 rows are the 12th, 37th, 62nd and 87th of 100.
        places = [int((row + 0.5) * len(ranked) / cfg.grid) for row in range(cfg.grid)][::-1]
        save(folder / "grid.jpg", grid([drawn(ranked[place][1]) for place in places]))
