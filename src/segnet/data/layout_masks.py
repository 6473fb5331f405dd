"""What was recognised of the masks, said as ``data.masks`` and ``data.match``: the plainest form that says it."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from posixpath import dirname, normpath

from segnet.data.naming import File, Parts, Rule
from segnet.data.patterns import MaskPattern, Masks, shown
from segnet.data.recognition import LOOKED_AT, NEARLY, Names, Reading, spread
from segnet.errors import UserError

Numbered = Mapping[int, File]
NUMBER = r"0*(\d+)[^\d/]*\.[^./]+$"  # the last number of a path, without the zeros before it


def pattern_of(names: Names, reading: Reading) -> tuple[Masks, str | None] | None:
    """``data.masks`` and ``data.match`` that say what the rule says, also of images without a mask; the plainest."""
    for masks, match in _candidates(reading):
        pattern = MaskPattern(names.root, masks, match)
        try:
            if all(_finds(names, pattern, image, files) for image, files in reading.pairs.items()) and all(
                _finds(names, pattern, image, []) and _looks_in(pattern, image, reading.rule) for image in reading.alone
            ):
                return masks, match
        except UserError:
            continue
    return None


def _finds(names: Names, pattern: MaskPattern, image: File, masks: Sequence[File]) -> bool:
    if set("*?") & set(shown(pattern.masks)):
        found = [path for path in pattern.find(image.path) if path.is_file()]  # else where it should be
        return sorted(found) == sorted(pattern.root / mask.path for mask in masks)
    there = [name for name in (name.removeprefix("./") for name in pattern.names(image.path)) if name in names.paths]
    return there == [mask.path for mask in masks]


def _looks_in(pattern: MaskPattern, image: File, rule: Rule) -> bool:
    """Whether it looks for an image's mask in the folder of the rule: not in that of the masks of others."""
    folder = normpath("/".join(rule.folder(image) or ()))
    return all(dirname(normpath(name)) == folder.removeprefix(".") for name in pattern.names(image.path))


def _candidates(reading: Reading) -> Iterator[tuple[Masks, str | None]]:
    rule, pairs = reading.rule, reading.pairs
    suffixes = sorted({mask.suffix for masks in pairs.values() for mask in masks})
    homes = {_literal(image, masks[0]) for image, masks in pairs.items()}
    folders = [homes.pop()] if len(homes) == 1 else []
    folders += ["{dir}" + text for text in _behind(reading)]
    leads = [f"{folder}/" if folder else "" for folder in folders]
    if rule.name is None:
        for lead in leads:
            yield _one([f"{lead}*{suffix}" for suffix in suffixes]), None
            yield f"{lead}*", None
        return
    begin, end = rule.name.begin, rule.name.end
    head, tail = _brace(begin[1]), f"{_brace(end[1])}{'*' if rule.many else ''}"
    same = all(len(masks) == 1 and masks[0].suffix == image.suffix for image, masks in pairs.items())
    for lead in leads:
        if not any(end) and all(image.stem == begin[0] for image in pairs):
            yield _one([f"{lead}{head}{suffix}" for suffix in suffixes]), None
        if not begin[0] and not end[0]:
            if same and not begin[1] and not end[1] and not rule.many:
                yield f"{lead}{{name}}", None
            yield _one([f"{lead}{head}{{stem}}{tail}{suffix}" for suffix in suffixes]), None
    if not rule.many:
        yield _replacements(reading), None
    match = rf"{re.escape(begin[0])}([^/]+){re.escape(end[0])}\.[^./]+$"
    match = f"(?:^|/){match}" if begin[0] else match
    for lead in leads:
        yield _one([f"{lead}{head}{{1}}{tail}{suffix}" for suffix in suffixes]), match


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


def by_numbers(names: Names) -> tuple[dict[File, list[File]], str, str] | None:
    """Each image with its mask, and ``data.masks`` and ``data.match`` that say so, where names share only a number.

    It is padded with zeros or not, as in ``7.jpg`` and ``mask_007.png``. None unless one way fits.
    """
    groups: dict[tuple[Parts, str, str, str], dict[int, File]] = defaultdict(dict)
    for file in names.files:
        if found := re.fullmatch(r"(.*?)(\d+)(\D*)", file.stem):
            groups[file.folder, found[1], found[3], file.suffix][int(found[2])] = file
    ways = []
    for images in groups.values():
        for (folder, before, after, suffix), masks in groups.items():
            name = _name(masks, before, after)
            if masks is images or name is None or not _fit(names, images, masks):
                continue
            text = "/".join([*(_brace(part) for part in folder), name + _brace(suffix)])
            ways.append(({image: [masks[i]] for i, image in images.items() if i in masks}, text, NUMBER))
    return ways[0] if len(ways) == 1 else None


def _name(masks: Numbered, before: str, after: str) -> str | None:
    """The names of masks as a template: with zeros up to a width, or with none; None where they are mixed."""
    digits = [file.stem.removeprefix(before).removesuffix(after) for file in masks.values()]
    if all(str(int(text)) == text for text in digits):
        number = "{1}"
    elif len({len(text) for text in digits}) == 1:
        number = f"{{1:0>{len(digits[0])}}}"
    else:
        return None
    return _brace(before) + number + _brace(after)


def _fit(names: Names, images: Numbered, masks: Numbered) -> bool:
    """Whether nearly every image has a mask, and some of both look like what they are."""
    shared = sorted(images.keys() & masks.keys())
    if not shared or len(shared) < NEARLY * max(len(images), len(masks)):
        return False
    some = spread(shared, LOOKED_AT)
    return all(names.like_a_mask(masks[i]) and not names.like_a_mask(images[i]) for i in some)


def by_folder(masks: Sequence[str]) -> tuple[str, list[str]] | None:
    """Patterns that differ by their folder alone as one, and these folders: ``masks/*/{stem}.png``, crack and stain."""
    parts = [text.split("/") for text in masks]
    others = {(*part[:-2], part[-1]) for part in parts}
    if len(others) != 1 or any(len(part) < 3 or set(part[-2]) & set("{*") for part in parts):
        return None
    folders = sorted({part[-2] for part in parts})
    return ("/".join([*parts[0][:-2], "*", parts[0][-1]]), folders) if len(folders) > 1 else None
