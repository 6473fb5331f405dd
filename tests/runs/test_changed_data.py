"""A run is resumed on the files it began with, or says what has changed."""

import csv
import os
import shutil

import pytest

from helpers import SMALL, call_main, rows


@pytest.fixture(scope="module")
def begun(cable, tmp_path_factory):
    """A run of one epoch on data of its own: (its folder, the data's)."""
    out, root = (tmp_path_factory.mktemp("begun") / name for name in ("run", "data"))
    shutil.copytree(cable, root)
    code = call_main(
        "train", *SMALL, f"data.root={root}", f"data.cache_dir={root}/cache", "model.net.widths=[4,4,4,4,4]",
        "~callbacks.panels", f"output_dir={out}",
    )  # fmt: skip
    assert code == 0
    return out, root


@pytest.fixture
def data(begun):
    """The data's folder, put back afterwards."""
    kept = begun[1].with_name("kept")
    shutil.copytree(begun[1], kept)
    yield begun[1]
    shutil.rmtree(begun[1])
    kept.rename(begun[1])


def test_every_image_is_on_record_with_its_split(begun):
    with (begun[0] / "data.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    images = sorted((begun[1] / "images").iterdir())
    assert sorted(row["image"] for row in found) == [f"images/{path.name}" for path in images]
    for row in found:
        assert row["mask"] == row["image"].replace("images", "masks")
        assert int(row["mask_bytes"]) == (begun[1] / row["mask"]).stat().st_size
    from segnet.data.splits import ByHash

    splits = ByHash(0.7, 0.15, 0.15)(begun[1], [f"images/{path.name}" for path in images])
    assert {name: [row["image"] for row in found if row["split"] == name] for name in splits} == splits


def added(root, image, mask):
    shutil.copy(image, image.with_name("new.png"))
    shutil.copy(mask, mask.with_name("new.png"))


def removed(root, image, mask):
    image.unlink()
    mask.unlink()


def changed_mask(root, image, mask):
    content = mask.stat()
    shutil.copy(next(path for path in mask.parent.iterdir() if path != mask), mask)
    os.utime(mask, ns=(content.st_atime_ns, content.st_mtime_ns + 10**9))


def changed_image(root, image, mask):
    image.write_bytes(image.read_bytes() + b"\0")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (added, r"1 added (images/new.png)"),
        (removed, r"1 removed (images/"),
        (changed_mask, r"1 with another image or mask file (images/"),
        (changed_image, r"1 with another image or mask file (images/"),
    ],
)
def test_changed_data_is_told_and_refused(begun, data, tmp_path, capfd, change, told):
    out = tmp_path / "run"
    shutil.copytree(begun[0], out)
    image = sorted((data / "images").iterdir())[3]
    change(data, image, data / "masks" / image.name)
    capfd.readouterr()
    assert call_main("train", f"resume={out}", "trainer.max_epochs=2") == 1
    err = capfd.readouterr().err
    assert f"error: the data in {data} has changed since the run began: {told}" in err
    assert f"resume={out} resume_changed_data=true" in err
    assert len(rows(out)) == 1


def test_told_so_it_goes_on_with_the_changed_data(begun, data, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(begun[0], out)
    image = next((data / "images").iterdir())
    added(data, image, data / "masks" / image.name)
    with pytest.warns(UserWarning, match="has changed since the run began.*the run continues with it"):
        assert call_main("train", f"resume={out}", "resume_changed_data=true", "trainer.max_epochs=2") == 0
    assert len(rows(out)) == 2
    assert call_main("train", f"resume={out}") == 0  # the change is on record


def test_another_split_is_told_and_unchanged_data_is_not(begun, tmp_path, capfd):
    out = tmp_path / "run"
    shutil.copytree(begun[0], out)
    assert call_main("train", f"resume={out}") == 0
    with (out / "data.csv").open() as file:
        text = file.read()
    (out / "data.csv").write_text(text.replace("train,", "val,", 1))
    assert call_main("train", f"resume={out}") == 1
    assert "1 in another split (images/" in capfd.readouterr().err


def test_a_name_that_is_no_utf8_is_recorded_and_compared(data, tmp_path):
    """Linux takes any bytes as a name; other programs write such."""
    image = next((data / "images").iterdir())
    odd = os.fsdecode(b"\xff\xe9.png")
    for part in ("images", "masks"):
        (data / part / image.name).rename(data / part / odd)
    out = tmp_path / "run"
    small = (*SMALL, "data=folder", f"data.root={data}", "data.cache_dir=null", "own_size=false")
    assert call_main("train", *small, f"output_dir={out}") == 0
    assert os.fsencode(odd) in (out / "data.csv").read_bytes()
    assert call_main("train", f"resume={out}", "trainer.max_epochs=2") == 0
