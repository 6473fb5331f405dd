"""What reaches the screen: this package's own lines, and a library's only where a user can act on them."""

import contextlib
import importlib.util
import logging
import os
import select
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from segnet.errors import printable

# Warnings that no user could act on.
FALSE_ALARMS = (
    # Shown in epochs before the first validation; a wrong monitor is an error there anyway.
    ".*could not find the monitored key",
    # Lightning 2.6 asks torch for a name that torch 2.13 renamed.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # Every epoch is logged, however few batches it has.
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    # data.num_workers=auto has chosen, or the user has.
    "The '.*dataloader' does not have many workers",
    # Of verbose=true, for every 16-bit run: the 32-bit figures are the ones wanted.
    "Precision .* is not supported by the model summary",
)
# Where Lightning says what it found and does; code of others may use the first of them too.
LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.accelerators.cuda",
    "lightning.fabric.utilities.distributed",
)


class NotLightnings(logging.Filter):
    """Drops information that Lightning's own code gives; warnings, errors and lines of other packages pass."""

    def __init__(self) -> None:
        super().__init__()
        found = importlib.util.find_spec("lightning")
        self.folders = tuple(f"{folder}/" for folder in (found and found.submodule_search_locations) or ())

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        return record.levelno > logging.INFO or not Path(record.pathname).as_posix().startswith(self.folders)


_quiet = NotLightnings()


class AboveTheBar(logging.Handler):
    """Prints a record on stderr as it is at that time, on a line of its own beside a bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        tqdm.write(self.format(record), file=sys.stderr)


_lines = logging.getLogger("segnet")
_lines.setLevel(logging.INFO)
_lines.addHandler(AboveTheBar())


def is_first() -> bool:
    """Whether this process is the first of those that a launcher starts side by side, before they form a group."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def tell(*lines: str) -> None:
    """Print lines on stderr, from the first process; before Lightning is imported, which `info` does."""
    for line in lines if is_first() else ():
        print(printable(line), file=sys.stderr)


def info(text: str) -> None:
    """Print a line on stderr, from the first process of those that train together."""
    from lightning.pytorch.utilities import rank_zero_only  # seconds, which a command spends when it needs it

    rank_zero_only(_lines.info)(text)


def warn(text: str) -> None:
    """Warn, from the first process."""
    from lightning.pytorch.utilities import rank_zero_warn

    rank_zero_warn(text, stacklevel=5)


def quieten(verbose: bool = False) -> None:
    """Keep Lightning's descriptions of itself, and warnings of no use, off the terminal; ``verbose`` shows them."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        (logger.removeFilter if verbose else logger.addFilter)(_quiet)
    for message in FALSE_ALARMS[: 2 if verbose else None]:
        warnings.filterwarnings("ignore", message)
    if not verbose:
        warnings.formatwarning = _one_line  # which Lightning, imported later, asks for warnings that are not its own


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """``warning: <message>``, without the file and the line of code that gave it."""
    return f"warning: {message}\n"


_names: list[str] = []


class Named:
    """A stream whose lines begin with the names in force, so that lines of runs side by side can be told apart."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._begun = False

    def write(self, text: str) -> int:
        """Write it, in one piece, so that another process cannot write into the line; a bar is no line."""
        if text.startswith("\r") and "\n" not in text:
            return self._stream.write(text)
        lines = text.splitlines(keepends=True)
        before = "".join(f"[{name}] " for name in _names)
        starts = [before if i or not self._begun else "" for i in range(len(lines))]
        if lines:
            self._begun = not lines[-1].endswith("\n")
        self._stream.write("".join(f"{start}{line}" for start, line in zip(starts, lines, strict=True)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def unread() -> bool:
    """Whether what read the output has ended, as ``head`` does; then nothing more is written there."""
    asked = select.poll()
    for descriptor in (1, 2):
        asked.register(descriptor, 0)
    closed = [descriptor for descriptor, event in asked.poll(0) if event & select.POLLERR]
    for descriptor in closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return bool(closed)


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Begin every line that this process prints with ``[name]``, behind the names that are in force already."""
    before = sys.stdout, sys.stderr
    if not _names:  # a library may keep the stream that it finds: it asks for the names whenever it writes
        sys.stdout, sys.stderr = (Named(stream) for stream in before)  # type: ignore[assignment]
    _names.append(name)
    try:
        yield
    finally:
        _names.pop()
        sys.stdout, sys.stderr = before
