"""Intervals of IoU against a bootstrap written out in loops, and in what a training of few images leaves behind."""

import json
import random
import re

import numpy as np
import pytest
from PIL import Image

from helpers import SMALL, call_main
from segnet.reports.intervals import note
from segnet.runs.comparison import interval


def by_hand(matrices, binary, resamples):
    """Percentiles of the IoU (mean over the classes that occur, or the defect's) of images drawn with replacement."""
    rng = random.Random(1)
    drawn = []
    for _ in range(resamples):
        total = sum(rng.choices(matrices, k=len(matrices)))
        ious = []
        for c in range(len(total)):
            union = total[c].sum() + total[:, c].sum() - total[c, c]
            ious.append(total[c, c] / union if union else None)
        if binary:
            ious = ious[1:]
        known = [v for v in ious if v is not None]
        drawn += [sum(known) / len(known)] if known else []
    drawn.sort()
    return drawn[int(0.025 * len(drawn))], drawn[int(0.975 * len(drawn))]


@pytest.mark.parametrize(("classes", "binary", "images"), [(2, True, 12), (2, False, 12), (4, False, 30)])
def test_the_interval_is_that_of_images_drawn_anew(classes, binary, images):
    rng = np.random.default_rng(0)
    matrices = [rng.integers(0, 60, (classes, classes)) + np.diag(rng.integers(0, 300, classes)) for _ in range(images)]
    found = interval(np.stack(matrices).reshape(images, -1), binary, 4000)
    assert found == pytest.approx(by_hand(matrices, binary, 4000), abs=0.015)
    assert found[1] - found[0] > 0.03
    wide = interval(np.stack(matrices[:5]).reshape(5, -1), binary, 4000)
    assert wide[1] - wide[0] > found[1] - found[0]


def test_what_cannot_be_known_is_said():
    one = np.array([[5, 0, 0, 3]])
    assert interval(one, True) is None
    assert interval(np.array([[5, 0, 0, 0]] * 9), True) is None  # no defect
    assert interval(np.repeat(one, 9, 0), True) == (1.0, 1.0)
    assert note(None, 1) == "unknown (1 image: the figure says little)"
    assert note([0.25, 0.5], 4) == "0.2500 to 0.5000 (4 images: so few say little)"
    assert note([0.25, 0.5], 25) == "0.2500 to 0.5000 (25 images)"


@pytest.mark.parametrize("images", [3, 10])
def test_few_images_train_and_the_card_says_how_little_that_tells(tmp_path, capfd, images):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for i in range(images):
        disc = (y - rng.integers(8, 24)) ** 2 + (x - rng.integers(8, 24)) ** 2 < 49
        Image.fromarray((rng.integers(0, 90, (32, 32, 3)) + 120 * disc[..., None]).astype(np.uint8)).save(
            tmp_path / "data" / "images" / f"{i}.png"
        )
        Image.fromarray(disc.astype(np.uint8) * 255).save(tmp_path / "data" / "masks" / f"{i}.png")
    run = tmp_path / "run"
    given = ["data=folder", f"data.root={tmp_path / 'data'}", "data.cache_dir=null", "data.batch_size=1"]
    code = call_main("train", *SMALL, *given, "~callbacks.panels", "trainer.max_epochs=2", f"output_dir={run}")
    printed = capfd.readouterr()
    assert code == 0, printed.err
    results, card = json.loads((run / "results.json").read_text()), (run / "README.md").read_text()
    told = re.search(r"^95 % interval of the IoU, had other images been drawn \(bootstrap\):\n(.*)\.$", card, re.M)[1]
    counts = results["images"]
    assert sum(counts.values()) == images
    for name, count in (("val/iou", counts["val"]), ("test/iou", counts["test"])):
        if count < 2:
            assert name not in results["intervals"]
            assert "unknown (1 image: the figure says little)" in told
        else:
            low, high = results["intervals"][name]
            assert low - 1e-6 <= results["metrics"][name] <= high + 1e-6
            assert f"{low:.4f} to {high:.4f} ({count} images: so few say little)" in told
    (ckpt,) = [path for path in (run / "checkpoints").glob("*.ckpt") if path.stem != "last"]
    out = tmp_path / "eval"
    code = call_main("eval", f"ckpt_path={ckpt}", "split=all", "trainer=cpu", f"output_dir={out}")
    printed = capfd.readouterr().out
    assert code == 0
    low, high = json.loads((out / "results.json").read_text())["intervals"]["all/iou"]
    assert f"95 % interval over images {low:.4f} to {high:.4f} ({images} images" in printed
