"""Several workers on one study: they share a database. A real PostgreSQL is in test_tune_postgresql.py."""

import csv
import os
import signal
import sys

import pytest
from omegaconf import OmegaConf

from helpers import SMALL, call_main, start, wait_for
from segnet.commands import storage

# sqlite connections of Optuna's storage are closed when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
KEYS = ("optimizer", "model.optimizer.lr", "data.batch_size")


@pytest.fixture
def given(cable, cache, tmp_path):
    return [
        *SMALL, f"data.root={cable}", f"data.cache_dir={cache}", "~callbacks.panels", f"storage=sqlite:///{tmp_path}/s.db",
    ]  # fmt: skip


def trials(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_two_workers_share_the_trials(given, tmp_path):
    log = tmp_path / "log"
    other = start("tune", *given, "trials=3", f"output_dir={tmp_path / 'a'}", log=log)
    try:
        assert call_main("tune", *given, "trials=3", f"output_dir={tmp_path / 'b'}") == 0
    finally:
        other.join()
    assert other.exitcode == 0, log.read_text()
    rows = trials(tmp_path / "b")
    assert rows == trials(tmp_path / "a")  # each ends when the study does
    assert [(row["number"], row["state"]) for row in rows] == [(str(i), "COMPLETE") for i in range(3)]
    assert len({tuple(row[key] for key in KEYS) for row in rows}) == 3
    done = [[path.parent.name for path in (tmp_path / name).glob("*/results.json")] for name in ("a", "b")]
    assert sorted([*done[0], *done[1]]) == ["0", "1", "2"]  # none twice
    assert all(done)


def test_the_trial_of_a_killed_worker_has_failed_and_is_tried_again(given, tmp_path, monkeypatch):
    log = tmp_path / "log"
    other = start("tune", *given, "trials=2", f"output_dir={tmp_path / 'a'}", log=log)
    wait_for((tmp_path / "a" / "0" / "environment.json").exists, other, log)
    os.killpg(other.pid, signal.SIGKILL)
    other.join()
    monkeypatch.setattr(storage, "BEAT", 1)
    assert call_main("tune", *given, "trials=2", f"output_dir={tmp_path / 'b'}") == 0
    rows = trials(tmp_path / "b")
    assert [row["state"] for row in rows] == ["FAIL", "COMPLETE", "COMPLETE"]
    same = [row for row in rows[1:] if all(row[key] == rows[0][key] for key in KEYS)]
    assert [row["state"] for row in same] == ["COMPLETE"]


def test_no_password_is_left_anywhere(given, tmp_path, capfd):
    url = "postgresql://me:hush%21hush@127.0.0.1:9/db"  # nobody listens
    pytest.importorskip("psycopg")
    assert call_main("tune", *given[:-1], f"storage={url}", f"output_dir={tmp_path / 'o'}") == 1
    told = "".join(capfd.readouterr())
    assert "storage: the database cannot be opened" in told
    assert "hush" not in told
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("url", ["postgresql://me:hush@127.0.0.1/db", "mysql://me:hush@127.0.0.1/db"])
def test_a_missing_driver_is_one_line(given, tmp_path, capfd, monkeypatch, url):
    for module in ("psycopg", "MySQLdb"):
        monkeypatch.setitem(sys.modules, module, None)
    assert call_main("tune", *given[:-1], f"storage={url}", f"output_dir={tmp_path / 'o'}") == 1
    told = "".join(capfd.readouterr())
    assert "its driver is not installed" in told
    assert ("pip install 'segnet-lightning[postgresql]'" in told) == url.startswith("postgresql")
    assert "hush" not in told


def test_a_password_in_a_file_is_refused_and_not_recorded(given, tmp_path, capfd):
    content = {"defaults": ["tune", "_self_"], "storage": "postgresql://me:hush@127.0.0.1/db"}
    OmegaConf.save(OmegaConf.create(content), tmp_path / "mine.yaml")
    mine = ["--config-dir", str(tmp_path), "--config-name", "mine"]
    assert call_main("tune", *mine, *given[:-1], f"output_dir={tmp_path / 'o'}") == 1
    told = "".join(capfd.readouterr())
    assert "storage=postgresql://me:***@127.0.0.1/db: a file says its password" in told
    assert "hush" not in told
    assert not (tmp_path / "o").exists()
