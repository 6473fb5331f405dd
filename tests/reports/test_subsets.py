"""The images that an operating point is chosen on, as a run with folds has left them."""

import numpy as np
from PIL import Image

from segnet.data import SegmentationData
from segnet.data.masks import Threshold
from segnet.data.splits import All
from segnet.reports import out_of_fold, subsets


def test_names_that_a_spreadsheet_would_run_are_found(tmp_path):
    names = ["-1.png", "=a.png", "@b.png", "c.png"]
    root, run = tmp_path / "data", tmp_path / "run"
    for folder in (root, root / "masks", *(run / "out_of_fold" / kind for kind in ("masks", "confidence"))):
        folder.mkdir(parents=True, exist_ok=True)
        for i, name in enumerate(names):
            Image.fromarray(np.full((8, 8), 255 * (i % 2), np.uint8)).save(folder / name)
    judged = [out_of_fold.Judged(name, 0, np.eye(2, dtype=np.int64)) for name in names]
    out_of_fold.write_table(run / "out_of_fold" / "images.csv", judged, ["defect"])
    data = SegmentationData(root, "*.png", "masks/{stem}.png", Threshold(), ["defect"], 1, All(), image_size=32)
    data.setup()
    found = subsets.of_folds(data, run, ["defect"])
    assert [pair.image.name for pair in found.pairs] == found.files == names
    assert found.defective.tolist() == [False, True, False, True]
