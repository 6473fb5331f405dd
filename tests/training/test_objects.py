"""Objects and images in validation: against plain loops over every threshold, and in runs that go by them."""

import csv
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers import SMALL, call_main, rows
from segnet.data.masks import IGNORE_INDEX
from segnet.errors import UserError
from segnet.training.checkpoint import load_module
from segnet.training.monitors import check_metric
from segnet.training.objects import BY_SIZE, LOW, ObjectMetrics, figure, look

EIGHT = np.ones((3, 3), int)
FIGURES = [f"val/object_recall@fa{n}" for n in ("0", "0.1", "0.5", "2", "100")]
FIGURES += [f"val/{n}{share}" for n in ("escape@overkill", "overkill@escape") for share in ("0", "0.05", "0.3", "0.6")]


def labelled(mask):
    return ndimage.label(mask, EIGHT)


def probabilities_of(rng, classes, shape):
    """Blobs, with many equal values: multiples of a sixteenth."""
    smooth = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 1.5) for _ in range(classes)])
    if classes == 1:
        return (np.round(16 / (1 + np.exp(4 - 12 * smooth - 2 * rng.normal()))) / 16).astype(np.float32)
    exp = np.exp(5 * smooth)
    return (exp / exp.sum(0)).astype(np.float32)


def images_of(rng, classes, count=11):
    images = []
    for i in range(count):
        shape = (int(rng.integers(20, 40)), int(rng.integers(20, 40)))
        mask = np.zeros(shape, np.uint8)
        for _ in range(0 if i % 3 == 0 else int(rng.integers(1, 6))):
            top, left = rng.integers(0, 18, 2)
            mask[top : top + rng.integers(1, 8), left : left + rng.integers(1, 8)] = rng.integers(1, max(classes, 2))
        mask[rng.random(shape) < 0.05] = IGNORE_INDEX
        images.append((probabilities_of(rng, classes, shape), mask))
    return images


def plain(images, classes):
    """Each object of the truth and each region: loops over labels, nothing shared with what is tested."""
    best, false, areas, found, scores, defective = [], [], [], [], [], []
    for number, (p, mask) in enumerate(images):
        p = p.copy()
        p[:, mask == IGNORE_INDEX] = 0
        kinds = [1] if classes == 1 else range(1, classes)
        scores.append(p.max() if classes == 1 else p[1:].max())
        defective.append(any((mask == kind).any() for kind in kinds))
        for kind in kinds:
            own = p[0] if classes == 1 else p[kind]
            others = [p[k] for k in kinds if k != kind]
            if others:  # of equal ones the first
                wins = np.all(
                    [
                        own > o if k < kind else own >= o
                        for k, o in zip([k for k in kinds if k != kind], others, strict=True)
                    ],
                    0,
                )
                own = np.where(wins, own, 0)
            truth, n = labelled(mask == kind)
            region, m = labelled(own > LOW)
            decided = p[0] > 0.5 if classes == 1 else (p.argmax(0) == kind)
            sure, s = labelled(decided)
            hit = set()
            for i in range(1, n + 1):
                one = truth == i
                same = [j for j in range(1, m + 1) if (c := (one & (region == j)).sum())
                        and c >= 0.1 * min(one.sum(), (region == j).sum())]  # fmt: skip
                hit |= set(same)
                best.append(max((own[region == j].max() for j in same), default=0))
                areas.append(one.sum())
                found.append(any((c := (one & (sure == j)).sum()) and c >= 0.1 * min(one.sum(), (sure == j).sum())
                                 for j in range(1, s + 1)))  # fmt: skip
            false += [(number, own[region == j].max()) for j in range(1, m + 1) if j not in hit]
    return (np.array(v) for v in (best, [f for _, f in false], areas, found, scores, defective))


def at_every_threshold(name, images, classes):
    """The best that any threshold reaches within the limit."""
    best, false, areas, found, scores, defective = plain(images, classes)
    if name in BY_SIZE:
        quarter = [np.quantile(areas, q) for q in (0.25, 0.5, 0.75)]
        size = np.array([sum(a > q for q in quarter) for a in areas])
        return found[size == BY_SIZE.index(name)].mean()
    kind, limit = (n := name.removeprefix("val/").rstrip("0123456789.")), float(name[4 + len(n) :])
    if kind == "object_recall@fa":
        steps = {LOW, *best, *false}
        return max((best > t).mean() for t in steps if t >= LOW and (false > t).sum() <= limit * len(images))
    good, bad = scores[~defective], scores[defective]
    steps = {0.0, *scores, *(np.nextafter(s, 0) for s in scores if s > 0)}
    escape, overkill = {t: (bad <= t).mean() for t in steps}, {t: (good > t).mean() for t in steps}
    if kind == "escape@overkill":
        return min(escape[t] for t in steps if overkill[t] <= limit + 1e-9)
    return min(overkill[t] for t in steps if escape[t] <= limit + 1e-9)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_a_search_over_every_threshold(classes, seed):
    rng = np.random.default_rng((seed, classes))
    images = images_of(rng, classes)
    seen = [look(p, mask) for p, mask in images]
    values = {name: figure(name, seen) for name in (*FIGURES, *BY_SIZE)}
    for name, value in values.items():
        assert value == pytest.approx(at_every_threshold(name, images, classes), abs=1e-12), name
    assert len(set(values.values())) > 3


def test_what_is_not_defined_is_nan():
    rng = np.random.default_rng(0)
    p = probabilities_of(rng, 1, (32, 32))
    good, bad = np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8)
    bad[3:9, 3:9] = 1
    for masks, undefined in (([good, good], "object_recall|escape|overkill"), ([bad, bad], "escape|overkill")):
        counter = ObjectMetrics([*FIGURES, BY_SIZE[0]])
        counter.images = [(i, look(p, mask)) for i, mask in enumerate(masks)]
        for name in counter.metrics:
            value = figure(name, [image for _, image in counter.images])
            assert math.isnan(value) == (name[4:].partition("@")[0].partition("/")[0] in undefined.split("|")), name
            assert bool(counter.missing(name, ["defect"])) == math.isnan(value)
    assert counter.missing(FIGURES[-1], ["defect"]) == "no image of the val split is good"


def test_a_network_without_a_value_is_the_worst():
    bad = np.zeros((8, 8), np.uint8)
    bad[2:4, 2:4] = 1
    lost = np.full((1, 8, 8), np.nan, np.float32)
    seen = [look(lost, bad), look(lost, np.zeros((8, 8), np.uint8))]
    assert figure("val/object_recall@fa1", seen) == 0
    assert figure("val/escape@overkill0.1", seen) == figure("val/overkill@escape0.1", seen) == 1


# -- runs --------------------------------------------------------------------------------------------------------------

SIZE = 48
TINY = ("~callbacks.panels", "trainer.precision=32-true", "model.net.widths=[4,8,8,8,8]", "data.cache_dir=null")
SPLIT = "data.split={_target_: segnet.data.splits.ByPattern, train: '*/a*', val: '*/b*', test: '*/c*'}"


def tiles(root, val, seed=0):
    """Images a… to train, b… to validate, c… to test: noise with up to two bright squares on all but every third."""
    rng = np.random.default_rng(seed)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for name, count in (("a", 12), ("b", len(val)), ("c", 2)):
        for i in range(count):
            image, mask = rng.normal(110, 25, (SIZE, SIZE, 3)), np.zeros((SIZE, SIZE), np.uint8)
            for _ in range(val[i] if name == "b" else i % 3):
                (top, left), side = rng.integers(2, 30, 2), int(rng.integers(3, 14))
                mask[top : top + side, left : left + side] = 255
            image[mask > 0] += rng.uniform(20, 110)
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{name}{i}.png")
            Image.fromarray(mask).save(root / "masks" / f"{name}{i}.png")
    return root


def run(root, out, *overrides):
    small = [s for s in SMALL if "image_size" not in s and "max_epochs" not in s]
    given = [
        f"data.root={root}",
        f"output_dir={out}",
        SPLIT,
        "optimizer=muon",
        "loss=bce_dice",
        "model.optimizer.lr=0.05",
    ]
    code = call_main("train", *small, *given, *TINY, *overrides)
    assert code == 0
    return rows(out)


def again(folder, root):
    """What the kept network shows of each validation image, straight from the files."""
    module = load_module(str(folder / "checkpoints" / "best.ckpt")).eval()
    images = []
    for file in sorted((root / "images").glob("b*")):
        pixels = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None]
        with torch.no_grad():
            shown = module.slide(pixels) if module.on_crops else module.probabilities(module.logits(pixels))[0]
        images.append((shown.numpy(), np.array(Image.open(root / "masks" / file.name)) // 255))
    return images


def curves(folder):
    events = EventAccumulator(str(folder)).Reload()
    return set(events.Tags()["scalars"])


@pytest.mark.parametrize("given", [f"data.image_size={SIZE}", "data.crop=32"])
def test_a_run_keeps_the_epoch_that_they_choose(tmp_path, given):
    root = tiles(tmp_path / "data", val=[0, 1, 2, 0, 3, 1, 0, 0])
    less = ["monitor=val/escape@overkill0.3", "mode=min", "callbacks=[objects,early_stopping]", "trainer.max_epochs=5"]
    extra = ["early_stopping.monitor=val/object_recall@fa1", "early_stopping.mode=max"]
    extra += ["objects.metrics=[val/object_recall@fa0.3,val/object_recall/size1,val/object_recall/size4]"]
    table = run(root, tmp_path / "run", given, *less, *(f"callbacks.{override}" for override in extra))
    values = [float(row["val/escape@overkill0.3"]) for row in table]
    assert len(set(values)) > 1
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == int(np.argmin(values))
    images = again(tmp_path / "run", root)
    names = ["escape@overkill0.3", *(f"object_recall{n}" for n in ("@fa0.3", "@fa1", "/size1", "/size4"))]
    for name in names:
        expected = at_every_threshold(f"val/{name}", images, 1)
        assert float(table[best["epoch"]][f"val/{name}"]) == pytest.approx(expected, abs=1e-6), name
    assert len(curves(tmp_path / "run") & {f"val/{name}" for name in names}) == len(names)


def test_a_search_goes_by_them(tmp_path):
    root = tiles(tmp_path / "data", val=[0, 1, 2, 0])
    given = [
        "experiment=quickstart",
        "monitor=val/escape@overkill0.3",
        "mode=min",
        f"data.image_size={SIZE}",
        "trials=3",
    ]
    given += [
        "trials=2",
        "prune.startup_trials=1",
        "prune.warmup_epochs=0",
        "loss=bce_dice",
        "~search.optimizer",
        "optimizer=muon",
    ]
    out = tmp_path / "study"
    assert call_main("tune", *SMALL[:1], *SMALL[2:-1], f"data.root={root}", f"output_dir={out}", SPLIT, *TINY, *given,
                     "trainer.max_epochs=2") == 0  # fmt: skip
    with (out / "trials.csv").open() as file:
        trials = {row["number"]: row for row in csv.DictReader(file)}
    assert len(trials) == 2
    assert trials["0"]["state"] == "COMPLETE"
    for number, row in trials.items():
        if row["state"] == "COMPLETE":
            kept = min(float(epoch["val/escape@overkill0.3"]) for epoch in rows(out / number))
            assert float(row["value"]) == pytest.approx(kept)


def test_nothing_is_counted_that_nobody_asks_for(tmp_path):
    root = tiles(tmp_path / "data", val=[0, 1])
    (row,) = run(root, tmp_path / "run", f"data.image_size={SIZE}", "trainer.max_epochs=1")
    assert not any("object" in name or "@" in name for name in row)


def test_without_good_images_nothing_stops_and_the_last_epoch_is_kept(tmp_path, caplog):
    root = tiles(tmp_path / "data", val=[1, 2])
    early = ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", "trainer.max_epochs=4"]
    less = ["monitor=val/overkill@escape0.05", "mode=min", f"data.image_size={SIZE}"]
    plateau = "model.scheduler={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, patience: 0}"
    table = run(root, tmp_path / "run", *early, *less, plateau)
    assert [row["val/overkill@escape0.05"] for row in table] == ["nan"] * 4
    assert {row["lr"] for row in table} == {"0.05"}
    assert caplog.text.count("monitor=val/overkill@escape0.05: no image of the val split is good, so it cannot") == 1
    assert torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == 3


@pytest.mark.parametrize(
    "name",
    ["val/object_recall", "val/object_recall@0.1", "val/object_recall@fa", "val/object_recall@fa-1", "val/iou@fa0.1",
     "val/object_recall@fa1e-1", "train/object_recall@fa0.1", "val/escape@overkill5", "val/escape",
     "val/overkill@escape1", "val/object_recall/size5", "test/escape@overkill0.05", "val/object_recall@fa0.1 "],
)  # fmt: skip
def test_names_that_cannot_be(name):
    known = r"known are .*val/iou.*, val/object_recall@fa0.1, val/escape@overkill0.05, val/overkill@escape0.05 \("
    with pytest.raises(UserError, match=rf"^monitor={name}: no such metric; {known}.*size4$") as error:
        check_metric("monitor", name, ["defect"])
    assert "\n" not in str(error.value)
    for good in (
        "val/object_recall@fa0",
        "val/object_recall@fa12.5",
        "val/escape@overkill0",
        "val/overkill@escape0.99",
    ):
        check_metric("monitor", good, ["defect"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["monitor=val/overkill@escape2"], "monitor=val/overkill@escape2: no such metric; known are"),
        (["monitor=val/escape@overkill0.05"], "monitor=val/escape@overkill0.05 mode=max: less is better; use mode=min"),
        (["monitor=val/loss"], "monitor=val/loss mode=max: less is better; use mode=min"),
        (["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/overkill@escape0"],
         "callbacks.early_stopping.monitor=val/overkill@escape0 callbacks.early_stopping.mode=max: less is better; use "
         "callbacks.early_stopping.mode=min"),
        (["callbacks=objects", "callbacks.objects.metrics=[val/recall]"],
         "callbacks.objects.metrics: val/recall: no such metric; known are val/object_recall@fa0.1"),
    ],
)  # fmt: skip
def test_what_a_run_refuses(tmp_path, cable, capfd, overrides, message):
    assert call_main("train", *SMALL, f"data.root={cable}", f"output_dir={tmp_path}", *overrides) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert line.startswith(f"error: {message}")
