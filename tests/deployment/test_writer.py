"""Reading and writing beside the network: order, bounds, errors, interruption."""

import csv
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from segnet.deployment import inputs, video, writer
from segnet.deployment.pipeline import ahead
from segnet.deployment.prediction import Prediction
from segnet.visualization.overlays import overlay, palette


def brightness(images):
    return [Prediction(torch.from_numpy(p[..., 0].copy())[None] / 255) for p in images]


class Stub:
    """A predictor whose defect is what is bright; it knows what it was given."""

    mc_samples = 0
    model = SimpleNamespace(classes=["defect"], colors=None)

    def __init__(self, call=brightness):
        self.call, self.batches = call, []

    def __call__(self, images):
        self.batches.append([int(p[0, 0, 0]) for p in images])
        return self.call(images)


@pytest.fixture
def folder(tmp_path):
    """20 images, the first of brightness 0, the next of 10, …, in files that sort so."""
    made = tmp_path / "in"
    made.mkdir()
    for i in range(20):
        Image.fromarray(np.full((8, 9, 3), 10 * i, np.uint8)).save(made / f"{i:02}.png")
    return made


def settings(tmp_path, **more):
    return OmegaConf.create(
        {
            "output_dir": str(tmp_path / "out"),
            "batch_size": 3,
            "overlay": True,
            "probabilities": False,
            "segmentation": "rle",
        }
        | more
    )


def rows(tmp_path):
    with (tmp_path / "out" / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def film(path, frames):
    out = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for frame in frames:
        out.write(frame)
    out.release()


def frames(path):
    reader = cv2.VideoCapture(str(path))
    found = []
    while (frame := reader.read())[0]:
        found.append(frame[1])
    return found


LEVELS = [np.full((48, 64, 3), (0, 60, 8 * i), np.uint8) for i in range(30)]  # BGR: redder and redder, no blue


def test_rows_and_batches_come_in_the_order_of_the_files(folder, tmp_path, monkeypatch):
    real = writer.save

    def slow(path, image):  # the earlier, the slower
        time.sleep((20 - int(path.stem[:2])) / 1000)
        real(path, image)

    monkeypatch.setattr(writer, "save", slow)
    monkeypatch.setattr(writer, "THREADS", 4)
    stub = Stub()
    writer.write(stub, inputs.find(str(folder)), settings(tmp_path))
    assert stub.batches == [[10 * i for i in range(start, min(start + 3, 20))] for start in range(0, 20, 3)]
    found = rows(tmp_path)
    assert list(found[0]) == [
        "file", "pixels_defect", "percent_defect", "score", "milliseconds", "verdict", "objects",
    ]  # fmt: skip
    assert [row["file"] for row in found] == [str(folder / f"{i:02}.png") for i in range(20)]
    for i, row in enumerate(found):
        mask = np.asarray(Image.open(tmp_path / "out" / f"{i:02}.png"))
        assert mask.shape == (8, 9)
        assert (mask == (255 if 10 * i / 255 > 0.5 else 0)).all()
        assert int(row["pixels_defect"]) == (mask > 0).sum()
        assert row["score"] == f"{10 * i / 255:.4f}"
        assert (tmp_path / "out" / f"{i:02}_overlay.png").is_file()


def test_unreadable_files_and_videos_among_images(folder, tmp_path):
    (folder / "04.png").write_bytes(b"no image")
    (folder / "07b.mp4").write_bytes(b"no video")
    (folder / "13.png").write_bytes((folder / "13.png").read_bytes()[:45])
    film(folder / "09b.mp4", LEVELS)
    stub = Stub()
    with pytest.raises(ValueError, match=r"3 of 22 files could not be read: \S*04.png: .*; \S*07b.mp4: .*; \S*13.png"):
        writer.write(stub, inputs.find(str(folder)), settings(tmp_path))
    # Batches are of three files, as many as can be read; a video stands first in its own: 08, 09 and 09b.
    names = [row["file"].rpartition("/")[2].partition(".")[0] for row in rows(tmp_path)]
    assert " ".join(names) == "00 01 02 03 05 06 07 09b 08 09 10 11 12 14 15 16 17 18 19"
    assert [b for b in stub.batches if len(b) > 1][1] == [30, 50]


def test_a_video_keeps_its_frames_in_order(tmp_path, monkeypatch):
    film(tmp_path / "film.mp4", LEVELS)
    given = frames(tmp_path / "film.mp4")
    masks = [p.mask() for p in brightness([frame[..., ::-1] for frame in given])]
    colors = palette(1)
    film(tmp_path / "serial.mp4", [
        np.ascontiguousarray(overlay(frame[..., ::-1], mask, colors, True)[..., ::-1])
        for frame, mask in zip(given, masks, strict=True)
    ])  # fmt: skip
    real = video.overlay

    def slow(image, *rest):
        time.sleep((255 - int(image.mean())) / 20000)
        return real(image, *rest)

    monkeypatch.setattr(video, "overlay", slow)
    writer.write(Stub(), [tmp_path / "film.mp4"], settings(tmp_path))
    written = frames(tmp_path / "out" / "film_overlay.mp4")
    assert len(written) == 30
    assert all(np.array_equal(a, b) for a, b in zip(written, frames(tmp_path / "serial.mp4"), strict=True))
    (row,) = rows(tmp_path)
    assert int(row["pixels_defect"]) == round(sum(int(mask.sum()) for mask in masks) / 30)
    assert row["score"] == f"{max(frame[..., 2].max() for frame in given) / 255:.4f}"


def test_memory_does_not_grow_with_the_files(folder, tmp_path, monkeypatch):
    """Writing that does not get on holds up the network, and that the reading."""
    monkeypatch.setattr(writer, "THREADS", 2)
    go, reads = threading.Event(), []
    real_save, real_read = writer.save, writer.read_rgb

    def save(path, image):
        assert go.wait(60)
        real_save(path, image)

    def read(path):
        reads.append(path)
        return real_read(path)

    monkeypatch.setattr(writer, "save", save)
    monkeypatch.setattr(writer, "read_rgb", read)
    stub = Stub()
    run = threading.Thread(target=writer.write, args=(stub, inputs.find(str(folder)), settings(tmp_path)))
    run.start()
    seen = None
    while (len(reads), len(stub.batches)) != seen:
        seen = len(reads), len(stub.batches)
        time.sleep(0.3)
    try:
        assert len(stub.batches) <= 3  # of 7: two of them wait, the third is being handed over
        assert len(reads) <= 9 + 7
    finally:
        go.set()
        run.join()
    assert len(rows(tmp_path)) == 20


def test_ahead_bounds_what_waits_by_number_and_bytes():
    drawn = []

    def tasks(sizes):
        for i, size in enumerate(sizes):
            drawn.append(i)
            yield size, lambda i=i: i

    with ThreadPoolExecutor(2) as pool:
        for most, room, sizes, expected in [(3, 100, [1] * 9, 3), (9, 10, [5] * 9, 2), (9, 10, [20] * 9, 0)]:
            drawn.clear()
            found = []
            for result in ahead(pool, tasks(sizes), most, room):
                found.append(result)
                assert len(drawn) - len(found) <= expected
            assert found == list(range(9))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_whole_files_and_the_rows_before_it(folder, tmp_path, error):
    def call(images):
        if images[0][0, 0, 0] == 120:  # the fifth batch
            raise error
        return brightness(images)

    threads = threading.active_count()
    with pytest.raises(error):
        writer.write(Stub(call), inputs.find(str(folder)), settings(tmp_path))
    assert threading.active_count() == threads
    assert [row["file"][-6:-4] for row in rows(tmp_path)] == [f"{i:02}" for i in range(12)]
    for path in (tmp_path / "out").glob("*.png"):
        Image.open(path).load()


def test_a_result_that_cannot_be_written_is_an_error(folder, tmp_path, monkeypatch):
    def save(path, image):
        raise OSError(f"{path}: could not be written")

    monkeypatch.setattr(writer, "save", save)
    with pytest.raises(OSError, match="could not be written"):
        writer.write(Stub(), inputs.find(str(folder)), settings(tmp_path))


def test_the_networks_threads_are_left_as_they_were(folder, tmp_path):
    before = torch.get_num_threads()
    writer.write(Stub(), inputs.find(str(folder)), settings(tmp_path))
    later = ThreadPoolExecutor(1)
    assert [torch.get_num_threads(), later.submit(torch.get_num_threads).result()] == [before, before]
    later.shutdown()


@pytest.mark.parametrize(
    ("names", "more", "shared"),
    [
        (["a.png", "a_overlay.png"], {}, "a_overlay.png"),
        (["a.png", "a.jpg"], {}, "a.png"),
        (["A.png", "a.png"], {}, "a.png"),
        (["é.png", "e\u0301.png"], {}, "é.png"),
        (["a.png", "a_prob.png"], {"probabilities": True}, "a_prob.png"),
        (["film.mp4", "film.avi"], {}, "film_overlay.mp4"),
        (["a.png", "a_prob.png"], {}, None),
        (["a.png", "a_overlay.png"], {"overlay": False}, None),
        (["a.png", "a.mp4"], {}, None),
    ],
)
def test_files_that_would_become_one_are_told_before_anything_is_written(tmp_path, names, more, shared):
    (tmp_path / "in").mkdir()
    for name in names:
        if name.endswith(("png", "jpg")):
            Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "in" / name)
        else:
            film(tmp_path / "in" / name, LEVELS[:2])
    cfg = settings(tmp_path, **more)
    if shared is None:
        writer.write(Stub(), inputs.find(str(tmp_path / "in")), cfg)
        assert len(rows(tmp_path)) == 2
        return
    with pytest.raises(ValueError, match=f"would both become {shared}; rename one, or predict them separately"):
        writer.write(Stub(), inputs.find(str(tmp_path / "in")), cfg)
    assert not (tmp_path / "out").exists()


def test_a_name_that_would_be_too_long_is_told_before_anything_is_written(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "é" * 123):  # of 246 bytes, and 258 with _overlay.png
        Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "in" / f"{name}.png")
    files = inputs.find(str(tmp_path / "in"))
    with pytest.raises(ValueError, match="would be a name of 258 bytes, and 255 is the limit; rename it"):
        writer.write(Stub(), files, settings(tmp_path))
    assert not (tmp_path / "out").exists()
    writer.write(Stub(), files, settings(tmp_path, overlay=False))
    assert len(rows(tmp_path)) == 2


def test_files_that_are_none_are_a_line_each_and_the_others_are_predicted(folder, tmp_path, capsys):
    """A FIFO would be waited for, and a broken link end the whole command."""
    os.mkfifo(folder / "03b.png")
    os.mkfifo(folder / "03c.mp4")
    (folder / "05b.png").symlink_to("nowhere.png")
    (folder / "05c.png").mkdir()
    (folder / "07b.png").symlink_to("/dev/zero")
    (folder / "07c.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n")
    with pytest.raises(ValueError, match=r"6 of 26 files could not be read"):
        writer.write(Stub(), inputs.find(str(folder)), settings(tmp_path))
    assert len(rows(tmp_path)) == 20
    told = capsys.readouterr().err
    for name, reason in [
        ("03b.png", "a FIFO and no image file"), ("03c.mp4", "a FIFO and no image file"),
        ("05b.png", "a link to a file that does not exist"), ("05c.png", "a folder and no image file"),
        ("07b.png", "a device and no image file"), ("07c.mp4", "cannot be read as a video"),
    ]:  # fmt: skip
        assert [line for line in told.splitlines() if f"{name}: " in line and reason in line], name


def test_what_a_folder_holds_besides_is_counted(folder, caplog):
    for name in ("._00.png", "notes.txt", "list.csv"):
        (folder / name).write_bytes(b"x")
    (folder / "more").mkdir()
    (folder / "more" / "x.png").write_bytes(b"x")
    with caplog.at_level("INFO"):
        assert len(inputs.find(str(folder))) == 20
        assert len(inputs.find(f"{folder}/*")) == 20
        assert len(inputs.find(f"{folder}/*.png")) == 20
    others = "passed over 1 .csv file (list.csv), 1 .txt file (notes.txt), 1 hidden file (._00.png)"
    assert [record.message for record in caplog.records] == [
        f"input={folder}: {others}, 1 sub-folder (more): input='{folder}/**/*' takes theirs too",
        f"input={folder}/*: {others}",
        f"input={folder}/*.png: passed over 1 hidden file (._00.png)",
    ]
    with pytest.raises(ValueError, match=r"no image or video there \(passed over 1 \.txt file"):
        inputs.find(f"{folder}/*.txt")


def test_several_pages_are_told(folder, tmp_path):
    pages = [Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in (1, 2)]
    pages[0].save(folder / "04b.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"1 of 21 files could not be read: \S*04b\.tif: holds 2 pages or frames"):
        writer.write(Stub(), inputs.find(str(folder)), settings(tmp_path))
    assert len(rows(tmp_path)) == 20


def test_large_images_are_predicted_one_by_one(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "TOGETHER", 8 * 9 * 2)  # two of these
    stub = Stub()
    writer.write(stub, inputs.find(str(folder)), settings(tmp_path))
    sizes = [len(batch) for batch in stub.batches]
    assert sizes == [2, 1] * 6 + [2]
    assert [i for batch in stub.batches for i in batch] == [10 * i for i in range(20)]
    assert [row["file"][-6:-4] for row in rows(tmp_path)] == [f"{i:02}" for i in range(20)]


def test_a_large_image_is_read_when_its_turn_comes(folder, tmp_path, monkeypatch):
    """Of images that take more than the bound, none is decoded ahead, and none predicted while another is written."""
    monkeypatch.setattr(writer, "READ_AHEAD", 1)
    monkeypatch.setattr(writer, "ROOM", 1)
    events, real_save, real_read = [], writer._save, writer.read_rgb

    def saved(*arguments):
        row = real_save(*arguments)
        events.append("saved")
        return row

    def read(path):
        events.append("read")
        return real_read(path)

    monkeypatch.setattr(writer, "_save", saved)
    monkeypatch.setattr(writer, "read_rgb", read)
    writer.write(Stub(), inputs.find(str(folder)), settings(tmp_path, batch_size=1))
    assert events == ["read", "saved"] * 20


def test_names_that_spreadsheets_would_run_are_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save("=cmd().png")
    stub = Stub()
    stub.model = SimpleNamespace(classes=["crack"], colors=None)
    writer.write(stub, inputs.find("=cmd().png"), settings(tmp_path))
    assert [row["file"] for row in rows(tmp_path)] == ["'=cmd().png"]


def test_the_bits_of_the_training_images_hold(tmp_path):
    Image.fromarray(np.full((8, 9), 800, np.uint16)).save(tmp_path / "a.png")
    stub = Stub()
    stub.model = SimpleNamespace(classes=["defect"], colors=None, bits=12)
    writer.write(stub, [tmp_path / "a.png"], settings(tmp_path))
    writer.write(Stub(), [tmp_path / "a.png"], settings(tmp_path))
    assert stub.batches == [[800 >> 4]]
