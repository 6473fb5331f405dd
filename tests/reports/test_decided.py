"""Decisions in ``eval.py`` and training, counted once more from the masks that ``predict.py`` writes and the files."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from helpers import SMALL, call_main
from segnet.decisions import OperatingPoint, rates
from segnet.training.checkpoint import write_calibrated

EIGHT = np.ones((3, 3))
QUIET = ("trainer=cpu", "trainer.enable_progress_bar=false", "worst=1", "grid=1")
DATA = (
    "data=folder", "data.images=MT_*/*.png", "data/mask=values", "data.classes=[defect]",
    "data.num_classes=1", "data.mask.classes=[0,255]", "data.mask.ignore=[128]", "data.kinds='MT_(\\w+)/'",
    "data.parts='(p\\d)_'",
)  # fmt: skip


@pytest.fixture(scope="module")
def tiles(shared, cable):
    """The cables in folders of two kinds and one of good ones; two images a part; a band ignored in masks."""

    def write(root):
        for i, path in enumerate(sorted((cable / "images").iterdir())):
            mask = np.array(Image.open(cable / "masks" / path.name))
            kind = "Free" if not mask.any() else "AB"[i % 2]
            band = mask.copy()
            if i % 3 == 0 and kind != "Free":
                band[:, :20] = 128
            images = {f"MT_{kind}": Image.open(path), "band": Image.fromarray(band)}
            for folder, image in images.items():
                (root / folder).mkdir(parents=True, exist_ok=True)
                image.save(root / folder / f"p{i // 2 % 10}_{i}.png")

    return shared("tiles", write)


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def count(root, rows, masks):
    """Of each image: objects of the truth and predicted ones as sets of pixels, without the ignored pixels."""
    found = []
    for row in rows:
        name = Path(row["file"]).name
        truth, guess = np.array(Image.open(root / name)), np.array(Image.open(masks / name)) > 0
        sides = [ndimage.label(side & (truth != 128), EIGHT) for side in (truth == 255, guess)]
        found.append([[frozenset(map(tuple, np.argwhere(labels == i + 1))) for i in range(n)] for labels, n in sides])
    return found


def same(a, b):
    return len(a & b) > 0 and 10 * len(a & b) >= min(len(a), len(b))


@pytest.fixture(params=[None, OperatingPoint((0.35,), (0.2,), (6,), True)], ids=["default", "point"])
def checkpoint(request, trained, tmp_path):
    best = trained / "checkpoints" / "best.ckpt"
    if request.param is None:
        return best
    write_calibrated(best, tmp_path / "calibrated.ckpt", request.param)
    return tmp_path / "calibrated.ckpt"


def test_figures_are_those_of_predicted_masks(checkpoint, tiles, tmp_path, capfd):
    masks = "band"  # some of whose pixels are ignored
    given = [
        f"ckpt_path={checkpoint}",
        *QUIET,
        *DATA,
        f"data.root={tiles}",
        "split=all",
        "worst=2",
        f"data.masks='{masks}/{{stem}}.png'",
    ]
    assert call_main("eval", *given, f"output_dir={tmp_path}/e") == 0
    printed = capfd.readouterr().out
    code = call_main(
        "predict",
        f"ckpt_path={checkpoint}",
        f"input='{tiles}/MT_*/*.png'",
        f"output_dir={tmp_path}/p",
        "device=cpu",
        "overlay=false",
    )
    assert code == 0
    rows, results = read(tmp_path / "e/images.csv"), json.loads((tmp_path / "e/results.json").read_text())
    metrics = results["metrics"]
    images = count(tiles / masks, rows, tmp_path / "p")
    hits = [[any(same(a, b) for b in two) for a in one] for one, two in images]
    true = [[any(same(a, b) for a in one) for b in two] for one, two in images]
    assert 0 < sum(map(sum, hits)) < sum(map(len, hits))  # some are found, some not
    for name, found in (("object_recall", hits), ("object_precision", true)):
        total, part = sum(map(len, found)), sum(map(sum, found))
        assert metrics[f"all/{name}"] == part / total
        assert results["decisions"]["all"]["counted"][name] == [part, total]
        limits = rates.clustered_interval([sum(f) for f in found], [len(f) for f in found])
        assert (metrics[f"all/{name}_low"], metrics[f"all/{name}_high"]) == pytest.approx(limits)
    false = sum(len(t) - sum(t) for t in true)
    assert metrics["all/false_alarms_per_image"] == false / len(rows)
    covered = [len(a & frozenset().union(*two)) / len(a) for one, two in images for a in one]
    assert metrics["all/pro"] == pytest.approx(np.mean(covered))
    assert 0 < metrics["all/aupro_low"] <= metrics["all/aupro"] <= metrics["all/aupro_high"] <= 1

    # Images, kinds and parts.
    for row, (one, two) in zip(rows, images, strict=True):
        assert row["truth"] == ("defective" if one else "good")
        assert row["verdict"] == ("defective" if two else "good")
        assert (row["kind"], row["objects"]) == (row["file"][3:].split("/")[0], str(len(two)))
        assert row["part"] == Path(row["file"]).name.split("_")[0]
    parts = {}
    for row in rows:
        parts.setdefault(row["part"], []).append(row)
    bad = {name: part for name, part in parts.items() if any(row["truth"] == "defective" for row in part)}
    escaped = [name for name, part in bad.items() if all(row["verdict"] == "good" for row in part)]
    assert metrics["all/escape_rate"] == len(escaped) / len(bad)
    limits = rates.exact_interval(len(escaped), len(bad))
    assert (metrics["all/escape_rate_low"], metrics["all/escape_rate_high"]) == pytest.approx(limits)
    for kind in "AB":
        chosen = [h for row, h in zip(rows, hits, strict=True) if row["kind"] == kind]
        assert metrics[f"all/object_recall/kind/{kind}"] == sum(map(sum, chosen)) / sum(map(len, chosen))
    assert metrics["all/object_recall/kind/Free"] is None
    areas = np.array([len(a) for one, _ in images for a in one])
    edges = np.quantile(areas, [0.25, 0.5, 0.75])
    assert results["decisions"]["all"]["area_edges"] == edges.tolist()
    small = np.array([h for one in hits for h in one])[areas <= edges[0]]
    assert metrics["all/object_recall/size/1"] == small.mean()

    # Every object of the truth and every false alarm.
    table = read(tmp_path / "e/objects.csv")
    assert sum(row["object"] == "defect" for row in table) == len(areas)
    assert sorted(int(row["area"]) for row in table if row["object"] == "defect") == sorted(areas)
    assert sum(row["found"] == "yes" for row in table) == sum(map(sum, hits))
    assert sum(row["object"] == "false alarm" for row in table) == false

    # A contact sheet each of what escaped and what was rejected: a row an image, as in images.csv.
    for name, truth, verdict in (("escapes", "defective", "good"), ("overkills", "good", "defective")):
        wrong = sum((row["truth"], row["verdict"]) == (truth, verdict) for row in rows)
        sheet = tmp_path / "e" / f"{name}.png"
        assert sheet.exists() is bool(wrong)
        if wrong:
            with Image.open(sheet) as image:
                drawn = min(wrong, 2)
                assert image.height == drawn * (18 + 64) + (drawn - 1) * 8

    # What is printed: every rate with its interval.
    line = next(line for line in printed.splitlines() if line.startswith("all/escape_rate "))
    told = (
        f"({metrics['all/escape_rate_low']:.4f} to {metrics['all/escape_rate_high']:.4f}; {len(escaped)} of {len(bad)})"
    )
    assert told in line
    assert (results["decisions"]["all"]["operating_point"] is None) is ("calibrated" not in str(checkpoint))


def test_a_training_decides_on_val_and_test_and_its_card_has_intervals(trained):
    results = json.loads((trained / "results.json").read_text())
    for split in ("val", "test"):
        for name in ("object_recall", "false_alarms_per_image", "boundary_iou", "escape_rate"):
            value, low, high = (results["metrics"][f"{split}/{name}{end}"] for end in ("", "_low", "_high"))
            assert low <= value <= high
        assert results["decisions"][split]["images"] == results["images"][split]
    card = (trained / "README.md").read_text()
    section = card.partition("## Decisions")[2].partition("## Outputs")[0]
    shown = re.findall(r"(?<=\| )(\d\.\d{4}[^|]*)", section)
    assert len(shown) > 20
    assert all(re.match(r"\d+\.\d{4} \((\d+\.\d{4} to \d+\.\d{4}|interval unknown)", cell) for cell in shown)


def test_without_own_size_nothing_is_decided_and_that_is_said(trained, cable, tmp_path, capfd):
    code = call_main(
        "eval",
        f"ckpt_path={trained}/checkpoints/best.ckpt",
        *QUIET,
        f"data.root={cable}",
        "own_size=false",
        f"output_dir={tmp_path}/e",
    )
    assert code == 0
    assert "own_size=false: objects, escapes and overkills are not counted" in capfd.readouterr().out
    assert not (tmp_path / "e/objects.csv").exists()
    assert "verdict" not in read(tmp_path / "e/images.csv")[0]


def test_a_part_of_the_validation_images_is_not_decided_on(cable, cache, tmp_path):
    code = call_main(
        "train", *SMALL, f"data.root={cable}", "data=folder", f"data.cache_dir={cache}", "~callbacks.panels",
        "trainer.limit_val_batches=1", f"output_dir={tmp_path}/r",
    )  # fmt: skip
    assert code == 0
    results = json.loads((tmp_path / "r/results.json").read_text())
    assert list(results["decisions"]) == ["test"]
    assert "val/escape_rate" not in results["metrics"]
