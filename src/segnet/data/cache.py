"""Folders of decoded images: which data they belong to, who builds them, and what is deleted to make room.

A cache lives in ``<folder>/segnet-cache/<key>/`` as `FILES` (see `segnet.data.flat_cache`), beside a marker. The key is
a hash of what decides the content: image size, mask encoding, and every file's name, size and times of change. So a
changed file or setting never gets an old cache. What is deleted to make room are these files in folders that have the
marker, and nothing else.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from segnet.errors import UserError

HOME = "segnet-cache"  # of all caches, below the folder that the user names
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk, a quota, a limit of the process
MARKER = "made-by-segnet"  # in each of them, locked while it is built
PART = ".part"  # ends the name of one that is being built or deleted
FORMAT = 7  # raise it when the arrays change for the same files
FILES = ("cache.json", "images.npy", "masks.npy", "positions.npy")
Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # image (H, W, 3) and mask (H, W), or many of one size


def key_of(files: Sequence[Path | None], size: object, encoding: object) -> str:
    """Hash of everything that decides the content of a cache."""
    stats = []
    for file in files:
        stat = file.stat() if file else None
        # The inode's change time cannot be set by hand, so that a rewrite is noticed whatever its mtime says.
        stats.append((str(file), stat and (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)))
    text = json.dumps([FORMAT, size, repr(encoding), stats])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def is_whole(folder: Path) -> bool:
    """Whether a cache has its files, so that one which cannot be opened is damaged."""
    return all((folder / name).is_file() for name in FILES[:3])


@contextmanager
def writable(home: Path) -> Iterator[None]:
    """Make the folder of all caches; what hinders that, or writing in it, is told with what to do.

    Raises:
        UserError: nothing can be written there; OSError: it is `FULL`.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(
            f"data.cache_dir={home.parent}: nothing can be written there ({error.strerror}); name another folder, or "
            f"set data.cache_dir=null, which decodes the images in every epoch"
        ) from error


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Wait until no other process puts a cache into the folder or deletes one there, and keep them waiting."""
    handle = os.open(home, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _in_use(part: Path) -> bool:
    with (part / MARKER).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def remove(entry: Path) -> None:
    """Delete the files of a cache, the marker last, and its folder if nothing else is in it.

    A finished one is renamed first: others see it whole or not at all, and what they build in its place stays.
    """
    if entry.is_symlink() or not (entry / MARKER).is_file():
        return
    away = entry if entry.name.endswith(PART) else entry.with_name(f"{entry.name}.{uuid4().hex}{PART}")
    with suppress(OSError):
        entry.rename(away)
        for name in (*FILES, MARKER):
            (away / name).unlink(missing_ok=True)
        if any(away.iterdir()):
            away.rename(entry)  # what a user has put there
        else:
            away.rmdir()


def make_room(folder: Path, allowed: int) -> None:
    """Delete leftovers of killed builds and the longest unused caches until ``allowed`` bytes remain."""
    caches = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_symlink() or not (entry / MARKER).is_file():
            continue
        with suppress(FileNotFoundError):  # another process has made room meanwhile
            if not entry.name.endswith(PART):
                caches.append((entry.stat().st_mtime, sum(file.lstat().st_size for file in entry.iterdir()), entry))
            elif not _in_use(entry):
                remove(entry)
    used = sum(size for _, size, _ in caches)
    for _, size, entry in sorted(caches):
        if used <= allowed:
            return
        remove(entry)
        used -= size
