"""The installed program: the wheel carries the configuration, and its command runs in an empty folder."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from helpers import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which the wheel is unpacked, as pip would."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def run(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from segnet.commands.train import main; main()"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_the_wheel_holds_every_configuration(site):
    ours = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    packed = {path.relative_to(site / "segnet" / "conf") for path in (site / "segnet" / "conf").rglob("*.yaml")}
    assert packed == ours
    assert "segnet-train = segnet.commands.train:main" in next(site.glob("*.dist-info/entry_points.txt")).read_text()


def test_the_command_trains_in_an_empty_folder(site, tmp_path):
    small = ["data.prepare.images=24", "data.prepare.size=64", "data.image_size=64"]
    done = run(site, tmp_path, "trainer=fast_dev_run", "~callbacks.progress", *small)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "cable-24x64-seed0" / "images").is_dir()


def test_compromised_releases_of_lightning_are_excluded():
    """GHSA-w37p-236h-pfx3."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (given,) = [r for r in map(Requirement, project["dependencies"]) if r.name == "lightning"]
    assert [v for v in ("2.6.1", "2.6.2", "2.6.3", "2.6.4") if v in given.specifier] == ["2.6.1", "2.6.4"]
    (locked,) = re.findall(r"^lightning==(.+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked in given.specifier


def test_the_audit_reads_the_lock():
    commands = subprocess.run(["make", "-n", "audit"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r"pip-audit .*--requirement requirements\.lock", commands)
