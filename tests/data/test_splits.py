"""Every split against the rule that the user wrote down."""

import hashlib
import os
import tracemalloc
import unicodedata
from collections import Counter

import pytest

from segnet.data.splits import SPLITS, All, ByGroup, ByHash, ByList, ByPattern
from segnet.errors import UserError

MANY = [f"images/{i:04d}.png" for i in range(2000)]
LISTS = ByList("train.txt", "val.txt", "test.txt")


def lists(root, train, val="x/c.png", test="x/d.png"):
    for name, text in zip(SPLITS, (train, val, test), strict=True):
        (root / f"{name}.txt").write_text(text, encoding="utf-8")
    return root


def placed(split):
    return {image: name for name in SPLITS for image in split[name]}


def test_pattern(tmp_path):
    images = ["train/a.png", "train/deep/b.png", "val/a.png", "other/a.png"]
    split = ByPattern("train/*", "val/*", "val/*")(tmp_path, images)
    assert split == {"train": ["train/a.png", "train/deep/b.png"], "val": ["val/a.png"], "test": ["val/a.png"]}


DRIVES = [f"train/{drive}_{i}.png" for drive in ("a", "b", "c", "7") for i in range(3)]


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"val": "a"}, {"train": "bc7", "val": "a", "test": ""}),
        ({"val": ["a", 7], "test": "b"}, {"train": "c", "val": "a7", "test": "b"}),
        ({"val": "a", "test": "a"}, {"train": "bc7", "val": "a", "test": "a"}),
        ({"train": ["b"], "val": 7}, {"train": "b", "val": "7", "test": ""}),
    ],
)
def test_whole_groups_are_held_out_by_name(tmp_path, held, expected):
    split = ByGroup(r"(\w)_\d", **held)(tmp_path, DRIVES)
    for name in SPLITS:
        assert split[name] == [image for image in DRIVES if image[6] in expected[name]]


def test_a_group_that_is_not_there(tmp_path):
    with pytest.raises(
        UserError, match=r"^data\.split\.test=d: no such group; there are 7 \(3 images\), a \(3 images\), b"
    ):
        ByGroup(r"(\w)_\d", val="a", test="d")(tmp_path, DRIVES)
    with pytest.raises(
        UserError, match=r"^data\.split\.group='x.' does not match 'train/a_0\.png'; correct the pattern$"
    ):
        ByGroup("x.", val="a")(tmp_path, DRIVES)
    with pytest.raises(UserError, match=r"^data\.split\.group='\[': no regular expression"):
        ByGroup("[", val="a")


@pytest.mark.parametrize("left_out", [None, ""])
def test_a_pattern_or_list_may_be_left_out(tmp_path, left_out):
    (tmp_path / "val.txt").write_text("b.png")
    for rule in (ByPattern(left_out, "b*", left_out), ByList(left_out, "val.txt", left_out)):
        split = rule(tmp_path, ["a.png", "b.png"])
        assert {name: part for name, part in split.items() if part} == {"val": ["b.png"]}


def test_lists_that_are_not_there_hold_nothing_if_one_is(tmp_path):
    (tmp_path / "test.txt").write_text("b.png")
    assert LISTS(tmp_path, ["a.png", "b.png"]) == {"test": ["b.png"]}


def test_all_is_every_image_once(tmp_path):
    assert All()(tmp_path, MANY) == {"all": MANY}


@pytest.mark.parametrize("shares", [(0.7, 0.15, 0.15), (0.5, 0.3, 0.2)])
def test_hash_shares(tmp_path, shares):
    split = ByHash(*shares)(tmp_path, MANY)
    assert sorted(placed(split)) == MANY
    assert sum(map(len, split.values())) == len(MANY)
    for name, share in zip(SPLITS, shares, strict=True):  # 4 standard deviations of a fair draw
        assert abs(len(split[name]) / 2000 - share) < 4 * (share * (1 - share) / 2000) ** 0.5


def test_hash_moves_no_image(tmp_path):
    rule = ByHash(0.6, 0.2, 0.2)
    few, all_ = placed(rule(tmp_path, MANY[::3])), placed(rule(tmp_path, MANY))
    assert all(all_[image] == name for image, name in few.items())
    assert placed(rule(tmp_path / "elsewhere", MANY)) == all_


def test_hash_larger_training_share_keeps_training_images(tmp_path):
    small, large = ByHash(0.5, 0.25, 0.25)(tmp_path, MANY), ByHash(0.8, 0.1, 0.1)(tmp_path, MANY)
    assert set(small["train"]) < set(large["train"])


def test_hash_divides_what_it_has_divided_before(tmp_path):
    """Counts and places of versions before: 240 rendered cables, and 31 images, the fewest drawn one by one."""
    cables = [f"images/{i:03d}.png" for i in range(240)]
    for count, sizes, digest in ((240, (160, 36, 44), "3800c11dc501003e"), (31, (18, 6, 7), "f2f1b893aebe38e5")):
        split = ByHash(0.7, 0.15, 0.15)(tmp_path, cables[:count])
        assert tuple(map(len, split.values())) == sizes
        assert hashlib.sha256(repr(split).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("shares", "count", "sizes"),
    [
        # By hand: floor of share · count, then one each to the largest remainders, and none empty that has a share.
        ((0.7, 0.15, 0.15), 1, (1, 0, 0)),
        ((0.7, 0.15, 0.15), 2, (1, 1, 0)),
        ((0.7, 0.15, 0.15), 3, (1, 1, 1)),
        ((0.7, 0.15, 0.15), 4, (2, 1, 1)),
        ((0.7, 0.15, 0.15), 6, (4, 1, 1)),
        ((0.7, 0.15, 0.15), 10, (7, 2, 1)),
        ((0.7, 0.15, 0.15), 24, (17, 4, 3)),
        ((0.7, 0.15, 0.15), 30, (21, 5, 4)),
        ((0.7, 0.3, 0), 3, (2, 1, 0)),
        ((0.7, 0.15, 0), 17, (14, 3, 0)),  # 14/17 and 3/17
        ((0.7, 0, 0.15), 17, (14, 0, 3)),
        ((0, 0, 1), 5, (0, 0, 5)),
        ((0.1, 0.1, 0.8), 2, (1, 1, 0)),
        ((0.6, 0.2, 0.2), 5, (3, 1, 1)),
        ((1 / 3, 1 / 3, 1 / 3), 30, (10, 10, 10)),
    ],
)
def test_few_are_cut_at_exact_shares(tmp_path, shares, count, sizes):
    split = ByHash(*shares)(tmp_path, MANY[:count])
    assert tuple(map(len, split.values())) == sizes
    assert sorted(placed(split)) == MANY[:count]
    assert all(part == sorted(part) for part in split.values())  # in the order in which they were given
    assert split == ByHash(*shares)(tmp_path / "elsewhere", MANY[:count])
    if count >= 24 and sizes[2]:
        assert split != ByHash(*shares, salt="again")(tmp_path, MANY[:count])


@pytest.mark.parametrize(("parts", "sizes"), [(3, (1, 1, 1)), (30, (21, 5, 4))])
def test_few_groups_are_cut_at_exact_shares(tmp_path, parts, sizes):
    images = [f"part{part:02d}_view{view}.png" for part in range(parts) for view in range(5)]
    split = ByHash(0.7, 0.15, 0.15, group=r"part(\d+)")(tmp_path, images)
    homes = {name: {image[:6] for image in split[name]} for name in SPLITS}
    assert tuple(map(len, homes.values())) == sizes
    assert sum(map(len, split.values())) == len(images)
    assert not homes["train"] & homes["val"]
    assert not homes["test"] & (homes["train"] | homes["val"])


@pytest.mark.parametrize("count", [30, 2000])
@pytest.mark.parametrize("zero", SPLITS)
def test_a_share_of_zero_gives_its_images_to_the_others(tmp_path, count, zero):
    shares = {"train": 0.7, "val": 0.15, "test": 0.15} | {zero: 0}
    split = ByHash(**shares)(tmp_path, MANY[:count])
    assert not split[zero]
    assert sorted(placed(split)) == MANY[:count]
    total = sum(shares.values())
    for name, share in shares.items():
        assert abs(len(split[name]) / count - share / total) < (0.04 if count > 30 else 1 / 30)


def test_hash_salt(tmp_path):
    one, two = (ByHash(0.5, 0.25, 0.25, salt=salt)(tmp_path, MANY) for salt in ("", "again"))
    both = len(set(one["train"]) & set(two["train"]))
    assert 420 < both < 580  # independent halves share a quarter


@pytest.mark.parametrize("group", [r"part(\d+)_", r"part\d+_"])
def test_hash_groups_stay_together(tmp_path, group):
    images = [f"part{part:03d}_view{view}.png" for part in range(200) for view in range(5)]
    split = ByHash(0.6, 0.2, 0.2, group=group)(tmp_path, images)
    homes = {image[:7]: set() for image in images}
    for image, name in placed(split).items():
        homes[image[:7]].add(name)
    assert all(len(home) == 1 for home in homes.values())
    assert min(Counter(next(iter(home)) for home in homes.values()).values()) > 20  # all three are used


def test_hash_groups_are_the_first_group_not_all_that_matches(tmp_path):
    """The whole match differs from view to view; what the parentheses capture is the object."""
    rule = ByHash(0.6, 0.2, 0.2, group=r"(part\d+)_view(\d)")
    home = placed(rule(tmp_path, [f"part{part:03d}_view{view}.png" for part in range(60) for view in range(5)]))
    for part in range(60):
        assert len({home[f"part{part:03d}_view{view}.png"] for view in range(5)}) == 1
    others = placed(rule(tmp_path, [f"x/part{part:03d}_view9.tif" for part in range(60)]))
    assert all(others[f"x/part{part:03d}_view9.tif"] == home[f"part{part:03d}_view0.png"] for part in range(60))


def test_hash_group_must_match(tmp_path):
    with pytest.raises(ValueError, match=r"data\.split\.group='x\(\.\)' does not match 'a\.png'; correct the pattern"):
        ByHash(0.6, 0.2, 0.2, group="x(.)")(tmp_path, ["a.png"])


@pytest.mark.parametrize(
    "shares",
    [(0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (0.5, 0.2, 0.2), (70, 15, 15), (0, 0, 0), (2, 0, 0), (float("nan"), 0, 1)],
)
def test_hash_bad_shares(tmp_path, shares):
    told = rf"data\.split shares \[{shares[0]}, .*must not be negative and must add up to 1"
    with pytest.raises(ValueError, match=told):
        ByHash(*shares)(tmp_path, MANY)


@pytest.mark.parametrize(
    "line",
    [
        "x/a.png",
        "a.png",
        "a",
        "/SegNet/CamVid/x/a.png /SegNet/CamVid/xannot/a.png",  # as the authors' train.txt has them
        "CamVid/x/a.png",
        "a.png\tclass-7",
        "\n  x/a.png  \n\n",
    ],
)
def test_list_names_an_image(tmp_path, line):
    images = ["x/a.png", "x/b.png", "x/c.png", "x/d.png"]
    split = LISTS(lists(tmp_path, line), images)
    assert split == {"train": ["x/a.png"], "val": ["x/c.png"], "test": ["x/d.png"]}


def test_list_keeps_same_names_of_folders_apart(tmp_path):
    images = ["x/a.png", "x/c.png", "x/d.png", "y/a.png"]
    split = LISTS(lists(tmp_path, "/far/y/a.png\n/far/x/a.png\n"), images)
    assert split["train"] == ["y/a.png", "x/a.png"]


@pytest.mark.parametrize(("line", "count"), [("a.png", "more than one"), ("z/b.png", "no"), ("nothing", "no")])
def test_list_line_that_names_none_or_two(tmp_path, line, count):
    images = ["x/a.png", "x/c.png", "x/d.png", "y/a.png"]
    told = rf"train\.txt:2: '{line}' names {count} image that data\.images finds.*; .*relative to data\.root"
    with pytest.raises(ValueError, match=told):
        LISTS(lists(tmp_path, f"x/c.png\n{line}\n"), images)


def test_list_missing(tmp_path):
    with pytest.raises(ValueError, match=r"train\.txt: list file of the split not found; correct data\.split"):
        LISTS(tmp_path, ["x/a.png"])


def test_list_of_images_directly_in_the_root(tmp_path):
    split = LISTS(lists(tmp_path, "a.png", "b.png", "c"), ["a.png", "b.png", "c.png"])
    assert split == {"train": ["a.png"], "val": ["b.png"], "test": ["c.png"]}


def test_list_full_path_wins_over_a_name(tmp_path):
    images = ["a.png", "x/a.png", "x/c.png", "x/d.png"]
    assert LISTS(lists(tmp_path, "a.png"), images)["train"] == ["a.png"]


def test_hash_takes_names_that_are_no_valid_utf8(tmp_path):
    images = [os.fsdecode(b"caf\xe9%d.png" % i) for i in range(50)]
    split = ByHash(0.5, 0.25, 0.25)(tmp_path, images)
    assert sorted(name for part in split.values() for name in part) == sorted(images)


FOUR = ["images/a.png", "images/b.png", "images/my image 1.png", "images/my.png"]


@pytest.mark.parametrize(
    "content",
    [
        "images/a.png\nimages/my image 1.png".encode("utf-8-sig"),
        b"images\\a.png\r\nimages\\my image 1.png\r\n",
        b"C:\\data\\images\\a.png\r\nC:\\data\\images\\my image 1.png",
        "images/a.png\r\nimages/my image 1.png".encode("utf-16"),
        "images/a.png\nimages/my image 1.png\n".encode("utf-16-le"),
        "images/a.png\nimages/my image 1.png\n".encode("utf-16-be"),
        b'"images/a.png"\n"images/my image 1.png"',
        b"'a.png'\n'my image 1.png'",
        b"image,mask\nimages/a.png,masks/a.png\nimages/my image 1.png,masks/my image 1.png\n",
        b'filename;label\n"images/a.png";3\n"images/my image 1.png";4',
        b"Image_Path;label\nimages/a.png;3\nimages/my image 1.png;4",
        b"  ./images/a.png  \n\n\t./images/my image 1.png\n",
        b"a\nmy image 1",
        b"/far/images/a.png /far/masks/a.png\n/far/images/my image 1.png\t1\n",
    ],
)
def test_lists_of_any_make(tmp_path, content):
    lists(tmp_path, "", "b", "my")
    (tmp_path / "train.txt").write_bytes(content)
    split = LISTS(tmp_path, FOUR)
    assert split == {"train": [FOUR[0], FOUR[2]], "val": [FOUR[1]], "test": [FOUR[3]]}


def test_list_of_names_that_are_no_valid_utf8(tmp_path):
    images = [os.fsdecode(b"images/caf\xe9.png"), "b.png"]
    lists(tmp_path, "", "b", "b")
    (tmp_path / "train.txt").write_bytes(b"images/caf\xe9.png\n")
    assert LISTS(tmp_path, images)["train"] == images[:1]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_list_of_names_whose_accents_are_written_otherwise(tmp_path, form):
    """macOS writes the accents of file names apart from their letters, texts have them joined."""
    images = [unicodedata.normalize(form, "images/café.png"), "b.png"]
    for name in ("images/café.png", "café"):
        for other in ("NFC", "NFD"):
            lists(tmp_path, unicodedata.normalize(other, name), "b", "b")
            assert LISTS(tmp_path, images)["train"] == images[:1]
    both = [unicodedata.normalize(kind, "café.png") for kind in ("NFC", "NFD")]
    with pytest.raises(ValueError, match="names more than one image"):
        LISTS(tmp_path, [*both, "b.png"])


def test_repeated_lines_of_a_list_count_once_and_are_told(tmp_path, caplog):
    lists(tmp_path, "images/a.png\nb\n\na.png\nimages\\a.png", "my", "my")
    with caplog.at_level("INFO"):
        assert LISTS(tmp_path, FOUR)["train"] == FOUR[:2]
    told = "data.split: 2 repeated line(s) count once: train.txt:4 names images/a.png again, as line 1 did"
    assert [record.message for record in caplog.records] == [told]


@pytest.mark.parametrize(
    ("text", "line", "name"),
    [
        ("images/a.png\nimages/my image 9.png\n", 2, "images/my image 9.png"),  # not "my"
        ("image\nimage\nimages/a.png", 2, "image"),  # one header at most
        ("nothing,a.png\n", 1, "nothing,a.png"),
    ],
)
def test_list_line_that_names_nothing(tmp_path, text, line, name):
    with pytest.raises(ValueError, match=rf"train\.txt:{line}: '{name}' names no image"):
        LISTS(lists(tmp_path, text, "b", "my"), FOUR)


@pytest.mark.parametrize("rule", [LISTS.__class__, ByPattern])
def test_only_a_hash_keeps_groups(rule):
    assert rule("a", "b", "c", group=None) == rule("a", "b", "c")  # as conf/data/default.yaml hands it on
    with pytest.raises(ValueError, match=r"data\.split\.group='x': only segnet\.data\.splits\.ByHash keeps groups"):
        rule("a", "b", "c", group="x")


@pytest.mark.parametrize(
    "line",
    [
        "cam2/frame_000000.png",
        "cam2/frame_000000",  # as CVAT lists them
        "data/obj_train_data/cam2/frame_000000.png",
        "D:\\set\\images\\cam2\\frame_000000.png",
        "./images/cam2/frame_000000.png\tcrack",
        "# a comment\nimages/cam2/frame_000000",
        "id;file name;class\n7;cam2/frame_000000.png;crack",
        ",image,mask\n0,cam2/frame_000000.png,masks/0.png",
        '"cam2/frame_000000.png","masks/0.png"',
    ],
)
def test_lists_name_an_image_by_any_end_of_its_path(tmp_path, line):
    images = [f"images/cam{k}/frame_00000{i}.png" for k in (1, 2) for i in range(3)]
    (tmp_path / "train.txt").write_text(line)
    assert ByList(train="train.txt")(tmp_path, images) == {"train": ["images/cam2/frame_000000.png"]}
    (tmp_path / "train.txt").write_text("cam1/frame_000001\nframe_000000.png\n")
    told = r"train\.txt:2: 'frame_000000\.png' names more than one .*\(images/cam1/frame_000000\.png and images/cam2"
    with pytest.raises(ValueError, match=told):
        ByList(train="train.txt")(tmp_path, images)


@pytest.mark.parametrize("line", ["b/6.png", "images/b/6.png", "./images//b/6.png"])
def test_a_line_that_names_another_file_is_not_read_as_an_image_of_its_name(tmp_path, line):
    for folder in "ab":
        (tmp_path / "images" / folder).mkdir(parents=True)
        (tmp_path / "images" / folder / "6.png").touch()
    (tmp_path / "val.txt").write_text(f"{line}\n")
    told = (
        r"val\.txt:1: '.*b/6\.png' is images/b/6\.png, which data\.images does not find, and images/a/6\.png is another"
    )
    with pytest.raises(UserError, match=told):
        ByList(val="val.txt")(tmp_path, ["images/a/6.png"])
    (tmp_path / "images" / "b" / "6.png").unlink()
    assert ByList(val="val.txt")(tmp_path, ["images/a/6.png"]) == {"val": ["images/a/6.png"]}


@pytest.mark.parametrize("line", ["images//6.png", "6.png,masks/6.png", "set/images/6.png"])
def test_a_line_may_name_the_image_in_other_ways(tmp_path, line):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "6.png").touch()
    (tmp_path / "val.txt").write_text(f"{line}\n")
    assert ByList(val="val.txt")(tmp_path, ["images/6.png"]) == {"val": ["images/6.png"]}


@pytest.mark.parametrize("line", ["a/" * 100_000 + "a.png", "x" * 200_000, "," * 200_000 + "a", '"' + "x" * 200_000])
def test_a_line_of_any_length_is_one_line_and_takes_little_memory(tmp_path, line):
    (tmp_path / "train.txt").write_text(f"{line}\nb/b.png\n")
    tracemalloc.start()
    with pytest.raises(UserError, match=r"train\.txt:1: .{1,210} names no image"):
        ByList(train="train.txt")(tmp_path, ["a/0.png", "b/b.png"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**8


def test_a_share_of_the_training_pattern_is_drawn_as_by_hash(tmp_path):
    images = [f"{split}/{i}.png" for split in ("train", "test") for i in range(100)]
    found = ByPattern("train/*", 0.2, "test/*")(tmp_path, images)
    expected = ByHash(0.8, 0.2, 0)(tmp_path, images[:100])
    assert found == {"train": expected["train"], "val": expected["val"], "test": images[100:]}
    assert 10 < len(found["val"]) < 30
