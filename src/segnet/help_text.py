"""``--help``: what a command does, its groups, its keys; every sentence is the comment beside the key in ``conf/``."""

import re
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from segnet.command_line import as_called
from segnet.overrides import CONF_DIR, options

FLAGS = {
    "-m": "sweeps over values separated by commas, such as seed=0,1,2",
    "-v": "shows more while it works; the same as verbose=true",
    "--cfg job": "prints every setting, those of the groups too, and ends",
}
_COLUMN = 30  # where sentences begin


@dataclass
class Key:
    """A key of a configuration file: its full name, its default as it stands there, and its sentence.

    ``default`` is None for a mapping, whose keys follow. A group of the defaults list has its option as the default.
    """

    name: str
    default: str | None
    sentence: str
    group: bool = False


def of(command: str) -> str:
    """The whole text for a command, as wide as the terminal, of at most 120 columns."""
    width = max(60, min(120, shutil.get_terminal_size((100, 24)).columns))
    found = keys(command)
    groups = [key for key in found if key.group]
    own = [key for key in found if not key.group and (key.sentence or "." not in key.name)]
    chosen = [(_shown(key), f"{key.sentence}: {', '.join(options(key.name))}") for key in groups]
    parts = {
        "Groups, with their defaults (conf/<group>/<option>.yaml says what an option does)": chosen,
        "Keys, with their defaults": [(_shown(key), key.sentence) for key in own],
        "Flags": list(FLAGS.items()),
    }
    blocks = [
        "\n".join([f"{title}:", *(_entry(*entry, width) for entry in part)]) for title, part in parts.items() if part
    ]
    place = {"${hydra.job.name}": command, "${now:%Y-%m-%d_%H-%M-%S}": "<time>"}
    text = "\n\n".join([*_paragraphs(CONF_DIR / f"{command}.yaml", width), *blocks])
    return as_called(re.sub("|".join(map(re.escape, place)), lambda found: place[found[0]], text))


@cache
def keys(command: str) -> tuple[Key, ...]:
    """Of a command's file and of those that it builds on: its own come first."""
    found: dict[str, Key] = {}
    for path in _files(command):
        for key in _keys(path):
            before = found.setdefault(key.name, key)
            before.sentence = before.sentence or key.sentence
    groups = {name for name, key in found.items() if key.group}
    nested = [key for group in sorted(groups) for key in _nested(group, found[group].default)]
    found = {name: key for name, key in found.items() if key.group or name not in groups}
    return (*found.values(), *(key for key in nested if key.name not in found))


def _nested(group: str, option: str | None) -> Iterator[Key]:
    """Groups within a group, such as ``data/mask``, that its option or what this builds on chooses."""
    path = CONF_DIR / group / f"{option}.yaml"
    if not path.is_file():
        return
    for key in _keys(path):
        if key.group and (CONF_DIR / group / key.name).is_dir():
            yield Key(f"{group}/{key.name}", key.default, key.sentence, group=True)
    for base in _bases(path):
        yield from _nested(group, base)


def _files(name: str) -> list[Path]:
    path = CONF_DIR / f"{name}.yaml"
    return [path, *(file for base in _bases(path) for file in _files(base))]


def _bases(path: Path) -> list[str]:
    """The files that a configuration file builds on: entries of its defaults list that are no groups."""
    listed = yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults", [])
    return [entry for entry in listed if isinstance(entry, str) and entry != "_self_"]


def _keys(path: Path) -> Iterator[Key]:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()

    def sentence(key: Any, value: Any) -> str:
        row, indent = key.start_mark.line, key.start_mark.column
        first = row
        while lines[first - 1].startswith(" " * indent + "#"):
            first -= 1
        nested = value.start_mark.line > row
        end = key.end_mark if nested else value.end_mark
        beside = re.match(r"\s*:?\s*#(.*)", lines[end.line][end.column :]) if end.line < len(lines) else None
        told = [line.strip().removeprefix("#") for line in lines[first:row]] + [beside[1] if beside else ""]
        return " ".join(" ".join(told).split())

    def walk(node: Any, before: str = "") -> Iterator[Key]:
        for key, value in node.value:
            name = f"{before}{key.value}"
            if name == "defaults":
                for entry in value.value:
                    if isinstance(entry, yaml.MappingNode) and not entry.value[0][0].value.startswith("override "):
                        group, option = entry.value[0]
                        yield Key(group.value, text[slice(*_span(option))], sentence(group, option), group=True)
            elif name != "hydra" and not name.endswith("_"):
                deep = isinstance(value, yaml.MappingNode) and not value.flow_style
                default = None if deep else " ".join(text[slice(*_span(value))].split())
                yield Key(name, default, sentence(key, value))
                if deep:
                    yield from walk(value, f"{name}.")

    yield from walk(yaml.compose(text, Loader=yaml.SafeLoader))


def _span(node: Any) -> tuple[int, int]:
    return node.start_mark.index, node.end_mark.index


def _paragraphs(path: Path, width: int) -> Iterator[str]:
    """The comment that a file begins with; only running text is wrapped anew."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in head)
    for paragraph in text.split("\n\n"):
        fixed = "   " in paragraph or paragraph.startswith("python ")
        yield paragraph if fixed else textwrap.fill(" ".join(paragraph.split()), width)


def _shown(key: Key) -> str:
    if key.default is None:
        return key.name
    return f"{key.name}=<needed>" if key.default == "???" else f"{key.name}={key.default}"


def _entry(name: str, told: str, width: int) -> str:
    head = f"  {name}".ljust(_COLUMN - 1)
    wrapped = textwrap.wrap(told, width - _COLUMN) or [""]
    lines = [f"{head} {wrapped[0]}", *wrapped[1:]] if len(head) < _COLUMN else [head, *wrapped]
    return "\n".join([lines[0].rstrip(), *(" " * _COLUMN + line for line in lines[1:])])
