"""What a training run leaves behind for people and programs: results.json, plots, images and a model card."""

import json
import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig, OmegaConf

from segnet import terminal
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.folds import ByFold
from segnet.environment import surroundings
from segnet.files import write_json
from segnet.networks.segnet import count_parameters
from segnet.recipe import record as recipe
from segnet.reports import decisions, intervals, tested
from segnet.reports.decided import Decided, decide, known
from segnet.reports.evaluation import sizes, write_images
from segnet.reports.model_card import PHOTOS, card
from segnet.reports.parameters import parameters
from segnet.runs.record import recorded
from segnet.tables import figure
from segnet.training import recording
from segnet.training.callbacks import EpochTable
from segnet.training.distillation import Teacher
from segnet.training.module import SegmentationModule
from segnet.training.objects import ObjectMetrics
from segnet.training.panels import draw_panels
from segnet.training.records import Start
from segnet.visualization.figures import loss_figure
from segnet.visualization.overlays import save

# What dashboards compare runs by, beside the monitor.
FINAL = ("test/iou", "test/loss", "val/iou", "val/loss")


class RunReport(Callback):
    """Records what a run begins with, and writes its report after the test.

    Where there is no test, the command asks for the report. It adds this callback too, so that runs of earlier
    versions, whose configuration does not name it, have it when resumed.

    Args:
        cfg: the configuration of the run.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg, self.folder = cfg, Path(cfg.output_dir)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give loggers the configuration; note machine and code, and warn where they have changed."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if data.indices["test"]:
            data.loader("test")  # refuses fewer images than there are processes: now, not after the training
        else:
            terminal.info("no test images: the run will end without a test")
        if not trainer.is_global_zero:
            return
        content: Any = OmegaConf.to_container(self.cfg, resolve=True)
        counted = [part.metrics for part in trainer.callbacks if isinstance(part, ObjectMetrics)]  # type: ignore[attr-defined]
        start = Start(OmegaConf.to_yaml(self.cfg, resolve=True), content, parameters(self.cfg), list(chain(*counted)))
        recording.begin(trainer, start, self.folder)
        file, now = self.folder / "environment.json", surroundings_of(trainer)
        if file.is_file():
            before = json.loads(file.read_text(encoding="utf-8"))
            changed = [f"{k}: {before.get(k)} then, {v} now" for k, v in now.items() if before.get(k) != v]
            if changed:
                rank_zero_warn(
                    f"resume: machine or code have changed, so results may differ in their last bits "
                    f"({'; '.join(changed)})"
                )
        write_json(file, now)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report."""
        self.write(trainer, pl_module)

    def write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report into the run's folder, and print the figures that matter."""
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, SegmentationModule)
        assert isinstance(data, SegmentationDataModule)
        done = bool(pl_module.image_counts.found)
        own = {}
        if self.cfg.get("own_size", True):  # a resumed run may be older than this setting
            own = decided(trainer, pl_module, data)
        results = collect(trainer, pl_module, data, self.cfg, own)
        rows = epoch_rows(trainer)
        for stage in ("train", "val"):
            loss_figure(rows, stage).savefig(self.folder / f"{stage}.png", dpi=100)
        (self.folder / "photo").mkdir(exist_ok=True)
        panels = draw_panels(pl_module, data, "test" if done else "val", PHOTOS)
        for i, drawn in enumerate(panels):
            save(self.folder / "photo" / f"{i}.png", drawn)
        write_images(self.folder / "images.csv", pl_module, data, "test", own.get("test"))
        (self.folder / "README.md").write_text(card(results, pl_module, data, len(panels)), encoding="utf-8")
        write_json(self.folder / "results.json", results)  # last: it says that the run is finished
        final = {f"final/{name}": results["metrics"].get(name) for name in (*FINAL, self.cfg.monitor)}
        defined = {name: value for name, value in final.items() if value is not None}
        recording.finish(trainer, parameters(self.cfg), defined, self.folder)
        notes = {f"{stage}/{name}": note for name, note in sizes(pl_module, data).items() for stage in ("val", "test")}
        for name in ("val/iou", "test/iou", "test/iou_own_size", "test/loss"):
            print(f"{name:17s} {figure(results['metrics'].get(name)):6s}  {notes.get(name, '')}".rstrip())
        for line in intervals.lines(results):
            print(f"95 % interval of the IoU over images: {line}")
        for split, found in own.items():
            if split == "test" or not done:
                print(
                    "\n".join(
                        decisions.lines(split, results["metrics"], found.described, self.cfg.get("verbose", False))
                    )
                )
        if not done:
            print("there was no test; the validation images chose the checkpoint, so their figures are optimistic")
        print(f"model card {self.folder / 'README.md'}")
        for line in recording.opened_with(trainer, self.folder):
            print(f"dashboard  {line}")


def decided(trainer: Trainer, module: SegmentationModule, data: SegmentationDataModule) -> dict[str, Decided]:
    """Decisions on the tested images and, by the same weights, on the validation images, if training used them all.

    In a cross-validation the images of a fold are predicted out of fold instead.
    """
    chosen = {"test": [data.indices["test"][index] for index, _ in module.image_counts.found]}
    if intervals.validates_all(trainer) and not isinstance(data.split, ByFold):
        chosen["val"] = data.indices["val"]
    device = trainer.strategy.root_device
    return {split: decide(module, device, data, indices) for split, indices in chosen.items() if indices}


def collect(
    trainer: Trainer,
    module: SegmentationModule,
    data: SegmentationDataModule,
    cfg: DictConfig,
    own: Mapping[str, Decided],
) -> dict[str, Any]:
    """Everything that results.json holds; without a test, no figure of one."""
    rows = epoch_rows(trainer)
    matrices = own["test"].confusions if "test" in own else None
    metrics = tested.figures(module, "test", trainer, matrices) if module.image_counts.found else {}
    checkpoint = trainer.checkpoint_callback
    # Where the monitor cannot compare epochs, best.ckpt is the last one (`BestCheckpoint`).
    best = best_row(rows[-1:] if module.unseen(cfg.monitor) else rows, cfg.monitor, cfg.mode)
    metrics |= {k: float(v) for k, v in best.items() if k.startswith(("train/", "val/")) and v}
    for split, part in own.items():
        metrics |= part.metrics(split)
    seconds = [float(row["seconds"]) for row in rows]
    timed = seconds[1:] or seconds  # the first epoch warms up
    rates = sorted(float(row["images_per_second"]) for row in rows[1:] or rows)
    return {
        "metrics": known(dict(sorted(metrics.items()))),
        "intervals": intervals.of_validation(trainer, module, data) | intervals.found("test", module, matrices),
        "decisions": {split: part.described for split, part in own.items()},
        "monitor": cfg.monitor,
        "best_epoch": int(best["epoch"]) if best else None,
        "epochs": trainer.current_epoch,
        "checkpoint": str(Path(checkpoint.best_model_path).name) if checkpoint else None,  # type: ignore[attr-defined]
        "parameters": count_parameters(module.net),
        "seconds": round(sum(seconds), 1),
        "seconds_per_epoch": round(sum(timed) / max(len(timed), 1), 2),
        "images_per_second": rates[len(rates) // 2] if rates else None,
        "images": {name: len(indices) for name, indices in data.indices.items()},
        "tested": len(module.image_counts.found),
        "overrides": recorded(Path(cfg.output_dir)),
        "recipe": recipe.recorded(Path(cfg.output_dir)),
        "seed": cfg.seed,
        "teacher": module.teacher.described() if isinstance(module.teacher, Teacher) else None,
        **surroundings_of(trainer),
    }


def surroundings_of(trainer: Trainer) -> dict[str, Any]:
    """Hardware, precision, versions and commit."""
    return surroundings(trainer.strategy.root_device, str(trainer.precision))


def epoch_rows(trainer: Trainer) -> list[dict[str, str]]:
    """The rows of metrics.csv; none without the callback that keeps them."""
    tables = [c for c in trainer.callbacks if isinstance(c, EpochTable)]  # type: ignore[attr-defined]
    return tables[0].rows if tables else []


def best_row(rows: list[dict[str, str]], monitor: str, mode: str) -> dict[str, str]:
    """That of the best epoch; the last where no epoch has a value, and an empty one of no rows."""
    defined = [row for row in rows if row.get(monitor) and not math.isnan(float(row[monitor]))]
    if not defined:
        return rows[-1] if rows else {}
    choose = max if mode == "max" else min
    return choose(defined, key=lambda row: float(row[monitor]))
