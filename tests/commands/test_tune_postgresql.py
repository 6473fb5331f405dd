"""A search by two workers on a real PostgreSQL. To run it: apt install postgresql; pip install 'psycopg[binary]'."""

import csv
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from helpers import ROOT, SMALL

pytest.importorskip("psycopg")
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
INITDB = shutil.which("initdb") or (PROGRAMS[-1] if PROGRAMS else None)
pytestmark = [pytest.mark.skipif(INITDB is None, reason="needs PostgreSQL's server"), pytest.mark.slow]
PASSWORD, TYPED = "s3cr3t-p@ss/word", "s3cr3t-p%40ss%2Fword"  # as it is, and in a URL


@pytest.fixture(scope="module")
def port():
    """That of a server of this test, which an ordinary user runs."""
    programs = PROGRAMS[-1].parent if PROGRAMS else Path(str(INITDB)).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="segnet-postgresql-"))
    user = (
        ("postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody")
        if not os.getuid()
        else None
    )
    (folder / "pw").write_text(PASSWORD)
    if user:
        for path in (folder, folder / "pw"):
            shutil.chown(path, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]

    def run(*words):
        subprocess.run([str(word) for word in words], user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    run(programs / "initdb", "-D", folder / "data", "-U", "segnet", f"--pwfile={folder / 'pw'}", "-A", "scram-sha-256")
    options = f"-c listen_addresses=127.0.0.1 -p {number} -k {folder} -c fsync=off"
    run(programs / "pg_ctl", "-D", folder / "data", "-o", options, "-l", folder / "log", "-w", "start")
    yield number
    run(programs / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def worker(port, cable, cache, tmp_path):
    """Starts a process of tune.py on one study; a dead worker's trial is noticed after two seconds."""
    code = "from segnet.commands import storage, tune; storage.BEAT = 1; tune.main()"
    running = []

    def begin(name, study, trials):
        command = [
            sys.executable, "-c", code, *SMALL, f"data.root={cable}", f"data.cache_dir={cache}", "~callbacks.panels",
            f"storage=postgresql://segnet:{TYPED}@127.0.0.1:{port}/postgres", f"study={study}", f"trials={trials}",
            f"output_dir={tmp_path / name}",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        with (tmp_path / f"{name}.log").open("w") as log:
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path))
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()


def trials(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def parameters(row):
    return tuple(row[key] for key in ("optimizer", "model.optimizer.lr", "data.batch_size"))


def test_two_workers_share_the_trials_and_the_password_is_nowhere(worker, tmp_path):
    both = [worker(name, "shared", 5) for name in ("a", "b")]  # at the same time, on a database without tables
    assert [process.wait(300) for process in both] == [0, 0], (tmp_path / "a.log").read_text()
    rows = trials(tmp_path / "a")
    assert rows == trials(tmp_path / "b")
    assert [row["state"] for row in rows] == ["COMPLETE"] * 5
    assert len({parameters(row) for row in rows}) == 5
    done = [sorted(path.parent.name for path in (tmp_path / name).glob("*/results.json")) for name in ("a", "b")]
    assert sorted([*done[0], *done[1]]) == ["0", "1", "2", "3", "4"]
    assert all(done)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"postgresql://segnet@127.0.0.1" in path.read_bytes() for path in files)  # the record has the address
    for secret in (PASSWORD, TYPED):
        assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_the_trial_of_a_killed_worker_is_tried_again_by_the_other(worker, tmp_path):
    killed = worker("b", "killed", 3)
    while not (tmp_path / "b" / "0" / "environment.json").exists():
        assert killed.poll() is None, (tmp_path / "b.log").read_text()
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    other = worker("a", "killed", 3)
    assert other.wait(300) == 0, (tmp_path / "a.log").read_text()
    rows = trials(tmp_path / "a")
    assert [row["state"] for row in rows] == ["FAIL", *["COMPLETE"] * 3]
    assert [row["state"] for row in rows[1:] if parameters(row) == parameters(rows[0])] == ["COMPLETE"]
