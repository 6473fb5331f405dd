"""Names of the images that are written: the source's own where they differ, and safe in patterns and lists."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from segnet.data.listing import composed

LONGEST = 120  # characters
DULL = {"images", "image", "imgs", "img", "jpegimages", "."}  # folders that tell nothing apart


def unique(paths: Sequence[PurePosixPath]) -> list[str]:
    """A stem for each relative path, no two alike even where case does not count.

    The stem of the path; where several have it, with as many folders before it as tell them apart, such as
    ``job_1__frame_000000``, or with the suffix behind it, or at last with a number.
    """
    parts = [[safe(part) for part in path.parent.parts if part.lower() not in DULL] for path in paths]
    stems = [safe(path.stem) for path in paths]
    names = list(stems)
    deepest = max(map(len, parts), default=0)
    for depth in range(1, deepest + 2):
        twice = _repeated(names)
        if not twice:
            break
        for i in twice:
            suffix = [safe(paths[i].suffix[1:])] if depth > deepest else []
            names[i] = "__".join([*parts[i][-depth:], stems[i], *suffix])
    taken = {name.lower() for name in names}
    for i in _repeated(names)[1:]:
        number, name = 2, names[i]
        while names[i].lower() in taken:
            names[i] = f"{name}__{number}"
            number += 1
        taken.add(names[i].lower())
    return names


def safe(name: str) -> str:
    """The name with ``_`` for what a shell, a pattern, a list or a file system may take for something else."""
    kept = re.sub(r"[^\w.+() -]", "_", composed(name)).strip(". ")
    kept = "".join(c if c.isprintable() else "_" for c in kept)
    return kept[:LONGEST].rstrip(". ") or "_"


def _repeated(names: Sequence[str]) -> list[int]:
    count = Counter(name.lower() for name in names)
    return [i for i, name in enumerate(names) if count[name.lower()] > 1]
