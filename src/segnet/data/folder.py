"""The settings of a data set that nobody has named: read from its ``dataset.yaml``, else found from its files.

A setting that is null in the composed configuration is not named (conf/data/folder.yaml); a named one holds.
"""

from pathlib import Path
from typing import Any

from segnet.data import description
from segnet.data.description import Description, Division, MaskEncoding
from segnet.errors import UserError

HERE = "segnet.data"
ENCODINGS = {"threshold": "Threshold", "values": "Values", "palette": "Palette"}
SPLITTERS = {"hash": "ByHash", "pattern": "ByPattern", "list": "ByList"}
TAKES = {
    "Threshold": ("above",),
    "Values": ("num_classes", "classes", "ignore"),
    "Palette": ("colors", "ignore", "tolerance"),
}
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
ASKED = ("images", "masks", "classes", "num_classes", "missing_mask")  # null in conf/data/folder.yaml, and needed
OPTIONAL = ("match", "defect_free", "mask_drawn", "bits", "colors")  # of the description; null is a value, too
Data = dict[str, Any]


def settle(data: Data) -> tuple[Data, list[str]]:
    """Fill in what is null in a data configuration.

    Args:
        data: as composed, resolved, in plain containers.

    Returns:
        a copy that `SegmentationDataModule` can be made of, and lines for people: what was taken from where. Where
        nothing is null, nothing is read.

    Raises:
        UserError: ``dataset.yaml`` is wrong, or more than one reading fits the files, or none.
    """
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    if not is_open(data):
        return data, []
    root = Path(str(data["root"]))
    found = description.read(root)
    lines = []
    if found is not None:
        took = _describe(data, found)
        if took:
            lines.append(f"data: {root / description.NAME} says {', '.join(took)}")
    _fill(data)
    return data, lines


def is_open(data: Data) -> bool:
    """Whether a data configuration leaves something to be found."""
    parts = [data.get(name) for name in ("mask", "split")]
    return any(key in data and data[key] is None for key in ASKED) or any(_open(part) for part in parts)


def _open(part: Any) -> bool:
    return part is None or (isinstance(part, dict) and "_target_" in part and part["_target_"] is None)


def _describe(data: Data, found: Description) -> list[str]:
    """Take from a description what is not named; what was taken, in words."""
    took = []
    for key in ("images", "masks", "missing_mask", *OPTIONAL):
        if data.get(key) is None and (value := getattr(found, key)) is not None:
            data[key] = value if isinstance(value, str | int | dict) else list(value)
            took += [f"{key} {_shown(value)}"] if (key, value) != ("missing_mask", "error") else []
    if data.get("classes") is None and data.get("num_classes") in (None, len(found.classes)):
        data["classes"] = list(found.classes)
        took.append(f"{len(found.classes)} class{'es' * (len(found.classes) > 1)} {_shown(found.classes)}")
    if _open(data.get("mask")):
        data["mask"] = _merged(encoding(found.mask), data.get("mask"), "data.mask")
        took.append(f"masks by {found.mask.encoding}")
    if found.split is not None and _open(data.get("split")) and not _names(data.get("split")):
        data["split"] = division(found.split)
        took.append(f"split by {found.split.by}")
    return took


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


def _names(part: Any) -> Data:
    """What is named in a part of the configuration whose class is not."""
    return {k: v for k, v in part.items() if v is not None and k != "_target_"} if isinstance(part, dict) else {}


def _merged(found: Data, given: Any, key: str) -> Data:
    """A found encoding, changed by what is named."""
    kind = found["_target_"].rpartition(".")[2]
    named = {name: value for name, value in _names(given).items() if name != "num_classes"}
    if strange := [name for name in named if name not in TAKES[kind]]:
        raise UserError(
            f"{key}.{strange[0]}={named[strange[0]]}: the masks are read by {kind.lower()}, which takes no such "
            f"setting; name the encoding too, such as data/mask={'threshold' if strange[0] == 'above' else 'values'}"
        )
    return {**found, **named}


def _fill(data: Data) -> None:
    """Defaults for what neither the user nor the description has said."""
    for key, value in {"images": "images/*", "masks": "masks/{stem}.png", "missing_mask": "error"}.items():
        if data.get(key) is None:
            data[key] = value
    if _open(data.get("mask")):
        keys = _names(data.get("mask")).keys()
        kind = "Palette" if {"colors", "tolerance"} & keys else "Threshold"
        kind = "Values" if {"classes", "ignore"} & keys and kind != "Palette" else kind
        data["mask"] = _merged({"_target_": f"{HERE}.masks.{kind}"}, data.get("mask"), "data.mask")
    _count(data)
    mask = data["mask"]
    if isinstance(mask, dict) and mask.get("_target_") == f"{HERE}.masks.Values" and mask.get("num_classes") is None:
        mask["num_classes"] = data["num_classes"]
    if _open(data.get("split")):
        named = _names(data.get("split"))
        data["split"] = split_by(_kind_of_split(Path(str(data["root"])), named), named)
    elif isinstance(split := data["split"], dict) and str(split.get("_target_")).endswith(".ByHash"):
        data["split"] = {**split, **{k: v for k, v in SHARES.items() if split.get(k) is None}}


def _kind_of_split(root: Path, named: Data) -> str:
    """The class of `segnet.data.splits` that what is named of a split fits: shares, list files or patterns."""
    texts = [named[name] for name in SHARES if isinstance(named.get(name), str)]
    if not texts:
        return "ByHash"
    return "ByList" if any((root / text).is_file() for text in texts) else "ByPattern"


def _count(data: Data) -> None:
    """Names from a number of classes, or the number from the names; one class called defect where neither is known."""
    classes, count = data.get("classes"), data.get("num_classes")
    if classes is None:
        data["classes"] = names(count if type(count) is int and count > 0 else 1)
    if count is None:
        data["num_classes"] = len(data["classes"]) if isinstance(data["classes"], list) else None


def names(count: int) -> list[str]:
    """Names of classes that nobody has named."""
    return ["defect"] if count == 1 else ["background", *(f"class_{i}" for i in range(1, count))]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {text}" for key, text in value.items()) + "}"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)
