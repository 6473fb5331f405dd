"""What a folder of images says of itself: ``dataset.yaml`` in its root.

`import_labels.py` and `check_data.py` write it. It saves whoever trains on the folder from typing where the masks are,
what their values mean and what the classes are called. The schema (`Description`) is versioned; docs/data.md has it.
"""

import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Len, MaxLen, MinLen
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segnet.command_line import command_line, override
from segnet.data.patterns import leads_out
from segnet.errors import UserError
from segnet.files import atomic_write
from segnet.settings import Bits, Count, Share, Text, Value

NAME = "dataset.yaml"
VERSION = 1
BYTES = 10**6  # of the file at most
MOST = 254  # classes, as `segnet.settings.NumClasses`
DEEP = 2  # ``**`` in a glob at most; each looks into every folder anew
HEAD = """\
# What this folder holds, read by data=folder; the command line overrides it. docs/data.md explains the keys.
"""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class MaskEncoding(_Part):
    """How mask files say the class of a pixel; the other keys are those of `segnet.data.masks`."""

    encoding: Literal["threshold", "values", "palette"]
    above: float | None = None
    classes: Annotated[list[Value], MaxLen(MOST)] | None = None
    colors: Annotated[list[Annotated[list[Value], Len(3, 3)]], MaxLen(MOST)] | None = None
    ignore: list[Value] | list[list[Value]] = Field(default_factory=list)
    tolerance: Count | None = None


class Division(_Part):
    """Which image belongs to which split; ``by`` chooses the class of `segnet.data.splits`."""

    by: Literal["hash", "pattern", "list"] = "hash"
    train: Share | Text | None = None
    val: Share | Text | None = None
    test: Share | Text | None = None
    group: Text | None = None


class Description(_Part):
    """The content of ``dataset.yaml``.

    Attributes:
        segnet_dataset: version of the schema, `VERSION`.
        images: globs below the root.
        masks: where an image's mask is: what `SegmentationDataModule` takes as ``masks``.
        match: regular expression on an image's relative path, whose groups ``masks`` may name; None: not needed.
        classes: names in order; a single one is a binary task.
        mask: encoding of the mask files.
        colors: RGB of each class in overlays; None draws from a fixed palette.
        missing_mask: whether an image without a mask is an error, or free of defects.
        defect_free: glob of images without a mask by design.
        mask_drawn: see `SegmentationDataModule`.
        bits: see `SegmentationDataModule`.
        kinds: see `SegmentationDataModule`.
        parts: see `SegmentationDataModule`.
        split: see `Division`; None is the default division by hash.
        source: where the folder comes from, for people.
    """

    segnet_dataset: Literal[1] = 1
    images: Annotated[list[Text], MinLen(1)]
    masks: Text | Annotated[list[Text], MinLen(1)] | dict[Text, str]
    match: Text | None = None
    classes: Annotated[list[Text], Len(1, MOST)]
    mask: MaskEncoding
    colors: Annotated[list[Annotated[list[Value], Len(3, 3)]], MaxLen(MOST)] | None = None
    missing_mask: Literal["error", "empty"] = "error"
    defect_free: Text | None = None
    mask_drawn: Literal["upright", "stored"] | None = None
    bits: Bits | None = None
    kinds: Text | None = None
    parts: Text | None = None
    split: Division | None = None
    source: str | None = None


def has(root: object) -> bool:
    """Whether a folder describes itself."""
    return (Path(str(root)) / NAME).is_file()


def read(root: Path) -> Description | None:
    """The description in a folder; None where there is none.

    Raises:
        UserError: it is no such file, of a later version, or names something outside of the folder.
    """
    path = root / NAME
    if not path.is_file():
        return None
    content = _load(path)
    version = content.pop("segnet_dataset", None)
    if version != VERSION:
        again = command_line("check_data", ["data=folder", override("data.root", str(root)), "write=true"])
        raise UserError(
            f"{path}: segnet_dataset={version} is not the version {VERSION} that this program reads; move it away, and "
            f"write another: {again}"
        )
    try:
        found = Description.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: {key}={reprlib.repr(first['input'])}: {first['msg']}; correct it, or move the file away"
        ) from None
    check(found, str(path))
    return found


def check(found: Description, name: str) -> None:
    """Refuse a description of something outside of its folder; ``name`` says where it stands.

    Raises:
        UserError: with the path.
    """
    check_texts(found.model_dump(), name)
    for text in _paths(found):
        if leads_out(text):
            raise UserError(f"{name}: {text!r} leads out of the folder; name what lies below it")
        if text.count("**") > DEEP:
            raise UserError(f"{name}: {text!r} has ** more than {DEEP} times; once is enough to look into all folders")


def check_texts(content: Any, name: str) -> None:
    """Refuse texts that a configuration would take for something else: ``${oc.env:HOME}`` reads a variable.

    Raises:
        UserError: with the text.
    """
    if isinstance(content, str) and ("${" in content or content == "???"):
        raise UserError(f"{name}: {content!r} would be read as a reference to another setting; choose another name")
    if isinstance(content, Mapping):
        content = [*content.keys(), *content.values()]
    for part in content if isinstance(content, list | tuple) else ():
        check_texts(part, name)


def write(root: Path, description: Description) -> Path:
    """Write the description into a folder, in place of an earlier one; where it lies."""
    path = root / NAME
    content: dict[str, Any] = description.model_dump(exclude_none=True)
    with atomic_write(path) as part:
        part.write_text(
            HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100),
            encoding="utf-8",
        )
    return path


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > BYTES:
            raise UserError(f"{path}: larger than {BYTES} bytes, so no description of a data set; move it away")
        text = path.read_text(encoding="utf-8-sig")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise UserError(f"{path}: has an alias (*name); write its content instead")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}); correct it, or move it away") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: must be a mapping of the keys in docs/data.md; correct it, or move it away")
    return content


def _paths(found: Description) -> Sequence[str]:
    """Every text of a description that becomes a part of a path."""
    masks = found.masks
    targets = list(masks.values()) if isinstance(masks, Mapping) else [masks] if isinstance(masks, str) else masks
    lists = [getattr(found.split, name) for name in ("train", "val", "test")] if found.split else []
    return [*found.images, *targets, *(text for text in lists if isinstance(text, str))]
