"""`--help`: every key with its sentence, from the comments of the configuration files."""

import re

import pytest
import yaml

from helpers import ROOT, call_main
from segnet import help_text
from segnet.settings import COMMANDS

CONF = ROOT / "conf"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_key_and_group_has_a_sentence_and_its_default(name, capsys):
    assert call_main(name, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    raw = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    groups = {group: option for entry in raw["defaults"] if isinstance(entry, dict) for group, option in entry.items()}
    for group, option in groups.items():
        written = "null" if option is None else f"[{option[0]}]" if isinstance(option, list) else option
        files = ", ".join(sorted(file.stem for file in (CONF / group).glob("*.yaml")))
        assert re.search(rf" {group}={re.escape(written)} \w[^:]*: {re.escape(files)}", text), group
    for key, value in raw.items():
        if key in ("defaults", "hydra") or key in groups or (isinstance(value, dict) and "_target_" in value):
            continue
        (found,) = [entry for entry in help_text.keys(name) if entry.name == key]
        assert len(found.sentence) > 5, f"conf/{name}.yaml: {key} needs a comment, which --help shows"
        if isinstance(value, dict) and value:
            assert f" {key} {found.sentence}" in text
        elif value == "???":
            assert f" {key}=<needed> {found.sentence}" in text
        elif "${" not in str(value):
            assert found.default is not None
            assert yaml.safe_load(found.default) == value
            assert f" {key}={found.default} {found.sentence}" in text
    for key in ("output_dir", "trust", "verbose"):  # of all commands
        assert re.search(rf" {key}=\S+ \w+", text)
    assert "${" not in text


def test_comments_above_and_beside_and_over_many_lines(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text(
        "# What it does.\n\ndefaults:\n  - b\n  - net: small # the network\n  - _self_\n\n"
        "# Above,\n# two lines.\none: 1\n"
        "two: '#2' # beside\nthree: [1,\n  2] # behind\n# Of a section.\nfour:\n  five: null # nested\n"
        "six: >-\n  a\n  b\n"
    )
    (tmp_path / "b.yaml").write_text("one: 0 # older\nseven: ??? # of the other\n")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "small.yaml").write_text("defaults:\n  - big\n")
    (tmp_path / "net" / "big.yaml").write_text("defaults:\n  - head: null # on top\n")
    (tmp_path / "net" / "head").mkdir()
    monkeypatch.setattr(help_text, "CONF_DIR", tmp_path)
    assert [(key.name, key.default, key.sentence, key.group) for key in help_text.keys("a")] == [
        ("net", "small", "the network", True),
        ("one", "1", "Above, two lines.", False),
        ("two", "'#2'", "beside", False),
        ("three", "[1, 2]", "behind", False),
        ("four", None, "Of a section.", False),
        ("four.five", "null", "nested", False),
        ("six", ">- a b", "", False),
        ("seven", "???", "of the other", False),
        ("net/head", "null", "on top", True),
    ]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_it_is_as_wide_as_the_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    keys = help_text.of("train").partition("Keys, with")[2]
    assert max(map(len, keys.splitlines())) <= columns
