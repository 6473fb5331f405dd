"""Has a data set describe itself: ``dataset.yaml`` from the settings that an audit found to hold."""

from pathlib import Path
from typing import Any

from segnet.command_line import command_line, override
from segnet.data import description
from segnet.data.described import describe
from segnet.data.description import Description
from segnet.errors import UserError


def agreed(root: Path, data: dict[str, Any], overwrite: bool) -> Description:
    """The description of a settled data configuration, once it is clear that it may be written.

    Where the folder describes itself, what it says of its origin is kept.

    Raises:
        UserError: it cannot be described, or the folder says otherwise and ``overwrite`` is not set.
    """
    new, old = describe(data), description.read(root)
    if old is None:
        return new
    new = new.model_copy(update={"source": old.source})
    differing = [key for key in type(new).model_fields if getattr(new, key) != getattr(old, key)]
    if differing and not overwrite:
        first = differing[0]
        raise UserError(
            f"{root / description.NAME}: says otherwise ({first}: {_plain(getattr(old, first))} there, "
            f"{_plain(getattr(new, first))} here{f', and {len(differing) - 1} more' if differing[1:] else ''}); leave "
            f"out what differs, or replace the file with overwrite=true, which keeps the earlier one beside it"
        )
    return new


def write(root: Path, new: Description) -> list[str]:
    """Write what `agreed`, unless the folder says so already; an earlier file is renamed. Lines for people."""
    path = root / description.NAME
    if description.read(root) == new:
        return [f"{path} says so already"]
    kept = ""
    try:
        if path.is_file():
            number = next(n for n in range(1, 10**6) if not path.with_name(f"{path.name}.{n}").exists())
            path.rename(path.with_name(f"{path.name}.{number}"))
            kept = f", the earlier one to {path.name}.{number}"
        description.write(root, new)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); make the folder writable") from error
    train = command_line("train", ["experiment=auto", "data=folder", override("data.root", str(root))])
    return [f"written to {path}{kept}", f"train on it: {train}"]


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value
