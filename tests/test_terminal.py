"""Terminals of all kinds: ASCII only, a file instead, a folder that cannot be written, a bar on the line."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from helpers import ROOT, SMALL


def test_ascii_terminals_and_files_get_whole_lines_without_bars(cable, tmp_path):
    root = tmp_path / "Maße"
    root.symlink_to(cable)
    quoted = f'data.root="{root}"'
    command = [sys.executable, str(ROOT / "src" / "check_data.py"), "data=folder", quoted, f"output_dir={tmp_path}/out"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stdout.isascii()
    assert b"64\\xd764" in done.stdout  # 64×64, escaped
    assert b"\r" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["train", "check_data"])
def test_a_folder_that_cannot_be_written_is_one_line_with_the_key(name, run_main, monkeypatch, cable, capfd):
    monkeypatch.chdir("/sys")
    code, err = run_main(name, Path("logs/run"), f"data.root={cable}")
    assert code == 1
    assert re.fullmatch(r"error: logs: .*; choose another folder with output_dir=<folder> or .*\n", err)


def test_an_error_stands_on_a_line_of_its_own_beside_the_bar(cable, cache, tmp_path):
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 120))
    small = [word for word in SMALL if "progress" not in word]
    command = [sys.executable, str(ROOT / "src" / "train.py"), *small, f"data.root={cable}", f"data.cache_dir={cache}"]
    explode = "{_target_: torch.optim.lr_scheduler.MultiStepLR, _partial_: true, milestones: [1], gamma: 1e30}"
    command += [
        f"model.scheduler={explode}",
        "trainer.max_epochs=3",
        "callbacks.progress.refresh_rate=1",
        f"output_dir={tmp_path / 'run'}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm"}
    process = subprocess.Popen(command, env=environment, stdout=follower, stderr=follower)
    os.close(follower)
    text = b""
    while chunk := _read(leader):
        text += chunk
    assert process.wait() == 1
    assert b"Epoch 0" in text  # the bar
    (message,) = re.findall(rb"(?:^|[\r\n])error: [^\r\n]*diverged[^\r\n]*\r?\n", text)
    assert message


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""
