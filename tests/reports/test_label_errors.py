"""Damaged masks are found: generated images whose true masks are known, with predictions that err as networks do."""

import csv
import json
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers import call_main

SIDE = 64
COUNT = 160


def disc(rng, side=SIDE):
    y, x = np.mgrid[:side, :side]
    cy, cx = rng.integers(side // 4, 3 * side // 4, 2)
    return (y - cy) ** 2 + (x - cx) ** 2 <= (side // 5) ** 2


def scene(i, classes):
    """An image of noise and its true mask: a disc; of several classes the class and another disc differ."""
    rng = np.random.default_rng(i)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    first = disc(rng)
    mask[first] = 1 if classes == 1 else 1 + i % 2
    image = rng.integers(30, 110, (SIDE, SIDE, 3)).astype(np.uint8)
    image[first] += 120
    return image, mask


def predict(mask, rng, classes):
    """Class indices and confidence in 0..255 as a network may give them: blurred, displaced by a pixel, some misses."""
    shown = np.roll(mask, rng.integers(-1, 2, 2), (0, 1)) > 0
    certain = 0.97 if rng.random() > 0.06 else 0.3  # a miss, of which the network is not sure
    soft = cv2.GaussianBlur(np.where(shown, certain, 0.02).astype(np.float32), (0, 0), 1.5)
    soft = np.clip(soft + rng.normal(0, 0.02, soft.shape), 0, 1)
    guess = soft > 0.5
    if classes == 1:
        return guess.astype(np.uint8), (soft * 255).round().astype(np.uint8)
    kind = np.where(guess, mask.max(), 0).astype(np.uint8)
    return kind, (np.where(guess, soft, 1 - soft) * 255).round().astype(np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make(root, run, classes, damage):
    """A set and a run with its predictions; ``damage`` changes the masks in a list, and tells what it did."""
    masks = []
    for i in range(COUNT):
        image, mask = scene(i, classes)
        masks.append(mask)
        save(root / "images" / f"{i:03d}.jpg", image)
        guess, confidence = predict(mask, np.random.default_rng(zlib.crc32(b"%d" % i)), classes)
        save(run / "out_of_fold" / "masks" / "images" / f"{i:03d}.png", guess)
        save(run / "out_of_fold" / "confidence" / "images" / f"{i:03d}.png", confidence)
    told = damage(masks)
    for i, mask in enumerate(masks):
        save(root / "masks" / f"{i:03d}.png", mask * 255 if classes == 1 else mask)
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "config.yaml").write_text(f"data: {{num_classes: {classes}}}\n")
    return told


def some_of_each(masks):
    """Five of a hundred masks in each of the kinds."""
    rng = np.random.default_rng(0)
    chosen = rng.permutation(COUNT)[: 4 * COUNT // 20].reshape(4, -1).tolist()
    binary = max(mask.max() for mask in masks) == 1
    for i in chosen[0]:
        masks[i] = np.zeros_like(masks[i])
    for i in chosen[1]:
        masks[i] = np.roll(masks[i], (int(rng.integers(8, 14)), -int(rng.integers(8, 14))), (0, 1))
    if binary:
        for a, b in zip(chosen[2][::2], chosen[2][1::2], strict=True):
            masks[a], masks[b] = masks[b], masks[a]
    else:
        for i in chosen[2]:
            masks[i] = np.where(masks[i], 3 - masks[i], 0).astype(np.uint8)
    for i in chosen[3]:
        masks[i][4:12, 4:16] = 1  # beside the disc, or in its rim
    kinds = ("missing", "shifted", "swapped", "spurious")
    return {f"images/{i:03d}.jpg": kind for kind, part in zip(kinds, chosen, strict=True) for i in part}


def ranked(run_main, tmp_path, classes, *overrides):
    several = ["data.num_classes=3", "data.classes=[background,a,b]", "data/mask=values"] if classes == 3 else []
    code, err = run_main(
        "check_data", tmp_path / "o", "data=folder", f"data.root={tmp_path / 'data'}", "data.images=images/*",
        f"labels={tmp_path / 'run'}", *several, *overrides,
    )  # fmt: skip
    if not (tmp_path / "o" / "label_errors.csv").is_file():
        return code, err, []
    with (tmp_path / "o" / "label_errors.csv").open() as file:
        return code, err, list(csv.DictReader(file))


@pytest.mark.parametrize("classes", [1, 3])
def test_damaged_masks_come_first_and_by_their_kind(run_main, tmp_path, classes):
    damaged = make(tmp_path / "data", tmp_path / "run", classes, some_of_each)
    code, err, rows = ranked(run_main, tmp_path, classes, "worst=5")
    assert code == 0, err
    first = {row["image"]: row["kind"] for row in rows[: len(damaged)]}
    assert len(set(first) & set(damaged)) >= 0.9 * len(damaged)
    right = [image for image, kind in damaged.items() if first.get(image) == kind]
    assert len(right) >= 0.85 * len(damaged)
    for kind in set(damaged.values()):
        of_kind = [image for image, other in damaged.items() if other == kind]
        assert sum(first.get(image) == kind for image in of_kind) >= 0.7 * len(of_kind), kind
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    wrong = sum(report["label_errors"]["wrong"].values())
    assert 0.8 * len(damaged) <= wrong <= 1.2 * len(damaged)
    assert f"{wrong} masks are probably wrong" in report["warnings"][-1]
    pictures = sorted(path.name for path in (tmp_path / "o" / "label_errors").iterdir())
    assert [name[:4] for name in pictures] == ["001_", "002_", "003_", "004_", "005_"]
    with Image.open(tmp_path / "o" / "label_errors" / pictures[0]) as shown:
        assert shown.size == (4 * SIDE + 3 * 8, SIDE)
    own = tmp_path / "o" / "label_errors" / "1_of_mine.png"  # nothing is deleted, and nothing mixed
    own.write_bytes(b"mine")
    code, err, _ = ranked(run_main, tmp_path, classes, "worst=5")
    assert (code, own.read_bytes()) == (1, b"mine")
    assert "label_errors is there already; move it, or choose another output_dir" in err


def test_sound_masks_give_few_alarms_and_what_is_not_judged_is_counted(run_main, tmp_path):
    make(tmp_path / "data", tmp_path / "run", 1, lambda masks: {})
    for i in (3, 4):
        (tmp_path / "run" / "out_of_fold" / "masks" / "images" / f"{i:03d}.png").unlink()
    save(tmp_path / "run" / "out_of_fold" / "masks" / "images" / "005.png", np.zeros((9, 9), np.uint8))
    code, err, rows = ranked(run_main, tmp_path, 1)
    assert code == 0, err
    assert sum(float(row["score"]) >= 0.5 for row in rows) <= COUNT // 50
    warnings = json.loads((tmp_path / "o" / "report.json").read_text())["warnings"]
    assert any("2 of 160 images have no out-of-fold prediction" in text and "003.jpg" in text for text in warnings)
    assert any("005.jpg: its prediction in" in text and "another size, 9×9" in text for text in warnings)


def test_that_no_mask_is_suspected_is_said(tmp_path, capfd):
    make(tmp_path / "data", tmp_path / "run", 1, lambda masks: {})
    predictions = tmp_path / "run" / "out_of_fold" / "masks" / "images"
    for path in sorted(predictions.iterdir())[2:]:
        path.unlink()
    words = ["data=folder", f"data.root={tmp_path / 'data'}", f"labels={tmp_path / 'run'}", "contact=0"]
    assert call_main("check_data", *words, f"output_dir={tmp_path / 'o'}") == 0
    assert "\n2 masks compared with their predictions, 0 of them probably wrong\n" in capfd.readouterr().out


def test_a_run_without_such_predictions_is_refused_with_the_command_that_makes_them(run_main, tmp_path):
    make(tmp_path / "data", tmp_path / "run", 1, lambda masks: {})
    (tmp_path / "run" / "out_of_fold").rename(tmp_path / "run" / "other")
    code, err, _ = ranked(run_main, tmp_path, 1)
    assert code == 1
    assert "holds no out-of-fold predictions" in err
    assert "src/train.py experiment=auto data=folder" in err
    assert f"data.root={tmp_path / 'data'} folds=5" in err
    (tmp_path / "run" / "other").rename(tmp_path / "run" / "out_of_fold")
    code, err, _ = ranked(run_main, tmp_path, 3)
    assert code == 1
    assert "was trained with data.num_classes=1" in err


def test_a_negative_a_mirrored_and_a_single_displaced_object_are_known():
    from segnet.reports.label_errors import judge

    y, x = np.mgrid[:96, :128]
    wedge = (x > 10) & (x < 60) & (y > 20) & (y < 20 + (x - 10))
    other = (x - 100) ** 2 + (y - 70) ** 2 < 15**2
    truth = (wedge | other).astype(np.uint8)
    confidence = np.where(truth == 1, 0.95, 0.03).astype(np.float32)

    def kinds(mask):
        found = judge(mask, truth, confidence, True, True, ["background", "defect"]).suspicions
        return {one.kind: one for one in found}

    assert kinds(truth) == {}
    assert kinds(cv2.dilate(truth, np.ones((3, 3), np.uint8))) == {}
    assert "network takes for background" in kinds(1 - truth)["swapped"].detail
    assert "left to right" in kinds(np.ascontiguousarray(truth[:, ::-1]))["shifted"].detail
    moved = np.roll(truth, (9, 13), (0, 1))
    assert "13 pixels to the right and 9 down" in kinds(moved)["shifted"].detail
    single = wedge | np.roll(other, (-45, 0), (0, 1))
    assert "where the network sees it" in kinds(single.astype(np.uint8))["shifted"].detail
    assert set(kinds(wedge.astype(np.uint8))) == {"missing"}
