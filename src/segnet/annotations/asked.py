"""What a format leaves open and nobody may guess: asked about in an error, or told with its number."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from segnet.annotations.records import Choices
from segnet.data.listing import amount, counted
from segnet.errors import UserError

NO_FILE = "images that are named cannot be found below it"
NO_IMAGE = "files of labels belong to no image below it"


def shared(names: Iterable[str], path: Path) -> list[str]:
    """What is said of a name that several classes of a file have: they become one."""
    return [
        f"{path.name}: {count} classes are called {name!r} and become one"
        for name, count in Counter(names).items()
        if count > 1
    ]


def missing(names: Sequence[str], where: Path, choice: str, what: str = NO_FILE) -> list[str]:
    """What is said of images that are named and not there, or of labels whose image is not.

    Raises:
        UserError: there are some, and nobody said to skip them.
    """
    if not names:
        return []
    if choice == "error":
        raise UserError(
            f"{where}: {len(names)} {what}, such as {names[0]!r}; add the images, name their folder with "
            f"images=<folder>, or leave these out with missing=skip"
        )
    return [f"left out {counted(names, 'name')}: {what} (missing=skip)"]


def leave_masks(names: Sequence[str]) -> list[str]:
    """What is said of files without a label that are called as masks, which no unlabelled image is made of."""
    return [f"left out {counted(names, 'file')} without a label, called as a mask and not as an image"] if names else []


def tell_boxes(boxes: Counter[str]) -> list[str]:
    """What is said of objects that have a box and no outline.

    Raises:
        UserError: there are some, and nobody said what they are.
    """
    if boxes["error"]:
        raise UserError(
            f"{amount(boxes['error'], 'object')} with a box and no outline, as for detection; "
            f"boxes=fill takes the whole box as the object, boxes=skip leaves them out"
        )
    told = {
        "skip": f"left out {amount(boxes['skip'], 'object')} with a box and no outline (boxes=skip)",
        "fill": f"filled {amount(boxes['fill'], 'box', 'boxes')} without an outline (boxes=fill)",
        "nothing": f"left out {amount(boxes['nothing'], 'object')} with neither outline nor box",
    }
    return [text for kind, text in told.items() if boxes[kind]]


def ask_line_width(lines: Counter[str], choices: Choices) -> list[str]:
    """What is said of lines, which have no width of their own; ``lines`` counts them by file.

    Raises:
        UserError: there are some, and nobody said how wide they are.
    """
    if not lines.total():
        return []
    if choices.line_width is None:
        name = next(name for name, count in lines.items() if count)
        raise UserError(
            f"{amount(lines.total(), 'object')} drawn as a line, such as in {name}, and lines have no width: "
            f"line_width=<pixels> draws them so wide, such as line_width=3; line_width=0 leaves them out"
        )
    if choices.line_width == 0:
        return [f"left out {amount(lines.total(), 'line')} (line_width=0)"]
    return [f"drawn {choices.line_width:g} pixels wide: {amount(lines.total(), 'line')}"]
