"""The cache holds what decoding gives, is built once, and never outlives a change or a kill."""

import errno
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segnet.data import cache
from segnet.data.flat_cache import Flat, kept
from segnet.data.masks import Threshold, Values

SIZE = (8, 12)
BYTES = 8 * 12 * 4


def pair(i):
    rng = np.random.default_rng(i)
    return rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), rng.integers(0, 2, SIZE, dtype=np.uint8)


def never(i):
    raise AssertionError("decoded again")


def opened(folder, key="k", load=pair, count=5, limit=1.0):
    content = kept(folder, key, Flat(load, [SIZE] * count, 2, 0), limit)
    return content and (content.images.reshape(count, *SIZE, 3), content.masks.reshape(count, *SIZE))


def none(*_):
    raise OSError(errno.ENOLCK, "no locks available")


def names(folder):
    assert [p.name for p in folder.iterdir()] == [cache.HOME]
    return sorted(p.name for p in (folder / cache.HOME).iterdir())


def test_content_is_what_was_decoded(tmp_path):
    images, masks = opened(tmp_path)
    for i in range(5):
        assert np.array_equal(images[i], pair(i)[0])
        assert np.array_equal(masks[i], pair(i)[1])
    assert (images.shape, masks.shape) == ((5, 8, 12, 3), (5, 8, 12))
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
    assert names(tmp_path) == ["k"]


def test_second_opening_builds_nothing(tmp_path):
    first = opened(tmp_path)[0].copy()
    before = {f.name: (f.stat().st_ino, f.stat().st_mtime_ns) for f in (tmp_path / cache.HOME / "k").iterdir()}
    assert np.array_equal(opened(tmp_path, load=never)[0], first)
    assert {f.name: (f.stat().st_ino, f.stat().st_mtime_ns) for f in (tmp_path / cache.HOME / "k").iterdir()} == before
    assert len(before) == 5


def test_key_changes_with_a_file_whatever_its_times_say(tmp_path):
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"12345")
    other.write_bytes(b"x")
    old = file.stat()

    def key():
        return cache.key_of([file, None, other], SIZE, Threshold())

    first = key()
    assert key() == first
    time.sleep(0.05)  # a tick of the file system's clock
    file.write_bytes(b"54321")
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    assert key() != first


def test_key_changes_with_everything_that_decides(tmp_path):
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"1")
    other.write_bytes(b"1")
    values = Values(2, ignore=[255])
    keys = [
        cache.key_of(files, size, encoding)
        for files, size, encoding in [
            ([file, other], SIZE, Threshold()),
            ([other, file], SIZE, Threshold()),
            ([file, None], SIZE, Threshold()),
            ([file], SIZE, Threshold()),
            ([file, other], SIZE[::-1], Threshold()),
            ([file, other], SIZE, Threshold(0)),
            ([file, other], SIZE, values),
            ([file, other], SIZE, replace(values, ignore=[])),
            ([file, other], SIZE, replace(values, classes=[1, 0])),
        ]
    ]
    assert len(set(keys)) == len(keys)
    assert cache.key_of([file, other], SIZE, Values(2, ignore=[255])) == keys[6]


KEPT = """
from pathlib import Path
from segnet.data.decoded import Decoded
from segnet.data.masks import Threshold
from segnet.data.pairs import Pair

pairs = [Pair(Path("a.png"), None, drawn, bits) for drawn in (None, "upright", "stored") for bits in range(8, 17)]
Decoded(pairs, Threshold(), 1, (32, 32)).use_cache(Path("cache"), 1.0)
"""


def test_key_is_the_same_in_every_process(tmp_path, monkeypatch):
    """Where images differ in what is said of them, as those without a mask do, that has no order of its own."""
    (tmp_path / "kept.py").write_text(KEPT)
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "a.png")
    environment = {**os.environ, "PYTHONPATH": str(Path(cache.__file__).parents[2]), "PYTHONHASHSEED": "20261127"}
    subprocess.run([sys.executable, "kept.py"], env=environment, cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("kept.py")
    assert len(names(tmp_path / "cache")) == 1


def test_over_the_bound(tmp_path):
    assert opened(tmp_path, limit=(5 * BYTES - 1) / 1e9, load=never) is None
    assert list(tmp_path.iterdir()) == []
    assert opened(tmp_path, limit=(5 * BYTES + 1) / 1e9) is not None


def test_failing_decoder_leaves_nothing(tmp_path):
    def broken(i):
        if i == 3:
            raise ValueError("3.png: cannot be read")
        return pair(i)

    with pytest.raises(ValueError, match=r"3\.png: cannot be read"):
        opened(tmp_path, load=broken)
    assert names(tmp_path) == []


CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from segnet.data.flat_cache import Flat, kept

def load(i):
    if i == 3:
        print("building", flush=True)
        time.sleep(60)
    return np.zeros((8, 12, 3), np.uint8), np.zeros((8, 12), np.uint8)

kept(Path(sys.argv[1]), "k", Flat(load, [(8, 12)] * 5, 2, 0), 1.0)
"""


def test_killed_build_is_no_cache(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(cache.__file__).parents[2])}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout.readline() == "building\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.endswith(".part")

    images, masks = opened(tmp_path)
    assert all(np.array_equal(images[i], pair(i)[0]) for i in range(5))
    assert all(np.array_equal(masks[i], pair(i)[1]) for i in range(5))
    opened(tmp_path, "later")
    assert names(tmp_path) == ["k", "later"]


def test_a_build_that_takes_long_is_left_alone(tmp_path):
    """Another cache is built meanwhile; what the first one's process has begun hours ago is not what a kill left."""

    def slow(i):
        if i == 4:
            for path in tmp_path.glob("**/*.part"):
                os.utime(path, (0, 0))
            opened(tmp_path, "other")
        return pair(i)

    images, _ = opened(tmp_path, load=slow)
    assert np.array_equal(images[3], pair(3)[0])
    assert np.array_equal(opened(tmp_path, "other", load=never)[0][4], pair(4)[0])


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("before", ["nothing", "half", "damaged"])
def test_many_that_begin_at_once_all_get_it(tmp_path, monkeypatch, before, locks):
    """Runs of a sweep side by side: none deletes or mixes what another has just finished, and nothing is left over.

    Also on a file system without locks, such as some of a network.
    """
    if not locks:
        monkeypatch.setattr(cache.fcntl, "flock", none)
    for turn in range(6):
        folder = tmp_path / str(turn)
        if before != "nothing":
            opened(folder)
            target = folder / cache.HOME / "k"
            (target / "masks.npy").unlink() if before == "half" else zeroed(target)
        start = threading.Barrier(8)

        def load(i, start=start):
            if i == 0:
                with suppress(threading.BrokenBarrierError):
                    start.wait(0.2)  # who comes later, finds one and does not build
            return pair(i)

        with ThreadPoolExecutor(8) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it was damaged
            found = list(pool.map(lambda _, folder=folder, load=load: opened(folder, load=load), range(8)))
        for images, masks in found:
            assert np.array_equal(images[4], pair(4)[0])
            assert np.array_equal(masks[3], pair(3)[1])
        assert names(folder) == ["k"]
        assert opened(folder, load=never) is not None


def test_the_longest_unused_makes_room(tmp_path):
    room = 3.5 * (5 * BYTES + 700) / 1e9  # three with their headers fit, four do not
    for age, key in enumerate(["old", "middle", "new"]):
        opened(tmp_path, key, limit=room)
        os.utime(tmp_path / cache.HOME / key, (1000 + age, 1000 + age))
    opened(tmp_path, "old", load=never, limit=room)  # used, so no longer the oldest
    opened(tmp_path, "more", limit=room)
    assert names(tmp_path) == ["more", "new", "old"]
    used = sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    assert used <= room * 1e9


def test_what_a_user_has_put_into_a_cache_stops_no_other(tmp_path):
    """A link to nothing has no size of its own."""
    opened(tmp_path, "old")
    (tmp_path / cache.HOME / "old" / "note").symlink_to("nowhere")
    assert opened(tmp_path, "new", limit=1.5 * 5 * BYTES / 1e9) is not None
    assert [file.name for file in (tmp_path / cache.HOME / "old").iterdir()] == ["note"]


@pytest.mark.parametrize("lost", [["cache.json"], ["images.npy"], ["masks.npy", "images.npy"]])
def test_half_deleted_cache_is_built_anew(tmp_path, lost):
    """What a kill leaves while a cache is being evicted, or a user with rm."""
    opened(tmp_path)
    for name in lost:
        (tmp_path / cache.HOME / "k" / name).unlink()
    assert np.array_equal(opened(tmp_path)[0][4], pair(4)[0])


def test_a_build_that_goes_on_is_left_alone(tmp_path):
    """Of another process, on another machine perhaps: its lock says so, not its name or age."""
    held = []

    def load(i):
        if i == 0 and not held:
            held.append(names(tmp_path))
            (part,) = (tmp_path / cache.HOME).iterdir()
            os.utime(part, (0, 0))
            opened(tmp_path, "other")
            assert sorted([part.name, "other"]) == names(tmp_path)
        return pair(i)

    assert np.array_equal(opened(tmp_path, load=load)[0][4], pair(4)[0])
    assert held[0][0].endswith(".part")
    assert names(tmp_path) == ["k", "other"]


def test_nothing_foreign_is_deleted(tmp_path):
    """Whatever lies in the folder that the user, or a run folder from someone else, names."""
    home = tmp_path / cache.HOME
    for folder in (tmp_path / "photos", home / "photos", home / "x.part", home / "k.1.part"):
        folder.mkdir(parents=True)
        (folder / "images.npy").write_bytes(b"precious" * 1000)
        os.utime(folder, (0, 0))
    elsewhere = tmp_path / "elsewhere"
    opened(elsewhere)
    (home / "link").symlink_to(elsewhere / cache.HOME / "k")
    kept = {file: file.read_bytes() for file in tmp_path.rglob("*.npy")}
    opened(tmp_path, "first", limit=3.5 * 5 * BYTES / 1e9)
    (home / "first" / "notes.txt").write_text("of the user")
    for key in ("second", "third", "fourth"):
        opened(tmp_path, key, limit=1.5 * 5 * BYTES / 1e9)
    assert {file: file.read_bytes() for file in kept} == kept
    assert [file.name for file in (home / "first").iterdir()] == ["notes.txt"]
    assert not (home / "third").exists()


def test_a_foreign_folder_in_the_place_of_a_cache_is_told(tmp_path):
    (tmp_path / cache.HOME / "k").mkdir(parents=True)
    (tmp_path / cache.HOME / "k" / "notes.txt").write_text("of the user")
    with pytest.raises(
        ValueError, match=r"segnet-cache/k: is no cache of this program; move it, or set data\.cache_dir"
    ):
        opened(tmp_path)
    assert names(tmp_path) == ["k"]


def zeroed(target):
    """What a crash of the machine leaves of blocks that were not written yet."""
    with (target / "images.npy").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(bytes(100))


def truncated(target):
    os.truncate(target / "masks.npy", 200)


def emptied(target):
    for name in ("images.npy", "masks.npy"):
        (target / name).write_bytes(bytes((target / name).stat().st_size))


def one_mask_turned(target):
    masks = np.load(target / "masks.npy", mmap_mode="r+")
    masks[2] = 1 - masks[2]


def swapped(target):
    images = np.load(target / "images.npy", mmap_mode="r+")
    images[[0, 1]] = images[[1, 0]]


def unreadable(target):
    (target / "cache.json").write_text("{")


def without_checksums(target):
    (target / "cache.json").write_text('{"count": 5}')


@pytest.mark.parametrize(
    "damage", [zeroed, truncated, emptied, one_mask_turned, swapped, unreadable, without_checksums]
)
def test_a_damaged_cache_is_told_and_built_anew(tmp_path, damage):
    opened(tmp_path)
    (target,) = [path.parent for path in tmp_path.rglob("cache.json")]
    damage(target)
    with pytest.warns(UserWarning, match="damaged since it was built; it is built anew"):
        images, masks = opened(tmp_path)
    for i in range(5):
        assert np.array_equal(images[i], pair(i)[0])
        assert np.array_equal(masks[i], pair(i)[1])
    assert np.array_equal(opened(tmp_path, load=never)[0], images)  # and sound again


@pytest.mark.parametrize("place", ["/proc/x", "/proc/x/y", "/sys/x", "/dev/null/x", "file", "file/x", "home", "erofs"])
def test_a_place_where_nothing_can_be_written_is_told_with_the_remedy(place, tmp_path, monkeypatch):
    if place == "home":
        (tmp_path / cache.HOME).write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / ("" if place in ("home", "erofs") else place)  # an absolute one stays as it is
    if place == "erofs":
        (tmp_path / cache.HOME).mkdir()

        def refuse(*_, **__):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(ValueError, match=r"nothing can be written there \(.*data\.cache_dir=null") as error:
        opened(folder)
    assert str(error.value).startswith(f"data.cache_dir={folder}: ")
    assert len(str(error.value).splitlines()) == 1
