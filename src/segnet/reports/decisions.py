"""What people read of decisions: every figure with its 95 % interval, in the terminal and in model cards."""

from collections.abc import Mapping, Sequence
from typing import Any

from segnet.tables import escaped

Metrics = Mapping[str, float | None]
MAIN = {
    "escape_rate": "defective {unit}s called good",
    "overkill_rate": "good {unit}s called defective",
    "object_recall": "defects found",
    "object_precision": "predicted objects that are a defect",
    "false_alarms_per_image": "predicted objects that are none, an image",
    "object_recall_iou50": "defects found, IoU of at least 0.5",
    "object_precision_iou50": "predicted objects that are a defect, IoU of at least 0.5",
    "boundary_iou": "boundary IoU",
    "boundary_f": "boundary F",
    "pro": "share of a defect that is covered",
    "aupro": "area under the curve of that share",
    "image_auroc": "AUROC of the {unit}s' scores",
    "image_average_precision": "average precision of the {unit}s' scores",
}
FIRST = ("escape_rate", "overkill_rate", "object_recall", "false_alarms_per_image")  # which a training prints
WITHOUT = "own_size=false: objects, escapes and overkills are not counted"


def lines(split: str, metrics: Metrics, described: dict[str, Any], every: bool = True) -> list[str]:
    """Of a split, for the terminal: a line a figure, one for all that are undefined.

    ``every`` is False for the first figures alone, and one line about the others.
    """
    unit = described["unit"]
    told, undefined = [], []
    names = [*MAIN, *_below(metrics, split, ("object_recall/size/", "escape_rate/kind/", "overkill_rate/kind/"))]
    names += _below(metrics, split, ("object_recall/kind/",))
    first = names if every else FIRST
    for name in first:
        if metrics.get(f"{split}/{name}") is None:
            undefined += [name] if name in MAIN else []
            continue
        meaning = MAIN.get(name, "").format(unit=unit)
        told.append(f"{f'{split}/{name}':32s} {cell(metrics, f'{split}/{name}', described)}  {meaning}".rstrip())
    if undefined:
        bad, good = described["defective"], described["good"]
        told.append(f"undefined: {', '.join(undefined)} ({bad} {unit}s are defective, {good} good)")
    if left := len([name for name in names if name not in first and metrics.get(f"{split}/{name}") is not None]):
        told.append(f"{left} more figures of {split} are in the model card; -v prints them here")
    for key, what in (("kind", "data.kinds"), ("part", "data.parts")):
        if count := described.get(f"images_without_{key}"):
            other = "count as 'no kind'" if key == "kind" else "are each a part of their own"
            told.append(f"{what} does not match {count} of {described['images']} images, which {other}")
    return told


def section(results: dict[str, Any], splits: Sequence[str]) -> str:
    """Of a model card, from the content of results.json; empty where nothing was decided."""
    found = results.get("decisions") or {}
    splits = [split for split in splits if split in found]
    if not splits:
        return ""
    metrics = results["metrics"]
    unit = found[splits[0]]["unit"]

    def table(title: str, rows: Mapping[str, str], of: Sequence[str] = splits) -> str:
        shown = {n: t for n, t in rows.items() if any(metrics.get(f"{split}/{n}") is not None for split in of)}
        if not shown:
            return ""
        head = f"| {title} | {' | '.join(of)} |\n|---|{'---:|' * len(of)}\n"
        body = [
            f"| {escaped(text)} | {' | '.join(cell(metrics, f'{split}/{name}', found[split]) for split in of)} |\n"
            for name, text in shown.items()
        ]
        return head + "".join(body) + "\n"

    kinds = sorted({n.rpartition("/kind/")[2] for split in splits for n in _below(metrics, split, _KINDS)})
    by_kind = {f"{name}/kind/{kind}": f"{text}, {kind}" for kind in kinds for name, text in _BY.items()}
    edges = found[splits[-1]]["area_edges"]
    limits = [f"up to {edge:g} pixels" for edge in edges] + [f"above {edges[-1]:g}" if edges else ""]
    sizes = {f"object_recall/size/{i + 1}": f"defects found, {limit}" for i, limit in enumerate(limits)}
    names = [n for n in _below(metrics, splits[-1], tuple(f"{name}/" for name in _OF_CLASS)) if n.count("/") == 1]
    classes = {name: f"{_OF_CLASS[name.partition('/')[0]]}, {name.partition('/')[2]}" for name in names}
    many = len([n for n in classes if n.startswith("object_recall/")]) > 1
    point = found[splits[-1]]["operating_point"]
    how = "by the operating point of the checkpoint" if point else "without an operating point (run calibrate.py)"
    main = {name: text.format(unit=unit) for name, text in MAIN.items()}
    return (
        f"## Decisions\n\nOf masks as `predict.py` writes them, at the images' own size, decided {how}; in brackets "
        f"the 95 % interval and what was counted.\n\n{table('figure', main)}"
        f"{table('by class', classes if many else {})}"
        f"{table('by kind', by_kind)}{table('by size (quarters of the defects)', sizes, splits[-1:])}"
    )


_BY = {"escape_rate": "escaped", "overkill_rate": "rejected", "object_recall": "defects found"}
_OF_CLASS = {"object_recall": "defects found", "object_precision": "predicted objects that are a defect"}
_KINDS = tuple(f"{name}/kind/" for name in _BY)


def cell(metrics: Metrics, name: str, described: dict[str, Any]) -> str:
    """Such as ``0.3117 (0.2108 to 0.4275; 24 of 77)``; a dash where it is undefined."""
    value, low, high = (metrics.get(name + end) for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    hits, total = described["counted"].get(name.partition("/")[2], (None, None))
    limits = "interval unknown" if low is None or high is None else f"{low:.4f} to {high:.4f}"
    of = "in {} images" if "per_image" in name else "of {}"
    return f"{value:.4f} ({limits}{'' if total is None else f'; {hits} {of.format(total)}'})"


def _below(metrics: Metrics, split: str, beginnings: Sequence[str]) -> list[str]:
    """Names of figures that begin so, without the split and without the ends of intervals."""
    names = [name.removeprefix(f"{split}/") for name in metrics if name.startswith(f"{split}/")]
    ends = {f"{name}{end}" for name in names for end in ("_low", "_high")}
    return [name for begin in beginnings for name in names if name.startswith(begin) and name not in ends]
