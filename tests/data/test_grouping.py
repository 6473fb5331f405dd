import pytest

from segnet.data import grouping
from segnet.data.datamodule import SegmentationDataModule
from segnet.data.masks import Threshold, Values
from segnet.data.splits import ByHash
from segnet.errors import UserError


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        (r"MT_(\w+?)/", "MT_Blowhole/Imgs/exp1.jpg", "Blowhole"),
        (r"part\d+", "a/part12_3.png", "part12"),  # without groups the whole match
        (r"(part\d+)_(\d)", "a/part12_3.png", "part12"),  # of several groups the first
        (r"x(.)", "a.png", None),
        (r"(b)?a", "a.png", None),  # matches, but the group takes no part
        (r"MT_(\w*)/", "MT_/a.png", ""),
    ],
)
def test_the_first_group_or_the_whole_match(pattern, path, expected):
    assert grouping.group(pattern, path) == expected
    assert grouping.kind_of(pattern, path) == (expected or "no kind")
    assert grouping.part_of(pattern, path) == (expected or path)


def test_without_a_pattern_each_image_is_a_part():
    assert grouping.part_of(None, "a/b.png") == "a/b.png"


@pytest.mark.parametrize("key", ["kinds", "parts", "match"])
def test_what_is_no_regular_expression_is_refused(tmp_path, key):
    with pytest.raises(UserError, match=rf"^data\.{key}='\(': no regular expression \(.*\); correct it$"):
        SegmentationDataModule(
            tmp_path, "*.png", "{stem}.png", Threshold(), ["defect"], 1, ByHash(1, 0, 0), **{key: "("}
        )


def test_so_is_the_group_of_a_split():
    with pytest.raises(UserError, match=r"^data\.split\.group='\[': no regular expression \(.*\); correct it$"):
        ByHash(1, 0, 0, group="[")


def test_names_that_figures_give_to_intervals_are_refused(tmp_path):
    """object_recall/risk_high is the end of the interval of object_recall/risk."""
    told = r"^data\.classes: 'risk' and 'risk_high': in results\.json the second is the end .*; rename one of them$"
    with pytest.raises(ValueError, match=told):
        SegmentationDataModule(
            tmp_path, "*.png", "{stem}.png", Values(3), ["good", "risk", "risk_high"], 3, ByHash(1, 0, 0)
        )
    grouping.check_names("data.kinds", ["low", "high", "risk", "risk_higher", "_low"])
    with pytest.raises(ValueError, match=r"^data\.kinds: 'a' and 'a_low': "):
        grouping.check_names("data.kinds", {"a", "a_low"})
