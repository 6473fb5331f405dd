"""The installed program: the wheel carries the configuration, and its command runs in an empty folder."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

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


def test_the_wheel_holds_every_configuration(site):
    ours = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    packed = {path.relative_to(site / "segnet" / "conf") for path in (site / "segnet" / "conf").rglob("*.yaml")}
    assert packed == ours
    template = {path.relative_to(ROOT / "template") for path in (ROOT / "template").rglob("*") if path.is_file()}
    laid = {
        path.relative_to(site / "segnet/template") for path in (site / "segnet/template").rglob("*") if path.is_file()
    }
    assert {path for path in laid if path.suffix != ".pyc"} == {path for path in template if path.suffix != ".pyc"}
    assert "segnet-train = segnet.commands.train:main" in next(site.glob("*.dist-info/entry_points.txt")).read_text()


def test_a_project_of_ones_own_trains_its_own_network_loss_and_data(site, tmp_path):
    """In an empty folder, from the wheel alone: no checkout is on the path."""
    project, environment = tmp_path / "my-parts", dict(os.environ, PYTHONPATH=str(site))
    small = ["trainer.max_epochs=1", "data.prepare.images=12", "trainer=cpu", "output_dir=logs/run"]
    for folder, given in (
        (tmp_path, ["-c", "from segnet.commands.new import main; main()", "my-parts"]),
        (project, ["src/train.py", "experiment=small", *small]),
    ):
        done = subprocess.run([sys.executable, *given], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "| network | SmallNet, " in (project / "logs/run/README.md").read_text()
    assert len(list((project / "data/discs-12x64/images").iterdir())) == 12


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


def test_every_dependency_has_a_reason():
    """A comment behind each entry, or behind the whole list of an extra on one line."""
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    for name, entries in {"dependencies": project["dependencies"], **project["optional-dependencies"]}.items():
        (block,) = re.findall(rf"^{name} = \[(?:.*\] *#.*$|(?:.*\n)+?^\])", text, re.MULTILINE)
        for entry in entries:
            assert re.search(rf'"{re.escape(entry)}".*# \S.{{3,}}', block), f"{name}: {entry} has no reason"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_lock_fits_the_ranges_on_every_python(python):
    """One file for all: what a Python needs beside the others, or in another version, has a marker."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert python in SpecifierSet(project["requires-python"])

    def here(lines):
        found = [r for r in map(Requirement, lines) if not r.marker or r.marker.evaluate({"python_version": python})]
        return [(canonicalize_name(r.name), r.specifier) for r in found]

    pins = here((ROOT / "requirements.lock").read_text().splitlines())
    locked = {name: str(specifier).removeprefix("==") for name, specifier in pins}
    assert len(locked) == len(pins)
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {"hydra-core", "omegaconf", "torch", "pytest"} <= {name for name, _ in here(wanted)}
    for name, specifier in here(wanted):
        if name != "segnet-lightning":
            assert locked[name] in specifier, name
    assert ("audioop-lts" in locked) == (python in ("3.13", "3.14"))  # the module that Python 3.13 left out
    candidates = {name for name, version in locked.items() if Version(version).is_prerelease}
    assert candidates == ({"hydra-core", "omegaconf"} if python == "3.14" else set())


def test_other_pythons_are_refused():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not {"3.10", "3.15"} & set(SpecifierSet(project["requires-python"]).filter(["3.10", "3.11", "3.15"]))
