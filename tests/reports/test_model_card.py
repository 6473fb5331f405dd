"""The command of a model card: pasted into a shell, it starts the same run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from helpers import SMALL, call_main
from segnet.cli import CONF_DIR
from segnet.hydra_versions import BASE
from segnet.runs.resume import recorded


def pasted(card: Path) -> list[str]:
    """The words that bash makes of the command in a card."""
    (command,) = re.findall(r"^```\n(python src/train\.py.*?)\n```$", card.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[2:-1]


@pytest.fixture(scope="module")
def run(cable, cache, tmp_path_factory):
    """A run whose overrides hold what a shell, Hydra's grammar and Markdown give a meaning to; and its overrides."""
    base = tmp_path_factory.mktemp("odd")
    root = base / "my cäbles (1), $HOME=[a] {b} it's | `ls` #2"
    shutil.copytree(cable, root)
    given = [
        *SMALL, f'data.root="{root}"', "data.classes=['a \"b\" | c']", f"data.cache_dir={cache}", "~callbacks.panels",
        r'data.split.group="(\w+_\d+)\.png"', f"output_dir={base}/run", "+data.split.salt=$2",
    ]  # fmt: skip
    assert call_main("train", *given) == 0
    return base / "run", given


def test_a_shell_reads_the_words_that_were_typed(run):
    folder, given = run
    assert pasted(folder / "README.md") == given == recorded(folder)


def test_hydra_composes_the_same_run_of_them(run):
    folder, _ = run
    with initialize_config_dir(str(CONF_DIR), **BASE):
        again = compose("train", pasted(folder / "README.md"))
    saved = OmegaConf.load(folder / ".hydra" / "config.yaml")
    assert OmegaConf.to_container(again, resolve=True) == OmegaConf.to_container(saved, resolve=True)
