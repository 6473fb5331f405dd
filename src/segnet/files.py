"""Writing files: so that a kill leaves the old one or the new one, whole; and never among those that were read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segnet.errors import UserError


@contextmanager
def atomic_write(path: Path, shared: bool = False) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; at the end of the block it is flushed to the disk and renamed.

    Args:
        path: of the file; its folder is made.
        shared: processes may write the same file at the same time: each gets a path of its own.

    Raises:
        OSError: the file cannot be written. After any error in the block ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part" if shared else f"{path.name}.part")
    try:
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check_output(output_dir: str | Path, key: str, source: str | Path) -> None:
    """Refuse to write into a folder that is read, or below it: results would lie among the originals, or replace them.

    Args:
        output_dir: where a command writes; links are followed.
        key: what names the folder that is read, such as ``data.root``.
        source: that folder.

    Raises:
        UserError: naming both.
    """
    out, home = Path(output_dir).resolve(), Path(source).resolve()
    if out.is_relative_to(home):
        raise UserError(f"output_dir={output_dir}: is {key}={source}, or lies in it; choose a folder outside of it")
