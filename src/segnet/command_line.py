"""Command lines that can be pasted: words as a shell and Hydra's grammar take them."""

import re
import shlex
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

# Hydra's flags; the first two ask for a sweep.
SWITCHES = ("-m", "--multirun", "--resolve")
VERBOSE = ("-v", "--verbose")  # this package's: verbose=true
WITH_A_VALUE = (
    "-c", "--cfg", "-p", "--package", "-cd", "--config-dir", "-cn", "--config-name", "-cp", "--config-path",
    "-i", "--info", "--experimental-rerun",
)  # fmt: skip
ALONE = ("-h", "--help", "--hydra-help", "--version", "-r", "--run", "-sc", "--shell-completion")
# What Hydra is to do instead of one run, one of these at a time; and what --cfg can print.
MODES = ("-m", "--multirun", "-c", "--cfg", "-i", "--info", "-r", "--run", "-sc", "--shell-completion")
PRINTED = ("job", "hydra", "all")

TEXTS = ("target",)  # whose values, such as escape<=0.01, Hydra's grammar does not read


def flags_last(words: Sequence[str]) -> list[str]:
    """A command line with its flags at the end: Hydra wants overrides side by side and refuses ``a=1 -m b=2``."""
    others: list[str] = []
    flags: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in VERBOSE:
            others.append("verbose=true")
        elif word in SWITCHES or (word.partition("=")[0] in WITH_A_VALUE and "=" in word):
            flags.append(word)
        elif word in WITH_A_VALUE:
            flags += [word, *islice(rest, 1)]
        else:
            others.append(word)
    return others + flags


def override(key: str, text: str) -> str:
    """``key=text`` as one argument that Hydra reads as exactly this text: quoted, and escaped, where it has to be."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    plain = f"{key}={text}"
    if "${" not in text:
        try:
            (parsed,) = OverridesParser.create().parse_overrides([plain])
            if not parsed.is_sweep_override() and parsed.value() == text:
                return plain
        except HydraException:  # so it needs quotes
            pass
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # no interpolation: OmegaConf's escape
    return f"{key}={QuotedString(literal, Quote.double).with_quotes()}"


def texts_quoted(words: Sequence[str]) -> list[str]:
    """A command line whose values of `TEXTS` are quoted for Hydra's grammar, unless they are already."""
    return [_quoted(word) if word.lstrip("+").startswith(tuple(f"{key}=" for key in TEXTS)) else word for word in words]


def _quoted(word: str) -> str:
    key, _, value = word.partition("=")
    single = [] if value[:1] in ("'", '"') else value.split(",")  # of a sweep each
    return f"{key}={','.join(override(key, part).partition('=')[2] for part in single) or value}"


def command_line(name: str, overrides: Sequence[str]) -> str:
    """``python src/<name>.py <overrides>``, or ``segnet-<name> …`` where it is so called, quoted for a shell."""
    return shlex.join([*_program(name), *overrides])


def as_called(text: str) -> str:
    """A text for people with its ``python src/<name>.py`` as `command_line` writes it."""
    return re.sub(r"python src/(\w+)\.py", lambda found: shlex.join(_program(found[1])), text)


def _program(name: str) -> list[str]:
    """By what is running: one of the wheel's programs, beside which there may be no ``src/``, or a script there."""
    if Path(sys.argv[0]).name.startswith("segnet-"):
        return [f"segnet-{name.replace('_', '-')}"]
    return ["python", f"src/{name}.py"]
