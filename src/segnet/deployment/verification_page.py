"""The verification of an exported model as a page for people."""

from collections.abc import Mapping
from typing import Any

from segnet.deployment.exported_model import POINT
from segnet.tables import figure

# Of each figure what it is, its place among the columns, and whether more is better.
FIGURES = {
    "difference": ("greatest difference of a probability", "difference", False),
    "decisions": ("least share of pixels of equal class", "equal decisions", True),
    "iou": ("greatest change of the IoU", "", False),
    "verdicts": ("least share of images with equal verdict, good or defective", "equal verdicts", True),
    "objects": ("least share of objects in the masks of one that the other has too", "objects", True),
}
DECIDED = ("verdicts", "objects")  # whose tolerance holds where an operating point decides


def text(name: str, found: Mapping[str, Any]) -> str:
    """Markdown: what was compared, each figure with its tolerance, a table by size, and the surroundings.

    Args:
        name: of the exported file.
        found: from `segnet.deployment.verification.compare` and `check`.
    """
    point = found.get(POINT)
    how = "the operating point that both carry" if point else "the most probable class, without an operating point"
    lines = [
        f"# Verification of {name}", "",
        f"The exported model and its checkpoint ran over the same {found['images']} validation images at "
        f"{len(found['sizes'])} size{'s' * (len(found['sizes']) > 1)}, the checkpoint in float32. Decided by {how}. "
        f"The figures are the worst of all sizes.", "",
        "| | found | allowed | |", "|---|---:|---:|---|",
    ]  # fmt: skip
    for key, (told, _, more) in FIGURES.items():
        allowed = found["tolerance"][key]
        sign, good = ("≥", found[key] >= allowed) if more else ("≤", found[key] <= allowed)
        held = key not in DECIDED or point is not None
        verdict = ("within" if good else "outside") if held else "not asked for: no operating point"
        lines.append(f"| {told} | {found[key]:.6g} | {f'{sign} {allowed:g}' if held else '–'} | {verdict} |")
    lines += [
        "", "It is within its tolerance: else nothing would have been kept.",
        "", f"| size | {' | '.join(title for _, title, _ in FIGURES.values() if title)} | in the checkpoint's masks | "
        f"IoU of the checkpoint | IoU exported |", f"|---|{'---:|' * 7}",
    ]  # fmt: skip
    for row in found["sizes"]:
        cells = [f"{row['difference']:.2e}", f"{row['decisions']:.6f}", f"{row['verdicts']:.4f}"]
        cells += [f"{row['objects']:.4f}", str(row["objects_checkpoint"])]
        cells += [figure(row[f"iou_{side}"]) for side in ("checkpoint", "exported")]
        lines.append(f"| {row['size'][0]}×{row['size'][1]} | {' | '.join(cells)} |")
    times = [f"{found[f'milliseconds_{side}']:.1f} ms" for side in ("checkpoint", "exported")]
    versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    lines += [
        "", f"Size: {found['bytes'] / 1e6:.3f} MB. One image took {times[0]} with the checkpoint and {times[1]} with "
        f"the exported model on {found['hardware']}; `python measure.py` measures it alone, on any device.", "",
        f"Made by commit {found['commit']} with {versions}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
