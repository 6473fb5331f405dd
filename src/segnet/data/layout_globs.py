"""Files that were recognised as images, said as ``data.images``: the plainest globs that find these and no other."""

import re
from collections.abc import Sequence
from glob import escape

from segnet.data.layout_masks import joint
from segnet.data.layout_splits import GLOBS
from segnet.data.naming import File
from segnet.data.patterns import MaskPattern, Masks
from segnet.data.recognition import Names, Reading


def globs_of(
    names: Names, files: Sequence[File], reading: Reading, masks: Masks, match: str | None
) -> str | list[str] | None:
    """Globs that find these files and no other image, or their masks at most; None where a hundred are not enough."""
    wanted = {file.path for file in files}
    folders = sorted({file.folder for file in files})
    suffixes = sorted({file.suffix for file in files})
    lists = [["*"], [f"*{escape(suffix)}" for suffix in suffixes]]
    if reading.rule.name is not None:
        begin, end = escape(reading.rule.name.begin[0]), escape(joint(files, reading) + reading.rule.name.end[0])
        lists += [[f"{begin}*{end}{escape(suffix)}" for suffix in suffixes]]
    common = _common(folders)
    below = [*([common] if len(folders) == 1 else []), *_shapes(folders)]
    places = [[place] for place in below] + [["/".join(map(escape, folder)) for folder in folders]]
    ways = [
        [f"{where}/{name}" if where else name for where in place for name in tail] for place in places for tail in lists
    ]
    finding = [(globs, found) for globs in ways if len(globs) <= GLOBS and wanted <= (found := _found(names, globs))]
    pattern = MaskPattern(names.root, masks, match)
    for apart in (False, True):  # first those that find no mask
        for globs, found in finding:
            if (found - pattern.among(sorted(found)) if apart else found) == wanted:
                return globs[0] if len(globs) == 1 else globs
    return None


def _found(names: Names, globs: Sequence[str]) -> set[str]:
    """The files that globs find, in memory: ``**`` stands for any folders, ``*`` for a part of a name."""
    parts = [glob.split("/") for glob in globs]
    texts = [
        "".join("(?:[^/]+/)*" if p == "**" else f"{_part(p)}/" for p in glob[:-1]) + _part(glob[-1]) for glob in parts
    ]
    fits = re.compile("|".join(texts)).fullmatch
    return {path for path in names.paths if fits(path)}


def _part(glob: str) -> str:
    """A regular expression for a name or the part of one that a glob stands for, with what `escape` has put in."""
    return "".join("[^/]*" if text == "*" else re.escape(text[len(text) // 2]) for text in re.findall(r"\[.\]|.", glob))


def _shapes(folders: Sequence[tuple[str, ...]]) -> list[str]:
    """Patterns of several folders: those of one depth with stars where they differ, and all below the common one."""
    if len(folders) < 2:
        return []
    shapes = []
    common = _common(folders)
    if common:
        shapes.append(f"{common}/**")
    if len({len(folder) for folder in folders}) == 1:
        parts = zip(*folders, strict=True)
        shapes.append("/".join(escape(part[0]) if len(set(part)) == 1 else "*" for part in parts))
    return [*shapes, "**"]


def _common(folders: Sequence[tuple[str, ...]]) -> str:
    first, last = min(folders), max(folders)
    same = [a for a, b in zip(first, last, strict=False) if a == b]
    count = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(same))
    return "/".join(map(escape, first[:count]))
