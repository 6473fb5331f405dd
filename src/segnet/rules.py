"""What values a setting may have: its declared type decides, and is told in words.

A type is an annotation as in a signature. `pydantic` checks it as strictly as JSON: no text for a number, no number for
true or false, no NaN.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

from segnet.errors import UserError

GREATEST = 2**32 - 1  # of whole numbers; more is a slip, and libraries fail with it in ways of their own
WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", None: "null", NoneType: "null"}


class SettingError(UserError):
    """A setting has a value that its type does not allow.

    Args:
        key: its full name, such as ``data.batch_size``.
        value: plain containers, numbers, text, None.
        rule: what it must be, in words.
        text: whether text is allowed.
    """

    def __init__(self, key: str, value: Any, rule: str, text: bool = False) -> None:
        super().__init__(f"{key}={shown(value)}: must be {rule}")
        self.key, self.value, self.text = key, value, text


def check(key: str, value: Any, annotation: Any) -> None:
    """Refuse a value that is not of the declared type, or that is plain where an object is wanted.

    A type of which nothing can be said passes.

    Raises:
        SettingError: with the key, the value and the rule.
    """
    from pydantic import ValidationError

    if _exceeds(value):
        raise SettingError(key, value, f"{words(annotation)}; whole numbers are at most {GREATEST}")
    adapter = _adapter(annotation)
    if adapter is None and not isinstance(annotation, type):
        return
    try:
        if adapter is not None:
            adapter.validate_json(json.dumps(value))
            return
    except ValidationError:
        pass
    raise SettingError(key, value, words(annotation), _takes_text(annotation))


def _exceeds(value: Any) -> bool:
    """Whether a whole number is too large in a value, at any depth."""
    if isinstance(value, dict):
        return any(map(_exceeds, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_exceeds, value))
    return isinstance(value, int) and abs(value) > GREATEST


@lru_cache
def _adapter(annotation: Any) -> Any:
    """The checker of a type; None where it is of a kind that pydantic does not know, such as a protocol."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter
    from pydantic_core import SchemaError

    config = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    try:
        return TypeAdapter(annotation, config=config)
    except (SchemaError, PydanticUserError, TypeError):
        return None


def words(annotation: Any) -> str:
    """A declared type in words, such as "an integer of at least 1, or auto"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in WORDS:
        return WORDS[annotation]
    if origin is Annotated:
        base, *limits = arguments
        told = [limit for limit in limits if isinstance(limit, str)]
        kind, comma, entries = words(base).partition(",")
        return told[-1] if told else f"{kind} {' and '.join(_bounds(limits))}".strip() + comma + entries
    if origin is Literal:
        return _either(_alternatives(annotation))
    if origin in (Union, UnionType):
        kinds = [kind for kind in arguments if not (kind is int and float in arguments)]
        if any(words(kind).endswith(" or null") for kind in kinds if kind is not NoneType):
            kinds = [kind for kind in kinds if kind is not NoneType]
        return _either(list(dict.fromkeys(part for kind in kinds for part in _alternatives(kind))))
    if isinstance(origin, type) and issubclass(origin, tuple) and Ellipsis not in arguments:
        return f"a list of {len(arguments)}: {', '.join(words(kind) for kind in arguments)}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if isinstance(origin, type) and issubclass(origin, Iterable) and arguments:
        return f"a list, each {words(arguments[0])}"
    return "an object, that is a mapping with _target_"


def _alternatives(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [shown(value) for value in get_args(annotation)]
    return [words(annotation)]


def _bounds(limits: list[Any]) -> Iterable[str]:
    """Limits of `annotated_types`, and of pydantic's fields, in words."""
    from pydantic.fields import FieldInfo

    for limit in limits:
        match limit:
            case Interval(ge=low, le=high) if low is not None and high is not None:
                yield f"in [{low}, {high}]"
            case Interval(ge=low, lt=high) if low is not None and high is not None:
                yield f"in [{low}, {high})"
            case Interval(gt=low, lt=high) if low is not None and high is not None:
                yield f"between {low} and {high}, both excluded"
            case Interval(gt=low, le=high) if low is not None and high is not None:
                yield f"in ({low}, {high}]"
            case Ge(ge=low):
                yield f"of at least {low}"
            case Gt(gt=low):
                yield f"above {low}"
            case Le(le=high):
                yield f"of at most {high}"
            case Lt(lt=high):
                yield f"below {high}"
            case FieldInfo(metadata=more):
                yield from _bounds(more)
            case MinLen(min_length=least):
                yield "that is not empty" if least == 1 else f"of at least {least} entries"


def _either(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"


def _takes_text(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return any(_takes_text(part) for part in get_args(annotation))
    return annotation is str or (get_origin(annotation) is Annotated and _takes_text(get_args(annotation)[0]))


def shown(value: Any) -> str:
    """A value as it is typed: null, true, text as it is, lists and mappings without spaces."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return value or "''"
        case list() | tuple():
            return f"[{','.join(shown(entry) for entry in value)}]"
        case dict():
            return f"{{{','.join(f'{name}:{shown(entry)}' for name, entry in value.items())}}}"
        case _:
            return str(value)
