"""Errors of the user, printed in one line. Every other error is a fault of the code and keeps its traceback."""

import errno
import re
from traceback import walk_tb
from urllib.error import URLError

# What `pip install segnet-lightning[...]` adds, by the module that is missing without it.
EXTRAS = {
    "ai_edge_litert": "litert",
    "executorch": "executorch",
    "gradio": "demo",
    "litert_torch": "litert",
    "nncf": "openvino",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "openvino": "openvino",
    "optuna": "sweep",
}
MERGING = "Error merging override"  # Hydra's words
# What helps where the system refuses to read or write.
_ELSEWHERE = "; choose another folder with output_dir=<folder> or data.cache_dir=<folder>"
NO_WRITING = dict.fromkeys(
    (errno.EACCES, errno.EPERM), f"; give permission to read and write there, or{_ELSEWHERE[1:]}"
)
NO_WRITING |= {errno.EROFS: _ELSEWHERE}
NO_WRITING |= dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), f"; free some space, or{_ELSEWHERE[1:]}")
NO_WRITING |= dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "; a folder is needed there, so choose another place")
LOADER = "torch.utils.data"
NO_MEMORY = re.compile(r"can't allocate memory|out of memory")  # torch's words, on a CPU and on a GPU


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
        case MemoryError() | RuntimeError() if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            text = (
                "the memory does not suffice; lower data.batch_size (batch_size), data.image_size or data.crop (tile), "
                "or take a smaller network; a run keeps its last checkpoint (resume=<run folder>)"
            )
        case _ if type(error).__name__ == "MisconfigurationException":  # Lightning's, whose import is slow
            text = f"trainer: {error}"
        case _ if type(error).__module__ == "sqlalchemy.exc":  # of a search
            text = f"storage: the database cannot be opened ({str(error).splitlines()[0]}); give storage=<another URL>"
        case RuntimeError() if 'Could not detect "srun"' in str(error):  # submitit's
            text = "hydra/launcher=submitit_slurm: there is no srun here; start the sweep where Slurm is installed"
        case _ if _loader_failed(error):
            text = (
                "a loader process ended or found no room in shared memory (/dev/shm), most likely for want of memory; "
                "set data.num_workers=0, or lower it or data.batch_size; a run keeps its last checkpoint "
                "(resume=<run folder>)"
            )
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):  # a logger's thread does not say where
            text = f"{error.strerror}{NO_WRITING[error.errno]}"
        case _:
            return None
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """The text with control characters, which a terminal would obey, written out as in Python: ESC as 4 characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _loader_failed(error: BaseException) -> bool:
    """Whether a loader's process was killed or found no shared memory; the connection may break anywhere then."""
    if isinstance(error, RuntimeError) and str(error).startswith("Please call `iter(combined_loader)`"):
        # Lightning's, when it tidies up after a loader that could not begin.
        return error.__context__ is not None and _loader_failed(error.__context__)
    frames = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    if not any(name.startswith(LOADER) for name in frames):
        return False
    text = str(error)
    killed = isinstance(error, RuntimeError) and text.startswith("DataLoader worker")
    memory = (
        "shared memory" in text or "</torch_" in text or (isinstance(error, OSError) and error.errno == errno.ENOSPC)
    )
    return killed or memory or isinstance(error, ConnectionError | EOFError)


def _configuration(error: BaseException) -> str:
    """What is wrong with an override or a configuration file, and the form that works."""
    from hydra.errors import ConfigCompositionException, MissingConfigException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

    match error:
        case MissingConfigException() if error.options:
            group, _, option = str(error.missing_cfg_file).rpartition("/")
            return f"{group}={option}: no such option; choose from {', '.join(error.options)}"
        case MissingConfigException():
            group, _, option = str(error.missing_cfg_file).rpartition("/")
            return f"{group}={option}: no such option; choose a file of conf/{group}/"
        case ConfigCompositionException() if isinstance(error.__cause__, ConfigKeyError | ConfigAttributeError):
            return f"{error.__cause__.full_key}: no such key; --cfg job lists all keys, and + before it adds one"
        case ConfigCompositionException() if str(error).startswith(MERGING):
            override = str(error).removeprefix(MERGING).strip()
            return f"{override}: must be of the same kind (a mapping, a list or a value) as what --cfg job shows there"
        case MissingMandatoryValue():
            return f"{error.full_key} is missing; give {error.full_key}=<value>"
        case OmegaConfBaseException():
            return f"{error.full_key}: {error.msg or error}"
    return str(error)
