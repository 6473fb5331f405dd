"""Images decoded and resized once, kept as uint8 arrays on disk that every worker maps into memory.

A cache lives in ``<folder>/<key>/`` as ``images.npy``, ``masks.npy`` and ``cache.json``. The key is a hash of
what decides the content: image size, mask encoding, and every file's name, size and times of change. So a
changed file or setting never gets an old cache.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

FORMAT = 3  # raise it when the arrays change for the same files
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def key_of(files: Sequence[Path | None], size: tuple[int, int], encoding: object) -> str:
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
        folder: where caches live.
        key: from `key_of`.
        load: image uint8 (H, W, 3) and mask uint8 (H, W) of one index, already at ``size``.
        count: how many images.
        size: (height, width) of them all.
        limit_gb: bound of the whole folder; the longest unused caches make room. Where one data set alone
            is larger, nothing is cached.

    Returns:
        images (count, H, W, 3) and masks (count, H, W), read-only memory maps; None if over the bound.
    """
    target = folder / key
    if not _whole(target):
        need = count * size[0] * size[1] * 4
        if need > limit_gb * 1e9:
            return None
        _make_room(folder, int(limit_gb * 1e9) - need)
        _build(folder, target, load, count, size)
    with suppress(OSError):  # a shared cache may be read-only
        os.utime(target)  # marks it as used
    return np.load(target / "images.npy", mmap_mode="r"), np.load(target / "masks.npy", mmap_mode="r")


def _whole(target: Path) -> bool:
    return all((target / name).is_file() for name in ("images.npy", "masks.npy", "cache.json"))


def _build(folder: Path, target: Path, load: Callable[[int], Pair], count: int, size: tuple[int, int]) -> None:
    part = folder / f"{target.name}.{os.getpid()}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        images = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
            part / "images.npy", "w+", np.uint8, (count, *size, 3)
        )
        masks = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
            part / "masks.npy", "w+", np.uint8, (count, *size)
        )
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            results = pool.map(load, range(count))
            for i, pair in enumerate(tqdm(results, "decode once", count, unit="image", leave=False, disable=None)):
                images[i], masks[i] = pair
        images.flush()
        masks.flush()
        (part / "cache.json").write_text(json.dumps({"count": count, "size": size, "format": FORMAT}))
        if not _whole(target):
            shutil.rmtree(target, ignore_errors=True)  # what a killed deletion left
        try:
            part.rename(target)  # atomic: a killed build leaves only a *.part folder
        except OSError:
            if not _whole(target):  # else another process finished the same cache first
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _make_room(folder: Path, allowed: int) -> None:
    """Delete leftovers of killed builds and the longest unused caches until ``allowed`` bytes remain."""
    caches = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name.endswith(".part"):
            if time.time() - entry.stat().st_mtime > 3600 and not _alive(int(entry.suffixes[-2][1:])):
                shutil.rmtree(entry, ignore_errors=True)
        elif entry.is_dir():
            caches.append((entry.stat().st_mtime, sum(f.stat().st_size for f in entry.iterdir()), entry))
    used = sum(size for _, size, _ in caches)
    for _, size, entry in sorted(caches):
        if used <= allowed:
            return
        shutil.rmtree(entry, ignore_errors=True)
        used -= size
