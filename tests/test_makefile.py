"""`make` finds a Python that it can use, or says in one line what is missing."""

import shutil
import subprocess
import sys

import pytest

from helpers import ROOT

# An executable that answers as a Python of another version would, or one without the module venv.
FAKE = '#!/bin/sh\ncase "$2" in\n*version_info*) exit {old};;\n*ensurepip*) exit {bare};;\nesac\n'


@pytest.fixture
def make(tmp_path):
    """``make(pythons, *arguments)``: exit code and output of `make -n` where only these programs are."""

    def run(pythons, *arguments):
        path = tmp_path / "bin"
        path.mkdir()
        for name in ("make", "sh", "sed", "grep"):
            (path / name).symlink_to(str(shutil.which(name)))
        for name, (old, bare) in pythons.items():
            (path / name).write_text(FAKE.format(old=int(old), bare=int(bare)))
            (path / name).chmod(0o755)
        shutil.copy(ROOT / "Makefile", tmp_path)
        for name in ("requirements.lock", "pyproject.toml"):
            (tmp_path / name).touch()
        command = [str(path / "make"), "-n", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env={"PATH": str(path)}, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run


GOOD, OLD, BARE = (False, False), (True, False), (False, True)


@pytest.mark.parametrize(
    ("pythons", "chosen"),
    [
        ({"python3": GOOD, "python3.12": GOOD}, "python3"),
        ({"python3": OLD, "python3.12": GOOD}, "python3.12"),
        ({"python3": BARE, "python3.13": GOOD}, "python3.13"),
        ({"python3.14": GOOD, "python3.13": GOOD}, "python3.14"),
        ({"python3.11": GOOD}, "python3.11"),
    ],
)
def test_the_first_python_that_can_is_taken(make, pythons, chosen):
    code, out, _ = make(pythons, "train")
    assert code == 0
    assert f"\n{chosen} -m venv .venv\n" in f"\n{out}"
    assert out.endswith(".venv/bin/python src/train.py experiment=quickstart\n")


@pytest.mark.parametrize(
    ("pythons", "arguments", "message"),
    [
        (
            {},
            ["train"],
            "no Python from 3.11 to 3.14: install one, or uv, or name it: make train PYTHON=/path/to/python3",
        ),
        ({"python3": OLD}, ["test"], "no Python from 3.11 to 3.14: install one, or uv, or name it: make test PYTHON="),
        ({"python3": BARE}, ["train"], "python3 has no module venv: apt-get install python3-venv, or install uv"),
        (
            {"python3": GOOD, "old": OLD},
            ["train", "PYTHON=old"],
            "PYTHON=old: is no Python from 3.11 to 3.14; leave it out",
        ),
        (
            {"python3": GOOD},
            ["train", "PYTHON=nowhere"],
            "PYTHON=nowhere: is no Python from 3.11 to 3.14; leave it out",
        ),
        ({"python3": GOOD}, ["install", "TORCH=cpu"], "TORCH=cpu: needs uv, which knows where"),
        ({"python3": GOOD}, ["test"], "no git, which the tests compare with: apt-get install git"),
    ],
)
def test_what_is_missing_is_one_line(make, pythons, arguments, message):
    code, _, err = make(pythons, *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_uv_is_used_where_it_is_and_needs_no_python(make):
    _, out, _ = make({"uv": GOOD}, "train", "TORCH=cpu")
    assert "uv venv" in out
    assert "--torch-backend cpu" in out
    assert "-m venv" not in out


def test_without_gpus_nothing_of_cuda_is_installed_and_everything_else_is(make):
    """The filter of the recipe, run on the true lock by the true grep."""
    _, out, _ = make({"uv": GOOD}, "install", "TORCH=cpu")
    (line,) = [line for line in out.splitlines() if line.startswith("grep")]
    command = line.partition(" | ")[0]
    kept = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    whole = (ROOT / "requirements.lock").read_text().splitlines()
    gone = sorted(set(whole) - set(kept))
    assert all(name.startswith(("nvidia-", "cuda-", "triton==")) for name in gone)
    assert len(gone) > 15
    assert [name.partition("==")[0] for name in kept if name.startswith("torch==")] == ["torch"]


def test_this_python_is_in_the_range():
    assert (3, 11) <= sys.version_info[:2] <= (3, 14)
    done = subprocess.run(["make", "-n", "train", f"PYTHON={sys.executable}", "UV="], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
