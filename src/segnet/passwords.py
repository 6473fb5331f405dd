"""The password of a database, which no record, log, error or process list may show.

A password in ``storage=postgresql://user:password@host/db`` is taken out of the command line before anything reads it,
and kept in this process's environment, where processes that it starts find it too.
"""

import os
import re
from collections.abc import Sequence
from urllib.parse import unquote_plus

from segnet.errors import UserError

KEY = "SEGNET_STORAGE_PASSWORD"  # in the environment; psycopg reads PGPASSWORD and ~/.pgpass by itself
_STORAGE = re.compile(r"\+{0,2}storage=")
# Up to the last @ before a query, which begins with ?name=, else up to the first one, as SQLAlchemy reads it.
_USER = re.compile(r"(?P<before>(?:[^:/@?]*://)?[^:/@?]*):(?!//)(?P<secret>(?:(?!\?\w+=).)*|[^@]*)@")
_QUERY = re.compile(r"(?P<mark>[?&])(?P<name>\w*pass\w*)=(?P<secret>[^&'\"]*)&?", re.IGNORECASE)
_SHOWN = re.compile(r"(://[^:/@\s]*):[^@\s]*@")


def taken_apart(words: Sequence[str]) -> list[str]:
    """A command line whose ``storage=`` has no password any more; it is in the environment.

    Raises:
        UserError: a secret that is no password of a user, such as ``sslpassword``.
    """
    return [_without(word) if _STORAGE.match(word) else word for word in words]


def has(url: str) -> bool:
    """Whether a URL says a password, and not by an interpolation such as ``${oc.env:PASSWORD}``."""
    found = _USER.match(url), _QUERY.search(url)
    return any(match is not None and "${" not in match["secret"] for match in found)


def masked(text: str) -> str:
    """A text for people, without the passwords of the URLs in it."""
    secret = os.environ.get(KEY)
    text = text.replace(secret, "***") if secret and len(secret) > 3 else text
    return _SHOWN.sub(r"\1:***@", text)


def _without(word: str) -> str:
    key, _, url = word.partition("=")
    if (match := _USER.match(url)) and "${" not in match["secret"]:
        os.environ[KEY] = unquote_plus(match["secret"].replace("+", "%2B"))
        url = f"{match['before']}@{url[match.end() :]}"
    while (match := _QUERY.search(url)) and "${" not in match["secret"]:
        if match["name"].lower() not in ("password", "passwd"):
            raise UserError(f"storage: {match['name']} would be recorded; give it by the driver's environment or file")
        os.environ[KEY] = unquote_plus(match["secret"])
        url = url[: match.start()] + match["mark"] + url[match.end() :]
        url = url.rstrip("?&")
    return f"{key}={url}"
