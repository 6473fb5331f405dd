"""A folder of an object store, ``data.root=s3://bucket/folder``, as a folder of this machine that is kept up to date.

It is mirrored into ``<data.cache_dir>/segnet-mirror/<name>/``, and the rest of the program reads that folder as any
other. Beside it lies ``<name>.json``, which marks it as this program's and says which files are copies of what. Only a
URL that the user's own command line or configuration names is ever asked for anything: what runs leave behind, records
and checkpoints, names the mirror.
"""

import json
import re
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from segnet.errors import UserError
from segnet.files import locked, write_text
from segnet.object_store import Remote, UnreachableError, fetch, listed
from segnet.terminal import tell

HOME = "segnet-mirror"  # of all mirrors, below data.cache_dir
CACHE, GB = "data/cache", 20.0  # where no data.cache_dir and no data.cache_gb is given
BATCH = 64  # files fetched at once, and noted
Files = dict[str, list[Any]]  # copies by their names: size, tag of the original, time of change of the copy


def place(url: str, cache_dir: str | Path | None) -> Path:
    """The folder of a URL's mirror: a readable name, and a hash that tells apart what reads alike."""
    url = url.rstrip("/")
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", url.partition("://")[2]).strip("-.")[-60:]
    return Path(cache_dir or CACHE) / HOME / f"{readable}-{sha256(url.encode()).hexdigest()[:8]}"


def is_mirror(root: Any) -> bool:
    """Whether a ``data.root`` is the mirror of a URL, be it there or not."""
    return Path(str(root)).parent.name == HOME


def update(url: str, cache_dir: str | Path | None = None, limit_gb: float | None = None) -> Path:
    """Make the mirror of a URL what the store holds now.

    A file is fetched if its size, or what the store says of its content (ETag, checksum, time), is not that of the
    copy; it appears whole or not at all. A copy whose original is gone is deleted. Other files in the folder stay, and
    are told. Processes that share the folder take turns. Where the store cannot be reached, a whole mirror is used as
    it is, and that is told.

    Args:
        url: of a folder; any that fsspec has a driver for.
        cache_dir: below it are the mirrors; None is ``data/cache``.
        limit_gb: bound of this mirror in 10⁹ bytes; None is 20.

    Returns:
        the folder of the mirror.

    Raises:
        UserError: as `listed` and `fetch` do; the folder is larger than the bound; or the store cannot be reached and
            there is no whole mirror.
    """
    home = place(url, cache_dir)
    home.mkdir(parents=True, exist_ok=True)
    with locked(_beside(home, "lock")):
        try:
            remote = listed(url)
        except UnreachableError as error:
            return _offline(url, home, error)
        size, limit = sum(file.size for file in remote.values()), GB if limit_gb is None else limit_gb
        if size > limit * 1e9:
            raise UserError(
                f"data.root={url}: holds {size / 1e9:.3g} GB, more than data.cache_gb={limit:g}; raise that, or name "
                f"a folder that holds the data set alone"
            )
        fetched, deleted = _bring(url, home, remote)
    others = [name for name in _present(home) if name not in remote]
    told = f"{len(remote)} files ({size / 1e6:.4g} MB) in {home}, {fetched} fetched, {deleted} deleted"
    tell(f"data.root={url}: {told}{f'; {len(others)} not from there (such as {others[0]})' if others else ''}")
    return home


def _bring(url: str, home: Path, remote: Mapping[str, Remote]) -> tuple[int, int]:
    """Delete and fetch what differs; how many files were deleted and fetched."""
    noted = _noted(home)
    kept = {name: entry for name, entry in noted.items() if name in remote and _same(home / name, entry, remote[name])}
    gone = [name for name in noted if name not in remote]
    wanted = [name for name in remote if name not in kept]
    before = {name: noted[name] for name in wanted if name in noted}
    _note(home, url, noted, whole=not (gone or wanted))
    for name in gone:
        _inside(home, name).unlink(missing_ok=True)
        for parent in list(PurePosixPath(name).parents)[:-1]:
            with suppress(OSError):  # it holds something else
                (home / parent).rmdir()
    for start in range(0, len(wanted), BATCH):
        names = wanted[start : start + BATCH]
        kept |= _fetched(url, home, {name: remote[name] for name in names})
        _note(home, url, before | kept, whole=start + BATCH >= len(wanted))  # after a kill these are not fetched again
        if sys.stderr.isatty():
            print(f"\r{start + len(names)} of {len(wanted)} files ", end="", file=sys.stderr, flush=True)
    if gone and not wanted:
        _note(home, url, kept, whole=True)
    return len(wanted), len(gone)


def _fetched(url: str, home: Path, files: Mapping[str, Remote]) -> Files:
    """Fetch files beside the mirror, and move them into it."""
    scratch = _beside(home, "part")
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed process
    scratch.mkdir()
    try:
        parts = [scratch / str(i) for i in range(len(files))]
        fetch(url, list(files.values()), parts)
        done: Files = {}
        for (name, file), part in zip(files.items(), parts, strict=True):
            target = _inside(home, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
            done[name] = [file.size, file.tag, target.stat().st_mtime_ns]
        return done
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _inside(home: Path, name: str) -> Path:
    """The place of a file, unless a link leads out of the mirror on the way."""
    path = home / name
    if not path.parent.resolve().is_relative_to(home.resolve()):
        raise UserError(f"{path.parent}: is a link out of the mirror of data.root; delete it")
    return path


def _same(copy: Path, entry: list[Any], file: Remote) -> bool:
    """Whether a copy is as it was fetched, and its original as it was then."""
    try:
        stat = copy.lstat()
    except OSError:
        return False
    return entry == [file.size, file.tag, stat.st_mtime_ns] and stat.st_size == file.size


def _beside(home: Path, kind: str) -> Path:
    return home.with_name(f"{home.name}.{kind}")


def _noted(home: Path) -> Files:
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        files = json.loads(_beside(home, "json").read_text(encoding="utf-8"))["files"]
        return {str(name): list(entry) for name, entry in files.items()}
    return {}


def _note(home: Path, url: str, files: Files, whole: bool) -> None:
    content = {"made_by": "segnet", "url": url, "whole": whole, "time": time.time(), "files": files}
    write_text(_beside(home, "json"), json.dumps(content))


def _present(home: Path) -> list[str]:
    """Every file of a mirror, relative to it."""
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if not path.is_dir())


def _offline(url: str, home: Path, error: Exception) -> Path:
    """The mirror as it is, if it is whole."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        noted = json.loads(_beside(home, "json").read_text(encoding="utf-8"))
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(noted["time"]))
        if noted["whole"]:
            tell(f"data.root={url}: cannot be read ({error}); used is its mirror {home} of {when}")
            return home
    raise UserError(
        f"data.root={url}: cannot be read ({error}), and {home} is no whole mirror of it; check the address, the "
        f"network and the access keys in the environment (docs/data.md, Object stores)"
    ) from error
