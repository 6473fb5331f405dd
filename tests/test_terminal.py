"""Terminals of all kinds: ASCII only, a file instead, a folder that cannot be written, a bar on the line."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from helpers import ROOT, SMALL, call_main
from segnet import terminal


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
    assert re.fullmatch(r"error: logs: .* choose another folder with output_dir=<folder> or .*\n", err)


def test_an_error_stands_on_a_line_of_its_own_beside_the_bar(cable, cache, tmp_path):
    small = [word for word in SMALL if "progress" not in word]
    command = [sys.executable, str(ROOT / "src" / "train.py"), *small, f"data.root={cable}", f"data.cache_dir={cache}"]
    explode = "{_target_: torch.optim.lr_scheduler.MultiStepLR, _partial_: true, milestones: [1], gamma: 1e30}"
    command += [
        f"model.scheduler={explode}",
        "trainer.max_epochs=3",
        "callbacks.progress.refresh_rate=1",
        f"output_dir={tmp_path / 'run'}",
    ]
    code, text = on_a_terminal(command)
    assert code == 1
    assert "epoch 1/3:" in text  # the bar
    (message,) = re.findall(r"(?:^|[\r\n])error: [^\r\n]*diverged[^\r\n]*\r?\n", text)
    assert message


FIGURES = r"train/loss \d\.\d{4}  val/loss \d\.\d{4}  val/iou (\d\.\d{4}|–)  [\d.]+ images/s"
# Other products and tables that Lightning shows by itself.
STRANGERS = re.compile(r"litlogger|tip:|TPU|GPU available|FLOPs|lightning|\bAMP\b|estimate number of|warning", re.I)


def quick(cable, cache, out, *more):
    """A training with nothing of `SMALL` that makes it quieter than a user's."""
    return (
        "trainer=cpu",
        "data.image_size=32",
        f"data.root={cable}",
        f"data.cache_dir={cache}",
        f"output_dir={out}",
        *more,
    )


def test_a_training_into_a_file_is_plain_lines_a_line_an_epoch(cable, cache, tmp_path, capfd, caplog):
    assert call_main("train", *quick(cable, cache, tmp_path / "run", "trainer.max_epochs=2")) == 0
    out, err = capfd.readouterr()
    told = err.splitlines()
    assert re.fullmatch(r"precision: \S+ on .*; run: .*/run", told[0])
    assert re.fullmatch(r"24 of 24 images used \(.*\); left out: none", told[1])
    assert len(told) == 2
    lines = out.splitlines()
    assert re.fullmatch(f"epoch 1/2  {FIGURES}  \\d+ s left", lines[0])
    assert re.fullmatch(f"epoch 2/2  {FIGURES}", lines[1])
    assert len(lines) <= 20  # 24 epochs and the report are one screen
    assert not any(line.startswith("epoch") for line in lines[2:])
    assert lines[-2] == f"model card {tmp_path}/run/README.md"
    text = (out + err + "".join(caplog.messages)).replace("\n", "").replace(str(tmp_path), "")
    assert text.isprintable()  # no control characters
    assert not STRANGERS.search(text)
    shown = re.search(r"(\d+) more figures of test are in the model card; -v prints them here", out)
    assert shown
    assert int(shown[1]) > 3


def test_verbose_shows_the_rest(cable, cache, tmp_path, capfd, caplog):
    more = quick(cable, cache, tmp_path / "run", "trainer.max_epochs=1", "~callbacks.panels")
    assert call_main("train", *more, "-v") == 0
    out, err = capfd.readouterr()
    assert "Trainable params" in out + err  # the network's layers
    assert "GPU available" in caplog.text  # in a process of its own these go to stderr
    assert "test/boundary_iou" in out
    assert "-v prints" not in out


def test_a_terminal_has_a_bar_that_goes_and_a_line_an_epoch(cable, cache, tmp_path):
    given = quick(cable, cache, tmp_path / "run", "trainer.max_epochs=2", "own_size=false", "~callbacks.panels")
    code, text = on_a_terminal([sys.executable, str(ROOT / "src" / "train.py"), *given])
    assert code == 0, text
    assert re.search(r"\repoch 1/2: +\d+%", text)  # the bar
    assert "validation: " in text
    # What stays: of each line what is written behind its last carriage return.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    epochs = [line for line in lines if line.startswith("epoch")]
    assert re.fullmatch(f"epoch 1/2  {FIGURES}  \\d+ s left", epochs[0])
    assert re.fullmatch(f"epoch 2/2  {FIGURES}", epochs[1])
    assert len(epochs) == 2
    assert not any("%|" in line for line in lines)  # nothing of the bar
    assert not STRANGERS.search(" ".join(lines).replace(str(tmp_path), ""))


def test_lines_of_jobs_bear_their_numbers(cable, cache, tmp_path, capfd):
    sweep = quick(
        cable, cache, tmp_path / "sweep", "trainer.max_epochs=1", "own_size=false", "~callbacks.panels", "seed=0,1"
    )
    assert call_main("train", "-m", *sweep) == 0
    out, err = capfd.readouterr()
    for job in "01":
        mine = [line.removeprefix(f"[{job}] ") for line in out.splitlines() if line.startswith(f"[{job}] ")]
        assert mine[0].endswith(f"seed={job}")
        assert re.fullmatch(f"epoch 1/1  {FIGURES}", mine[1])
        assert mine[-2] == f"model card {tmp_path}/sweep/{job}/README.md"
        assert f"[{job}] precision: " in err
    assert all(re.match(r"\[[01]\] ", line) for line in err.splitlines())


def test_names_within_names_and_streams_that_were_kept(capsys):
    with terminal.named("0"):
        kept = sys.stderr
        with terminal.named("fold 1"):
            print("a\nb", end="")
            print("c\n\nd")
        print("e")
    with terminal.named("1"):
        print("f", file=kept)
        kept.write("\rbar")
    print("g")
    out, err = capsys.readouterr()
    assert out == "[0] [fold 1] a\n[0] [fold 1] bc\n[0] [fold 1] \n[0] [fold 1] d\n[0] e\ng\n"
    assert err == "[1] f\n\rbar"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (3540, "59 min"), (3590, "1 h 0 min"), (12000, "3 h 20 min")],
)
def test_durations(seconds, told):
    from segnet.training.progress import duration

    assert duration(seconds) == told


def on_a_terminal(command: list[str]) -> tuple[int, str]:
    """Run a command on a terminal of 120 columns; its exit code and everything that the terminal got."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 120))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm"}
    process = subprocess.Popen(command, env=environment, stdout=follower, stderr=follower)
    os.close(follower)
    text = b""
    while chunk := _read(leader):
        text += chunk
    os.close(leader)
    return process.wait(), text.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


def test_a_warning_is_one_line_without_code():
    script = (
        "import warnings; from segnet import terminal; terminal.quieten(); import lightning.pytorch; "
        "warnings.warn('the cache is damaged'); terminal.warn('and slow')"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")})
    assert done.stderr.splitlines() == ["warning: the cache is damaged", "warning: and slow"]


@pytest.mark.parametrize("flags", [[], ["-u"]])
def test_output_that_nobody_reads_any_more_ends_a_command_without_a_traceback(flags):
    command = [sys.executable, *flags, ROOT / "src" / "train.py", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()  # as `| head -1` does
    with process:
        assert process.stderr.read() == ""
    assert process.returncode == 141 or not flags  # what is buffered is noticed at the end
