"""Large images with small objects: the data audit says what resizing leaves of them."""

import json

import cv2
import numpy as np
import pytest

from helpers import call_main
from lines import write
from segnet.reports import shrinking


@pytest.mark.parametrize("thickness", [1, 3, 5, 9, 15])
def test_an_object_is_as_wide_as_it_is_drawn(thickness):
    mask = np.zeros((120, 160), np.uint8)
    mask[60 : 60 + thickness, 10:150] = 1
    cv2.circle(mask, (30, 20), 14, 1, -1)
    assert shrinking.width(mask > 0) == pytest.approx(thickness, abs=0.5)
    assert shrinking.width(np.zeros((5, 5), bool)) is None


@pytest.mark.parametrize(
    ("sizes", "widths", "said"),
    [
        ([(3000, 4000)] * 3, [3, 3, 40], True),
        ([(3000, 4000)] * 3, [40, 60], False),  # still 5 pixels
        ([(480, 640)] * 5 + [(3000, 4000)], [1, 1], False),  # most are no larger
        ([(3000, 4000)] * 3, [], False),
        ([], [], False),
    ],
)
def test_only_large_images_with_small_objects_are_told(sizes, widths, said):
    assert (shrinking.warning(sizes, widths, (480, 480)) is not None) == said


def test_the_audit_proposes_crops(tmp_path):
    write(tmp_path / "set", images=4, height=300, width=400, thickness=3)
    given = (
        "data=folder",
        f"data.root={tmp_path / 'set'}",
        "data.split.train=0.5",
        "data.split.val=0.5",
        "data.split.test=0",
    )
    for name, more, expected in (("small", "data.image_size=64", 1), ("crop", "data.crop=64", 0)):
        call_main("check_data", *given, more, f"output_dir={tmp_path / name}")
        warnings = json.loads((tmp_path / name / "report.json").read_text())["warnings"]
        told = [text for text in warnings if "data.crop=64 trains on crops" in text]
        assert len(told) == expected
