"""The settings of an evaluation: those of the training, but for what the command line names."""

import dataclasses
import re
from copy import deepcopy
from inspect import signature

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from segnet.cli import CONF_DIR
from segnet.configuration import instantiate
from segnet.data import ByHash, ByList, ByPattern, Palette, SegmentationDataModule, Threshold, Values
from segnet.errors import UserError, explain
from segnet.hydra_versions import BASE
from segnet.runs.checkpoint_data import settings

VALUES = {"_target_": "segnet.data.masks.Values", "num_classes": 3, "classes": [0, 7, 9], "ignore": [255]}
PATTERN = {"_target_": "segnet.data.splits.ByPattern", "train": "a/*", "val": "b/*", "test": "c/*"}
TRAINED = {
    "_target_": "segnet.data.datamodule.SegmentationDataModule",
    "root": "/trained/here",
    "images": "*/*.png",
    "match": None,
    "masks": "m/{stem}.png",
    "missing_mask": "error",
    "defect_free": None,
    "mask_drawn": None,
    "mask": VALUES,
    "classes": ["background", "crack", "stain"],
    "num_classes": 3,
    "colors": [[0, 0, 0], [255, 0, 0], [0, 255, 0]],
    "split": PATTERN,
    "image_size": [96, 64],
    "batch_size": 7,
    "num_workers": 0,
    "cache_dir": "/trained/cache",
    "cache_gb": 1.0,
    "device_cache": False,
    "augment": [],
    "positive_share": None,
    "prepare": None,
    "seed": 5,
}
HASH = {"_target_": "segnet.data.splits.ByHash", "train": 0.7, "val": 0.15, "test": 0.15}


def found(*overrides, name="eval", trained=TRAINED, whole=False):
    """What `settings` gives for a command line, as Hydra composes it."""
    with initialize_config_dir(str(CONF_DIR), **BASE):
        cfg = compose(name, ["ckpt_path=x", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    before = OmegaConf.to_yaml(cfg)
    config = {"data": deepcopy(trained), "model": {"classes": trained["classes"]}}
    try:
        return settings(config, cfg, whole)
    finally:
        assert (OmegaConf.to_yaml(cfg), config["data"]) == (before, trained)  # both are left as they were
        HydraConfig.instance().cfg = None


def changed(result, trained=TRAINED):
    return {key: value for key, value in result.items() if key not in trained or trained[key] != value}


def test_every_setting_of_an_evaluation_can_be_named():
    """conf/data/checkpoint.yaml lists them by hand."""
    listed = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "data" / "checkpoint.yaml"))
    of_training = {"augment", "positive_share", "prepare", "crop_share", "crops_per_epoch"}
    takes = set(signature(SegmentationDataModule).parameters) - of_training
    assert listed.keys() - {"defaults", "_target_"} == takes
    for key, kinds in (("split", (ByHash, ByList, ByPattern)), ("mask", (Threshold, Values, Palette))):
        fields = {field.name for kind in kinds for field in dataclasses.fields(kind)}
        assert listed[key].keys() - {"_target_"} == fields


@pytest.mark.parametrize("name", ["eval", "export"])
def test_without_a_word_everything_is_as_trained_but_the_cache(name):
    assert changed(found(name=name)) == {"cache_dir": None}


@pytest.mark.parametrize("name", ["eval", "export"])
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.root=/there"], {"root": "/there"}),
        (["data.image_size=128"], {"image_size": 128}),
        (["data.image_size=[40,60]"], {"image_size": [40, 60]}),
        (["data.image_size=480"], {"image_size": 480}),  # named, though it is the default of every group
        (["data.cache_dir=/c"], {"cache_dir": "/c"}),
        (["data.missing_mask=empty", "data.batch_size=2"], {"missing_mask": "empty", "batch_size": 2}),
        (["data.mask.classes=[1,2,3]"], {"mask": VALUES | {"classes": [1, 2, 3]}}),
        (["data.split.test=d/*"], {"split": PATTERN | {"test": "d/*"}}),
        (["data.images='*.jpg'", "data.masks='{stem}.gif'"], {"images": "*.jpg", "masks": "{stem}.gif"}),
        (["data.colors=null"], {"colors": None}),
        (
            ["data/mask=palette", "data.mask.colors=[[0,0,0],[1,1,1],[2,2,2]]"],
            {
                "mask": {
                    "_target_": "segnet.data.masks.Palette",
                    "colors": [[0, 0, 0], [1, 1, 1], [2, 2, 2]],
                    "ignore": [],
                    "tolerance": None,
                }
            },
        ),
        # The number of classes is the training's, not that of the placeholder in conf/data/folder.yaml.
        (["data/mask=values"], {"mask": VALUES | {"classes": None}}),
    ],
)
def test_what_is_named_holds(overrides, expected, name):
    result = found(*overrides, name=name)
    assert changed(result) == {"cache_dir": None} | expected


def test_a_group_says_where_the_files_are_and_nothing_else():
    result = changed(found("data=folder", "data.root=/f"))
    split = result.pop("split")
    assert {key: split[key] for key in HASH} == HASH
    assert result == {"cache_dir": None, "root": "/f", "images": "images/*", "masks": "masks/{stem}.png"}


def test_kinds_and_parts_are_the_training_s_unless_named_or_the_group_has_some():
    one = TRAINED | {"classes": ["defect"], "num_classes": 1, "colors": None, "kinds": "k(.)", "parts": "p(.)"}
    assert found("data=folder", "data.root=/f", trained=one)["kinds"] == "k(.)"
    result = found("data.root=/f", "data.parts='q(.)'", trained=one)
    assert (result["kinds"], result["parts"]) == ("k(.)", "q(.)")
    result = found("data=magnetic_tile", "data.root=/f", trained=one)
    assert (result["kinds"], result["parts"]) == ("MT_(\\w+?)/", "p(.)")
    assert found("data.root=/f", "data.kinds=null", trained=one)["kinds"] is None


def test_a_group_beside_named_settings():
    result = found(
        "data=folder", "data.root=/f", "data.image_size=200", "data/mask=values", "data.mask.ignore=[3]",
        "data.split.test=0", "data.missing_mask=empty", "data.classes=[background,crack,stain]",
    )  # fmt: skip
    assert result["image_size"] == 200
    assert result["mask"] == VALUES | {"classes": None, "ignore": [3]}
    assert result["split"]["test"] == 0
    assert result["missing_mask"] == "empty"
    assert result["colors"] == TRAINED["colors"]


def test_a_group_that_makes_its_data():
    one = TRAINED | {"classes": ["defect"], "num_classes": 1, "colors": None}
    result = found("data=synthetic", "data.prepare.images=7", trained=one)
    assert result["root"] == "data/cable-7x480-seed0"
    assert result["prepare"]["size"] == 480
    assert result["image_size"] == [96, 64]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data.classes=[crack,background,stain]"], r"data\.classes is \[crack,background,stain\], .* add 'data\.cl"),
        (
            ["data.classes=[background,crack]"],
            r"data\.classes is \[background,crack\], .*trained for \[background,crac",
        ),
        (
            ["data.classes=[a,b,c]"],
            r"number, names and order must agree; if .*'data.classes=\[background,crack,stain\]'",
        ),
        (["data=camvid", "data.root=/c"], r"data=camvid has the classes \[Sky,.*choose data with these classes"),
        (["data=cable", "data.root=/c"], r"data=cable has the classes \[defect\], but"),
        (["data=folder"], r"data\.root is missing; give data\.root=<value>"),
    ],
)
def test_what_is_refused(overrides, told):
    with pytest.raises(Exception) as error:  # OmegaConf's own for the last
        found(*overrides)
    assert re.search(told, explain(error.value) or "")


def test_a_name_alone_can_be_confirmed():
    one = TRAINED | {"classes": ["scratch"], "num_classes": 1, "colors": None}
    with pytest.raises(UserError, match=r"data=cable has the classes \[defect\].*add 'data\.classes=\[scratch\]'"):
        found("data=cable", "data.root=/c", trained=one)
    assert found("data=cable", "data.root=/c", "data.classes=[scratch]", trained=one)["root"] == "/c"


def test_an_argument_that_the_encoding_does_not_have_is_named():
    result = found("data.mask.above=3")
    with pytest.raises(UserError, match=r"data\.mask\.above=3: Values takes no such argument"):
        instantiate(result, "data")


def test_every_image():
    assert changed(found(whole=True)) == {"cache_dir": None, "split": {"_target_": "segnet.data.splits.All"}}
    with pytest.raises(UserError, match=r"split=all takes every image, so data\.split has no effect"):
        found("data.split.test=0.5", whole=True)
