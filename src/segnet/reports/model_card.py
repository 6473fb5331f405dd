"""The model card of a run, with the headings of the original document."""

from typing import Any

import torch

from segnet.command_line import command_line
from segnet.data.datamodule import SegmentationDataModule
from segnet.reports.decisions import section
from segnet.reports.intervals import lines as lines_of
from segnet.tables import escaped, figure
from segnet.training.module import SegmentationModule

PHOTOS = 4
UNTESTED = "There was no test. The validation images chose the checkpoint, so their figures are optimistic.\n"


def card(results: dict[str, Any], module: SegmentationModule, data: SegmentationDataModule, photos: int) -> str:
    """Markdown from the content of results.json; long, because most of it is the text itself.

    Args:
        results: of the run.
        module: the trained one.
        data: that it was trained on.
        photos: how many outputs are drawn.
    """
    parameters = results["parameters"]
    config: dict[str, Any] = module.config or {}
    model = config.get("model", {})
    height, width = data.image_size
    at, resized = f"{height} × {width}", f"{height} × {width}, bilinear with antialiasing"
    counted = f"at {at}, the size that the network gets images and masks at"
    if data.plan:
        at = f"whole images, scale {data.plan.scale:g}"
        resized = f"by {data.plan.scale:g}, bilinear with antialiasing; trained on crops of {data.plan}"
        if data.plan.scale == 1:
            resized = f"none; trained on crops of {data.plan}"
        counted = f"over {at}, by a sliding window of {height} × {width} as in `predict.py`; in training over crops"
    metrics = results["metrics"]

    def value(name: str) -> str:
        return figure(metrics.get(name))

    names = ["loss", "iou", "dice", "precision", "recall", "accuracy", "class_accuracy", "average_precision"]
    names += ["false_alarm_images", "false_alarm_pixels", "false_alarm_area"]
    shown = [name for name in names if f"val/{name}" in metrics or f"test/{name}" in metrics]
    lines = [
        f"| {name} | {value(f'train/{name}')} | {value(f'val/{name}')} | {value(f'test/{name}')} |" for name in shown
    ]
    mean = [("mean", "")] if len(module.classes) > 1 else []
    ious = [
        f"| {label} | {value(f'val/iou{key}')} | {value(f'test/iou{key}')} | {value(f'test/iou_own_size{key}')} |"
        for label, key in [(escaped(name), f"/{name}") for name in module.classes] + mean
    ]
    tested = "test/loss" in metrics
    shown_split = "test" if tested else "validation"
    images, rate = results["images"], results["images_per_second"]
    held = (
        f"{results['tested']} of {images['test']}" if 0 < results["tested"] < images["test"] else images["test"] or "no"
    )
    shots = "\n".join(f"![output {i}](photo/{i}.png)" for i in range(photos))
    optimizer = ", ".join(f"{k}={v}" for k, v in model.get("optimizer", {}).items() if not k.startswith("_"))
    augment = [t["_target_"].rpartition(".")[2] for t in config.get("data", {}).get("augment") or []]
    scheduler = (model.get("scheduler") or {}).get("_target_", "constant").rpartition(".")[2]
    return f"""# {_short(model, "net")} on {escaped(data.root.absolute().name)}

## Model info

| | |
|---|---|
| network | {_short(model, "net")}, {parameters:,} parameters |
| size | {parameters * 4 / 1e6:.3f} MB in float32 |
| classes | {escaped(", ".join(module.classes))} |
| checkpoint | `checkpoints/{results["checkpoint"] or "–"}` |

## Input transform

| | |
|---|---|
| resize | {resized} |
| normalise | mean {_list(module.mean)}, standard deviation {_list(module.std)} |
| augmentation | {", ".join(augment) or "none"} |

## Training

| | |
|---|---|
| data | {images["train"]} training, {images["val"]} validation, {held} test images |
| optimizer | {_short(model, "optimizer")} ({optimizer}), schedule {scheduler} |
| loss | {_short(model, "loss")}, class weights {model.get("class_weights") or "none"} |
| epochs | {results["epochs"]} (best: {(results["best_epoch"] or 0) + 1} by {results["monitor"]}) |
| batch size | {data.batch_size} |
| time | {results["seconds"]:.0f} s, {results["seconds_per_epoch"]} s an epoch, {rate} images/s |
| hardware | {results["hardware"]}, precision {results["precision"]} |
| seed | {results["seed"]} |
{teacher_row(results)}
```
{command_line("train", results["overrides"])}
```

{recipe_section(results.get("recipe") or [])}## Results

Training and validation figures are of the best epoch; training figures are taken while the weights change.
They are counted {counted}.
{"" if tested else UNTESTED}{seen_by_teacher(results)}
| metric | training | validation | test |
|---|---:|---:|---:|
{chr(10).join(lines)}

| IoU of class | validation, {at} | test, {at} | test, images' own size |
|---|---:|---:|---:|
{chr(10).join(ious)}

95 % interval of the {"mean " * bool(mean)}IoU, had other images been drawn (bootstrap):
{"; ".join(lines_of(results)) or "unknown"}.

The last column compares masks as `predict.py` writes them with the mask files, at the images' own size.

{section(results, ["val", "test"])}
![training loss](train.png)
![validation loss](val.png)

## Outputs

Image, truth, prediction, errors (orange missed, blue false alarm, red another class); {shown_split} images.

{shots}

## Versions

{", ".join(f"{k} {v}" for k, v in results["versions"].items())}; commit {results["commit"]}
"""


def recipe_section(choices: list[dict[str, str]]) -> str:
    """What ``experiment=auto`` chose; empty for another run."""
    if not choices:
        return ""
    overrides = [f"`{choice['override']}`" if choice["override"] else "–" for choice in choices]
    rows = "\n".join(
        f"| {text} | {escaped(choice['reason'])} |" for text, choice in zip(overrides, choices, strict=True)
    )
    return f"## Recipe\n\nChosen by `experiment=auto`.\n\n| override | reason |\n|---|---|\n{rows}\n\n"


def teacher_row(results: dict[str, Any]) -> str:
    """A row of the table of the training, for a network that had a teacher."""
    given = results.get("teacher")
    told = given and f"`{given['path']}`, weight {given['weight']}, temperature {given['temperature']}"
    return f"| teacher | {told} |\n" if told else ""


def seen_by_teacher(results: dict[str, Any]) -> str:
    """Which figures are optimistic because of the teacher."""
    seen = (results.get("teacher") or {}).get("seen")
    told = " and ".join(
        f"{count} of {results['images'][split]} {split} images" for split, count in (seen or {}).items()
    )
    return f"The teacher has seen {told}, so figures of these splits are optimistic.\n" if told else ""


def _short(model: dict[str, Any], part: str) -> str:
    return str(model.get(part, {}).get("_target_", "–")).rpartition(".")[2]


def _list(tensor: torch.Tensor) -> str:
    return ", ".join(f"{v:.3f}" for v in tensor.flatten().tolist())
