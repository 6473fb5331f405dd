import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers import ROOT
from segnet import environment


def test_versions_and_commit_are_those_of_the_installed():
    found = environment.versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == version("torch")
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert environment.commit().startswith(head[:12] or "unknown")


def test_the_commit_of_a_repository_around_an_installed_package_is_not_its_own(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "theirs.py").touch()
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "theirs"]):
        subprocess.run([*git, *words], check=True)
    file = tmp_path / ".venv" / "environment.py"
    file.parent.mkdir()
    file.touch()
    monkeypatch.setattr(environment, "__file__", str(file))
    assert environment.commit() == "unknown"
    subprocess.run([*git, "add", "."], check=True)
    assert environment.commit().endswith("+changes")


def test_precision_is_one_that_the_hardware_runs(monkeypatch):
    chosen = environment.fastest_precision("cpu")
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    native = "avx512_bf16" in flags or "amx_bf16" in flags
    assert chosen == ("bf16-mixed" if native else "32-true")
    for flags, precision in (
        ("sse avx512_bf16", "bf16-mixed"),
        ("amx_tile amx_bf16", "bf16-mixed"),
        ("avx2", "32-true"),
    ):
        monkeypatch.setattr(environment, "_cpu", {"flags": flags}.get)
        assert environment.fastest_precision("cpu") == precision
    assert environment.fastest_precision("mps") == "32-true"


@pytest.mark.parametrize("cores", [1, 2, 8])
@pytest.mark.parametrize(("device", "asked"), [("cpu", 1), ("cpu", 2), ("cpu", 3), ("cpu", 8), ("cpu", 9), ("cuda", 9)])
def test_more_processes_than_cores_are_refused_on_a_cpu(monkeypatch, cores, device, asked):
    """Two are allowed on any machine, so that it can be tried."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    trainer = SimpleNamespace(num_devices=asked, strategy=SimpleNamespace(root_device=torch.device(device)))
    if device == "cuda" or asked <= 2 or asked <= cores:
        environment.check_processes(trainer)
        return
    with pytest.raises(ValueError, match=rf"trainer\.devices={asked} on a CPU: .* write trainer\.devices=1") as error:
        environment.check_processes(trainer)
    assert len(str(error.value).splitlines()) == 1


def test_kept_memory_spares_page_faults():
    """A large tensor taken and freed again and again costs page faults only until its memory is kept."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc can be told to keep memory")
    code = (
        "import resource, sys, torch; sys.path.insert(0, sys.argv[1]); from segnet import environment\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(10): torch.ones(64 * 2**20 // 4)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "a = faults(); environment.keep_freed_memory(); faults(); print(a, faults())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT / "src")], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 5


def test_hardware_names_the_processor(monkeypatch):
    found, threads = environment.hardware(torch.device("cpu")), torch.get_num_threads()
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", info.read_text() if info.is_file() else "", re.MULTILINE)
    assert found == f"{(names or [platform.processor() or platform.machine()])[0]}, {threads} threads"
    monkeypatch.setattr(environment, "_cpu", lambda field: "")  # where Linux does not say
    other = platform.processor() or platform.machine()
    assert environment.hardware(torch.device("cpu")) == f"{other}, {threads} threads"


def test_the_memory_is_the_machines_or_less():
    total = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert 0 < environment.memory() <= 1024 * int(total[1])


@pytest.mark.parametrize(
    ("wanted", "gpu", "found"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_the_device_is_the_one_named_or_the_best(monkeypatch, wanted, gpu, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert environment.device_of(wanted) == found


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device=cuda: torch finds no CUDA GPU here; write device=cpu"):
        environment.device_of("cuda")
