"""Where an image's mask is: templates, replacements in its path, groups of a regular expression, several files."""

import json
import os
import re
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path, PurePosixPath
from posixpath import basename, normpath, split, splitext
from string import Formatter

from segnet.data import grouping
from segnet.data.decoding import EXTENSIONS
from segnet.data.listing import is_hidden
from segnet.errors import UserError

Masks = str | Sequence[str] | Mapping[str, str]
SECONDS = 5.0  # that a stranger's regular expression may take on the names of all images
_WILD = re.compile(r"[*?]")


@dataclass(frozen=True)
class MaskPattern:
    """``data.masks`` and ``data.match`` of a data set; see `segnet.data.datamodule.SegmentationDataModule`."""

    root: Path
    masks: Masks
    match: str | None = None
    _listed: dict[Path, list[str]] = field(default_factory=dict, compare=False, repr=False)
    _found: dict[str, list[Path]] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        grouping.check("data.match", self.match)
        if isinstance(self.masks, Mapping) and ("" in self.masks or not self.masks):
            raise UserError(f"data.masks={shown(self.masks)}: must name what is replaced, such as {{images: masks}}")

    def names(self, image: str) -> list[str]:
        """Where the mask of an image may be, relative to the root, the first choice first; with wildcards as given.

        Raises:
            UserError: a placeholder that does not exist, an image that ``match`` does not match, a replacement that
                leads nowhere, or a pattern that leads out of the root without saying so, such as ``{1}/a.png`` where
                the group is empty.
        """
        if isinstance(self.masks, Mapping):
            said, names = list(self.masks.values()), [self._replaced(self.masks, image)]
        else:
            said = listed(self.masks)
            names = [self._formatted(template, image) for template in said]
        for name in names:
            if leads_out(name) and not any(map(leads_out, said)):
                raise UserError(
                    f"data.masks={shown(self.masks)}: leads from {image!r} to {name!r}, which is not below data.root; "
                    f"correct data.masks"
                )
        return names

    def find(self, image: str) -> list[Path]:
        """The files that are an image's mask, in the order of their names; several are its parts.

        Where there is none, the place where it should be. The disk is asked once.

        Raises:
            UserError: as `names`; or there are files for several choices.
        """
        if image in self._found:
            return self._found[image]
        names = self.names(image)
        found = [files for name in names if (files := list(self._files(name)))]
        if len(found) > 1:
            raise UserError(
                f"{self.root / image}: has two masks by data.masks={shown(self.masks)}, {found[0][0]} and "
                f"{found[1][0]}; remove one, or leave one pattern out"
            )
        self._found[image] = found[0] if found else [self.root / names[0]]
        return self._found[image]

    def among(self, images: Sequence[str]) -> set[str]:
        """Which of these are masks of others: of a.png and a_mask.png in one folder, the second."""
        known, found = set(images), set()
        for image in images:
            try:
                names = {normpath(name) for name in self.names(image)}
                for name in filter(_WILD.search, tuple(names)):
                    names |= {os.path.relpath(path, self.root) for path in self._files(name)}
                found |= (names - {image}) & known
            except UserError:  # told when its mask is asked for
                continue
        return found

    def folders(self, masks: Sequence[Path]) -> list[str]:
        """Patterns below whose folders the masks are looked for: those of the templates, or where masks were found."""
        if isinstance(self.masks, Mapping):
            parents = {mask.parent for mask in masks}
            return [f"{p.relative_to(self.root).as_posix()}/*" for p in parents if p.is_relative_to(self.root)]
        return listed(self.masks)

    def _replaced(self, masks: Mapping[str, str], image: str) -> str:
        keys = sorted(masks, key=lambda key: -len(key))
        name = re.sub("|".join(map(re.escape, keys)), lambda found: masks[found[0]], image)
        if name == image:
            raise UserError(
                f"data.masks={shown(masks)}: replaces nothing in {image}, which would be its own mask; correct "
                f"data.masks, or leave that image out of data.images"
            )
        return name

    def _formatted(self, template: str, image: str) -> str:
        folder, called = split(image)
        known = {"stem": splitext(called)[0], "name": called, "dir": folder or ".", "parent": basename(folder)}
        groups: list[str] = []
        if self.match is not None:
            found = re.search(self.match, image)
            if found is None:
                raise UserError(f"data.match={self.match!r} does not match {image!r}; correct the pattern")
            groups = [part or "" for part in (found[0], *found.groups())]
            known |= {name: part or "" for name, part in found.groupdict().items()}
        if _WILD.search(template):
            known = {name: escape(part) for name, part in known.items()}
            groups = [escape(part) for part in groups]
        try:
            for _, name, spec, conversion in Formatter().parse(template):
                plain = re.fullmatch(r"\w*", name or "") and re.fullmatch(r"(0>\d{1,2})?", spec or "")
                if name is not None and (conversion or not plain):
                    raise ValueError(f"{{{name}{spec and f':{spec}'}}}")  # widths would take memory without bound
            return template.format(*groups, **known)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UserError(
                f"data.masks={template!r}: wrong placeholder ({error}); use {{stem}}, {{name}}, {{dir}}, {{parent}}"
                f"{', and groups of data.match, {1} or {name}' if self.match else ''}"
            ) from error

    def _files(self, name: str) -> Iterator[Path]:
        path = self.root / name
        if not _WILD.search(name):
            # A stem may hold what looks like a wildcard only where the template has none.
            if path.exists() or path.is_symlink():
                yield path
            return
        if path.exists() and path.is_file():
            yield path
            return
        for found in self._expand(self.root, PurePosixPath(name).parts):
            if found.suffix.lower() in EXTENSIONS and not is_hidden(*Path(os.path.relpath(found, self.root)).parts):
                yield found

    def _expand(self, folder: Path, parts: Sequence[str]) -> Iterator[Path]:
        """The files that a pattern finds, as `Path.glob`, but each folder is listed once for all images."""
        first, *rest = parts
        if first == "**":
            yield from sorted(path for path in folder.glob("/".join(parts)) if path.is_file())
            return
        literal = _literal(first)
        if literal is not None:
            found = [literal]
        else:
            names = self._names_in(folder)
            before = re.split(r"[*?\[]", first)[0]
            found = []
            for name in names[bisect_left(names, before) :]:
                if not name.startswith(before):
                    break
                found += [name] if fnmatchcase(name, first) else []
        for name in found:
            if rest:
                yield from self._expand(folder / name, rest)
            elif (folder / name).is_file():
                yield folder / name

    def _names_in(self, folder: Path) -> list[str]:
        if folder not in self._listed:
            self._listed[folder] = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return self._listed[folder]


def _literal(part: str) -> str | None:
    """The name that a part of a pattern stands for; None if it has a wildcard that `escape` has not taken away."""
    plain = re.sub(r"\[([*?\[])\]", "", part)
    return None if re.search(r"[*?\[]", plain) else re.sub(r"\[([*?\[])\]", r"\1", part)


def quick(expression: str, names: Sequence[str]) -> bool:
    """Whether a regular expression is looked for in all of these within `SECONDS`.

    It is tried in another process, because nothing else can stop it; a wrong one is told where it is used.
    """
    program = "import json, re, sys; given, names = json.load(sys.stdin); [re.search(given, name) for name in names]"
    try:
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", program], input=json.dumps([expression, list(names)]).encode(),
            capture_output=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return True


def leads_out(path: str) -> bool:
    """Whether a relative path, or a pattern of some, says that it leads out of its folder."""
    return PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts


def listed(given: str | Iterable[str]) -> list[str]:
    """One pattern, or several, as a list."""
    return [given] if isinstance(given, str) else list(given)


def shown(masks: Masks) -> str:
    """``data.masks`` as it is typed."""
    if isinstance(masks, Mapping):
        return "{" + ", ".join(f"{key}: {value}" for key, value in masks.items()) + "}"
    return repr(masks) if isinstance(masks, str) else "[" + ", ".join(masks) + "]"
