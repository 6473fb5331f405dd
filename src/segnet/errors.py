"""Errors of the user, printed in one line. Every other error is a fault of the code and keeps its traceback."""

import errno
from urllib.error import URLError

# What `pip install segnet-lightning[...]` adds, by the module that is missing without it.
EXTRAS = {
    "gradio": "demo",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "optuna": "sweep",
}
MERGING = "Error merging override"  # Hydra's words
# What helps where the system refuses to write.
_ELSEWHERE = "; choose another folder with output_dir=<folder> or data.cache_dir=<folder>"
NO_WRITING = dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT), _ELSEWHERE)


class UserError(ValueError):
    """Input that cannot be used. The message is one line: key and value, the rule, and the remedy."""


def explain(error: BaseException) -> str | None:
    """One line for an error that the user can correct; None for a fault of the code, which needs its traceback."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    match error:
        case UserError():
            text = str(error)
            if text.startswith("Caught "):  # in a loader process: torch makes its traceback the message
                text = text.strip().splitlines()[-1].removeprefix(f"{__name__}.{UserError.__name__}: ")
        case FloatingPointError():  # training diverged
            text = str(error)
        case HydraException() | OmegaConfBaseException():
            text = _configuration(error)
        case URLError():
            text = f"the download failed: {error.reason}"
        case OSError() if error.filename is not None and error.strerror:
            text = f"{error.filename}: {error.strerror}{NO_WRITING.get(error.errno or 0, '')}"
        case ModuleNotFoundError() if error.name in EXTRAS:
            text = f"{error.name} is not installed: pip install 'segnet-lightning[{EXTRAS[error.name]}]'"
        case _:
            return None
    return " ".join(text.split())


def _configuration(error: BaseException) -> str:
    """What is wrong with an override or a configuration file, and the form that works."""
    from hydra.errors import ConfigCompositionException, MissingConfigException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

    match error:
        case MissingConfigException() if error.options:
            group, _, option = str(error.missing_cfg_file).rpartition("/")
            return f"{group}={option}: no such option; choose from {', '.join(error.options)}"
        case ConfigCompositionException() if isinstance(error.__cause__, ConfigKeyError | ConfigAttributeError):
            return f"{error.__cause__.full_key}: no such key; --cfg job lists all keys"
        case ConfigCompositionException() if str(error).startswith(MERGING):
            override = str(error).removeprefix(MERGING).strip()
            return f"{override}: must be of the same kind (a mapping, a list or a value) as what --cfg job shows there"
        case MissingMandatoryValue():
            return f"{error.full_key} is missing; give {error.full_key}=<value>"
        case OmegaConfBaseException():
            return f"{error.full_key}: {error.msg or error}"
    return str(error)
