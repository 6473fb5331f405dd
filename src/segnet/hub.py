"""Published networks on the Hugging Face hub: fetched and pushed by its own client when a command line says so."""

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from segnet.errors import UserError, printable

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME = "hf://"
_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_PINNED = re.compile(rf"{SCHEME}({_NAME.pattern})(?:@([0-9a-f]{{40}}))?")


def is_url(path: object) -> bool:
    """Whether weights are named on the hub, and no path."""
    return str(path).startswith(SCHEME)


def fetch(url: str, files: list[str]) -> Path:
    """The folder in the hub's own cache with these files of ``hf://<user>/<name>``, and no others.

    Its revision is printed in the form that pins it: ``hf://<user>/<name>@<commit>``, which is used as it is.

    Raises:
        UserError: it is no such name, or the hub does not give it.
    """
    match = _PINNED.fullmatch(url)
    if match is None:
        raise UserError(f"weights={url}: must be {SCHEME}<user>/<name>, or {SCHEME}<user>/<name>@<commit of 40 digits>")
    name, revision, api = match[1], match[2], _client()
    try:
        revision = revision or api.model_info(name, timeout=30).sha
        folder = api.snapshot_download(name, revision=revision, allow_patterns=files)
    except Exception as error:  # of the client's, of its HTTP library's, of the system's
        raise UserError(
            f"weights={url}: cannot be fetched ({_reason(error)}); log in with `hf auth login` if it is private, or "
            f"give a folder: weights=<folder>"
        ) from error
    print(f"weights: {SCHEME}{name}@{revision}", file=sys.stderr)
    return Path(folder)


def check(name: str, private: bool) -> None:
    """Refuse to push before anything is done.

    Args:
        name: ``<user>/<name>``.
        private: a repository of this name that everybody can read is refused.

    Raises:
        UserError: the name has another form, nobody is logged in, or the hub does not answer.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"push={name}: must be <user>/<name>, as on the Hugging Face hub")
    from huggingface_hub import get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if get_token() is None:
        raise UserError(
            f"push={name}: nobody is logged in to the Hugging Face hub; run `hf auth login`, or set HF_TOKEN"
        )
    try:
        there = _client().model_info(name, timeout=30)
    except RepositoryNotFoundError:
        return
    except Exception as error:  # of the client's, of its HTTP library's, of the system's
        raise UserError(
            f"push={name}: the hub does not answer ({_reason(error)}); leave push out, or try later"
        ) from error
    if private and not there.private:
        raise UserError(f"push={name}: is there, and everybody can read it; add private=false, or choose another name")


def push(folder: Path, name: str, private: bool) -> str:
    """Upload a folder as a repository of this name, which is made if there is none; its URL at the new revision.

    Raises:
        UserError: the hub refuses; the folder stays as it is.
    """
    api = _client()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Published by publish.py")
    except Exception as error:  # of the client's, of its HTTP library's, of the system's
        raise UserError(
            f"push={name}: the hub does not take it ({_reason(error)}); {folder} is whole: "
            f"hf upload {name} {shlex.quote(str(folder))}"
        ) from error
    return f"{SCHEME}{name}@{commit.oid}"


def _client() -> "HfApi":
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()  # they leave control characters in files
    return HfApi()


def _reason(error: Exception) -> str:
    return printable((str(error).strip() or type(error).__name__).splitlines()[0])
