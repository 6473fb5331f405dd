"""A description of a folder as a data configuration, and the way back."""

from typing import Any

from segnet.data import description
from segnet.data.description import Description, Division, MaskEncoding
from segnet.data.patterns import listed
from segnet.errors import UserError

HERE = "segnet.data"
ENCODINGS = {"threshold": "Threshold", "values": "Values", "palette": "Palette"}
SPLITTERS = {"hash": "ByHash", "pattern": "ByPattern", "list": "ByList"}
TAKES = {
    "Threshold": ("above",),
    "Values": ("num_classes", "classes", "ignore"),
    "Palette": ("colors", "ignore", "tolerance"),
}
ROOMS = {"masks": ENCODINGS, "splits": SPLITTERS}
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
Data = dict[str, Any]


def encoding(mask: MaskEncoding) -> Data:
    """A described encoding as a configuration; ``num_classes`` of values comes with the classes."""
    kind = ENCODINGS[mask.encoding]
    given = mask.model_dump(exclude_none=True, exclude={"encoding"})
    if strange := [key for key in given if key not in TAKES[kind] and given[key]]:
        raise UserError(
            f"{description.NAME}: mask.{strange[0]} is nothing that encoding: {mask.encoding} takes; remove it, or "
            f"correct the encoding"
        )
    return {"_target_": f"{HERE}.masks.{kind}", **{key: value for key, value in given.items() if key in TAKES[kind]}}


def division(split: Division) -> Data:
    """A described division as a configuration."""
    named = split.model_dump(exclude_none=True, exclude={"by"})
    return split_by(SPLITTERS[split.by], named)


def split_by(kind: str, named: Data) -> Data:
    """The configuration of a class of `segnet.data.splits`, shares and all."""
    shares = SHARES if kind == "ByHash" else dict.fromkeys(SHARES)
    return {"_target_": f"{HERE}.splits.{kind}", **shares, "group": None, **named}


def describe(data: Data) -> Description:
    """A settled data configuration as the description that leads to it.

    Raises:
        UserError: the masks or the split are read by a class that a description cannot name, or a file or a folder
            that it names lies outside of the root.
    """
    kinds = {f"{HERE}.{room}.{kind}": name for room, known in ROOMS.items() for name, kind in known.items()}
    parts: list[Data] = []
    for part, key in (("mask", "encoding"), ("split", "by")):
        given = {
            name: value
            for name, value in data[part].items()
            if value is not None and name not in ("_target_", "num_classes")
        }
        target = data[part]["_target_"]
        if target not in kinds:
            raise UserError(
                f"data.{part}._target_={target}: {description.NAME} cannot describe it; of its kind it knows "
                f"{', '.join(known for known in kinds if known.split('.')[2] == target.split('.')[2]) or 'none'}"
            )
        parts.append({key: kinds[target], **given})
    default = parts[1] == {"by": "hash", **SHARES}
    found = Description(
        images=listed(data["images"]),
        masks=data["masks"],
        match=data.get("match"),
        classes=data["classes"],
        mask=MaskEncoding(**parts[0]),
        colors=data.get("colors"),
        missing_mask=data.get("missing_mask") or "error",
        defect_free=data.get("defect_free"),
        mask_drawn=data.get("mask_drawn"),
        bits=data.get("bits"),
        kinds=data.get("kinds"),
        parts=data.get("parts"),
        split=None if default else Division(**parts[1]),
    )
    description.check(found, "data")
    return found


def shown(value: Any) -> str:
    """A setting as it stands in YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {text}" for key, text in value.items()) + "}"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)
