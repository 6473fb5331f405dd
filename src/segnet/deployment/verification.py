"""The verification of an exported model: how far it is from its checkpoint on real validation images."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from segnet import environment
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.images import resize_pair
from segnet.decisions import OperatingPoint
from segnet.decisions.matching import counted
from segnet.deployment.exported_model import POINT, ExportedModel
from segnet.deployment.prediction import Prediction
from segnet.errors import UserError
from segnet.networks.segnet import SMALLEST
from segnet.tables import figure
from segnet.training.metrics import Counts, scores
from segnet.training.module import SegmentationModule

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def metadata(module: SegmentationModule, checkpoint: Path) -> dict[str, Any]:
    """What an exported file says of itself; the model card is that of the checkpoint's run or published folder."""
    card = (checkpoint if checkpoint.is_dir() else checkpoint.resolve().parents[1]) / "README.md"
    return {
        "classes": module.classes,
        "colors": module.colors,
        "image_size": list(module.image_size),
        # Trained on crops of this size: larger images are for a window that slides over them, at this scale.
        "crop": list(module.image_size) if module.on_crops else None,
        "scale": module.scale,
        POINT: module.operating_point.stored() if module.operating_point else None,
        "mean": module.mean.flatten().tolist(),
        "std": module.std.flatten().tolist(),
        "commit": environment.commit(),
        "versions": environment.versions(),
        "card": card.read_text(encoding="utf-8") if card.is_file() and not card.is_symlink() else "",
    }


def pairs(data: SegmentationDataModule, split: str, count: int) -> Iterator[Pair]:
    """``count`` images and masks spread over a split, at the training size, or crops of that size."""
    indices = data.indices[split]
    for i in np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int):
        yield data.example(indices[i])


def sizes(height: int, width: int) -> list[tuple[int, int]]:
    """The training size, a smaller and a larger one with odd sides, and a long one."""
    least = SMALLEST
    return [
        (height, width),
        (max(height * 3 // 4, least) | 1, max(width * 2 // 3, least) | 1),
        (height * 4 // 3 | 1, width * 5 // 4 | 1),
        (max(height // 2, least), width * 2 - 1),
    ]


def compare(
    module: SegmentationModule, exported: ExportedModel, data: SegmentationDataModule, count: int
) -> dict[str, Any]:
    """Run both over validation images at several sizes; plain figures, by size and in all.

    Each decides by the operating point that it carries: ``decisions`` is the share of pixels of equal class,
    ``verdicts`` that of images which both call good, or both defective, ``objects`` that of the objects in the masks of
    one which the other has too (`segnet.decisions.matching`), the lesser of the two sides.
    """
    chosen = list(pairs(data, "val", count))
    module = module.cpu().eval()
    one = exported.form.size if not exported.form.outside else None
    rows = [_compared(module, exported, chosen, size) for size in ([one] if one else sizes(*module.image_size))]
    known = [(row["iou_checkpoint"], row["iou_exported"]) for row in rows if None not in row.values()]
    batch = torch.tensor(chosen[0][0]).permute(2, 0, 1)[None]
    return {
        "difference": max(row["difference"] for row in rows),
        **{name: min(row[name] for row in rows) for name in ("decisions", "verdicts", "objects")},
        POINT: exported.operating_point.stored() if exported.operating_point else None,
        "iou": max((abs(a - b) for a, b in known), default=0.0),
        "sizes": rows,
        "images": len(chosen),
        "bytes": exported.bytes,
        "milliseconds_checkpoint": _latency(lambda: module(batch)),
        "milliseconds_exported": _latency(lambda: exported(batch)),
        "hardware": environment.hardware(torch.device("cpu")),
        "versions": environment.versions(),
        "commit": environment.commit(),
    }


def _compared(
    module: SegmentationModule, exported: ExportedModel, chosen: Sequence[Pair], size: tuple[int, int]
) -> dict[str, Any]:
    """The figures at one size."""
    counts = {"checkpoint": Counts(len(module.classes)), "exported": Counts(len(module.classes))}
    points = (module.operating_point, exported.operating_point)
    greatest, equal, pixels, alike = 0.0, 0, 0, 0
    matched = np.zeros((2, 2), np.int64)  # of the checkpoint and the exported model: objects, those the other has
    for pair in chosen:
        image, mask = resize_pair(*pair, size)
        batch = torch.tensor(image).permute(2, 0, 1)[None]
        with torch.no_grad():
            both = {"checkpoint": module.probabilities(module(batch))[0], "exported": exported(batch)[0]}
        decided = [_decided(p, point) for p, point in zip(both.values(), points, strict=True)]
        greatest = max(greatest, (both["checkpoint"] - both["exported"]).abs().max().item())
        equal += int((decided[0] == decided[1]).sum())
        pixels += decided[0].size
        alike += decided[0].any() == decided[1].any()
        matched += counted(*decided)
        for name, probabilities in both.items():
            counts[name].update(*counts[name].count_probabilities(probabilities, torch.tensor(mask)))
    iou = {name: scores(*c.compute(), module.classes)["iou"].item() for name, c in counts.items()}
    return {
        "size": list(size),
        "difference": greatest,
        "decisions": equal / pixels,
        "verdicts": alike / len(chosen),
        "objects": float(np.min(matched[:, 1] / np.maximum(matched[:, 0], 1), where=matched[:, 0] > 0, initial=1)),
        "objects_checkpoint": int(matched[0, 0]),
        "objects_exported": int(matched[1, 0]),
        **{f"iou_{name}": None if np.isnan(value) else value for name, value in iou.items()},
    }


def check(found: dict[str, Any], tolerance: DictConfig, kept: str = "nothing was kept") -> None:
    """Refuse an exported model outside its tolerance, which is noted in ``found``.

    That of verdicts and objects holds where an operating point decides what is an object.

    ``kept`` says what becomes of it.

    Raises:
        UserError: naming the first figure that is out.
    """
    found["tolerance"] = {str(name): value for name, value in tolerance.items()}
    decided = found.get(POINT) is not None
    for name, good in (
        ("difference", found["difference"] <= tolerance.difference),
        ("decisions", found["decisions"] >= tolerance.decisions),
        ("iou", found["iou"] <= tolerance.iou),
        ("verdicts", not decided or found["verdicts"] >= tolerance.verdicts),
        ("objects", not decided or found["objects"] >= tolerance.objects),
    ):
        if not good:
            raise UserError(
                f"the exported model is outside its tolerance: {name} {found[name]:.6f}, allowed {tolerance[name]}; "
                f"{kept}; export without quantize, or set tolerance.{name} (tolerance_int8.{name})"
            )


def summary(found: dict[str, Any]) -> str:
    """The verification for people, a line a size."""
    lines = [
        f"{row['size'][0]}×{row['size'][1]}: greatest difference {row['difference']:.2e}, "
        f"equal decisions {row['decisions']:.6f}, equal verdicts {row['verdicts']:.4f}, "
        f"IoU {figure(row['iou_checkpoint'])} and {figure(row['iou_exported'])}"
        for row in found["sizes"]
    ]
    times = (
        f"{found['milliseconds_checkpoint']:.1f} ms with the checkpoint, "
        f"{found['milliseconds_exported']:.1f} ms with the exported model"
    )
    return "\n".join([*lines, f"{found['bytes'] / 1e6:.3f} MB; one image: {times}"])


def _decided(probabilities: Tensor, point: OperatingPoint | None) -> NDArray[np.uint8]:
    if point is not None:
        probabilities = torch.from_numpy(point.calibrated(probabilities.numpy()))
    return Prediction(probabilities, point=point).mask()


def _latency(call: Callable[[], object], rounds: int = 7) -> float:
    """Median milliseconds of a call."""
    seconds = []
    with torch.no_grad():
        for _ in range(rounds + 1):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]) * 1e3
