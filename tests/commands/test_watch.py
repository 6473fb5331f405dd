"""predict.py of a watched folder: each file once, when it is whole; what is left out is counted and told."""

import csv
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import call_main
from segnet.deployment import watched
from segnet.deployment.watched import WatchedFolder


def predict(trained, folder, out, *overrides):
    words = (f"input={folder}", "watch=true", f"output_dir={out}", *overrides)
    return call_main("predict", f"ckpt_path={trained}/checkpoints/best.ckpt", *words)


def rows(out):
    with (out / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def line(cable, tmp_path):
    """A line: what it does to a folder while predict.py runs, step by step, ended by Ctrl-C; and the folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    images = sorted((cable / "images").iterdir())
    over, workers = threading.Event(), []

    def begin(*steps):
        def work():
            for step in (until("predictions.csv"), *steps):
                step(folder, images)
                if over.wait(0.1):  # predict.py has ended by itself
                    return
            os.kill(os.getpid(), signal.SIGINT)

        workers.append(threading.Thread(target=work, daemon=True))
        workers[0].start()

    yield begin, folder, images, tmp_path / "out", over
    over.set()
    for worker in workers:
        worker.join()


def until(name, count=1):
    """Wait until predict.py has written so many files of this name's kind."""

    def step(folder, images):
        end = time.monotonic() + 60
        while len(list((folder.parent / "out").glob(name))) < count and time.monotonic() < end:
            time.sleep(0.02)

    return step


def test_files_are_predicted_once_when_they_are_whole(trained, line, tmp_path, capfd):
    begin, folder, images, out, _over = line
    shutil.copy(images[0], folder / "a.png")  # is there before
    content = images[1].read_bytes()

    def half(folder, images):
        with (folder / "b.png").open("wb") as file:
            for start in range(0, len(content), len(content) // 6):
                file.write(content[start : start + len(content) // 6])
                file.flush()
                time.sleep(0.2)  # it takes longer than a file that does not change is waited for

    def renamed(folder, images):
        shutil.copy(images[2], folder / ".c.png.tmp")
        (folder / ".c.png.tmp").rename(folder / "c.png")

    def others(folder, images):
        (folder / "notes.txt").write_text("no image")
        (folder / ".hidden.png").write_bytes(b"no image")
        (folder / "empty.png").touch()

    begin(half, renamed, others, until("?_overlay.png", 3))
    code = predict(trained, folder, out)
    printed = capfd.readouterr()
    assert code == 0, printed.err
    assert sorted(Path(row["file"]).name for row in rows(out)) == ["a.png", "b.png", "c.png"]
    told = "3 files used; left out: 1 that were not whole or not predicted yet (empty.png), 1 .txt file (notes.txt), "
    assert told + "1 hidden file (.hidden.png)" in printed.out
    code = call_main(
        "predict", f"ckpt_path={trained}/checkpoints/best.ckpt", f"input={folder}/?.png", f"output_dir={tmp_path}/o"
    )
    assert code == 0
    for name in ("a.png", "b.png", "c_overlay.png"):  # the same bits as of files that were always there
        assert np.array_equal(np.asarray(Image.open(out / name)), np.asarray(Image.open(tmp_path / "o" / name)))
    assert {image["file_name"] for image in json.loads((out / "objects.json").read_text())["images"]} == {
        "a.png", "b.png", "c.png",
    }  # fmt: skip
    assert not list(out.glob(".*.part"))


def test_what_cannot_be_read_is_told_at_once_and_the_others_go_on(trained, line, capfd):
    begin, folder, images, out, _over = line
    (folder / "bad.png").write_bytes(images[0].read_bytes()[:300])
    (folder / "dir.jpg").mkdir()

    def repaired(folder, images):
        shutil.copy(images[0], folder / "bad.png")

    def same_name(folder, images):
        Image.open(images[1]).convert("RGB").save(folder / "a.jpg")

    def good(folder, images):
        shutil.copy(images[1], folder / "a.png")

    waited = time.monotonic()
    begin(
        lambda *_: time.sleep(1.2), repaired, until("bad_overlay.png"), good, until("a_overlay.png"), same_name,
        lambda *_: time.sleep(1.2),
    )  # fmt: skip
    code = predict(trained, folder, out)
    printed = capfd.readouterr()
    assert time.monotonic() - waited < 60
    assert code == 1
    assert printed.err.count("left out: ") == 3  # bad.png as long as it was half, the folder, a.jpg
    assert sorted(Path(row["file"]).name for row in rows(out)) == ["a.png", "bad.png"]
    assert "2 files used; left out: 2 that could not be read" in printed.out
    assert "error: 2 of 4 files could not be read: " in printed.err
    assert "a.png and " in printed.err
    assert "would both become a.png" in printed.err


def test_the_verdict_is_the_exit_code_and_a_second_run_has_all_of_them(trained, line, capfd):
    _, folder, images, out, _ = line
    for image in images:
        shutil.copy(image, folder)
    code = predict(trained, folder, out, "live.seconds=4", "exit_code=verdict", "batch_size=3")
    verdicts = [row["verdict"] for row in rows(out)]
    assert len(verdicts) == 24
    assert code == (10 if "defective" in verdicts else 0)


def test_results_never_lie_in_the_folder_that_is_watched(trained, line, capfd):
    _, folder, _images, _out, _ = line
    for place in (folder, folder / "results"):
        assert predict(trained, folder, place) == 1
        assert f"output_dir={place}: is input={folder}, or lies in it" in capfd.readouterr().err
        assert not list(folder.iterdir())


def test_a_folder_that_vanishes_is_one_line(trained, line, capfd):
    begin, folder, images, out, over = line
    shutil.copy(images[0], folder / "a.png")
    begin(until("a_overlay.png"), lambda folder, _: shutil.rmtree(folder), lambda *_: over.wait(60))
    code = predict(trained, folder, out)
    over.set()
    printed = capfd.readouterr()
    assert code == 1
    assert f"error: {folder}: No such file or directory" in printed.err
    assert len(rows(out)) == 1


def test_a_file_is_given_when_it_has_not_changed_for_a_while(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(watched.time, "monotonic", lambda: now[0])
    folder = WatchedFolder(tmp_path)
    file = tmp_path / "a.png"

    def look(seconds):
        now[0] += seconds
        return [path.name for path in folder.ready()]

    file.write_bytes(b"1")
    assert [look(0.0), look(0.4)] == [[], []]
    file.write_bytes(b"12")
    assert [look(0.2), look(0.4), look(0.2), look(9.0)] == [[], [], ["a.png"], []]
    file.write_bytes(b"123")  # read already, so it counts once
    assert [look(1.0), look(1.0)] == [[], []]
    folder.failed[file] = "broken"
    assert [look(1.0), look(1.0)] == [[], ["a.png"]]  # it has changed since it was given
    folder.failed[file] = "broken"
    assert [look(1.0), look(1.0), folder.waiting] == [[], [], []]
    (tmp_path / "b.png").symlink_to(tmp_path / "nothing")
    assert [look(1.0), look(1.0), folder.waiting] == [[], [], ["b.png"]]
    (tmp_path / "b.png").unlink()
    assert [look(1.0), folder.waiting] == [[], []]
