"""What a cross-validation leaves behind: results.json, tables, and the card of its ensemble."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from segnet.command_line import command_line, override
from segnet.data.datamodule import SegmentationDataModule
from segnet.files import write_csv, write_json
from segnet.networks.segnet import count_parameters
from segnet.recipe import record as recipe
from segnet.reports import tested
from segnet.reports.decided import decide, known
from segnet.reports.decisions import section
from segnet.reports.evaluation import write_images
from segnet.reports.model_card import recipe_section, teacher_row
from segnet.reports.out_of_fold import FOLDER, Judged, write_table
from segnet.runs.record import recorded
from segnet.tables import escaped, figure, spread
from segnet.training.metrics import scores
from segnet.training.module import SegmentationModule

SURROUNDINGS = ("hardware", "precision", "versions", "commit")
Results = dict[str, Any]


def write(
    cfg: DictConfig,
    folds: Sequence[Results],
    judged: Sequence[Judged],
    trainer: Trainer,
    module: SegmentationModule,
    data: SegmentationDataModule,
) -> float | None:
    """Test the ensemble if a test split was kept apart, write everything into the run's folder, print what matters.

    Args:
        cfg: of the run.
        folds: results.json of each fold.
        judged: every image that was in a fold.
        trainer: that tests, without callbacks.
        module: the ensemble.
        data: of the ensemble, after ``setup``.

    Returns:
        The mean over the folds of the run's ``monitor``; None where it is undefined in all of them.
    """
    folder = Path(cfg.output_dir)
    results = collect(cfg, folds, judged, module, data)
    write_table(folder / FOLDER / "images.csv", judged, module.classes)
    if data.indices["test"]:
        trainer.test(module, data.loader("test"), verbose=False)
        own = None
        if cfg.get("own_size", True):
            own = decide(module, trainer.strategy.root_device, data, data.indices["test"])
            results["decisions"] = {"test": own.described}
        found = tested.figures(module, "test", trainer, own.confusions if own else None)
        found |= own.metrics("test") if own else {}
        results["metrics"] |= known(found)
        write_images(folder / "images.csv", module, data, "test", own)
    else:
        write_table(folder / "images.csv", judged, module.classes, confusions=True)
    _write_epochs(folder, len(folds))
    (folder / "README.md").write_text(card(results, module, data, str(folder)), encoding="utf-8")
    write_json(folder / "results.json", results)  # last: it says that the run is finished
    metrics = results["metrics"]
    best = f"mean ± standard deviation of the best epochs of {len(folds)} folds (chosen by these figures: optimistic)"
    for name in ("val/iou", "val/loss"):
        print(f"{name:19s} {_spread(results, name):15s}  {best}")
    notes = {
        "out_of_fold/iou": f"of {len(judged)} images at their own size, each predicted without having been trained on",
        "test/iou": f"of the ensemble, {len(data.indices['test'])} images kept apart",
        "test/iou_own_size": "the same, at the images' own size",
    }
    for name, note in notes.items():
        if name in metrics:
            print(f"{name:19s} {figure(metrics[name]):15s}  {note}")
    print(f"ensemble   {folder / 'checkpoints' / 'best.ckpt'}\nmodel card {folder / 'README.md'}")
    found_value: float | None = metrics.get(cfg.monitor)
    return found_value


def collect(
    cfg: DictConfig,
    folds: Sequence[Results],
    judged: Sequence[Judged],
    module: SegmentationModule,
    data: SegmentationDataModule,
) -> Results:
    """Everything that results.json holds but the test: means and deviations over folds, and the out-of-fold figures."""
    names = sorted({name for fold in folds for name in fold["metrics"]})
    values = {n: [v for fold in folds if (v := fold["metrics"].get(n)) is not None] for n in names}
    summed = torch.from_numpy(np.sum([one.confusion for one in judged], 0))
    outside = scores(summed, torch.zeros(2, 1), module.classes)
    outside.pop("average_precision", None)  # of probabilities, which are not kept
    means = {name: float(np.mean(found)) if found else None for name, found in values.items()}
    return {
        "metrics": means | known({f"{FOLDER}/{name}": value.item() for name, value in sorted(outside.items())}),
        "deviations": {
            name: float(np.std(found, ddof=1)) if len(found) > 1 else None for name, found in values.items()
        },
        "defined_in": {name: len(found) for name, found in values.items()},
        "monitor": cfg.monitor,
        "checkpoint": "best.ckpt",
        "epochs": max(fold["epochs"] for fold in folds),
        "parameters": count_parameters(module.net),
        "seconds": round(sum(fold["seconds"] for fold in folds), 1),
        "images": {"folds": len(judged), "test": len(data.indices["test"])},
        "teacher": folds[0].get("teacher"),
        "recipe": recipe.recorded(Path(cfg.output_dir)),
        "overrides": recorded(Path(cfg.output_dir)),
        "seed": cfg.seed,
        "folds": [
            {"fold": i, "checkpoint": f"fold{i}/checkpoints/{fold['checkpoint']}"}
            | {key: fold[key] for key in ("best_epoch", "epochs", "images", "metrics")}
            for i, fold in enumerate(folds)
        ],
        **{key: folds[-1][key] for key in SURROUNDINGS},
    }


def _write_epochs(folder: Path, count: int) -> None:
    """``metrics.csv``: a row an epoch, each figure its mean over the folds that have it in this epoch."""
    tables = []
    for i in range(count):
        with (folder / f"fold{i}" / "metrics.csv").open(newline="", encoding="utf-8") as file:
            tables.append(list(csv.DictReader(file)))
    columns = list(dict.fromkeys(key for table in tables for row in table for key in row))
    rows = []
    for epoch in range(max(map(len, tables))):
        found = [table[epoch] for table in tables if epoch < len(table)]
        values = {key: [float(row[key]) for row in found if row.get(key)] for key in columns}
        known = {key: [value for value in own if not math.isnan(value)] for key, own in values.items()}
        rows.append({key: np.mean(own) if own else "" for key, own in known.items()} | {"epoch": epoch})
    write_csv(folder / "metrics.csv", rows)


def card(results: Results, module: SegmentationModule, data: SegmentationDataModule, folder: str) -> str:
    """Markdown from the content of results.json; long, because most of it is the text itself."""
    model = module.config["model"]
    metrics, folds, images = results["metrics"], results["folds"], results["images"]
    height, width = module.image_size
    nets = model["net"]["nets"]
    size = f"{height} × {width}"
    if data.plan:
        size = f"whole images at scale {data.plan.scale:g}, by a sliding window of {size}"
    monitor = results["monitor"]
    rows = [
        [
            f["fold"], f["images"]["train"], f["images"]["val"], f"{(f['best_epoch'] or 0) + 1} of {f['epochs']}",
            figure(f["metrics"].get("val/loss")), figure(f["metrics"].get("val/iou")),
        ]
        for f in folds
    ]  # fmt: skip
    kinds = ["iou", "dice", "precision", "recall", "accuracy", "class_accuracy", *(f"iou/{c}" for c in module.classes)]
    figures = [
        [name, _spread(results, f"val/{name}")]
        + [figure(metrics.get(key)) for key in (f"{FOLDER}/{name}", f"test/{name}", f"test/{_own_size(name)}")]
        for name in kinds
    ]
    test = f"{images['test']} images kept apart" if images["test"] else "none kept apart"
    seen = (results["teacher"] or {}).get("seen")
    told = "\nThe teacher has seen images of the folds, so all these figures are optimistic.\n" if seen else ""
    teach = command_line("train", [*_without_folds(results["overrides"]), override("teacher", folder)])
    network, name = str(nets[0]["_target_"]).rpartition(".")[2], escaped(data.root.absolute().name)
    return f"""# Ensemble of {len(folds)} × {network} on {name}

## Model info

| | |
|---|---|
| networks | {len(nets)}, each trained without one fold of the images; their probabilities are averaged |
| size | {results["parameters"]:,} parameters, {results["parameters"] * 4 / 1e6:.3f} MB in float32 |
| classes | {escaped(", ".join(module.classes))} |
| checkpoint | `checkpoints/best.ckpt` (of the single networks: `fold0/checkpoints/best.ckpt`, …) |
| input | {size} |
| data | {images["folds"]} images in folds; test: {test} |
| time | {results["seconds"]:.0f} s of training, {results["epochs"]} epochs a fold at most |
| hardware | {results["hardware"]}, precision {results["precision"]} |
| seed | {results["seed"]} |
{teacher_row(results)}
```
{command_line("train", results["overrides"])}
```

{recipe_section(results["recipe"] or [])}## Results

| fold | training images | validation images | best epoch | val/loss | val/iou |
|---|---:|---:|---:|---:|---:|
{_rows(rows)}

| metric | validation, mean ± standard deviation over folds | out of fold | test of the ensemble | test, own size |
|---|---:|---:|---:|---:|
{_rows(figures)}

Validation figures are those of each fold's best epoch by {monitor}, which they have chosen: they are optimistic.
Out of fold, every image is predicted by the network that was trained without it, as `predict.py` does, and compared
with its mask at its own size; the pixels of all images are counted together. The same images have chosen the epochs, so
this is slightly optimistic too. It judges the single networks; to judge the ensemble, keep a test split apart.
The predictions are in `{FOLDER}/`.
{told}
{section(results, ["test"])}## One network for the device

A single network can learn from this ensemble, which knows all images of the folds: only a test split that was kept
apart judges that network.

```
{teach}
```

## Versions

{", ".join(f"{k} {v}" for k, v in results["versions"].items())}; commit {results["commit"]}
"""


def _without_folds(overrides: Sequence[str]) -> list[str]:
    return [o for o in overrides if o.lstrip("+").partition("=")[0] not in ("folds", "output_dir", "teacher", "resume")]


def _own_size(name: str) -> str:
    """What `tested.figures` calls a figure at the images' own size; only IoU has one."""
    return name.replace("iou", "iou_own_size", 1) if name.startswith("iou") else ""


def _rows(rows: Sequence[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(escaped(str(cell)) for cell in row)} |" for row in rows)


def _spread(results: Results, name: str) -> str:
    """Mean ± standard deviation of a figure over the folds in which it is defined."""
    values = [fold["metrics"].get(name) for fold in results["folds"]]
    return spread([math.nan if value is None else value for value in values], "folds")
