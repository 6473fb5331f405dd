"""Writing a file so that a kill leaves the old one or the new one, whole; rows of tables."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path, shared: bool = False) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; at the end of the block it is flushed to the disk and renamed.

    Args:
        path: of the file; its folder is made.
        shared: processes may write the same file at the same time: each gets a path of its own.

    Raises:
        OSError: the file cannot be written, with its name. After any error in the block ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part" if shared else f"{path.name}.part")
    try:
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk says no name by itself
        raise


def cells(row: Iterable[Any]) -> list[Any]:
    """A row of a CSV file in which a text that a spreadsheet would take for a formula has an apostrophe before it.

    Numbers stay as they are, also as text (``-0.5``). See OWASP, "CSV Injection".
    """
    return [f"'{c}" if isinstance(c, str) and c[:1] in set("=+-@\t\r\n") and not _number(c) else c for c in row]


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip() == text
