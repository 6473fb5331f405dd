"""List files as people have them: which images a text names, line by line.

A line names an image by its relative path, the end of it, its file name or its stem; of an absolute path only as much
of its end counts as is needed. Folders of a relative path that the image is not in are told, unless another file is
there. Written by Windows or by a spreadsheet, with backslashes, quotes, further columns or in UTF-16, it is the same
list. The first column counts, or the one whose header says that it holds images. Lines that begin with ``#`` and name
no image are comments.
"""

import codecs
import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from posixpath import normpath

from segnet import terminal
from segnet.data.decoding import EXTENSIONS
from segnet.data.listing import composed
from segnet.errors import UserError, printable

HEADERS = {
    f"{what}{of}" for what in ("image", "images", "img") for of in ("", "id", "name", "path", "file", "filename")
}
HEADERS |= {"file", "files", "filename", "filepath", "name", "path", "id"}
DEEPEST = 64  # folders of a line that are tried; a line of slashes would take memory without bound
_ABSOLUTE = re.compile(r"/|\.\./|~|[A-Za-z]:")  # how a path begins that is not one below the data set
SEPARATORS = (r"\s", r"[,;\t]", r"$")
Known = Mapping[str, set[str]]


def names(images: Sequence[str]) -> Known:
    """What a line may call each of these images: every end of its path, with and without suffix."""
    known: dict[str, set[str]] = {}
    whole: dict[str, set[str]] = {}
    for image in images:
        path = PurePosixPath(composed(image))
        ends = ["/".join(path.parts[i:]) for i in range(len(path.parts))]
        for end in {*ends, *(end.removesuffix(path.suffix) for end in ends)}:
            known.setdefault(end, set()).add(image)
        whole.setdefault(composed(image), set()).add(image)
    return known | whole  # a whole path counts before the end of another


def read(path: Path, known: Known, root: Path) -> list[str]:
    """The images below ``root`` that a list names, in its order; a repeated line counts once and is told.

    Raises:
        UserError: a line names no image, or several.
    """
    found: dict[str, int] = {}
    again: list[str] = []
    moved: list[str] = []
    header, column = True, None
    for number, line in enumerate(composed(_text(path)).splitlines(), 1):
        called = _names(line) if column is None else _names(_cell(line, *column))
        if not called:
            continue
        match, said, odd = _match(called, known)
        may_be_header, header = header, False
        if not match and may_be_header and (place := _header(line)) is not None:
            column = place if place[1] else None
            continue
        if not match and line.lstrip().startswith("#"):
            header = may_be_header
            continue
        if odd and (other := _other(root, said, odd)):
            raise UserError(
                f"{path}:{number}: {said[:200]!r} is {other}, which data.images does not find, and {odd} is another "
                f"image; correct the line, or data.images"
            )
        if len(match) != 1:
            some = f" ({' and '.join(sorted(match)[:2])})" if match else ""
            raise UserError(
                f"{path}:{number}: {called[1][0][:200]!r} names {'more than one' if match else 'no'} image that "
                f"data.images finds{some}; write its path relative to data.root"
            )
        (image,) = match
        moved += [f"{path.name}:{number} names {said}, read as {image}"] if odd else []
        if image in found:
            again.append(f"{path.name}:{number} names {image} again, as line {found[image]} did")
        else:
            found[image] = number
    if again:
        terminal.info(printable(f"data.split: {len(again)} repeated line(s) count once: {again[0]}"))
    if moved:
        terminal.info(printable(f"data.split: {len(moved)} line(s) name folders that are not there: {moved[0]}"))
    return list(found)


def _match(called: Sequence[tuple[str, str]], known: Known) -> tuple[set[str], str, str]:
    """The images that a line names; and, if only their folders are others, the path that it says, and the image."""
    second: tuple[set[str], str, str] = set(), "", ""
    for name, said in called:
        match = known.get(name, set())
        odd = next((image for image in sorted(match) if _elsewhere(image, name, said)), "")
        if match and not odd:
            return match, said, ""
        if match and not second[0]:
            second = match, said, odd
    return second


def _elsewhere(image: str, name: str, said: str) -> bool:
    """Whether a relative path ``said`` more than its end ``name``, and ``image`` is more than that too."""
    whole = composed(image)
    return name not in (said, whole, whole.removesuffix(PurePosixPath(whole).suffix)) and not _ABSOLUTE.match(said)


def _other(root: Path, said: str, image: str) -> str:
    """The file that a path says, from the root or a folder of the image; empty where there is none, or the image is."""
    for up in PurePosixPath(image).parents:
        place = root / up / said
        if os.path.isfile(place) and not place.samefile(root / image):  # noqa: PTH113 - takes texts of any length
            return normpath(up / said)
    return ""


def _text(path: Path) -> str:
    """A text in UTF-8 or UTF-16, with a byte order mark or without; other bytes are kept, as in file names."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content:  # UTF-16 of a Latin text, without a mark
        return content.decode("utf-16-le" if content[1:2] == b"\0" else "utf-16-be", errors="replace")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _header(line: str) -> tuple[str, int] | None:
    """The separator and the place of the column that a header calls images; None if the line is no header."""
    for separator in (",", ";", "\t", " "):
        try:
            cells = next(csv.reader([line.strip()], delimiter=separator))
        except csv.Error:  # longer than any header
            return None
        called = [re.sub("[ _-]", "", cell.strip().strip("\"'").lower()) for cell in cells]
        if found := [i for i, name in enumerate(called) if name in HEADERS]:
            return separator, min(found, key=lambda i: called[i] == "id")  # a number, beside a name
    return None


def _cell(line: str, separator: str, place: int) -> str:
    cells = next(csv.reader([line.strip()], delimiter=separator), [])
    return cells[place] if place < len(cells) else ""


def _names(line: str) -> list[tuple[str, str]]:
    """What a line of a list may name, the most literal first: all of it, its first column, and the ends of their paths,
    each with the path that it is the end of.

    Where one of them has an image's suffix, the others are no names: ``my image.png`` is not ``my``.
    """
    columns = [re.split(separator, line.strip())[0] for separator in SEPARATORS]
    columns += re.findall(r"""^["']([^"']*)["']""", line.strip())
    called = sorted({column.strip().strip("\"'").strip() for column in columns} - {""}, key=len)
    called = [name for name in called if name.lower().endswith(EXTENSIONS)] or called
    paths = [name.replace("\\", "/").removeprefix("./") for name in called]
    parts = [path.strip("/").split("/") for path in paths]
    ends = [
        ("/".join(part[i:]), path if path.startswith("/") else "/".join(part))
        for path, part in zip(paths, parts, strict=True)
        for i in range(max(0, len(part) - DEEPEST), len(part))
    ]
    return [(name, name) for name in (line.strip(), *called)] + ends if called else []
