"""What the documentation quotes exists: links, settings, runs, tests and make targets.

`tests/test_documented_commands.py` runs its commands.
"""

import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from helpers import ROOT
from segnet.cli import CONF_DIR
from segnet.hydra_versions import BASE

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
COMMANDS = sorted(path.stem for path in (ROOT / "src").glob("*.py"))
FENCE = re.compile(r"^ *```.*?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r"[a-z_]+([./][a-z_0-9]+)*=\S.*")  # not SEGNET_TRACEBACK=1


def ids(value: object) -> str | None:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else None


def spans(text: str) -> list[str]:
    """What stands in `backticks`."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


@cache
def settings() -> dict[str, Path]:
    """Every ``key=value`` in backticks that is not part of a command, and a page that has it."""
    found = {}
    for page in PAGES:
        for span in spans(page.read_text(encoding="utf-8")):
            if SETTING.fullmatch(span.lstrip("+~'")) and not re.search(r"src/|: |<|my_", span):
                found.update((word, page) for word in shlex.split(span) if word != "-m")
    return found


# -- links -----------------------------------------------------------------------------------------


@cache
def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def linked(page: Path) -> set[Path]:
    """The pages that a page links to."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#\s]+\.md)", text) if "://" not in link}


def test_every_page_is_two_links_from_the_readme():
    first = linked(ROOT / "README.md")
    found = first.union(*(linked(page) for page in first if page.is_file()))
    assert [str(page.relative_to(ROOT)) for page in DOCS if page not in found] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_relative_link_leads_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(there), f"{target}: no such heading; there are {sorted(anchors(there))}"


def test_the_site_shows_every_page():
    entries = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(entries) == [path.relative_to(ROOT / "docs").as_posix() for path in DOCS]


def test_every_package_has_a_page_in_the_reference():
    packages = {path.parent.name for path in (ROOT / "src" / "segnet").glob("*/__init__.py")}
    assert {path.stem for path in (ROOT / "docs" / "reference").glob("*.md")} == packages
    for name in packages:
        assert f"::: segnet.{name}\n" in (ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")


# -- settings ------------------------------------------------------------------------------------


@cache
def composed(name: str) -> DictConfig:
    with initialize_config_dir(str(CONF_DIR), **BASE):
        return compose(name, [])


def has(cfg: DictConfig, key: str) -> bool:
    """Whether the configuration has the key, whatever its value."""
    node: object = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node.keys():  # noqa: SIM118 - without missing values
            return False
        node = None if OmegaConf.is_missing(node, part) else node[part]
    return True


def options(key: str) -> Iterator[str]:
    return (path.stem for path in (CONF_DIR / key).glob("*.yaml"))


@pytest.mark.parametrize("setting", sorted(settings()))
def test_a_quoted_setting_exists(setting):
    key, _, value = setting.partition("=")
    if (CONF_DIR / key).is_dir():
        chosen = re.findall(r"[\w-]+", value)
        assert set(chosen) <= set(options(key)), f"{key} has {sorted(options(key))}"
    elif not key.startswith(("+", "hydra")):
        chosen = [composed_with("data=folder", f"data/mask={name}") for name in options("data/mask")]
        chosen.append(composed_with("logger=[csv,mlflow,wandb]"))
        assert any(has(cfg, key) for cfg in (*map(composed, COMMANDS), *chosen)), f"no command knows {key}"


def test_the_table_of_options_is_that_of_the_folders():
    rows = re.findall(r"^\| [\w ]+ `(\w+)=` \|(.*)\|$", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)
    assert len(rows) == 8
    for group, row in rows:
        assert sorted(spans(row)) == sorted(set(options(group)) - {"default"}), group


@cache
def composed_with(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF_DIR), **BASE):
        return compose("train", list(overrides))


# -- what else is named ----------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_named_options_runs_tests_files_and_targets_exist(page):
    text = page.read_text(encoding="utf-8")
    for path, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{test}"
    for path in re.findall(r"`((?:src|conf|tests|notebooks)/[\w/]+\.(?:py|yaml|ipynb))`", text):
        if "/my_" not in path:  # of the reader
            assert (ROOT / path).is_file(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)|`make (\w+)", text, re.MULTILINE):
        assert f"\n{''.join(target)}:" in makefile, target


@cache
def runs() -> set[str]:
    with initialize_config_dir(str(CONF_DIR), **BASE):
        sets = [f"{name}=/d" for name in ("camvid", "magnetic_tile", "neu_seg", "crack_forest", "drive")]
        found = [compose("reproduce", [f"list={name}", *sets]) for name in options("list")]
    return {str(name) for cfg in found for name in cfg.runs}


@pytest.mark.parametrize("page", DOCS, ids=ids)
def test_a_named_run_is_in_a_list(page):
    text = page.read_text(encoding="utf-8")
    groups = {name.partition("/")[0] for name in runs() if "/" in name}
    named = {span for span in spans(text) if re.fullmatch(rf"(?:{'|'.join(groups)})/[\w*-]+", span)}
    named |= {part for only in re.findall(r"only='?([^'\s]+)", text) for part in only.split("|")}
    for pattern in named:
        assert any(fnmatchcase(run, pattern) for run in runs()), f"{pattern}: no such run in conf/list/"
