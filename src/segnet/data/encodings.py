"""Which encoding the masks of a folder have, from a look at some of them. What could mean two things is asked."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segnet.data.decoding import is_lossy
from segnet.data.description import MaskEncoding
from segnet.data.images import read_raw_mask
from segnet.data.looks import FEW, Look, Rgb
from segnet.data.masks import IGNORE_INDEX, Palette
from segnet.data.values import typed
from segnet.errors import UserError

STRAY = 0.25  # of the masks that show 255: up to so many may hold other values, which `propose` ignores


@dataclass(frozen=True)
class Found:
    """An encoding and its classes, and why in words."""

    mask: MaskEncoding
    classes: list[str]
    why: str
    colors: list[list[int]] | None = None


def recognise(
    seen: Sequence[Look], names: Sequence[str] | None = None, ignore: Sequence[Any] = (), decide: bool = False
) -> Found:
    """The encoding that fits all of these masks.

    Args:
        seen: looks at them.
        names: of the classes, where they are known.
        ignore: values, or colours, that count nowhere, where they are known.
        decide: ignore values beside 0 and 255 that few of the masks hold.

    Raises:
        UserError: none fits, or more than one; with the ways to name it.
    """
    in_colour = any(look.colours or look.coloured for look in seen)
    if not in_colour and not ignore and (names is None or len(names) == 1) and all(look.soft for look in seen):
        return Found(MaskEncoding(encoding="threshold"), list(names or ["defect"]), "black and white")
    if any(look.colours for look in seen) or not _one_table(seen):
        return _palette(seen, names, [tuple(colour) for colour in ignore if isinstance(colour, list | tuple)])
    return _values(seen, names, ignore, decide)


def _values(seen: Sequence[Look], names: Sequence[str] | None, ignore: Sequence[int], decide: bool) -> Found:
    if any(look.values is None for look in seen):
        bad = next(look for look in seen if look.values is None)
        raise UserError(
            f"{bad.path}: the masks are neither black and white nor of few values; say how they are read: "
            f"data.mask.above=<value> (what is above is the class), data/mask=values or data/mask=palette"
        )
    pixels: Counter[int] = sum((look.values or Counter() for look in seen), Counter())
    held = sorted(set(pixels) - set(ignore))
    if not held:
        raise UserError(
            f"{seen[0].path}: the masks hold nothing but {_listed(sorted(pixels))}, which data.mask.ignore names; "
            f"correct it"
        )
    void = list(ignore)
    labelled = [look for look in seen if look.values and set(look.values) - {0, IGNORE_INDEX, *ignore}]
    blank = [look for look in seen if look.values and IGNORE_INDEX in look.values]
    if IGNORE_INDEX in held and _counted(held[:-1]) and len(held) > 2:
        coloured = any(look.coloured for look in seen)
        if coloured or (len(held) > 3 and len(labelled) >= len(blank)):
            held, void = held[:-1], sorted({*void, IGNORE_INDEX})
    lossy = next((look.path for look in seen if is_lossy(look.path)), None)
    several = names is not None and len(names) > 1
    if _counted(held) and lossy is None and (several or not _objects(seen)):
        enough = len(names or ()) >= len(held) if several else names is None or len(held) <= 2
        if enough:
            classes = list(names) if names is not None else class_names(len(held), pixels)
            why = f"values {_range(held)}" + (f", {_listed(void)} ignored" if void else "")
            return Found(MaskEncoding(encoding="values", ignore=void), classes, why, _colours_of(seen, classes))
    if len(held) == 2 and held[0] == 0 and (void or (names is not None and len(names) == 2)) and lossy is None:
        classes = list(names) if names is not None else ["defect"]
        if len(classes) <= 2:
            return Found(
                MaskEncoding(encoding="values", classes=held, ignore=void),
                classes,
                f"values {_listed(held)}" + (f", {_listed(void)} ignored" if void else ""),
            )
    strays = [value for value in held if value not in (0, IGNORE_INDEX)]
    files = sum(bool(look.values and set(strays) & set(look.values)) for look in seen)
    if decide and {0, IGNORE_INDEX} <= set(held) and files <= STRAY * len(blank):
        return Found(
            MaskEncoding(encoding="values", classes=[0, IGNORE_INDEX], ignore=sorted({*void, *strays})),
            list(names or ["defect"]),
            f"values 0 and 255; {_listed(strays)}, in {files} of {len(seen)} masks, are ignored",
        )
    if lossy is not None:
        raise UserError(
            f"{lossy}: its compression changes values, of which the masks hold {_listed(held)}; save them as PNG, or, "
            f"if there is one class, say what is above a value: data.mask.above=<value>"
        )
    raise _question(seen, held, void, one=names is not None and not several)


def _question(seen: Sequence[Look], held: Sequence[int], void: Sequence[int], one: bool) -> UserError:
    """What to ask where the values of the masks could mean several things, with the answers in a form to paste.

    Where the names say that there is ``one`` class, objects are not asked about as classes.
    """
    odd = [v for v in held if v not in (0, IGNORE_INDEX)]
    example = next((look.path for look in seen if look.values and set(odd) & set(look.values)), seen[0].path)
    if _objects(seen):
        border = ", 255 too" if void else ""
        classes = "" if one else f"; classes: data/mask=values data.num_classes={len(held)}"
        return UserError(
            f"{example}: every mask numbers its values from 1 without a gap, up to {held[-1]}: objects, or classes? "
            f"Objects of one class{border}: data.mask.above=0{classes}"
        )
    ways = []
    count = "count" if len(odd) > 1 else "counts"
    if {0, IGNORE_INDEX} <= set(held):
        ways += [
            f"the class is 255 and {_listed(odd)} {count} nowhere: 'data.mask.ignore={typed(sorted({*void, *odd}))}'",
            "the class is what is above half: data.mask.above=127",
        ]
        if _counted(held[:-1]):
            names = ["defect"] if len(held) == 3 else class_names(len(held) - 1)
            ways.append(
                f"{_range(held[:-1])} are classes and 255 counts nowhere: 'data.mask.ignore=[255]' "
                f"'data.classes={typed(names)}'"
            )
    elif held[-1] != IGNORE_INDEX or held[0] != 0:
        ways.append("one class, what is above a value: data.mask.above=<value>")
    stored = f"data/mask=values 'data.mask.classes={typed(held[:IGNORE_INDEX])}' 'data.mask.ignore={typed(void)}'"
    ways = [f"{held[1]} is the class: {stored}"] if len(held) == 2 else [*ways, f"each is a class: {stored}"]
    shown = _listed(held[:12]) + (" …" if len(held) > 12 else "")
    return UserError(f"{example}: the masks hold {shown}, which can mean several things; say which: {'; '.join(ways)}")


def count(seen: Sequence[Look], ignore: Sequence[int]) -> int:
    """How many classes masks have whose values are the class indices."""
    held = {value for look in seen for value in look.values or () if value not in ignore}
    return max(held, default=0) + 1


def class_names(count: int, pixels: Counter[int] | None = None) -> list[str]:
    """Names for classes that have none; the first is the background where it has most of the pixels."""
    if count <= 2:
        return ["defect"]
    most = pixels is None or 2 * pixels[0] > sum(pixels[i] for i in range(count))
    return ["background" if most else "class_0", *(f"class_{i}" for i in range(1, count))]


def _palette(seen: Sequence[Look], names: Sequence[str] | None, ignore: Sequence[Any]) -> Found:
    """Colours of classes; black first, or what covers most, the others by red, green and blue."""
    pixels: Counter[Rgb] = Counter()
    flat: set[Rgb] = set()
    for look in seen:
        found = look.colours
        if found is None:
            found = Counter({look.table.get(v, (v, v, v)): n for v, n in (look.values or {}).items()})
        pixels += found
        flat |= look.flat or set(found if len(found) <= 2 else ())
    example = next((look.path for look in seen if look.colours or look.table), seen[0].path)
    for chosen in (flat - set(ignore), set(pixels) - set(ignore)):
        if not 2 <= len(chosen) <= FEW:
            continue
        first = (0, 0, 0) if (0, 0, 0) in chosen else max(chosen, key=lambda colour: (pixels[colour], colour))
        order = [list(first), *(list(colour) for colour in sorted(chosen - {first}))]
        if not _reads(Palette([(c[0], c[1], c[2]) for c in order], ignore), seen):
            continue
        if len(order) == 2 and names is None and 2 * pixels[first] <= sum(pixels.values()):
            break  # two colours, and nothing says which of them is the defect
        classes = list(names) if names is not None else class_names(len(order))
        if len(classes) != len(order) and (len(classes), len(order)) != (1, 2):
            raise UserError(
                f"{example}: the masks hold {len(order)} colours, {typed(order)}, and data.classes names "
                f"{len(classes)}; say which are theirs: data/mask=palette 'data.mask.colors=<one for each class>'"
            )
        mask = MaskEncoding(encoding="palette", colors=order, ignore=[list(colour) for colour in ignore])
        own = order if len(classes) > 1 else order[1:]
        return Found(mask, classes, f"{len(order)} colours", own)
    top = [list(colour) for colour, _ in pixels.most_common(12)]
    if (lossy := next((look.path for look in seen if is_lossy(look.path)), None)) is not None:
        raise UserError(
            f"{lossy}: its compression changes colours, of which the masks hold {len(pixels)}; save them as PNG, or "
            f"name the true ones, background first: data/mask=palette "
            f"'data.mask.colors=[[0,0,0],<one for each class>]' data.mask.tolerance=128"
        )
    raise UserError(
        f"{example}: the masks are in colour, {len(pixels)} in all, and do not say what is a class; name it, "
        f"background first: data/mask=palette 'data.mask.colors={typed(top)}'"
    )


def _reads(palette: Palette, seen: Sequence[Look]) -> bool:
    listed = {tuple(colour) for colour in (*palette.colors, *palette.ignore)}
    try:
        for look in seen:
            if look.colours is None or not look.colours.keys() <= listed:  # else there is nothing it could refuse
                palette(read_raw_mask(look.path, "rgb"), look.path)
    except UserError:
        return False
    return True


def _one_table(seen: Sequence[Look]) -> bool:
    """Whether palette files give each index the same colour in all of them; else the colours are what counts."""
    known: dict[int, Rgb] = {}
    return all(known.setdefault(i, colour) == colour for look in seen for i, colour in look.table.items())


def _colours_of(seen: Sequence[Look], classes: Sequence[str]) -> list[list[int]] | None:
    """The palette's colour of each class, where palette files show them all."""
    known = {i: colour for look in seen if look.coloured for i, colour in look.table.items()}
    wanted = range(len(classes)) if len(classes) > 1 else [1]
    return [list(known[i]) for i in wanted] if known and all(i in known for i in wanted) else None


def _objects(seen: Sequence[Look]) -> bool:
    """Whether values look like the numbers of objects: each mask counts from 1 without a gap, to various numbers.

    255 is the border between objects, as in Pascal VOC.
    """
    numbers = [set(look.values) - {0, IGNORE_INDEX} for look in seen if look.values]
    tops = [len(found) for found in numbers if found]
    gapless = all(found == set(range(1, len(found) + 1)) for found in numbers)
    return len(tops) >= 4 and gapless and len(set(tops)) >= 3


def _counted(values: Sequence[int]) -> bool:
    return len(values) >= 2 and list(values) == list(range(len(values)))


def _range(values: Sequence[int]) -> str:
    return f"0 to {values[-1]}" if len(values) > 2 else _listed(values)


def _listed(values: Sequence[int]) -> str:
    texts = [str(value) for value in values]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)
