"""`import_labels.py`: the masks that are written in each format come out of it."""

import cv2
import numpy as np
import pytest

from annotations.writers import DRAWN, EXACT, WRITERS, imported, read
from segnet.data import description


@pytest.mark.parametrize(("format", "kind"), EXACT)
def test_the_cables_come_back_to_the_pixel(format, kind, cable12, tmp_path, run):
    WRITERS[format](cable12, tmp_path / "in", kind)
    code, out, said = run(tmp_path / "in", "unlabelled=empty")
    assert code == 0, said
    assert f"{format}: " in said  # found out by itself, and said
    expected, images = read(cable12), sorted((cable12 / "images").iterdir())
    found = imported(out)
    assert len(found) == len(images) == 12
    # Each under its own name, or in order where the source has numbers; the image byte for byte.
    for (name, mask), (stem, got), image in zip(expected.items(), found.items(), images, strict=True):
        assert stem.startswith((name, "img_"))
        assert np.array_equal(got, mask), name
        assert (out / "images" / f"{stem}.png").read_bytes() == image.read_bytes()
    told = description.read(out)
    assert (told.classes, told.mask.encoding, told.mask.ignore) == (["defect"], "values", [255])
    assert (told.images, told.masks) == (["images/*"], "masks/{stem}.png")


@pytest.mark.parametrize(("format", "kind"), DRAWN)
def test_contours_come_back_up_to_their_border(format, kind, cable12, tmp_path, run):
    WRITERS[format](cable12, tmp_path / "in", kind)
    code, out, said = run(tmp_path / "in", "unlabelled=empty")
    assert code == 0, said
    for name, mask in read(cable12).items():
        filled = np.zeros(mask.shape, np.uint8)  # outer contours have no holes
        cv2.drawContours(filled, cv2.findContours(mask.astype(np.uint8), 0, 1)[0], -1, 1, -1)
        inside = cv2.erode(filled, np.ones((3, 3), np.uint8))
        got = imported(out)[name]
        assert (got[inside > 0] == 1).all()
        assert (got[filled == 0] == 0).all()
