"""A project of one's own: laid out whole under its name, or not at all."""

import os
import re
import sys

import pytest

from helpers import ROOT
from segnet.commands.new import TEMPLATE, main


@pytest.fixture
def new(tmp_path, monkeypatch, capsys):
    """``new(*words)``: exit code, and what is printed on both streams; in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["segnet-new", *words])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_it_lays_out_a_project_under_its_own_name(new, tmp_path):
    code, out, err = new("Cable-Check")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    project = tmp_path / "Cable-Check"
    top = {path.name for path in project.iterdir()}
    assert top == {
        *["conf", "src", "notebooks", "tests", "logs"],
        "pyproject.toml",
        "Makefile",
        "README.md",
        ".gitignore",
    }
    template = {name for name in files(TEMPLATE) if "__pycache__" not in name}
    assert len(files(project)) == len(template)
    assert (project / "src/cable_check/network.py").is_file()
    for name in files(project):
        text = (project / name).read_text()
        assert "my-project" not in text
        assert "my_project" not in text
    assert 'name = "Cable-Check"' in (project / "pyproject.toml").read_text()
    assert "_target_: cable_check.network.SmallNet" in (project / "conf/model/small.yaml").read_text()
    assert project.stat().st_mode & 0o777 == 0o777 & ~umask()


def umask():
    os.umask(before := os.umask(0))
    return before


def test_an_empty_folder_is_taken_and_a_path_is_made(new, tmp_path):
    (tmp_path / "empty").mkdir()
    assert new("empty")[0] == 0
    assert new("a/b/deep")[0] == 0
    assert (tmp_path / "a/b/deep/src/train.py").is_file()
    assert (tmp_path / "empty/src/train.py").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "usage: segnet-new <folder>, such as segnet-new my-project"),
        (["a", "b"], "usage"),
        (["--force", "a"], "usage"),
        (["-f"], "usage"),
        (["1st"], "1st: is no name of a project; use English letters"),
        (["käbel"], "is no name of a project"),
        (["my project"], "is no name of a project"),
        (["a-"], "is no name of a project"),
        (["class"], "is no name of a project"),
        (["."], "is no name of a project"),  # pytest's folder ends in a digit, preceded by an underscore
        (["torch"], "torch: there is a Python package torch already; choose another name, such as my-torch"),
        (["json"], "there is a Python package json already"),
        (["segnet"], "there is a Python package segnet already"),
        (["segnet-lightning"], "there is a Python package segnet_lightning already"),
        (["full"], "full: is there already, and nothing was written"),
        (["file"], "file: is there already, and nothing was written"),
        (["file/below"], "below: cannot be written"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(new, tmp_path, words, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    if words == ["."]:
        (tmp_path / "1").mkdir()
        os.chdir(tmp_path / "1")
    before = files(tmp_path)
    code, out, err = new(*words)
    assert (code, out) == (1, "")
    assert re.match(r"error: .*\n\Z", err)
    assert message in err
    assert files(tmp_path) == before
    assert (tmp_path / "full/mine.txt").read_text() == "mine"


def test_help_is_one_line_without_torch(new):
    code, out, err = new("--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: segnet-new <folder>")
    assert 'segnet-new = "segnet.commands.new:main"' in (ROOT / "pyproject.toml").read_text()
