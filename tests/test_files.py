"""What a reader finds while a file is written, and after a kill."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers import ROOT
from segnet.files import atomic_write, cells


def test_the_old_content_stays_until_the_new_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as part:
        part.write_text("one")
        assert not path.exists()
    with atomic_write(path) as part:
        part.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")

    def fail():
        with atomic_write(path) as part:
            part.write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail()
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from segnet.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[2])) as part:\n"
        "    part.write_text('half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT / "src"), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "one"
    with atomic_write(path) as part:  # what the killed one left is in nobody's way
        part.write_text("two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_processes_may_write_a_shared_file_at_once(tmp_path):
    path = tmp_path / "a.txt"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from segnet.files import atomic_write\n"
        "for _ in range(200):\n"
        "    with atomic_write(Path(sys.argv[2]), shared=True) as part: part.write_text(sys.argv[3] * 1000)"
    )

    def write(letter):
        subprocess.run([sys.executable, "-c", code, str(ROOT / "src"), str(path), letter], check=True)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, "ab"))
    assert path.read_text() in ("a" * 1000, "b" * 1000)


def test_no_cell_is_a_formula_and_numbers_stay():
    row = ["=1+1", "+cmd", "-a.png", "@x", "\t=1", "a=b.png", "-0.5", "+3", "-1e-5", -2, 0.5, "", None, "crack"]
    expected = ["'=1+1", "'+cmd", "'-a.png", "'@x", "'\t=1", *row[5:]]
    assert cells(row) == expected
