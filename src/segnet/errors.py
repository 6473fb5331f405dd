"""What an error of the user is, and how it is told in one line."""

import re

from omegaconf.errors import OmegaConfBaseException


def explain(error: BaseException) -> str | None:
    """One line for an error that the user can mend; None for one that is a fault of the code."""
    from hydra.errors import HydraException

    where = ""
    while type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        found = re.search(r"full_key: (\S+)", str(error))
        where = f" (in {found.group(1)})" if found else where
        error = error.__cause__
    user = (
        HydraException,
        OmegaConfBaseException,
        ValueError,
        TypeError,
        OSError,
        FloatingPointError,
        ImportError,
    )
    if not (where or isinstance(error, user) or type(error).__name__ == "MisconfigurationException"):
        return None
    text = str(error) or f"{type(error).__name__}: a value given is not of the right kind"
    if text.startswith("Caught "):  # a loader process died of it; the error proper is the last line
        text = text.strip().splitlines()[-1].partition(": ")[2]
    text = text.partition("Config search path:")[0]
    if "To append to your config" in text:  # a misspelt key; appending it is never the remedy
        text = text.partition("To append to your config")[0] + "No such key; --cfg job lists all keys"
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    return " ".join(text.split()) + where
