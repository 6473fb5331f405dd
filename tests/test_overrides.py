# ruff: noqa: E501 (tables)
"""What is typed behind a command: characters of Hydra's grammar, sweeps, groups, and what is proposed instead."""

import shlex
import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from segnet import overrides
from segnet.errors import UserError

# Values that people type, as the program gets them from the shell.
VALUES = [
    "/my images", "/Maße", "/a(1)", "/a[1]", "/it's", "/a=b", "~/x", "~", "/a,b", "{dir}/x", "masks/{stem}.png", r"part_(\d+)",
    "/a#b", "/a;b", "/a&b", "!x", "/[a]/b", 'say "a"', "'", '"', "<run>", "a: b", "$HOME", "/ünïcode/日本", "(a)", "{a", "a}", "[a", "x\\",
]  # fmt: skip

PASS = {"/my images", "a: b", "$HOME", "x\\"}


def typed(argument):
    """What a shell and then Hydra make of a proposal."""
    (word,) = shlex.split(argument)
    done = subprocess.run(["bash", "-c", f"printf %s {argument}"], capture_output=True, text=True, check=True)
    assert done.stdout == word
    return OverridesParser.create().parse_override(word)


@pytest.mark.parametrize("value", VALUES)
def test_what_is_proposed_has_the_value_that_was_meant(value):
    assert typed(overrides.quoted("data.root", value)).value() == value


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_read_as_it_is_or_refused_with_the_form_that_works(value):
    if value in PASS:
        overrides.check([f"data.root={value}"])
        assert OverridesParser.create().parse_override(f"data.root={value}").value() == value
    else:
        with pytest.raises(UserError) as error:
            overrides.check([f"data.root={value}"])
        assert overrides.quoted("data.root", value) in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lrr"], "lrr: must be key=value"),
        (["data.root=/my", "images"], "images: must be key=value; a value with spaces needs quotes"),
        (["a b=1"], "a b=1: a b is not the name of a setting"),
        (["seed=1,2"], r"seed=1,2: a comma separates .* add -m.* write 'seed=\"1,2\"', for a list 'seed=\[1,2\]'"),
        (["model=5"], "model=5: must be one of .*segnet.*; to leave the group out write ~model"),
        (["data/mask=null"], "data/mask=null: must be one of .*palette, threshold, values"),
        (["=5"], "=5: must be key=value"),
        (["hydra.verbose=5"], "hydra.verbose=5: must be true, false, or the name of a logger"),
        (["callbacks=[1]"], r"callbacks=\[1\]: must be one of .*ema"),
        (["hydra.sweeper=nosuch"], "hydra.sweeper=nosuch: must be a mapping; to choose one write hydra/sweeper=nosuch"),
        (["hydra.launcher=5"], "hydra.launcher=5: must be a mapping; to choose one write hydra/launcher=5"),
        (["-m", "--cfg", "job"], "-m --cfg: each asks for something else"),
        (["--multirun", "--info"], "--multirun --info: each asks for something else"),
        (["--cfg", "jobs"], "--cfg jobs: must be one of job, hydra, all"),
        (["--cfg"], "--cfg : must be one of job, hydra, all"),
        (["--cfg=jobs"], "--cfg jobs: must be one of job, hydra, all"),
        (["--resolve"], "--resolve: resolves what --cfg prints"),
        (["--verbos"], "--verbos: no such flag; known are -m, -v"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        overrides.check(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["-m", "seed=1,2"], ["seed=1,2", "--multirun"], ["seed=[1,2]"], ["callbacks=[ema,swa]"], ["~logger"], ["+x=1"], ["seed="],
        ["--cfg", "job", "seed=1"], ["-cn", "eval", "seed=1"], ["seed=range(1,5)", "-m"], ["data.root=${oc.env:HOME}"],
    ],
)  # fmt: skip
def test_what_hydra_knows_passes(arguments):
    overrides.check(arguments)


def test_what_a_sweep_leaves_out_is_null_where_hydra_deletes_nothing_there(monkeypatch):
    words = ["~callbacks.panels", "~logger=none", "seed=0,1", "-m"]
    assert overrides.deleting(words) == words or not overrides.DELETES_IN_SWEEPS
    monkeypatch.setattr(overrides, "DELETES_IN_SWEEPS", False)
    assert overrides.deleting(words) == ["callbacks.panels=null", "~logger=none", "seed=0,1", "-m"]
    assert overrides.deleting(words[:-1]) == words[:-1]
