"""The settings of a data set that nobody has named: read from its ``dataset.yaml``, else found from its files.

A setting that is null in the composed configuration is not named (conf/data/folder.yaml); a named one holds.
"""

from pathlib import Path
from typing import Any

from segnet.data import description, encodings, layouts, looks
from segnet.data.described import HERE, SHARES, TAKES, Data, describe, division, encoding, shown, split_by
from segnet.data.description import Description
from segnet.data.pairs import Layout, matching
from segnet.data.patterns import listed, quick
from segnet.errors import UserError

ASKED = ("images", "masks", "classes", "num_classes", "missing_mask")  # null in conf/data/folder.yaml, and needed
OPTIONAL = ("match", "defect_free", "mask_drawn", "bits", "colors", "kinds", "parts")  # null is a value, too


def settle(data: Data, asking: bool = True, decide: bool = False) -> tuple[Data, list[str]]:
    """Fill in what is null in a data configuration.

    Args:
        data: as composed, resolved, in plain containers.
        asking: whether masks whose values could mean several things are an error; else that is a line, and they are
            taken for black and white, so that an audit can show them.
        decide: whether values that few masks hold beside black and white are ignored without a question.

    Returns:
        a copy that `SegmentationDataModule` can be made of, and lines for people: what was taken from where. Where
        nothing is null, nothing is read.

    Raises:
        UserError: ``dataset.yaml`` is wrong, or more than one reading fits the files, or none.
    """
    given, data = data, {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    if not is_open(data):
        return data, []
    root = Path(str(data["root"]))
    lines, told = list[str](), list[str]()
    found = description.read(root)
    if found is not None and (took := _describe(data, found)):
        lines.append(f"data: {root / description.NAME} says {', '.join(took)}")
        _check_expressions(data, found, root)
    if root.is_dir():
        took = _find_files(data, root, found is None, told) + _find_encoding(data, root, asking, decide, told)
        lines += [f"data: found {', '.join(took)}"] if took else []
    _fill(data)
    description.check_texts({key: value for key, value in data.items() if value != given.get(key)}, "data")
    return data, lines + told


def propose(root: Path) -> tuple[Description, list[str]]:
    """A description of a folder that has none, for a person to read; and the reasons in words.

    Unlike `settle` it has values ignored that few masks hold beside black and white.

    Raises:
        UserError: more than one reading fits the files, or none.
    """
    names = ("images", "masks", "match", "missing_mask", "mask", "classes", "num_classes", "colors", "split")
    data, lines = settle({"root": str(root), **dict.fromkeys(names)}, decide=True)
    return describe(data), lines


def _find_files(data: Data, root: Path, alone: bool, lines: list[str]) -> list[str]:
    """Where images and masks are, and without a description the split that they show; what was found, in words."""
    wanted = [key for key in ("images", "masks") if data.get(key) is None]
    dividing = alone and _open(data.get("split")) and not _names(data.get("split"))
    if not wanted and not dividing:
        return []
    found = layouts.find(root, data.get("images"), data.get("masks"), data.get("match"))
    took = [f"{key} {shown(getattr(found, key))}" for key in wanted if found.found]
    data.update({key: getattr(found, key) for key in wanted})
    if "masks" in wanted and found.match is not None:
        data["match"] = found.match
        took.append(f"match {found.match}")
    if found.defect_free is not None and data.get("defect_free") is None:
        data["defect_free"] = found.defect_free
        took.append(f"defect_free {found.defect_free}")
    if dividing and found.split is not None:
        data["split"] = division(found.split)
        named = {name: getattr(found.split, name) for name in SHARES if getattr(found.split, name) is not None}
        took.append(f"split {', '.join(f'{name} {text}' for name, text in named.items())}")
    lines += [f"data: {text}" for text in found.told]
    return took


def _find_encoding(data: Data, root: Path, asking: bool, decide: bool, lines: list[str]) -> list[str]:
    """What the values of the masks mean; what was found, in words."""
    mask, named = data.get("mask"), _names(data.get("mask"))
    nameless = data.get("classes") is None and data.get("num_classes") is None
    values = isinstance(mask, dict) and mask.get("_target_") == f"{HERE}.masks.Values" and mask.get("classes") is None
    counting = nameless and values
    if not counting and (not _open(mask) or {"above", "classes", "colors"} & named.keys()):
        return []
    try:
        seen = looks.looks(looks.sample(_mask_files(data, root)))
        if not seen:
            return []
        known = _class_names(data)
        if counting:
            data["classes"] = encodings.class_names(max(2, encodings.count(seen, named.get("ignore") or ())))
            return []
        found = encodings.recognise(seen, known, named.get("ignore") or (), decide)
    except UserError as error:
        if asking:
            raise
        lines.append(f"data: {error}")
        return []
    data["mask"] = _merged(encoding(found.mask), mask, "data.mask")
    if found.colors is not None and data.get("colors") is None:
        data["colors"] = found.colors
    took = [f"masks by {found.mask.encoding} ({found.why})"]
    if known is None:
        data["classes"] = found.classes
        took.append(f"{len(found.classes)} class{'es' * (len(found.classes) > 1)} {shown(found.classes)}")
    return took


def _mask_files(data: Data, root: Path) -> list[Path]:
    bare, match = data.get("defect_free"), data.get("match")
    layout = Layout(root, listed(data["images"]), data["masks"], defect_free=bare, match=match)
    try:
        images = layout.list_images()
    except UserError:  # the data module says it, with the way out
        return []
    return [mask for image in images for mask in layout.masks_of(image) if mask.is_file()]


def _class_names(data: Data) -> list[str] | None:
    """The names of the classes, or names for as many as there are, where that is named."""
    classes, count = data.get("classes"), data.get("num_classes")
    if isinstance(classes, list):
        return classes
    return names(count) if type(count) is int and count > 0 else None


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
            took += [f"{key} {shown(value)}"] if (key, value) != ("missing_mask", "error") else []
    if data.get("classes") is None and data.get("num_classes") in (None, len(found.classes)):
        data["classes"] = list(found.classes)
        took.append(f"{len(found.classes)} class{'es' * (len(found.classes) > 1)} {shown(found.classes)}")
    if _open(data.get("mask")):
        data["mask"] = _merged(encoding(found.mask), data.get("mask"), "data.mask")
        took.append(f"masks by {found.mask.encoding}")
    if found.split is not None and _open(data.get("split")) and not _names(data.get("split")):
        data["split"] = division(found.split)
        took.append(f"split by {found.split.by}")
    elif found.split is not None and (named := _names(data.get("split"))):
        took.append(f"but not its split by {found.split.by}, for data.split.{'/'.join(named)} divides all images anew")
    return took


def _check_expressions(data: Data, found: Description, root: Path) -> None:
    """Try the regular expressions of a description on the images' names, because some take years on some names."""
    group = found.split.group if found.split else None
    given = {"match": found.match, "kinds": found.kinds, "parts": found.parts, "split.group": group}
    paths = matching(root, listed(data["images"])) if any(given.values()) else []
    for key, text in given.items():
        if text and not quick(text, [path.relative_to(root).as_posix() for path in paths]):
            raise UserError(
                f"{root / description.NAME}: {key}={text!r} takes too long on the images' names; simplify it"
            )


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
        kind = "Values" if ({"classes", "ignore"} & keys or _several(data)) and kind != "Palette" else kind
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


def _several(data: Data) -> bool:
    return len(_class_names(data) or ()) > 1


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
        mask = data["mask"] if isinstance(data["mask"], dict) else {}
        stored = mask.get("classes") or mask.get("colors")  # background first in a binary task
        listed = max(1, len(stored)) if isinstance(stored, list) else 1
        listed = 1 if listed == 2 else listed
        data["classes"] = names(count if type(count) is int and count > 0 else listed)
    if count is None:
        data["num_classes"] = len(data["classes"]) if isinstance(data["classes"], list) else None


def names(count: int) -> list[str]:
    """Names of classes that nobody has named."""
    return ["defect"] if count == 1 else ["background", *(f"class_{i}" for i in range(1, count))]
