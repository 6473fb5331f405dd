"""Data in an object store. fsspec's own stores stand for it here; tests/test_s3.py has a server of S3."""

import json
import shutil
import sys
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from omegaconf import OmegaConf

from helpers import SMALL, call_main
from segnet import mirror
from segnet.errors import UserError


class Shop(MemoryFileSystem):
    """A store that can be out of reach, break off, and hold what no disk can."""

    protocol = "shop"
    store = {}  # noqa: RUF012 - as in the class above: one for all instances
    pseudo_dirs = [""]  # noqa: RUF012
    extra = {}  # noqa: RUF012 - of names beyond those stored
    asked = 0
    fetched = []  # noqa: RUF012
    closed = False
    breaks_at = None

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(str(path).replace("shop://", "memory://"))

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **kwargs):
        type(self).asked += 1
        if self.closed:
            raise PermissionError("the access key has expired")
        return {**super().find(path, maxdepth, withdirs, detail=True), **self.extra}

    def get_file(self, rpath, lpath, **kwargs):
        if rpath == self.breaks_at:
            Path(lpath).write_bytes(b"half")
            raise ConnectionResetError("connection lost")
        self.fetched.append(rpath)
        super().get_file(rpath, lpath, **kwargs)


@pytest.fixture
def shop():
    fsspec.register_implementation("shop", Shop, clobber=True)
    Shop.store, Shop.extra, Shop.fetched, Shop.pseudo_dirs = {}, {}, [], [""]
    Shop.asked, Shop.closed, Shop.breaks_at = 0, False, None
    Shop.clear_instance_cache()
    fs = fsspec.filesystem("shop")
    for name, content in {"a.png": b"one", "in/b.png": b"two2", "in/[c] d.png": b"3", "list.txt": b""}.items():
        fs.pipe(f"/bucket/set/{name}", content)
    fs.pipe("/bucket/set2/other.png", b"of another folder")
    return fs


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


URL = "shop://bucket/set"
SET = {"a.png": b"one", "in/b.png": b"two2", "in/[c] d.png": b"3", "list.txt": b""}


@pytest.mark.parametrize("url", [URL, f"{URL}/"])
def test_a_mirror_holds_what_the_store_holds(shop, tmp_path, url, capsys):
    home = mirror.update(url, tmp_path)
    assert content(home) == SET
    assert home.parent == tmp_path / "segnet-mirror"
    assert home == mirror.place(URL, tmp_path)
    assert "4 files (8e-06 MB)" in (told := capsys.readouterr().err)
    assert "4 fetched, 0 deleted" in told


def test_what_has_not_changed_is_not_fetched_again(shop, tmp_path, capsys):
    home = mirror.update(URL, tmp_path)
    before = {path: path.stat().st_ctime_ns for path in home.rglob("*") if path.is_file()}
    Shop.fetched.clear()
    shop.pipe("/bucket/set/a.png", b"ONE")  # as long as before
    shop.pipe("/bucket/set/new/deep/e.png", b"5")
    mirror.update(URL, tmp_path)
    assert sorted(Shop.fetched) == ["/bucket/set/a.png", "/bucket/set/new/deep/e.png"]
    assert content(home) == {**SET, "a.png": b"ONE", "new/deep/e.png": b"5"}
    unchanged = [path for path in before if path.name != "a.png"]
    assert [before[path] for path in unchanged] == [path.stat().st_ctime_ns for path in unchanged]
    capsys.readouterr()
    mirror.update(URL, tmp_path)
    assert "5 files (9e-06 MB)" in (told := capsys.readouterr().err)
    assert "0 fetched, 0 deleted" in told


def test_a_file_that_is_gone_is_deleted_and_one_of_the_users_is_kept_and_told(shop, tmp_path, capsys):
    home = mirror.update(URL, tmp_path)
    (home / "dataset.yaml").write_text("mine")
    shop.rm("/bucket/set/in", recursive=True)
    mirror.update(URL, tmp_path)
    assert content(home) == {"a.png": b"one", "list.txt": b"", "dataset.yaml": b"mine"}
    assert not (home / "in").exists()
    assert "0 fetched, 2 deleted; 1 not from there (such as dataset.yaml)" in capsys.readouterr().err


def test_a_copy_that_was_changed_or_deleted_here_is_fetched_anew(shop, tmp_path):
    home = mirror.update(URL, tmp_path)
    (home / "a.png").write_bytes(b"xxx")
    (home / "in" / "b.png").unlink()
    mirror.update(URL, tmp_path)
    assert content(home) == SET


def test_a_fetching_that_broke_off_is_continued(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "BATCH", 1)
    Shop.breaks_at = "/bucket/set/in/b.png"
    with pytest.raises(UserError, match=r"set: fetching it was broken off \(ConnectionResetError: connection lost\)"):
        mirror.update(URL, tmp_path)
    first = list(Shop.fetched)
    assert first
    assert set(content(mirror.place(URL, tmp_path)).values()) <= set(SET.values())  # nothing by halves
    Shop.closed = True
    with pytest.raises(UserError, match="no whole mirror"):
        mirror.update(URL, tmp_path)
    Shop.closed, Shop.breaks_at = False, None
    home = mirror.update(URL, tmp_path)
    assert content(home) == SET
    assert sorted(Shop.fetched) == sorted(f"/bucket/set/{name}" for name in SET)  # each once
    assert [path.name for path in home.parent.iterdir() if path.name.endswith(".part")] == []


def test_a_whole_mirror_is_used_where_the_store_is_out_of_reach_and_that_is_told(shop, tmp_path, capsys):
    home = mirror.update(URL, tmp_path)
    capsys.readouterr()
    Shop.closed = True
    assert mirror.update(URL, tmp_path) == home
    assert f"cannot be read (PermissionError: the access key has expired); used is its mirror {home} of 20" in (
        capsys.readouterr().err
    )
    with pytest.raises(UserError, match=r"the access key has expired\), and .* is no whole mirror of it"):
        mirror.update("shop://bucket/set2", tmp_path)


def test_an_empty_answer_deletes_nothing(shop, tmp_path):
    home = mirror.update(URL, tmp_path)
    shop.rm("/bucket/set", recursive=True)
    with pytest.raises(UserError, match="there is no file below it"):
        mirror.update(URL, tmp_path)
    assert content(home) == SET


NAMES = ["../out.png", "in/../../out.png", "a//b.png", "./a.png", "/etc/x", "a\0.png", "x" * 300]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_of_the_mirror_is_refused(shop, tmp_path, name):
    Shop.extra = {path: {"name": path, "size": 1, "type": "file"} for path in [f"/bucket/set/{name}"]}
    with pytest.raises(UserError, match="is no name that a file below a folder can have here"):
        mirror.update(URL, tmp_path / "cache")
    assert list(content(tmp_path)) == [f"cache/segnet-mirror/{mirror.place(URL, None).name}.lock"]


def test_a_link_in_the_mirror_is_not_followed(shop, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    home = mirror.place(URL, tmp_path)
    home.mkdir(parents=True)
    (home / "in").symlink_to(outside)
    with pytest.raises(UserError, match="is a link out of the mirror"):
        mirror.update(URL, tmp_path)
    assert content(outside) == {}


def test_a_file_that_is_a_folder_too_is_refused(shop, tmp_path):
    Shop.extra = {"/bucket/set/in": {"name": "/bucket/set/in", "size": 1, "type": "file"}}
    with pytest.raises(UserError, match="in is a file and a folder there"):
        mirror.update(URL, tmp_path)


def test_what_stores_keep_in_place_of_folders_is_no_file(shop, tmp_path):
    Shop.extra = {"/bucket/set/in/": {"name": "/bucket/set/in/", "size": 0, "type": "file"}}
    Shop.extra["/bucket/set/empty"] = {"name": "/bucket/set/empty", "size": 0, "type": "directory"}
    assert content(mirror.update(URL, tmp_path)) == SET


def test_a_file_that_comes_with_another_size_is_refused(shop, tmp_path):
    Shop.extra = {"/bucket/set/a.png": {"name": "/bucket/set/a.png", "size": 4, "type": "file"}}
    with pytest.raises(UserError, match=r"a\.png came with 3 bytes and not 4"):
        mirror.update(URL, tmp_path)
    assert not (mirror.place(URL, tmp_path) / "a.png").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nostore://a/b", "Protocol not known: nostore; give a URL such as s3://bucket/folder"),
        ("https://host/folder", "must be the URL of one folder in a store"),
        ("zip://a::file:///b.zip", "must be the URL of one folder in a store"),
        ("ftp://me:secret@host/folder", "ftp://…@…: names a user; leave that out, access keys belong in the"),
        ("file:///nowhere/at/all", "there is no file below it"),
        ("shop://bucket/set/a.png", "there is no file below it; give the URL of the folder"),
    ],
)  # fmt: skip
def test_bad_input(shop, tmp_path, url, message):
    with pytest.raises(UserError) as caught:
        mirror.update(url, tmp_path)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "module", "remedy"),
    [("s3://b/f", "s3fs", "segnet-lightning[s3]"), ("gs://b/f", "gcsfs", "gcsfs"), ("az://b/f", "adlfs", "adlfs")],
)
def test_a_missing_driver_is_one_line_with_the_command(tmp_path, monkeypatch, url, module, remedy):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    if url.partition("://")[0] in fsspec.registry:
        pytest.skip("another test of this process has loaded the driver")
    with pytest.raises(UserError) as caught:
        mirror.update(url, tmp_path)
    assert str(caught.value).endswith(f"is not installed: pip install '{remedy}'")


def test_more_than_the_bound_is_refused_before_anything_is_fetched(shop, tmp_path):
    with pytest.raises(UserError, match=r"more than data\.cache_gb=0; raise that"):
        mirror.update(URL, tmp_path, 0)
    assert Shop.fetched == []


def test_a_folder_of_another_disk_by_its_url(tmp_path):
    source = tmp_path / "source"
    (source / "in").mkdir(parents=True)
    for name, data in SET.items():
        (source / name).write_bytes(data)
    assert content(mirror.update(f"file://{source}", tmp_path / "cache")) == SET


@pytest.fixture
def stored(shop, cable):
    """The rendered cables in the store."""
    shop.put(str(cable), "/bucket/cable", recursive=True)
    return "shop://bucket/cable"


RUN = [*SMALL, "experiment=quickstart", "~callbacks.panels"]


def test_a_run_on_a_store_is_the_run_on_the_folder(stored, cable, tmp_path, capfd):
    cache, out = tmp_path / "cache", tmp_path / "run"
    given = [*RUN, f"data.root={stored}", f"data.cache_dir={cache}"]
    assert call_main("train", *given, f"output_dir={out}") == 0
    assert "48 files" in capfd.readouterr().err
    home = mirror.place(stored, cache)
    local = [*RUN, f"data.root={cable}", f"data.cache_dir={cache}", f"output_dir={tmp_path / 'b'}"]
    assert call_main("train", *local) == 0
    last = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False) for folder in (out, tmp_path / "b")]
    for name, weight in last[0]["state_dict"].items():
        assert torch.equal(weight, last[1]["state_dict"][name])
    # Everything that the run leaves names the mirror, but the command line says the URL.
    assert last[0]["config"]["data"]["root"] == str(home)
    assert OmegaConf.load(out / ".hydra" / "config.yaml").data.root == str(home)
    assert f"data.root={stored}" in OmegaConf.load(out / ".hydra" / "overrides.yaml")
    Shop.asked = 0
    ckpt = out / "checkpoints" / "last.ckpt"
    assert call_main("eval", f"ckpt_path={ckpt}", "trainer=cpu", f"output_dir={tmp_path / 'eval'}", "worst=0") == 0
    assert call_main("train", f"resume={out}", "trainer.max_epochs=1") == 0
    assert Shop.asked == 0
    # On another machine the URL is typed again.
    shutil.rmtree(cache)
    capfd.readouterr()
    assert call_main("train", f"resume={out}") == 1
    assert "no such folder; set data.root to the folder of the data set, or again to the URL" in capfd.readouterr().err
    assert not home.exists()
    assert call_main("eval", f"ckpt_path={ckpt}", "trainer=cpu", f"output_dir={tmp_path / 'eval2'}", "worst=0",
                     f"data.root={stored}", f"data.cache_dir={cache}") == 0  # fmt: skip
    assert Shop.asked == 1
    figures = [json.loads((tmp_path / name / "results.json").read_text())["metrics"] for name in ("eval", "eval2")]
    assert figures[0] == figures[1]


def test_an_output_folder_in_the_mirror_is_refused(stored, tmp_path, capfd):
    home = mirror.place(stored, tmp_path)
    given = [*RUN, f"data.root={stored}", f"data.cache_dir={tmp_path}"]
    assert call_main("train", *given, f"output_dir={home}/run") == 1
    assert "lies in it; choose a folder outside of it" in capfd.readouterr().err


def test_a_checkpoint_that_names_a_url_has_it_asked_for_nothing(stored, trained, tmp_path, capfd):
    ckpt = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=False)
    ckpt["config"]["data"]["root"] = stored
    torch.save(ckpt, tmp_path / "theirs.ckpt")
    assert call_main("eval", f"ckpt_path={tmp_path}/theirs.ckpt", "trainer=cpu", f"output_dir={tmp_path}/o") == 1
    assert "only a URL that is typed is fetched" in capfd.readouterr().err
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = OmegaConf.load(run / ".hydra" / "config.yaml")
    config.data.root = stored
    OmegaConf.save(config, run / ".hydra" / "config.yaml")
    (run / "results.json").unlink()
    assert call_main("train", f"resume={run}") == 1
    assert "only a URL that is typed is fetched" in capfd.readouterr().err
    assert Shop.asked == 0


def test_every_trial_of_a_search_reads_the_mirror(stored, tmp_path, capfd):
    out = tmp_path / "study"
    given = [*RUN, f"data.root={stored}", f"data.cache_dir={tmp_path / 'cache'}", "trials=1"]
    assert call_main("tune", *given, f"output_dir={out}") == 0
    assert Shop.asked == 1
    recorded = OmegaConf.load(out / "0" / ".hydra" / "config.yaml").data
    assert (recorded.root, recorded.prepare) == (str(mirror.place(stored, tmp_path / "cache")), None)
    capfd.readouterr()
    assert call_main("tune", f"resume={out}", "trials=2") == 1
    assert f"its record names data.root={stored}; repeat it" in capfd.readouterr().err
    again = [f"resume={out}", "trials=2", f"data.root={stored}", f"data.cache_dir={tmp_path / 'cache'}"]
    assert call_main("tune", *again) == 0
    assert (out / "1" / "results.json").is_file()
