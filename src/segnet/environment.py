"""What a run ran on: hardware, versions, commit, and the precision that suits the hardware."""

import ctypes
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from segnet.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "albumentations", "hydra-core", "numpy")


def device_of(wanted: str) -> Literal["cpu", "cuda"]:
    """The type of device that ``device`` names: auto, cpu or cuda.

    Raises:
        UserError: there is no such GPU.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no CUDA GPU here; write device=cpu or device=auto")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def fastest_precision(accelerator: str) -> Literal["bf16-mixed", "16-mixed", "32-true"]:
    """Lightning's name of the fastest precision that the hardware runs natively.

    bfloat16 on CPUs with AVX-512 BF16 or AMX and on GPUs since Ampere, float16 on older CUDA GPUs,
    float32 elsewhere (where 16-bit arithmetic is emulated and slower).
    """
    cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if cuda:
        return "bf16-mixed" if torch.cuda.get_device_capability() >= (8, 0) else "16-mixed"
    if accelerator == "mps" or (accelerator in ("auto", "gpu") and torch.backends.mps.is_available()):
        return "32-true"
    return "bf16-mixed" if {"avx512_bf16", "amx_bf16"} & set(_cpu("flags").split()) else "32-true"


def precision_of(wanted: str, accelerator: str) -> str:
    """Lightning's name of a precision: what is ``wanted``, or the fastest where that is ``auto``.

    Raises:
        UserError: there is no such accelerator.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if not {"gpu": cuda or mps, "cuda": cuda, "mps": mps}.get(accelerator, True):
        raise UserError(
            f"trainer.accelerator={accelerator}: torch finds no such device here; write trainer=cpu or trainer=auto"
        )
    return fastest_precision(accelerator) if wanted == "auto" else wanted


def check_processes(trainer: "Trainer") -> None:
    """Refuse more processes of a trainer on the CPU than it has cores: they share these, and only wait for each other.

    Two always may be: one core is enough to try whether a training in several processes works.

    Raises:
        UserError: there are more.
    """
    most, asked = max(2, os.cpu_count() or 1), trainer.num_devices
    if trainer.strategy.root_device.type == "cpu" and asked > most:
        raise UserError(
            f"trainer.devices={asked} on a CPU: a process each, of which {os.cpu_count()} cores take at most {most}; "
            f"write trainer.devices=1, which uses all cores, or trainer.devices={most}"
        )


def arithmetic(precision: str) -> torch.dtype:
    """The type that convolutions compute in under this precision of Lightning's."""
    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision, torch.float32)


def autocast(device: str, precision: str) -> torch.autocast:
    """The autocast of this precision of Lightning's on a device type; without effect where there is none."""
    dtype = arithmetic(precision)
    return torch.autocast(device, None if dtype is torch.float32 else dtype, enabled=dtype is not torch.float32)


def keep_freed_memory(keep: bool = True) -> None:
    """Let glibc keep freed blocks of any size for reuse instead of handing each back to the kernel.

    A step frees and takes the same activations again; with the default bound of 32 MB each of them is
    mapped and zeroed anew, page by page. Measured: 10 to 15 % of a training step on 2 cores. ``keep=False`` is
    glibc's own behaviour once it has seen large blocks.
    """
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 2**30 if keep else 2**25)
        libc.mallopt(m_trim_threshold, 2**31 - 1 if keep else 2**26)


def memory() -> int:
    """Bytes that this process may take: the machine's memory, or its container's where that is less."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if file.is_file() and (limit := file.read_text().strip()).isdigit():  # "max" is none
            found.append(int(limit))
    return min(found)


def hardware(device: torch.device) -> str:
    """Name of the processor that computes, with cores or memory."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    name = _cpu("model name") or platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def _cpu(field: str) -> str:
    """What Linux says of the first processor; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((value.strip() for name, _, value in (x.partition(":") for x in lines) if name.strip() == field), "")


def surroundings(device: torch.device, precision: str) -> dict[str, Any]:
    """What decides a result beside the configuration: hardware, precision, versions and commit."""
    return {"hardware": hardware(device), "precision": precision, "versions": versions(), "commit": commit()}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def commit() -> str:
    """Git commit of this code, with ``+changes`` if the tree differs from it; ``unknown`` outside git."""
    here = Path(__file__).parent
    try:
        git = ["git", "-C", str(here)]
        tracked = [*git, "ls-files", "--error-unmatch", Path(__file__).name]  # a .venv may lie in another repository
        subprocess.run(tracked, capture_output=True, check=True)
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")
