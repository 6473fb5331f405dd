"""What is typed behind a command: checked before Hydra composes, and told with the form that works."""

import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from segnet.command_line import ALONE, MODES, PRINTED, SWITCHES, WITH_A_VALUE, override
from segnet.errors import UserError
from segnet.hydra_versions import DELETES_IN_SWEEPS
from segnet.rules import SettingError, shown

_PACKAGE = Path(__file__).resolve().parent
# In the wheel beside the code, in a checkout at the top level.
CONF_DIR = next(p for p in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf") if p.is_dir())


def given(arguments: Sequence[str]) -> list[str]:
    """The overrides among a command's arguments."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return [word for before, word in pairs if not word.startswith("-") and before not in WITH_A_VALUE]


def deleting(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``~key`` as ``key=null``, which leaves it out too, where Hydra deletes nothing in a sweep."""
    if DELETES_IN_SWEEPS or not set(SWITCHES[:2]) & set(arguments):
        return list(arguments)
    return [f"{word[1:]}=null" if word.startswith("~") and "=" not in word else word for word in arguments]


def check(arguments: Sequence[str]) -> None:
    """Refuse what Hydra's grammar cannot read, or reads as the values of a sweep where none was asked for.

    Raises:
        UserError: with the argument in the form that works.
    """
    sweep = any(word in SWITCHES[:2] for word in arguments)
    _check_flags(arguments)
    for argument in given(arguments):
        key, equals, value = argument.partition("=")
        if not key or (not equals and not argument.startswith("~")):
            raise UserError(f"{argument}: must be key=value; a value with spaces needs quotes, 'key=\"a b\"'")
        found = _parsed(argument)
        if found is None:
            if _parsed(f"{key}=1") is None:
                raise UserError(f"{argument}: {key} is not the name of a setting; write key=value")
            raise UserError(f"{argument}: Hydra reads some characters as its own; write {quoted(key, value)}")
        if key == "hydra.verbose" and not isinstance(found.value(), bool | str | list):
            raise UserError(f"{argument}: must be true, false, or the name of a logger or a list of them")
        if key in ("hydra.sweeper", "hydra.launcher") and not isinstance(found.value(), dict):
            raise UserError(f"{argument}: must be a mapping; to choose one write {key.replace('.', '/')}={value}")
        choices = [] if found.is_sweep_override() or argument.startswith("~") else options(key.lstrip("+"))
        if choices and not _is_choice(found.value()):
            raise UserError(f"{argument}: must be one of {', '.join(choices)}; to leave the group out write ~{key}")
        if found.is_sweep_override() and not sweep and not key.startswith("hydra."):
            raise UserError(
                f"{argument}: a comma separates the values of a sweep; for a sweep add -m, for one value write "
                f"{quoted(key, value)}, for a list {shlex.quote(f'{key}=[{value}]')}"
            )


def _check_flags(arguments: Sequence[str]) -> None:
    """Refuse flags that are unknown, lack a value, or ask for two things at once; the grammar of Hydra's own parser."""
    flags = [word.partition("=")[0] for word in arguments if word.startswith("-")]
    values = dict(zip(arguments, [*arguments[1:], ""], strict=False))
    values |= dict(word.split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
    for flag in flags:
        if flag not in (*SWITCHES, *WITH_A_VALUE, *ALONE):
            raise UserError(f"{flag}: no such flag; known are -m, -v, --help, --cfg and those of --hydra-help")
    for flag in ("-c", "--cfg"):
        if flag in values and values[flag] not in PRINTED:
            raise UserError(f"{flag} {values[flag]}: must be one of {', '.join(PRINTED)}; write --cfg job")
    asked = [flag for flag in flags if flag in MODES]
    if len(asked) > 1:
        raise UserError(f"{' '.join(asked)}: each asks for something else; leave out all but one")
    if "--resolve" in flags and not {"-c", "--cfg"} & set(flags):
        raise UserError("--resolve: resolves what --cfg prints; write --cfg job --resolve")


def options(group: str) -> list[str]:
    """The files of a group of the configuration; none where there is no such group."""
    return sorted(file.stem for file in (CONF_DIR / group).glob("*.yaml"))


def _is_choice(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def quoted(key: str, value: str) -> str:
    """An override as a shell needs it, whose value is this text, whatever characters it holds."""
    return shlex.quote(override(key, value))


def _parsed(argument: str) -> Any:
    """What Hydra makes of an override; None where it cannot."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def name_of(override: str) -> str:
    """The key that an override sets."""
    return override.lstrip("+~").partition("=")[0]


def remedy(error: BaseException, command: str, arguments: Sequence[str]) -> str:
    """What to type instead of a refused value or an unknown key; empty where nothing is known.

    Args:
        error: as it ended the command.
        command: name of the command.
        arguments: that it was given.
    """
    cause = error.__cause__
    if isinstance(error, SettingError):
        typed = [word for word in given(arguments) if name_of(word) == error.key]
        if error.text and typed and not isinstance(error.value, str | list | dict):
            return f"; as text write {quoted(error.key, typed[-1].partition('=')[2])}"
        default = _default(command, error.key, arguments)
        return "" if default is None else f"; the default is {shlex.quote(f'{error.key}={shown(default)}')}"
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        close = _alike(command, str(cause.full_key), arguments)
        return f"; did you mean {' or '.join(close)}?" if close else ""
    return ""


def _without(command: str, key: str, arguments: Sequence[str]) -> Any:
    """The configuration of a command as if these arguments did not set ``key``; None where it is wrong as well."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from segnet.hydra_versions import BASE

    GlobalHydra.instance().clear()
    rest = [word for word in given(arguments) if name_of(word) != key and not name_of(word).startswith("hydra")]
    try:
        with initialize_config_dir(str(CONF_DIR), **BASE):
            return OmegaConf.to_container(compose(command, rest), resolve=False)
    except Exception:  # any of Hydra's and OmegaConf's: the error to be told is another
        return None


def _default(command: str, key: str, arguments: Sequence[str]) -> Any:
    """What a setting is where it is not given; None where that cannot be said."""
    value = _without(command, key, arguments)
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return None if "${" in str(value) or "_target_" in str(value) or value == "???" else value


def _alike(command: str, key: str, arguments: Sequence[str]) -> list[str]:
    """The settings of a command whose names are most like ``key``."""
    names = _names(_without(command, key, arguments))
    same = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]]
    return list(dict.fromkeys([*same, *get_close_matches(key, names, 3, 0.75)]))[:3]


def _names(config: Any, before: str = "") -> list[str]:
    if not isinstance(config, dict):
        return []
    return [n for key, value in config.items() for n in (f"{before}{key}", *_names(value, f"{before}{key}."))]
