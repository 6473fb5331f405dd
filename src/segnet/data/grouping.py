"""What a regular expression takes from an image's path: the object it shows, its kind, the part it belongs to."""

import re
from collections.abc import Collection

from segnet.errors import UserError

NO_KIND = "no kind"  # of images that ``data.kinds`` does not match


def check(key: str, pattern: str | None) -> None:
    """Refuse what is no regular expression; None is none needed.

    Raises:
        UserError: with the key and the value.
    """
    try:
        re.compile(pattern or "")
    except (re.error, TypeError) as error:
        raise UserError(f"{key}={pattern!r}: no regular expression ({error}); correct it") from error


def check_names(key: str, names: Collection[str]) -> None:
    """Refuse names of classes or kinds whose figures would be called as the ends of another's interval.

    Raises:
        UserError: with both names.
    """
    for end in ("_low", "_high"):
        if both := sorted(name for name in names if name + end in names):
            raise UserError(
                f"{key}: {both[0]!r} and {both[0] + end!r}: in results.json the second is the end of the first one's "
                f"interval; rename one of them"
            )


def group(pattern: str, path: str) -> str | None:
    """The first group of where ``pattern`` matches in a relative path, without groups the whole match; None if nowhere.

    None, too, where the first group takes no part in the match.
    """
    match = re.search(pattern, path)
    return None if match is None else match.group(1 if match.re.groups else 0)


def kind_of(pattern: str, path: str) -> str:
    """The kind of the defects of an image by ``data.kinds``; `NO_KIND` where it does not match, or takes nothing."""
    return group(pattern, path) or NO_KIND


def part_of(pattern: str | None, path: str) -> str:
    """The part that an image shows, by ``data.parts``; an image that it does not match is a part of its own."""
    return (pattern and group(pattern, path)) or path
