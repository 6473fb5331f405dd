"""A folder for each run, and one process in it at a time."""

import os
import subprocess
import sys

import pytest

from helpers import ROOT, SMALL, call_main, rows, start, wait_for
from segnet.runs.folders import fresh


@pytest.fixture
def given(cable, cache):
    small = [*SMALL, "model.net.widths=[4,4,4,4,4]", "~callbacks.panels"]
    return [*small, f"data.root={cable}", f"data.cache_dir={cache}"]


def content(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def same_second(tmp_path):
    """Overrides that make the folder a default, as if it were named by the time, and that folder."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    folder = tmp_path / "logs" / "now"
    (tmp_path / "conf" / "experiment" / "now.yaml").write_text(f"# @package _global_\noutput_dir: {folder}\n")
    return [f"hydra.searchpath=[file://{tmp_path}/conf]", "experiment=now"], folder


def test_a_second_run_of_the_same_second_gets_a_folder_of_its_own(given, same_second):
    overrides, folder = same_second
    for i in range(2):
        assert call_main("train", *given, *overrides, f"seed={i}") == 0
    second = folder.with_name("now_1")
    for i, run in enumerate((folder, second)):
        assert f"seed={i}" in (run / ".hydra" / "overrides.yaml").read_text()
        assert str(run) in (run / ".hydra" / "config.yaml").read_text()
        assert (run / "checkpoints" / "last.ckpt").is_file()
        assert (run / "results.json").is_file()


def test_a_second_sweep_of_the_same_second_gets_a_folder_of_its_own(given, same_second):
    overrides, folder = same_second
    for i in range(2):
        assert call_main("train", *given, *overrides, f"seed={i},{i + 2}", "-m") == 0
    for i, sweep in enumerate((folder, folder.with_name("now_1"))):
        assert (sweep / "leaderboard.md").is_file()
        for job in (0, 1):
            assert f"seed={i + 2 * job}" in (sweep / str(job) / ".hydra" / "overrides.yaml").read_text()
            assert (sweep / str(job) / "results.json").is_file()


def test_a_claim_is_atomic(tmp_path):
    """Four processes that begin together."""
    code = "import sys, pathlib, segnet.runs.folders as f; print(f.fresh(pathlib.Path(sys.argv[1])))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    claimed = [process.communicate(timeout=60)[0].strip() for process in started]
    assert sorted(claimed) == sorted(str(tmp_path / name) for name in ("run", "run_1", "run_2", "run_3"))
    assert fresh(tmp_path / "new" / "run") == tmp_path / "new" / "run"


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]])
def test_a_run_replaces_nothing(given, tmp_path, capfd, sweep):
    (tmp_path / "README.md").write_text("mine")
    before = content(tmp_path)
    assert call_main("train", *sweep, *given, f"output_dir={tmp_path}") == 1
    assert capfd.readouterr().err.strip() == (
        f"error: output_dir={tmp_path}: is not empty (README.md, …), and a new run would replace what is there; choose "
        f"another folder"
    )
    assert content(tmp_path) == before


def test_a_study_replaces_nothing(given, tmp_path, capfd):
    (tmp_path / "study.db").write_text("mine")
    before = content(tmp_path)
    assert call_main("tune", *given, f"output_dir={tmp_path}") == 1
    assert f"output_dir={tmp_path}: is not empty (study.db, …)" in capfd.readouterr().err
    assert content(tmp_path) == before


def test_one_process_at_a_time_works_in_a_run_folder(given, tmp_path, capfd):
    out, log = tmp_path / "run", tmp_path / "log.txt"
    given = [*given, "data.num_workers=2", f"output_dir={out}"]
    process = start("train", *given, "trainer.max_epochs=500", log=log)
    try:
        wait_for(lambda: len(rows(out)) >= 1, process, log)
        before = (out / ".hydra" / "config.yaml").read_bytes()
        assert call_main("train", f"resume={out}") == 1
        assert f"{out}: another process works on this run; wait for its end, or stop it" in capfd.readouterr().err
        assert call_main("train", *given) == 1
        assert f"or resume the run that is there: resume={out}" in capfd.readouterr().err
        assert (out / ".hydra" / "config.yaml").read_bytes() == before
        assert process.exitcode is None
    finally:
        process.kill()
        process.join()
    # At once: loaders that outlive the killed process keep nobody out. Fewer epochs are an error after the lock.
    assert call_main("train", f"resume={out}", "trainer.max_epochs=0") == 1
    assert "a resumed run can only get more" in capfd.readouterr().err
