"""Words by which people tell images, masks and splits apart in the names of files and folders."""

import re
from pathlib import Path

from segnet.annotations.records import Split
from segnet.data.layout_splits import WORDS

Words = re.Pattern[str]
MASK: Words = re.compile(
    r"masks?|labels?|labelids|annot\w*|gt|truth|groundtruth|seg|segmentations?|segmented|segmentationclass|segmentationobject|targets?"
    r"|manual\d*|1st|2nd"
)
IMAGE: Words = re.compile(r"images?|imgs?|photos?|sat|rgb|inputs?|originals?|frames?|jpegimages|data|raw")

OBJECT = "mask|object|obj|instance|inst"


def tokens(name: str) -> list[str]:
    """Its words in lower case; of ``trainannot`` and ``val2017`` too."""
    joined = re.sub(r"ground[_\- ]truth", "groundtruth", name.lower())
    words = [word for word in re.split(r"[_\-. ()]+", joined) if word]
    glued = [re.fullmatch(r"(train|val|test)([a-z]+|\d{4})", word) for word in words]
    return [
        part
        for word, two in zip(words, glued, strict=True)
        for part in (two.groups() if two and _known(two[2]) else [word])
    ]


def _known(word: str) -> bool:
    return word.isdigit() or bool(MASK.fullmatch(word) or IMAGE.fullmatch(word))


def says(name: str, words: Words) -> bool:
    """Whether one of its words is among these."""
    return any(words.fullmatch(word) for word in tokens(name))


def says_nothing(name: str) -> bool:
    """Whether it says only what kind of file, and of which split, is there."""
    return all(_kind(word) or (word.isdigit() and len(word) == 4) for word in tokens(name)) and not name.isdigit()


def bare(name: str) -> str:
    """A name without those words."""
    return "_".join(word for word in tokens(name) if not _kind(word))


def beside(name: str, other: str) -> str:
    """What a mask's name says beside its image's: ``crack`` of ``a_crack``; empty where that is no word."""
    rest = [part for part in re.split(r"[_\-. ]+", name.replace(other, "", 1)) if part]
    rest = [part for part in rest if bare(part) and not re.fullmatch(rf"({OBJECT})?\d*", part, re.IGNORECASE)]
    return "_".join(rest) if all(part.isalpha() for part in rest) else ""


def _kind(word: str) -> bool:
    return word in WORDS or bool(MASK.fullmatch(word) or IMAGE.fullmatch(word))


def is_mask(path: Path) -> bool:
    """Whether a relative path says mask: by the nearest folder that says one or the other, else by the file's name."""
    for folder in reversed(path.parts[:-1]):
        if says(folder, MASK):
            return True
        if says(folder, IMAGE):
            return False
    return says(path.stem, MASK)


def split_of(*names: str) -> Split | None:
    """The split that the first of the names says that says one: ``instances_val2017.json``, a folder ``valid``."""
    for name in names:
        found = {WORDS[word] for word in tokens(name) if word in WORDS}
        if len(found) == 1:
            return found.pop()
    return None


def split_of_folders(path: Path) -> Split | None:
    """That of the folders of a relative path, the nearest first."""
    return split_of(*reversed(path.parts[:-1]))
