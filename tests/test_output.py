"""Where commands write: never among what they read, and what fails deletes nothing that was there."""

import pytest

from helpers import SMALL
from segnet.files import check_output


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copied(source, target):
    for path in source.rglob("*.png"):
        (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        (target / path.relative_to(source)).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("below", ["", "images", "new", "images/new", "link"])
@pytest.mark.parametrize("name", ["predict", "train", "check_data", "eval", "export", "tune", "reproduce"])
def test_a_command_does_not_write_into_what_it_reads(run_main, cable, trained, tmp_path, name, below):
    data = copied(cable, tmp_path / "data")
    (data / "link").symlink_to(data / "images")
    before = content(data)
    given = {
        "predict": [f"input={data if below in ('', 'new') else data / 'images'}"],
        "train": [f"data.root={data}"],
        "check_data": [f"data.root={data}"],
        "eval": [f"data.root={data}"],
        "export": [f"data.root={data}"],
        "tune": [*SMALL, f"data.root={data}", "trials=1"],
        "reproduce": [f"camvid={data}", f"magnetic_tile={cable}"],
    }
    checkpoint = [f"ckpt_path={trained}/checkpoints/best.ckpt"] if name in ("predict", "eval", "export") else []
    if name == "predict" and below in ("", "new"):  # of a folder only the images that lie in it are predicted
        (data / "a.png").write_bytes(next(iter(before.values())))
        before = content(data)
    code, err = run_main(name, data / below, *checkpoint, *given[name])
    assert code == 1
    assert "error: output_dir=" in err
    assert "choose" in err
    assert content(data) == before  # not even a record


@pytest.mark.parametrize("given", ["photos/a.png", "photos/*.png"])
def test_nor_beside_a_single_image(run_main, cable, trained, tmp_path, monkeypatch, given):
    copied(cable / "images", tmp_path / "photos")
    first = sorted((tmp_path / "photos").iterdir())[0]
    first.rename(tmp_path / "photos" / "a.png")
    before = content(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    code, err = run_main("predict", "photos", f"ckpt_path={trained}/checkpoints/best.ckpt", f"input={given}")
    assert code == 1
    assert "output_dir=" in err
    assert "photos: holds files that no command here has made (a.png, " in err
    assert content(tmp_path / "photos") == before
    code, err = run_main("predict", "logs/a", f"ckpt_path={trained}/checkpoints/best.ckpt", f"input={given}")
    assert code == 0, err


@pytest.mark.parametrize("name", ["benchmark", "calibrate", "check_data", "compare", "eval", "export", "predict"])
def test_files_that_no_command_has_made_are_not_replaced(run_main, cable, trained, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / "bent_001.png").write_bytes(b"a mask that took an hour")
    before = content(out)
    given = {
        "check_data": [f"data.root={cable}"],
        "compare": [f"runs={trained}"],
        "predict": [f"input={cable}/images/bent_001.png"],
        "calibrate": ["target=f1"],
    }.get(name, [])
    checkpoint = [f"ckpt_path={trained}/checkpoints/best.ckpt"] if name not in ("check_data", "compare") else []
    code, err = run_main(name, out, *checkpoint, *given)
    assert code == 1
    assert f"output_dir={out}: holds files that no command here has made (bent_001.png), which results could" in err
    assert content(out) == before
    if name == "predict":
        (out / "bent_001.png").unlink()
        for _ in range(2):  # the second time it replaces its own
            assert run_main(name, out, *checkpoint, *given)[0] == 0


def test_data_of_the_checkpoint_are_no_place_for_results(run_main, trained, tmp_path):
    from segnet.training.checkpoint import read

    root = read(trained / "checkpoints" / "best.ckpt")["config"]["data"]["root"]
    for name in ("eval", "export"):
        code, err = run_main(name, f"{root}/results", f"ckpt_path={trained}/checkpoints/best.ckpt")
        assert code == 1
        assert f"is data.root={root}, or lies in it" in err


def test_a_folder_beside_is_no_folder_inside(tmp_path):
    (tmp_path / "data").mkdir()
    check_output(tmp_path / "data-results", "data.root", tmp_path / "data")
    check_output(tmp_path, "data.root", tmp_path / "data")
    with pytest.raises(ValueError, match=r"output_dir=.*/data/\.\./data/x: is data\.root=.*/data, or lies in it"):
        check_output(tmp_path / "data" / ".." / "data" / "x", "data.root", tmp_path / "data")


@pytest.mark.parametrize("name", ["environment.json", "hparams.yaml", "events.out.tfevents.1.x", ".hydra/config.yaml"])
def test_a_run_that_fails_deletes_nothing_that_was_there(run_main, tmp_path, name):
    """However fresh it is, and whatever it is called."""
    old = tmp_path / "out" / name
    old.parent.mkdir(parents=True)
    old.write_text("mine: 1")
    code, _ = run_main("train", tmp_path / "out", "data=folder", "data.root=/nowhere")
    assert code == 1
    assert old.exists()
    if not name.startswith(".hydra"):  # Hydra writes its record there, before anything can be refused
        assert content(tmp_path / "out") == {old.relative_to(tmp_path / "out"): b"mine: 1"}


def test_an_export_deletes_no_file_of_the_users(run_main, trained, tmp_path):
    for name in ("draft.onnx", "plain.onnx"):
        (tmp_path / name).write_text("mine")
    code, err = run_main(
        "export", tmp_path, f"ckpt_path={trained}/checkpoints/best.ckpt", "images=2", "tolerance.difference=0"
    )
    assert code == 1, err
    assert content(tmp_path) == {
        (tmp_path / name).relative_to(tmp_path): b"mine" for name in ("draft.onnx", "plain.onnx")
    }


@pytest.mark.parametrize("key", ["camvid", "magnetic_tile", "neu_seg", "crack_forest", "drive"])
def test_nor_into_a_data_set_of_a_list(run_main, tmp_path, key):
    (tmp_path / "data").mkdir()
    code, err = run_main("reproduce", tmp_path / "data" / "logs", f"{key}={tmp_path / 'data'}")
    assert code == 1
    assert f"is {key}={tmp_path / 'data'}, or lies in it" in err
    assert not any((tmp_path / "data").iterdir())
