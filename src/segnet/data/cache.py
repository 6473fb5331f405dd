"""Images decoded and resized once, kept as uint8 arrays on disk that every worker maps into memory.

A cache lives in ``<folder>/segnet-cache/<key>/`` as ``images.npy``, ``masks.npy`` and ``cache.json``, beside a marker;
one of images of different sizes has ``positions.npy`` too (`segnet.data.flat_cache`). The key is a hash of what decides
the content: image size, mask encoding, and every file's name, size and times of change. So a changed file or setting
never gets an old cache. What is deleted to make room are these files in folders that have the marker, and nothing else.
"""

import errno
import fcntl
import hashlib
import json
import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segnet.errors import UserError

HOME = "segnet-cache"  # of all caches, below the folder that the user names
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk, a quota, a limit of the process
MARKER = "made-by-segnet"  # in each of them, locked while it is built
FORMAT = 5  # raise it when the arrays change for the same files
FILES = ("cache.json", "images.npy", "masks.npy", "positions.npy")
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Store(Protocol[T_co]):
    """How the content of a cache is written to a folder and read from it."""

    def fill(self, folder: Path) -> None:
        """Decode everything into files of `FILES`."""

    def open(self, folder: Path, verify: bool) -> T_co | None:
        """The content; None where a file is missing, or with ``verify`` where an image is not what was written."""


def key_of(files: Sequence[Path | None], size: object, encoding: object) -> str:
    """Hash of everything that decides the content of a cache."""
    stats = []
    for file in files:
        stat = file.stat() if file else None
        # The inode's change time cannot be set by hand, so that a rewrite is noticed whatever its mtime says.
        stats.append((str(file), stat and (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)))
    text = json.dumps([FORMAT, size, repr(encoding), stats])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def open_or_build(
    folder: Path, key: str, load: Callable[[int], Pair], count: int, size: tuple[int, int], limit_gb: float
) -> Pair | None:
    """Map the cache ``key``, building it first where it is missing.

    Args:
        folder: where caches live, in a folder of their own.
        key: from `key_of`.
        load: image uint8 (H, W, 3) and mask uint8 (H, W) of one index, already at ``size``.
        count: how many images.
        size: (height, width) of them all.
        limit_gb: bound of all of them; the longest unused caches make room. Where one data set alone
            is larger, nothing is cached.

    Returns:
        images (count, H, W, 3) and masks (count, H, W), read-only memory maps; None if over the bound.
    """
    return kept(folder, key, Fixed(load, count, size), count * size[0] * size[1] * 4, limit_gb)


def kept(folder: Path, key: str, store: Store[T_co], need: int, limit_gb: float) -> T_co | None:
    """The content of the cache ``key`` below ``folder``, built first where it is missing; None if over the bound.

    Args:
        folder: where caches live, in a folder of their own.
        key: from `key_of`.
        store: writes and reads it.
        need: bytes that it takes.
        limit_gb: as for `open_or_build`.
    """
    folder = folder / HOME
    target = folder / key
    found = store.open(target, verify=True)
    if found is None:
        if need > limit_gb * 1e9:
            return None
        if _whole(target):
            warnings.warn(f"{target}: damaged since it was built; it is built anew", stacklevel=2)
        try:
            _make_room(folder, int(limit_gb * 1e9) - need)
            _build(folder, target, store)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise UserError(
                f"data.cache_dir={folder.parent}: no room for {need / 1e9:.3g} GB of images ({error.strerror}); "
                f"name a folder on another disk, or set data.cache_dir=null, which decodes them in every epoch"
            ) from error
        found = store.open(target, verify=False)
    with suppress(OSError):  # a shared cache may be read-only
        os.utime(target)  # marks it as used
    return found


def _whole(target: Path) -> bool:
    return all((target / name).is_file() for name in FILES[:3])


def checksums(pairs: Iterable[Pair]) -> list[int]:
    """`checksum` of each pair, computed by several threads."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda pair: checksum(*pair), pairs))


def checksum(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> int:
    """By which a damaged image or mask is noticed."""
    return zlib.crc32(np.ascontiguousarray(mask).data, zlib.crc32(np.ascontiguousarray(image).data))


@dataclass(frozen=True)
class Fixed:
    """Images and masks of one size; the arguments are those of `open_or_build`."""

    load: Callable[[int], Pair]
    count: int
    size: tuple[int, int]

    def open(self, folder: Path, verify: bool) -> Pair | None:
        """The arrays, if every image is what was written: a crash of the machine or a bad disk leaves zeros instead."""
        if not _whole(folder):
            return None
        try:
            noted = json.loads((folder / "cache.json").read_text(encoding="utf-8"))["checksums"]
            images, masks = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "masks"))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if images.shape != (self.count, *self.size, 3) or masks.shape != (self.count, *self.size):
            return None
        return (images, masks) if not verify or checksums(zip(images, masks, strict=True)) == noted else None

    def fill(self, folder: Path) -> None:
        """Decode everything."""
        images = reserve(folder / "images.npy", (self.count, *self.size, 3))
        masks = reserve(folder / "masks.npy", (self.count, *self.size))
        noted = []
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            results = pool.map(self.load, range(self.count))
            for i, pair in enumerate(progress(results, self.count)):
                images[i], masks[i] = pair
                noted.append(checksum(*pair))
        images.flush()
        masks.flush()
        content = {"count": self.count, "size": self.size, "format": FORMAT, "checksums": noted}
        (folder / "cache.json").write_text(json.dumps(content), encoding="utf-8")


def progress(results: Iterable[T], count: int) -> Iterable[T]:
    """Results of decoding, with a progress bar on a terminal."""
    return tqdm(results, "decode once", count, unit="image", leave=False, disable=None)


def _build(folder: Path, target: Path, store: Store[object]) -> None:
    part = folder / f"{target.name}.{uuid4().hex}.part"
    part.mkdir(parents=True)
    with _locked(part):
        try:
            store.fill(part)
            _remove(target)  # what a killed deletion left
            try:
                part.rename(target)  # atomic: a killed build leaves only a *.part folder
            except OSError as error:
                if store.open(target, verify=True) is None:  # else another process finished the same cache first
                    raise UserError(f"{target}: is no cache of this program; move it, or set data.cache_dir") from error
        finally:
            _remove(part)


def reserve(path: Path, shape: tuple[int, ...]) -> "np.memmap[Any, np.dtype[np.uint8]]":
    """A new array in a file whose space is taken at once: to write to a map for which the disk is full is a SIGBUS."""
    array: np.memmap[Any, np.dtype[np.uint8]] = np.lib.format.open_memmap(path, "w+", np.uint8, shape)  # type: ignore[no-untyped-call]
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


@contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Mark a folder as one of this program's, in use until the block ends or the process dies."""
    with (part / MARKER).open("w") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _in_use(part: Path) -> bool:
    with (part / MARKER).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _remove(entry: Path) -> None:
    """Delete the files of a cache, the marker last, and its folder if nothing else is in it."""
    if entry.is_symlink() or not (entry / MARKER).is_file():
        return
    with suppress(OSError):
        for name in (*FILES, MARKER):
            (entry / name).unlink(missing_ok=True)
        entry.rmdir()


def _make_room(folder: Path, allowed: int) -> None:
    """Delete leftovers of killed builds and the longest unused caches until ``allowed`` bytes remain."""
    caches = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_symlink() or not (entry / MARKER).is_file():
            continue
        if not entry.name.endswith(".part"):
            caches.append((entry.stat().st_mtime, sum(f.stat().st_size for f in entry.iterdir()), entry))
        elif not _in_use(entry):
            _remove(entry)
    used = sum(size for _, size, _ in caches)
    for _, size, entry in sorted(caches):
        if used <= allowed:
            return
        _remove(entry)
        used -= size
