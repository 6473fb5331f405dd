"""What data=folder is settled to: what is named, else what dataset.yaml says, else what the files show."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from PIL import Image

from segnet.cli import CONF_DIR
from segnet.commands.choices import settle_data
from segnet.configuration import instantiate
from segnet.data import description, folder
from segnet.errors import UserError
from segnet.hydra_versions import BASE

DATA = Path(os.environ.get("SEGNET_DATASETS", Path(__file__).resolve().parents[3] / "shared" / "datasets"))
BY_HASH = {"train": 0.7, "val": 0.15, "test": 0.15}
SAID = {
    "segnet_dataset": 1,
    "images": ["raw/*.png"],
    "masks": {"raw": "drawn"},
    "classes": ["ground", "crack", "stain"],
    "mask": {"encoding": "values", "classes": [0, 7, 9], "ignore": [255]},
    "colors": [[0, 0, 0], [255, 0, 0], [0, 255, 0]],
    "missing_mask": "empty",
    "split": {"by": "pattern", "train": "raw/[0-5].*", "val": "raw/[67].*", "test": "raw/8.*"},
}


def put(root, images="raw", masks="drawn", values=(7, 9), count=9):
    for part in (images, masks):
        (root / part).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        mask = np.zeros((32, 32), np.uint8)
        for k, value in enumerate(values):
            mask[4 + 8 * k : 9 + 8 * k, 5:20] = value
        Image.fromarray(noise).save(root / images / f"{i}.png")
        Image.fromarray(mask).save(root / masks / f"{i}.png")


def describe(root, **changes):
    content = {key: value for key, value in (SAID | changes).items() if value is not None}
    (root / "dataset.yaml").write_text(yaml.safe_dump(content))


def settled(root, *overrides):
    with initialize_config_dir(str(CONF_DIR), **BASE):
        cfg = compose("check_data", ["data=folder", f"data.root={root}", "data.cache_dir=null", *overrides])
    settle_data(cfg)
    return cfg.data


def made(cfg):
    data = instantiate(cfg, "data")
    data.setup()
    return data


@pytest.fixture
def described(tmp_path):
    put(tmp_path)
    describe(tmp_path)
    return tmp_path


def test_a_folder_that_describes_itself_needs_no_other_word(described, capsys):
    cfg = settled(described)
    data = made(cfg)
    assert (data.classes, data.num_classes, data.layout.missing_mask) == (["ground", "crack", "stain"], 3, "empty")
    assert cfg.colors == SAID["colors"]
    assert {name: len(part) for name, part in data.indices.items()} == {"train": 6, "val": 2, "test": 1}
    mask = data.pairs[0].indices(data.mask)
    assert (mask[5, 6], mask[14, 6], mask[0, 0]) == (1, 2, 0)
    told = capsys.readouterr().err
    assert f"data: {described}/dataset.yaml says images [raw/*.png], masks {{raw: drawn}}, missing_mask empty" in told
    assert "found" not in told


NAMED = [
    (["data.images='raw/[0-4].png'"], {"images": "raw/[0-4].png"}),
    (['data.masks="drawn/{stem}.png"'], {"masks": "drawn/{stem}.png"}),
    (["data.classes=[a,b,c]"], {"classes": ["a", "b", "c"]}),
    (["data.missing_mask=error"], {"missing_mask": "error"}),
    (["data.colors=[[1,1,1],[2,2,2],[3,3,3]]"], {"colors": [[1, 1, 1], [2, 2, 2], [3, 3, 3]]}),
    (["data.bits=12"], {"bits": 12}),
    (["data.defect_free=raw/8*"], {"defect_free": "raw/8*"}),
    (["data.kinds='raw/(.)'"], {"kinds": "raw/(.)"}),
    (["data.parts='raw/(..)'"], {"parts": "raw/(..)"}),
]


@pytest.mark.parametrize(("overrides", "expected"), NAMED)
def test_what_is_named_holds_against_the_description(described, overrides, expected):
    before = settled(described)
    after = settled(described, *overrides)
    assert {key: value for key, value in after.items() if value != before[key]} == expected


def test_a_description_says_what_kinds_and_parts_there_are(described):
    """And a named pattern holds against it."""
    describe(described, kinds="raw/([0-4])", parts="raw/(.)")
    found = settled(described, "data.parts='(raw)/'")
    assert (found.kinds, found.parts) == ("raw/([0-4])", "(raw)/")


def test_a_named_part_of_the_encoding_changes_the_described_one(described):
    mask = settled(described, "data.mask.ignore=[3,255]").mask
    assert (list(mask.classes), list(mask.ignore), mask.num_classes) == ([0, 7, 9], [3, 255], 3)
    whole = settled(described, "data/mask=values").mask
    assert (whole.classes, list(whole.ignore), whole.num_classes) == (None, [255], 3)
    with pytest.raises(UserError, match=r"data\.mask\.above=5: the masks are read by values, which takes no such"):
        settled(described, "data.mask.above=5")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {"_target_": "segnet.data.splits.ByHash", **BY_HASH}),
        (["data.split.test=0"], {"_target_": "segnet.data.splits.ByHash", **BY_HASH, "test": 0}),
        (
            ["data.split.group='(.)'", "data.split.train=0.5", "data.split.val=0.35"],
            {"_target_": "segnet.data.splits.ByHash", "train": 0.5, "val": 0.35, "test": 0.15, "group": "(.)"},
        ),
        (
            ["data.split.train='raw/[0-5]*'", "data.split.val=raw/6*"],
            {"_target_": "segnet.data.splits.ByPattern", "train": "raw/[0-5]*", "val": "raw/6*", "test": None},
        ),
        (
            ["data.split.train=a.txt", "data.split.val=b.txt"],
            {"_target_": "segnet.data.splits.ByList", "train": "a.txt", "val": "b.txt", "test": None},
        ),
        (
            ["data.split._target_=segnet.data.splits.ByPattern", "data.split.train=raw/1*", "data.split.val=raw/2*"],
            {"_target_": "segnet.data.splits.ByPattern", "train": "raw/1*", "val": "raw/2*", "test": None},
        ),
    ],
)
def test_the_split_that_is_named(tmp_path, overrides, expected):
    put(tmp_path)
    (tmp_path / "a.txt").write_text("1\n2\n")
    (tmp_path / "b.txt").write_text("3\n")
    found = settled(tmp_path, "data/mask=values", "data.mask.classes=[0,7,9]", *overrides).split
    assert {key: value for key, value in found.items() if key in expected} == expected
    assert made(settled(tmp_path, "data/mask=values", "data.mask.classes=[0,7,9]", *overrides)).indices["train"]


def test_a_description_without_a_split_is_divided_by_hash(described):
    describe(described, split=None)
    (described / "train.txt").write_text("1\n")
    (described / "val.txt").write_text("2\n")
    assert settled(described).split._target_ == "segnet.data.splits.ByHash"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"masks": "{1}/etc/hostname", "match": "(x)?"}, "leads from 'raw/0.png' to '/etc/hostname'"),
        ({"masks": {"ra": ".", "w": "."}}, "leads from 'raw/0.png' to '../0.png'"),
        ({"masks": "../{stem}.png"}, "'../{stem}.png' leads out of the folder"),
        ({"images": ["/etc/*"]}, "'/etc/*' leads out of the folder"),
        ({"split": {"by": "list", "train": "../a.txt", "val": "b.txt"}}, "'../a.txt' leads out of the folder"),
        ({"masks": "${oc.env:SECRET}/{stem}.png"}, "'${oc.env:SECRET}/{stem}.png' would be read as a reference"),
        ({"classes": ["${oc.env:SECRET}", "crack", "stain"]}, "'${oc.env:SECRET}' would be read as a reference"),
        ({"masks": {"raw": "${data.root}"}}, "'${data.root}' would be read as a reference"),
        ({"classes": ["ground", "crack", "???"]}, "'???' would be read as a reference"),
        ({"masks": "{stem:3000000000}.png"}, "wrong placeholder ({stem:3000000000})"),
        ({"images": ["raw/**/**/**/*"]}, "'raw/**/**/**/*' has ** more than 2 times"),
        ({"images": ["ra**w/*"]}, "data.images='ra**w/*': no glob"),
        ({"images": ["."]}, "data.images='.': no glob"),
        ({"match": r"(\w+)+!$", "masks": "drawn/{stem}.png"}, r"match='(\\w+)+!$' takes too long"),
        ({"split": {"group": r"(\w+)+!$"}}, r"split.group='(\\w+)+!$' takes too long"),
        ({"kinds": r"(\w+)+!$"}, r"kinds='(\\w+)+!$' takes too long"),
        ({"parts": r"(\w+)+!$"}, r"parts='(\\w+)+!$' takes too long"),
        ({"classes": [f"class {i}" for i in range(300)]}, "List should have at most 254 items"),
    ],
)
def test_the_description_of_a_stranger_reads_nothing_else_and_holds_up_nobody(
    described, monkeypatch, capsys, changes, told
):
    monkeypatch.setenv("SECRET", "42")
    monkeypatch.setattr("segnet.data.patterns.SECONDS", 0.5)
    for folder_name in ("raw", "drawn"):
        os.link(described / folder_name / "0.png", described / folder_name / f"{'a' * 60}.png")
    describe(described, missing_mask=None, **changes)
    with pytest.raises(UserError) as error:
        made(settled(described))
    assert told in str(error.value)
    assert len(str(error.value)) < 600
    assert "42" not in str(error.value) + capsys.readouterr().err


def test_names_of_folders_are_no_references(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "42")
    put(tmp_path, images="${oc.env:SECRET}", masks="labels", values=(255,))
    with pytest.raises(UserError, match=r"\$\{oc\.env:SECRET\}.* would be read as a reference"):
        settled(tmp_path)


def test_a_described_key_that_its_encoding_does_not_take(described):
    describe(described, mask={"encoding": "threshold", "colors": [[0, 0, 0]]})
    with pytest.raises(UserError, match=r"dataset\.yaml: mask\.colors is nothing that encoding: threshold takes"):
        settled(described)


@pytest.mark.parametrize("values", [(255,), (1,)])
def test_images_and_masks_in_white_mean_what_they_always_did(tmp_path, values):
    put(tmp_path, "images", "masks", values)
    found = settled(tmp_path)
    assert (found.images, found.masks, list(found.classes), found.num_classes) == (
        "images/*", "masks/{stem}.png", ["defect"], 1
    )  # fmt: skip
    assert (found.mask, found.missing_mask) == ({"_target_": "segnet.data.masks.Threshold"}, "error")
    assert {key: found.split[key] for key in BY_HASH} == BY_HASH
    assert found.split._target_ == "segnet.data.splits.ByHash"


def test_a_folder_that_is_not_there_and_one_without_masks(tmp_path):
    with pytest.raises(UserError, match=r"data\.root=.*/none: no such folder"):
        made(settled(tmp_path / "none"))
    put(tmp_path, "images", "masks")
    for file in (tmp_path / "masks").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"its mask .*masks/0\.png is missing; add it, or set data\.missing_mask=empty"):
        made(settled(tmp_path))
    data = made(settled(tmp_path, "data.missing_mask=empty"))
    assert [pair.masks for pair in data.pairs] == [[]] * 9


@pytest.mark.parametrize(("bare", "where"), [(["b/0", "b/1", "c/0"], " (all of images/b, images/c)"), (["b/1"], "")])
def test_how_many_images_have_no_mask_is_told_and_where(tmp_path, bare, where):
    for name, count in {"a": 2, "b": 2, "c": 1}.items():
        put(tmp_path, f"images/{name}", f"masks/{name}", count=count)
    for name in bare:
        (tmp_path / f"masks/{name}.png").unlink()
    with pytest.raises(UserError) as error:
        made(settled(tmp_path, "data.images=images/*/*", "data.masks={images/: masks/}", "data/mask=values"))
    told = f"{len(bare)} of 5 images without a mask{where}: {tmp_path}/images/{bare[0]}.png: its mask "
    assert str(error.value).startswith(told)


def test_a_proposal_is_what_is_found_and_reads_back(tmp_path):
    for split in ("train", "val", "test"):
        put(tmp_path, f"{split}/photos", f"{split}/labels", (1, 2))
    found, reasons = folder.propose(tmp_path)
    before = settled(tmp_path)
    description.write(tmp_path, found)
    assert description.read(tmp_path) == found
    after = settled(tmp_path)
    assert {k: v for k, v in after.items() if k != "images"} == {k: v for k, v in before.items() if k != "images"}
    assert list(after.images) == [before.images]
    assert reasons[-1].startswith("data: found images */photos/*, masks {photos/: labels/}, split train train/*")


SETS = {
    "CamVid": (["train/*", "val/*"], "{dir}annot/{name}", "values", 12, 468),
    "magnetic_tile": ("*/Imgs/*.jpg", "{dir}/{stem}.png", "threshold", 1, 1078),
    "neu_seg": ("images/*", "annotations/{stem}.png", "values", 4, 3630),
    "drive": ("images/*", {"images/": "1st_manual/", "_training.png": "_manual1.gif"}, "threshold", 1, 20),
}


@pytest.mark.parametrize("name", SETS)
def test_public_data_sets_are_found_by_themselves(name):
    if not (DATA / name).is_dir():
        pytest.skip("needs the data set, in the folder that SEGNET_DATASETS names")
    images, masks, encoding, classes, count = SETS[name]
    cfg = settled(DATA / name)
    assert (cfg.images, cfg.masks, cfg.num_classes) == (images, masks, classes)
    assert cfg.mask._target_.lower().endswith(encoding)
    assert len(made(cfg).layout.list_images()) == count


def test_crack_forest_is_asked_and_its_proposal_ignores_the_slips():
    if not (DATA / "crack_forest").is_dir():
        pytest.skip("needs the data set, in the folder that SEGNET_DATASETS names")
    with pytest.raises(UserError, match=r"hold 0, 3, 4 and 255, .*'data\.mask\.ignore=\[3,4\]'"):
        settled(DATA / "crack_forest")
    found, reasons = folder.propose(DATA / "crack_forest")
    assert (found.masks, found.mask.classes, found.mask.ignore) == ("Masks/{stem}_label.PNG", [0, 255], [3, 4])
    assert "are ignored" in reasons[-1]


def test_a_named_salt_divides_anew_and_that_is_told(tmp_path, capsys):
    put(tmp_path)
    describe(tmp_path)
    split = settled(tmp_path, "+data.split.salt=b").split
    assert (split._target_, split.train, split.salt) == ("segnet.data.splits.ByHash", 0.7, "b")
    assert "but not its split by pattern, for data.split.salt divides all images anew" in capsys.readouterr().err


def test_a_named_group_divides_anew_and_that_is_told(tmp_path, capsys):
    put(tmp_path)
    describe(tmp_path)
    split = settled(tmp_path, 'data.split.group="raw/(.)"').split
    assert (split._target_, split.train, split.group) == ("segnet.data.splits.ByHash", 0.7, "raw/(.)")
    assert "but not its split by pattern, for data.split.group divides all images anew" in capsys.readouterr().err
