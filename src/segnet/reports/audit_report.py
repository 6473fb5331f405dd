"""What a data audit leaves behind: report.json, a contact sheet, and lines for people."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from segnet.data.decoding import EXTENSIONS
from segnet.data.splits import SPLITS
from segnet.errors import printable
from segnet.files import atomic_write
from segnet.reports.data_audit import Findings
from segnet.reports.looks import Tile
from segnet.visualization.overlays import save

COLUMNS = 6
RULE = 2  # pixels of white around a thumbnail
_SUFFIX = f"({'|'.join(map(re.escape, EXTENSIONS))})"
_FILE = re.compile(rf"^.*?{_SUFFIX}(?=: )|[^\s(]+{_SUFFIX}\b", re.IGNORECASE)  # names at the front may have spaces


def write(folder: Path, findings: Findings, tiles: Sequence[Tile]) -> None:
    """``report.json``, and the thumbnails as ``contact.jpg`` if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "report.json") as part, part.open("w", encoding="utf-8") as file:
        json.dump(findings, file, indent=2)  # piece by piece
        file.write("\n")
    (folder / "contact.jpg").unlink(missing_ok=True)
    if tiles:
        save(folder / "contact.jpg", contact_sheet(tiles))


def contact_sheet(tiles: Sequence[Tile]) -> Tile:
    """Thumbnails (S, S, 3) in rows of `COLUMNS`, with a white rule."""
    framed = [np.pad(tile, ((RULE, RULE), (RULE, RULE), (0, 0)), constant_values=255) for tile in tiles]
    columns = min(COLUMNS, len(framed))
    framed += [np.full_like(framed[0], 255)] * (-len(framed) % columns)
    return np.concatenate([np.concatenate(framed[i : i + columns], 1) for i in range(0, len(framed), columns)], 0)


def summary(findings: Findings) -> str:
    """The report for people; long lists are cut."""
    lines = [
        f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in findings["data"].items()
    ]
    lines += [f"images {findings['images']}, masks with only the first class {findings['empty_masks']}"]
    lines += [f"sizes {dict(list(findings['sizes'].items())[:5])}"]
    names = list(findings["class_shares"]["train"])
    lines += [f"{'share of pixels':20s}" + "".join(f"{split:>10s}" for split in SPLITS)]
    for name in names:
        shares = "".join(f"{findings['class_shares'][split][name]:>10.3%}" for split in SPLITS)
        lines.append(f"{name:20s}{shares}")
    for kind in ("errors", "warnings"):
        groups = list(_alike(findings[kind]))
        lines += [f"{kind[:-1]}: {_of_all(group)}" for group in groups[:20]]
        rest = sum(map(len, groups[20:]))
        lines += [f"… and {rest} more {kind}, see report.json"] if rest else []
    return "\n".join(
        [*map(printable, lines), f"{len(findings['errors'])} errors, {len(findings['warnings'])} warnings"]
    )


def _alike(texts: Iterable[str]) -> Iterable[list[str]]:
    """Texts that say the same of different files, together; in the order of their first."""
    groups = defaultdict[str, list[str]](list)
    for text in texts:
        groups[_FILE.sub("*", text)].append(text)
    return groups.values()


def _of_all(texts: Sequence[str]) -> str:
    """One line for texts that say the same of different files."""
    if len(texts) == 1:
        return texts[0]
    other = _FILE.search(texts[1])
    return f"{texts[0]} (and {len(texts) - 1} more alike{f', such as of {other[0]}' if other else ''})"
