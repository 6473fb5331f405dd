"""Which files `predict.py` reads and what each becomes: nothing is passed over or overwritten without a word."""

import glob
import os
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from segnet import terminal
from segnet.data.decoding import EXTENSIONS
from segnet.data.listing import counted, files_below, is_hidden, split_off, unreadable
from segnet.deployment.video import VIDEOS, is_video
from segnet.errors import UserError, printable

LONGEST = 255  # bytes of a name, on Linux's file systems


def find(given: str) -> list[Path]:
    """Files that a path, a folder or a glob names, sorted; of a folder or a glob images and videos only.

    What is there and no regular file (a FIFO, a link to nothing) is listed too, so that reading it says so. What is
    passed over is counted and printed.

    Raises:
        UserError: nothing is there.
    """
    path = Path(given)
    folders, shut = list[str](), list[str]()
    if path.is_dir():
        try:
            root, there = path, list(path.iterdir())
        except PermissionError:
            remedy = f"give permission: chmod -R u+rX {shlex.quote(given)}"
            raise UserError(f"input={given}: cannot be read; {remedy}") from None
        folders = sorted(p.name for p in there if p.is_dir() and not is_hidden(p.name) and not p.suffix)
    elif path.exists() or path.is_symlink():
        return [path]
    else:
        there = [Path(p) for p in glob.glob(given, recursive=True, include_hidden=True)]  # noqa: PTH207 (may be absolute)
        fixed = next((i for i, part in enumerate(path.parts) if glob.has_magic(part)), len(path.parts) - 1)
        root = Path(*path.parts[:fixed])
        if "**" in path.parts:
            files_below(root, shut=shut)
    files, others = split_off(there, root, (*EXTENSIONS, *VIDEOS))
    if folders:
        others.append(f"{counted(folders, 'sub-folder')}: input='{path / '**' / '*'}' takes theirs too")
    others += unreadable(shut)
    told = f"input={given}: passed over {', '.join(others)}"
    if not files:
        more = f" ({told.partition(': ')[2]})" if others else ""
        raise UserError(f"input={given}: no image or video there{more}; give a file, a folder or a quoted glob")
    if others:
        terminal.info(printable(told))
    return files


class Outputs:
    """The files that results have become so far, so that none replaces another's, on any file system.

    Args:
        kinds: maps written beside each mask, such as ``overlay`` for ``<name>_overlay.png``.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = kinds
        self._owners: dict[str, Path] = {}

    def claim(self, file: Path) -> None:
        """Take the names of a file's results.

        Raises:
            UserError: names this file, another one, and what both would become; or a name that is too long.
        """
        names = [f"{file.stem}.png", *(f"{file.stem}_{kind}.png" for kind in self._kinds)]
        for name in [f"{file.stem}_overlay.mp4"] if is_video(file) else names:
            if (size := len(os.fsencode(name))) > LONGEST:
                raise UserError(
                    f"input: {file}: {name} would be a name of {size} bytes, and {LONGEST} is the limit; rename it"
                )
            # Names that differ in case or in how an accent is composed are one file on other systems.
            other = self._owners.setdefault(unicodedata.normalize("NFC", name).casefold(), file)
            if other != file:
                raise UserError(
                    f"input: {other} and {file} would both become {name}; rename one, or predict them separately"
                )


def check_outputs(files: Sequence[Path], kinds: Sequence[str]) -> None:
    """Refuse files of which one's results would replace another's; see `Outputs`."""
    outputs = Outputs(kinds)
    for file in files:
        outputs.claim(file)
