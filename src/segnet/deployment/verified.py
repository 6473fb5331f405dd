"""Whether an exported file was compared with its checkpoint: in its metadata, or in verification.json beside it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from segnet.command_line import command_line, override
from segnet.deployment import verification_page
from segnet.deployment.exported_model import ExportedModel
from segnet.deployment.formats import SUFFIXES
from segnet.errors import printable
from segnet.files import write_json, write_text

RECORD = "verification.json"
PAGE = "verification.md"
KEY = "verified"  # in the metadata and in the record; files without it are of versions that wrote no others
BYTES = 10_000_000  # of a record


def record(path: Path, found: dict[str, Any], folder: Path, verified: bool = True) -> None:
    """Write what was found of an exported file, with the file's name and SHA-256, to verification.json in a folder.

    Of a verified file for people, too: verification.md.
    """
    content = {KEY: verified, "file": path.name, "sha256": digest(path), **found}
    write_json(folder / RECORD, content)
    if verified:
        write_text(folder / PAGE, verification_page.text(path.name, found))


def digest(path: Path) -> str:
    """SHA-256 of a file and the one that belongs to it, as of one behind the other."""
    found, kind = hashlib.sha256(), SUFFIXES[path.suffix]
    for suffix in (kind.suffix, kind.beside):
        if suffix is not None:
            found.update(path.with_suffix(suffix).read_bytes())
    return found.hexdigest()


def is_verified(exported: ExportedModel) -> bool:
    """Whether the file was compared when it was written, or the record beside it is of this very file."""
    if exported.metadata.get(KEY) is not False:
        return True
    stored = recorded(exported.path)
    return stored.get(KEY) is True and stored.get("sha256") == digest(exported.path)


def recorded(path: Path) -> dict[str, Any]:
    """What the record beside an exported file holds; empty if there is none that can be read."""
    beside = path.with_name(RECORD)
    try:
        if not beside.is_file() or beside.stat().st_size > BYTES:
            return {}
        stored = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def later(path: Path, reason: str, checkpoint: str | None = None, *more: str) -> str:
    """One line for people: that a file is unverified, and the command that verifies it."""
    words = [override("verify", str(path)), *more, *["trust=true"] * (SUFFIXES[path.suffix].danger is not None)]
    if checkpoint is None:
        told = f"{command_line('export', words)} ckpt_path=<its checkpoint>"
    else:
        told = command_line("export", [override("ckpt_path", checkpoint), *words])
    return f"{path} is unverified ({reason}); where the data are: {told}"


def tell(model: object) -> None:
    """Say in one line that an exported model is unverified."""
    if isinstance(model, ExportedModel) and not is_verified(model):
        print(printable(later(model.path, "it was exported without the data set")))
