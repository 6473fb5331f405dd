"""Writing a file so that a kill leaves the old one or the new one, whole; where to write; rows of tables."""

import csv
import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from segnet.errors import UserError


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


def write_text(path: Path, text: str, shared: bool = False) -> None:
    """Write a text whole; see `atomic_write`."""
    with atomic_write(path, shared) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write plain containers whole, so that people can read them too."""
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def csv_file(path: Path, shared: bool = False) -> Iterator[Callable[[Iterable[Any]], None]]:
    """Yield what writes a row of a table (see `cells`), which is there, whole, at the end of the block."""
    with (
        atomic_write(path, shared) as part,
        part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        yield lambda row: writer.writerow(cells(row))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], shared: bool = False) -> None:
    """Write a table whole: a column for each name, in the order of their first rows; what a row lacks is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with csv_file(path, shared) as write:
        for line in [columns, *([row.get(name, "") for name in columns] for row in rows)]:
            write(line)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time into the block, by a lock on this file, which is made; all where there are no locks."""
    with path.open("w") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM (``kill``, a scheduler) unwind the block as Ctrl-C does, so that its scratch files are removed.

    The process exits with 143. In a thread other than the main one, which signals do not reach, it does nothing.
    """

    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_output(output_dir: str | Path, key: str, source: str | Path, name: str = "output_dir") -> None:
    """Refuse to write into a folder that is read, or below it: results would lie among the originals, or replace them.

    Args:
        output_dir: where a command writes; links are followed.
        key: what names the folder that is read, such as ``data.root``.
        source: that folder.
        name: of the key that says where to write.

    Raises:
        UserError: naming both.
    """
    out, home = Path(output_dir).resolve(), Path(source).resolve()
    if out.is_relative_to(home):
        raise UserError(f"{name}={output_dir}: is {key}={source}, or lies in it; choose a folder outside of it")


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
