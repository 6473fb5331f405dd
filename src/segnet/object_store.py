"""What a folder of an object store holds, and its files fetched: any URL that fsspec has a driver for.

Access keys are a matter of the driver, which finds them in the environment and in its own files; none is taken here.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from segnet.errors import UserError, printable

FILES = 1_000_000  # of a folder at most
# What stores say of a file's content that changes with it, the best first.
TAGS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "updated", "mtime", "created")
DRIVERS = dict.fromkeys(("s3", "s3a"), "segnet-lightning[s3]") | dict.fromkeys(("gs", "gcs"), "gcsfs")
DRIVERS |= dict.fromkeys(("az", "abfs", "abfss"), "adlfs")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.*", re.DOTALL)


class Remote(NamedTuple):
    """A file of a store: its path there, its size in bytes, and a text that changes with its content."""

    path: str
    size: int
    tag: str


class UnreachableError(Exception):
    """A store did not answer, or let nobody in."""


def is_url(root: Any) -> bool:
    """Whether a ``data.root`` is a URL, and no path."""
    return _URL.fullmatch(str(root)) is not None


def listed(url: str) -> dict[str, Remote]:
    """Every file below a URL, by its path relative to it.

    Raises:
        UserError: it is no URL of a folder with files, its driver is missing, or a name would lead out of a folder.
        UnreachableError: any failure of the driver.
    """
    system, top = _opened(url)
    try:
        found: dict[str, dict[str, Any]] = system.find(top, detail=True)
    except FileNotFoundError:
        found = {}
    except Exception as error:  # each driver has errors of its own
        raise UnreachableError(_reason(error)) from error
    files: dict[str, Remote] = {}
    for path, info in found.items():
        if info.get("type") == "directory" or path.endswith("/") or path == top:
            continue  # what stores keep in place of a folder
        name = path.removeprefix(f"{top}/")
        _check_name(url, path, name)
        if type(info.get("size")) is not int:
            raise UserError(f"data.root={url}: the store does not say the size of {name}; copy the folder by hand")
        files[name] = Remote(path, info["size"], next((str(info[key]) for key in TAGS if info.get(key)), ""))
    if not files:
        raise UserError(f"data.root={url}: there is no file below it; give the URL of the folder of the data set")
    if len(files) > FILES:
        raise UserError(f"data.root={url}: holds {len(files)} files, more than {FILES}; name a smaller folder")
    if both := sorted({str(parent) for name in files for parent in PurePosixPath(name).parents} & files.keys()):
        raise UserError(f"data.root={url}: {both[0]} is a file and a folder there, which no disk can hold; rename one")
    return files


def fetch(url: str, files: Sequence[Remote], targets: Sequence[Path]) -> None:
    """Copy files of a store to places on this disk.

    Raises:
        UserError: the store breaks off, or a file is not as long as it was listed.
        OSError: of this disk.
    """
    system, _ = _opened(url)
    again = "the same command continues it"
    try:
        system.get([file.path for file in files], [str(target) for target in targets])
    except Exception as error:
        if isinstance(error, OSError) and error.filename in {str(target) for target in targets}:
            raise
        raise UserError(f"data.root={url}: fetching it was broken off ({_reason(error)}); {again}") from error
    for file, target in zip(files, targets, strict=True):
        if (size := target.stat().st_size) != file.size:
            raise UserError(f"data.root={url}: {file.path} came with {size} bytes and not {file.size}; {again}")


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, with nothing remembered from before, and the path there."""
    import fsspec

    protocol, separator, rest = url.partition("://")
    if not separator or "::" in url or protocol in ("http", "https"):
        raise UserError(f"data.root={url}: must be the URL of one folder in a store, such as s3://bucket/folder")
    if "@" in rest.partition("/")[0] and protocol not in ("az", "abfs", "abfss"):  # container@account
        raise UserError(
            f"data.root={protocol}://…@…: names a user; leave that out, access keys belong in the environment "
            f"(docs/data.md, Object stores)"
        )
    try:
        system, top = fsspec.url_to_fs(url)
    except ImportError as error:
        remedy = f"pip install '{DRIVERS[protocol]}'" if protocol in DRIVERS else str(error)
        raise UserError(f"data.root={url}: the driver of {protocol}:// is not installed: {remedy}") from error
    except ValueError as error:
        raise UserError(f"data.root={url}: {error}; give a URL such as s3://bucket/folder") from error
    except Exception as error:
        raise UnreachableError(_reason(error)) from error
    system.invalidate_cache()
    return system, str(top).rstrip("/")


def _check_name(url: str, path: str, name: str) -> None:
    """Refuse a name that would be another file on this disk, or none."""
    parts = name.split("/")
    if set(parts) & {"", ".", ".."} or "\0" in name or any(len(part.encode()) > 255 for part in parts):
        raise UserError(f"data.root={url}: {path!r} is no name that a file below a folder can have here; rename it")


def _reason(error: BaseException) -> str:
    return printable(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
