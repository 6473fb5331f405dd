"""What is printed to be pasted means the same to a shell and to Hydra."""

import shlex
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir

from helpers import ROOT
from segnet.cli import CONF_DIR
from segnet.command_line import command_line, flags_last, override
from segnet.commands.train import main
from segnet.hydra_versions import BASE

TEXTS = [
    "plain/x.png", "a b", " a ", "ä/ö", "🙂", "x=1", "$HOME/a", "${oc.env:HOME}", r"a\${b}", r"a\\${b}", "it's",
    'say "hi"', "'q'", '"q"', "[a]", "{a: 1}", "a,b", "(x)", "choice(a,b)", "~/a", "2024", "1e3", "null", "true", "",
    "\\", "a\\\\", 'a\\"b', r"part_(\d+)", "#x", "a:b", "a\nb", "*?", "a!b", "`ls`", "a;b&c|d<e>f",
]  # fmt: skip


def test_a_text_comes_through_shell_and_hydra_as_it_is():
    line = command_line("compare", [override(f"+key.t{i}", text) for i, text in enumerate(TEXTS)])
    done = subprocess.run(["bash", "-c", rf"printf '%s\0' {line}"], capture_output=True, text=True, check=True)
    python, script, *words, _ = done.stdout.split("\0")
    assert (python, script, len(words)) == ("python", "src/compare.py", len(TEXTS))
    with initialize_config_dir(str(CONF_DIR), **BASE):
        cfg = compose("compare", words)
    assert [cfg.key[f"t{i}"] for i in range(len(TEXTS))] == TEXTS


@pytest.mark.parametrize("text", ["logs/train/2026-01-31_12-00-00", "a/b.ckpt", "data_2", "C:/x"])
def test_what_needs_no_quotes_has_none(text):
    assert override("resume", text) == f"resume={text}"


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("a=1 -m b=2,3", "a=1 b=2,3 -m"),
        ("-m a=1 b=2,3", "a=1 b=2,3 -m"),
        ("a=1 --cfg job b=2 --resolve ~c", "a=1 b=2 ~c --cfg job --resolve"),
        ("a=1 -cd x=y b=2", "a=1 b=2 -cd x=y"),
        ("a=1 --help", "a=1 --help"),
        ("a=1 --cfg", "a=1 --cfg"),
        ("--cfg=job a=1", "a=1 --cfg=job"),
        ("-v a=1 -m b=2,3", "verbose=true a=1 b=2,3 -m"),
        ("a=1 --verbose", "a=1 verbose=true"),
        ("", ""),
    ],
)
def test_overrides_stand_side_by_side(typed, read):
    assert flags_last(typed.split()) == read.split()


def test_a_command_line_is_split_into_what_it_was_made_of():
    words = ["seed=1", 'data.root="a b"', "'x"]
    assert shlex.split(command_line("train", words)) == ["python", "src/train.py", *words]


@pytest.mark.parametrize("called", ["/usr/bin/segnet-train", "src/train.py"])
def test_where_the_wheel_alone_is_installed_its_programs_are_named(called, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [called, "--help"])
    programs = {word for file in (ROOT / "src").glob("*.py") for word in [f"segnet-{file.stem.replace('_', '-')}"]}
    main()
    start, *_ = shlex.split(capsys.readouterr().out.splitlines()[0])
    named = [shlex.split(command_line(name, ["a=b c"])) for name in ("train", "import_labels")]
    if called.startswith("src"):
        assert start == "python"
        assert named == [["python", "src/train.py", "a=b c"], ["python", "src/import_labels.py", "a=b c"]]
    else:
        assert start == "segnet-train"
        assert named == [["segnet-train", "a=b c"], ["segnet-import-labels", "a=b c"]]
        assert {words[0] for words in named} <= programs  # pyproject.toml has these: tests/test_cli.py
