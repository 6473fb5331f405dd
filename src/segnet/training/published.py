"""A released network as a folder: weights, how to rebuild it, and checksums of all its files; code in none of them."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from segnet import trust
from segnet.errors import UserError
from segnet.files import atomic_write, write_json, write_text

WEIGHTS, CONFIG, SUMS = "model.safetensors", "config.json", "SHA256SUMS"
NEEDED = [WEIGHTS, CONFIG, SUMS]  # to load it
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")  # of sha256sum


def write(folder: Path, state: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Write weights and configuration; the same ones give the same bytes.

    Args:
        folder: of the release.
        state: the state of a `SegmentationModule`, as in a checkpoint.
        about: plain containers: ``config`` rebuilds the module, ``operating_point`` is its own or None, and the rest is
            for people and other programs.
    """
    # Contiguous and apart, as the format wants them: weights of convolutions may be in channels_last.
    apart = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    with atomic_write(folder / WEIGHTS) as part:
        part.write_bytes(safetensors.torch.save(apart, {"format": "pt"}))
    write_json(folder / CONFIG, about)


def seal(folder: Path) -> None:
    """Write ``SHA256SUMS`` of every file below the folder, for `read` and for ``sha256sum -c``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / SUMS, "".join(lines))


def is_published(path: Path) -> bool:
    """Whether it is a folder that `seal` has finished, by its name alone."""
    return (path / SUMS).is_file()


def weights(path: Path) -> Path:
    """The file with the weights: of a published folder, or a checkpoint itself."""
    return path / WEIGHTS if path.is_dir() else path


def read(folder: Path, argument: str) -> dict[str, Any]:
    """What a checkpoint would hold of it, ``config``, ``state_dict``, ``operating_point``, from tensors and JSON only.

    A copy may lack what is not read here, such as exported models; every listed file that is there must be whole.

    Args:
        folder: a stranger's, perhaps; its configuration is still to be checked.
        argument: what errors call it, such as ``weights``.

    Raises:
        UserError: it is no published folder; a file is missing, or is not the one that was published.
    """
    source = f"{argument}={folder}"
    if not is_published(folder):
        raise UserError(
            f"{source}: a folder without {SUMS}, so none that publish.py wrote; give <run folder>/checkpoints/best.ckpt"
        )
    found: dict[str, bytes] = {}
    for name, listed in _listed(folder, source).items():
        file = folder / name
        if not file.is_file() and name not in (WEIGHTS, CONFIG):
            continue
        if not file.is_file():
            raise UserError(f"{source}: {name} is missing; copy or download the folder again")
        if name in (WEIGHTS, CONFIG):  # the very bytes that are checked are read
            found[name] = file.read_bytes()
            digest = hashlib.sha256(found[name]).hexdigest()
        else:
            digest = sha256(file)
        if digest != listed:
            raise UserError(
                f"{source}: {name} is not the file that was published (its SHA-256 is {digest[:12]}…, {SUMS} has "
                f"{listed[:12]}…); copy or download the folder again"
            )
    if missing := [name for name in (WEIGHTS, CONFIG) if name not in found]:
        raise UserError(f"{source}: {SUMS} does not list {missing[0]}; copy or download the folder again")
    try:
        about = json.loads(found[CONFIG]) if len(found[CONFIG]) <= trust.BYTES else None
        state = safetensors.torch.load(found[WEIGHTS])
    except (ValueError, RecursionError, SafetensorError) as error:
        raise UserError(f"{source}: cannot be read as {WEIGHTS} and {CONFIG} ({error}); publish it again") from error
    if not isinstance(about, dict):
        raise UserError(f"{source}: its {CONFIG} describes no network; publish it again")
    return {"config": about.get("config"), "state_dict": state, "operating_point": about.get("operating_point")}


def _listed(folder: Path, source: str) -> dict[str, str]:
    """Of each file that the list names its SHA-256."""
    file = folder / SUMS
    try:
        text = file.read_text(encoding="utf-8") if file.stat().st_size <= trust.BYTES else ""
    except UnicodeDecodeError:
        text = ""
    rows = [_LINE.fullmatch(line) for line in text.splitlines()]
    listed = {row[2]: row[1] for row in rows if row}
    inside = all(not (path := PurePosixPath(name)).is_absolute() and ".." not in path.parts for name in listed)
    if not listed or None in rows or not inside:
        raise UserError(f"{source}: {SUMS} is no list of this folder's files; copy or download the folder again")
    return listed


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
