"""What was recognised of the masks, said as ``data.masks`` and ``data.match``: the plainest form that says it."""

import re
from collections.abc import Iterator, Sequence

from segnet.data.naming import File
from segnet.data.patterns import MaskPattern, Masks, shown
from segnet.data.recognition import Names, Reading
from segnet.errors import UserError


def pattern_of(names: Names, reading: Reading) -> tuple[Masks, str | None] | None:
    """``data.masks`` and ``data.match`` that say what the rule says; the plainest that does."""
    for masks, match in _candidates(reading):
        pattern = MaskPattern(names.root, masks, match)
        try:
            if all(_finds(names, pattern, image, files) for image, files in reading.pairs.items()):
                return masks, match
        except UserError:
            continue
    return None


def _finds(names: Names, pattern: MaskPattern, image: File, masks: Sequence[File]) -> bool:
    if set("*?") & set(shown(pattern.masks)):
        return sorted(pattern.find(image.path)) == sorted(pattern.root / mask.path for mask in masks)
    there = [name for name in (name.removeprefix("./") for name in pattern.names(image.path)) if name in names.paths]
    return there == [mask.path for mask in masks]


def _candidates(reading: Reading) -> Iterator[tuple[Masks, str | None]]:
    rule, pairs = reading.rule, reading.pairs
    suffixes = sorted({mask.suffix for masks in pairs.values() for mask in masks})
    homes = {_literal(image, masks[0]) for image, masks in pairs.items()}
    folders = [homes.pop()] if len(homes) == 1 else []
    folders += ["{dir}" + text for text in _behind(reading)]
    same = all(len(masks) == 1 and masks[0].suffix == image.suffix for image, masks in pairs.items())
    for folder in folders:
        lead = f"{folder}/" if folder else ""
        if rule.name is None:
            yield _one([f"{lead}*{suffix}" for suffix in suffixes]), None
            yield f"{lead}*", None
            continue
        begin, end = rule.name.begin, rule.name.end
        tail = f"{_brace(end[1])}{'*' if rule.many else ''}"
        if not any(end) and all(image.stem == begin[0] for image in pairs):
            yield _one([f"{lead}{_brace(begin[1])}{suffix}" for suffix in suffixes]), None
        if not begin[0] and not end[0]:
            if same and not begin[1] and not end[1] and not rule.many:
                yield f"{lead}{{name}}", None
            yield _one([f"{lead}{_brace(begin[1])}{{stem}}{tail}{suffix}" for suffix in suffixes]), None
    if rule.name is not None and not rule.many:
        yield _replacements(reading), None
    if rule.name is not None:
        begin, end = rule.name.begin, rule.name.end
        match = rf"{re.escape(begin[0])}([^/]+){re.escape(end[0])}\.[^./]+$"
        match = f"(?:^|/){match}" if begin[0] else match
        for folder in folders:
            lead = f"{folder}/" if folder else ""
            tail = f"{_brace(end[1])}{'*' if rule.many else ''}"
            yield _one([f"{lead}{_brace(begin[1])}{{1}}{tail}{suffix}" for suffix in suffixes]), match


def _literal(image: File, mask: File) -> str:
    """The mask's folder as a template, in which the image's name stands for itself."""
    return "/".join("{stem}" if part == image.stem else _brace(part) for part in mask.folder)


def _behind(reading: Reading) -> list[str]:
    """What stands behind ``{dir}`` in a template where the mask's folder begins with the image's."""
    texts = set()
    for image, masks in reading.pairs.items():
        own, other = "/".join(image.folder), "/".join(masks[0].folder)
        if not own or not other.startswith(own):
            return []
        texts.add(_brace(other[len(own) :]))
    return list(texts) if len(texts) == 1 else []


def _replacements(reading: Reading) -> dict[str, str]:
    rule = reading.rule
    found: dict[str, str] = {}
    if rule.old:
        found["/".join(rule.old) + "/"] = "".join(f"{part}/" for part in rule.new)
    if rule.within is not None:
        found |= {f"{old}/": f"{new}/" for old, new in (rule.within.end,) if old != new}
        found |= {old: new for old, new in (rule.within.begin,) if old != new}
    assert rule.name is not None
    begin, end = rule.name.begin, rule.name.end
    if begin[0]:
        found[begin[0]] = begin[1]
    before = joint(list(reading.pairs), reading)
    for image, masks in reading.pairs.items():
        old, new = f"{before}{end[0]}{image.suffix}", f"{before}{end[1]}{masks[0].suffix}"
        if old != new:
            found[old] = new
    return found


def joint(files: Sequence[File], reading: Reading) -> str:
    """The character before what a rule changes at the end of the images' names, where it is the same and no letter."""
    old = reading.rule.name.end[0] if reading.rule.name is not None else ""
    found = {file.stem[: len(file.stem) - len(old)][-1:] for file in files}
    return found.pop() if old and len(found) == 1 and found <= set("_-. ") else ""


def _brace(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _one(templates: list[str]) -> Masks:
    return templates[0] if len(templates) == 1 else templates
