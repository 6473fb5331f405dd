"""An operating point in every program: checkpoint, exported files, predictions, and the scripts that read them."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage

from helpers import call_main
from segnet.data.images import read_rgb
from segnet.decisions import OperatingPoint
from segnet.deployment import inputs, results, writer
from segnet.deployment.prediction import Prediction
from segnet.training.checkpoint import load_module, write_calibrated

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools'
EIGHT = np.ones((3, 3))
POINT = OperatingPoint((0.7,), (0.35,), (6,), True, 1.5, {"target": "escape<=0.1"})


@pytest.fixture(scope="module")
def calibrated(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("calibrated") / "calibrated.ckpt"
    write_calibrated(trained / "checkpoints" / "best.ckpt", path, POINT)
    return path


def plain(probabilities, stored):
    """What docs/deployment.md says, in scipy: mask and score of one image's probabilities (1, H, W)."""
    first, second = (p ** (1 / stored["temperature"]) for p in (probabilities[0], 1 - probabilities[0]))
    p = first / (first + second)
    above = p > stored["low"][0]
    above = ndimage.binary_fill_holes(above) if stored["fill_holes"] else above
    labels, count = ndimage.label(above, EIGHT)
    mask, score = np.zeros(p.shape, bool), 0.0
    for i in range(1, count + 1):
        inside = labels == i
        if inside.sum() >= stored["min_area"][0]:
            score = max(score, p[inside].max())
            mask |= inside & (p[inside].max() > stored["thresholds"][0])
    return mask, score


def table(folder, name="predictions"):
    with (folder / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def masks(folder):
    return {row["file"]: np.asarray(Image.open(folder / Path(row["file"]).name)) > 0 for row in table(folder)}


def predict(run_main, out, model, given, *more):
    return run_main("predict", out, f"ckpt_path={model}", f"input={given}", "overlay=false", *more)


def test_predict_applies_it_and_lists_what_it_finds(run_main, calibrated, cable, tmp_path):
    out = tmp_path / "out"
    code, err = predict(run_main, out, calibrated, cable / "images")
    assert code == 0, err
    module = load_module(calibrated)
    found, listed = table(out), table(out, "objects")
    number = 0
    for row in found:
        with torch.no_grad():
            p = module(torch.from_numpy(read_rgb(row["file"]).copy()).permute(2, 0, 1)[None]).sigmoid()[0]
        mask, score = plain(p.double().numpy(), POINT.stored())
        labels, count = ndimage.label(mask, EIGHT)
        shown = np.asarray(Image.open(out / Path(row["file"]).name)) > 0
        assert np.array_equal(shown, mask)
        assert (row["verdict"], int(row["objects"])) == ("defective" if count else "good", count)
        assert float(row["score"]) == pytest.approx(score, abs=6e-5)
        mine = [entry for entry in listed if entry["file"] == row["file"]]
        assert sorted(int(entry["area"]) for entry in mine) == sorted(np.bincount(labels.ravel())[1:].tolist())
        number += count
    verdicts = [row["verdict"] for row in found]
    assert set(verdicts) == {"good", "defective"}
    assert number == len(listed) > 0
    for name in ("good", "defective"):
        lines = (out / f"{name}.txt").read_text().splitlines()
        assert lines == [row["file"] for row in found if row["verdict"] == name]
    assert list(found[0])[-2:] == ["verdict", "objects"]


@pytest.fixture(scope="module")
def exported(calibrated, tmp_path_factory):
    """Of each kind the exported file, and its verification."""
    found = {}
    for kind, more in (
        ("onnx", ["format=onnx"]),
        ("pt2", ["format=pt2"]),
        (
            "int8",
            [
                "quantize=int8",
                *(f"tolerance_int8.{limit}" for limit in ("iou=1", "decisions=0", "verdicts=0", "objects=0")),
            ],
        ),
    ):
        folder = tmp_path_factory.mktemp(kind)
        code = call_main("export", f"ckpt_path={calibrated}", "images=4", f"output_dir={folder}", *more)
        assert code == 0
        verified = json.loads((folder / "verification.json").read_text())
        found[kind] = folder / f"model.{'pt2' if kind == 'pt2' else 'onnx'}", verified
    return found


@pytest.mark.parametrize("kind", ["onnx", "pt2", "int8"])
def test_an_exported_file_carries_it_and_is_verified_under_it(kind, exported):
    path, verified = exported[kind]
    if kind == "pt2":
        extra = {"segnet.json": ""}
        torch.export.load(path, extra_files=extra)
        stored = json.loads(extra["segnet.json"])["operating_point"]
    else:
        properties = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
        stored = json.loads(properties["segnet.json"])["operating_point"]
    assert stored == json.loads(json.dumps(POINT.stored())) == verified["operating_point"]
    assert verified["verdicts"] == min(row["verdicts"] for row in verified["sizes"])
    if kind != "int8":
        assert verified["decisions"] > 0.999
        assert verified["verdicts"] == 1


def test_predict_of_an_exported_file_decides_as_of_the_checkpoint(run_main, exported, calibrated, cable, tmp_path):
    outs = [tmp_path / name for name in ("ckpt", "onnx")]
    for out, model in zip(outs, (calibrated, exported["onnx"][0]), strict=True):
        code, err = predict(run_main, out, model, cable / "images")
        assert code == 0, err
    for name in ("verdict", "objects", "pixels_defect"):
        assert [row[name] for row in table(outs[0])] == [row[name] for row in table(outs[1])]
    first, second = map(masks, outs)
    assert all(np.array_equal(first[file], second[file]) for file in first)


def test_another_program_applies_the_metadata(exported, run_main, cable, tmp_path):
    """ONNX Runtime and scipy alone, as docs/deployment.md says."""
    path = exported["onnx"][0]
    code, err = predict(run_main, tmp_path / "o", path, cable / "images")
    assert code == 0, err
    session = onnxruntime.InferenceSession(path)
    stored = json.loads(session.get_modelmeta().custom_metadata_map["segnet.json"])["operating_point"]
    for file, mask in masks(tmp_path / "o").items():
        image = np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1)[None]
        (p,) = session.run(None, {"images": image})
        assert np.array_equal(plain(p[0].astype(np.float64), stored)[0], mask)


def test_a_file_gives_one_and_none_takes_it_away(run_main, calibrated, trained, cable, tmp_path):
    best = trained / "checkpoints" / "best.ckpt"
    (tmp_path / "point.json").write_text(json.dumps(POINT.stored()))
    given = {
        "own": (calibrated, []),
        "file": (best, [f"operating_point={tmp_path}/point.json"]),
        "none": (calibrated, ["operating_point=none"]),
        "plain": (best, []),
    }
    found = {}
    for name, (model, more) in given.items():
        code, err = predict(run_main, tmp_path / name, model, cable / "images", *more)
        assert code == 0, err
        found[name] = list(masks(tmp_path / name).values())
    assert np.array_equal(found["own"], found["file"])
    assert np.array_equal(found["none"], found["plain"])
    assert not np.array_equal(found["own"], found["plain"])


@pytest.mark.parametrize("command", ["predict", "eval", "export", "demo"])
def test_one_for_other_classes_is_refused_by_every_command(command, run_main, trained, cable, tmp_path):
    point = OperatingPoint((0.5, 0.5), (0.5, 0.5), (1, 1))
    (tmp_path / "point.json").write_text(json.dumps(point.stored()))
    more = [f"input={cable}/images"] if command == "predict" else []
    code, err = run_main(
        command, tmp_path / "o", f"ckpt_path={trained}/checkpoints/best.ckpt",
        f"operating_point={tmp_path}/point.json", *more,
    )  # fmt: skip
    assert code == 1
    assert "point.json: no operating point for defect (thresholds must have 1 values)" in err
    assert not (tmp_path / "o").exists()


def test_eval_counts_by_the_point_that_is_given(run_main, calibrated, tmp_path):
    found = {}
    for name, more in (("own", []), ("none", ["operating_point=none"])):
        out = tmp_path / name
        code, err = run_main(
            "eval", out, f"ckpt_path={calibrated}", "trainer=cpu", "trainer.enable_progress_bar=false", "grid=0",
            "worst=0", *more,
        )  # fmt: skip
        assert code == 0, err
        found[name] = json.loads((out / "results.json").read_text())["metrics"]
    assert found["own"]["test/iou"] == found["none"]["test/iou"]  # at the network's size no point decides
    assert found["own"]["test/iou_own_size"] != found["none"]["test/iou_own_size"]


def test_the_exit_code_says_whether_one_is_defective(run_main, calibrated, cable, tmp_path):
    out = tmp_path / "all"
    assert predict(run_main, out, calibrated, cable / "images")[0] == 0
    for verdict, expected in (("good", 0), ("defective", 10)):
        file = (out / f"{verdict}.txt").read_text().splitlines()[0]
        code, _ = predict(run_main, tmp_path / verdict, calibrated, file, "exit_code=verdict")
        assert code == expected
    broken = tmp_path / "in"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no image")
    (broken / "b.png").write_bytes(Path(file).read_bytes())  # the defective one
    assert predict(run_main, tmp_path / "broken", calibrated, broken, "exit_code=verdict")[0] == 1
    code, err = predict(
        run_main, tmp_path / "swept", calibrated, cable / "images", "exit_code=verdict", "-m", "batch_size=1,2"
    )
    assert code == 1
    assert "exit_code=verdict: -m runs several predictions" in err


class Levels:
    """A predictor that reads probabilities of three classes from the colours of an image."""

    mc_samples, point = 0, None
    model = SimpleNamespace(classes=["background", "crack", "stain"], colors=None)

    def __call__(self, images):
        return [Prediction(torch.from_numpy(image.transpose(2, 0, 1) / 255).float()) for image in images]


def settings(out, **more):
    given = {"output_dir": str(out), "batch_size": 3, "overlay": False, "probabilities": False, "segmentation": "rle"}
    return OmegaConf.create(given | more)


@pytest.fixture
def random_images(tmp_path):
    """Noise smoothed to blobs with holes, which touch the border, in two folders; one without any object."""
    for i in range(7):
        rng = np.random.default_rng(i)
        values = ndimage.gaussian_filter(rng.random((3, 25 + i, 40 - i)), (0, 1, 1))
        values[0] = -1 if i == 3 else values[0] + 0.03  # of one every pixel is an object's
        index = np.zeros(values.shape[1:], int) if i == 6 else values.argmax(0)
        folder = tmp_path / "in" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(3, dtype=np.uint8)[index] * 255).save(folder / f"{i}.png")
    return tmp_path / "in"


@pytest.mark.parametrize("segmentation", ["rle", "polygon"])
def test_objects_json_is_read_back_to_the_very_same_masks(segmentation, random_images, tmp_path, capfd):
    out = tmp_path / "out"
    defective = writer.write(Levels(), inputs.find(f"{random_images}/*/*"), settings(out, segmentation=segmentation))
    assert defective == 6
    code = call_main(
        "import_labels", f"input={out}/objects.json", f"images={random_images}", f"output={tmp_path}/set",
        "unlabelled=empty", f"output_dir={tmp_path}/log",
    )  # fmt: skip
    assert code == 0, capfd.readouterr().err
    coco = COCO(out / "objects.json")
    assert {c["id"]: c["name"] for c in coco.cats.values()} == {1: "crack", 2: "stain"}
    entries = {entry["file_name"]: entry for entry in coco.imgs.values()}
    assert len(entries) == 7
    for row in table(out):
        name = os.path.relpath(row["file"], random_images)
        mask = np.asarray(Image.open(out / Path(name).name))
        (back,) = (tmp_path / "set" / "masks").glob(f"*{Path(name).stem}.png")
        assert np.array_equal(np.asarray(Image.open(back)), mask)
        drawn = np.zeros_like(mask)
        annotations = coco.loadAnns(coco.getAnnIds(entries[name]["id"]))
        for entry in annotations:
            one = coco.annToMask(entry)
            rows, columns = np.nonzero(one)
            assert entry["area"] == len(rows)
            assert entry["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert entry["score"] == 1
            assert not drawn[one > 0].any()
            drawn += one * np.uint8(entry["category_id"])
        assert np.array_equal(drawn, mask)
        assert len(annotations) == int(row["objects"]) == sum(ndimage.label(mask == i, EIGHT)[1] for i in (1, 2))
    assert len({entry["id"] for entry in coco.anns.values()}) == len(coco.anns)


def test_noise_is_listed_within_a_bound_and_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "LISTED", 100)
    rng = np.random.default_rng(0)
    noise = np.where(rng.random((300, 300, 1)) < 0.15, (0, 255, 0), (255, 0, 0)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    writer.write(Levels(), [tmp_path / "noise.png"], settings(tmp_path / "out"))
    labels, count = ndimage.label(noise[..., 1] > 0, EIGHT)
    (row,) = table(tmp_path / "out")
    assert int(row["objects"]) == count > 1000
    areas = sorted(np.bincount(labels.ravel())[1:].tolist())[-100:]
    assert sorted(int(entry["area"]) for entry in table(tmp_path / "out", "objects")) == areas
    coco = json.loads((tmp_path / "out" / "objects.json").read_text())
    assert sorted(entry["area"] for entry in coco["annotations"]) == areas
    assert "1 images have more than 100 objects: the largest are in objects.csv" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_a_valid_json_of_the_images_in_the_table(error, random_images, tmp_path):
    class Stopped(Levels):
        def __call__(self, images):
            if len(images) < 3:  # the last batch
                raise error
            return super().__call__(images)

    out = tmp_path / "out"
    with pytest.raises(error):
        writer.write(Stopped(), inputs.find(f"{random_images}/*/*"), settings(out))
    coco = json.loads((out / "objects.json").read_text())
    names = [os.path.relpath(row["file"], random_images) for row in table(out)]
    assert [entry["file_name"] for entry in coco["images"]] == names
    assert len(names) == 6
    assert len(coco["annotations"]) == sum(int(row["objects"]) for row in table(out))
    assert sorted(path.name for path in out.iterdir() if path.suffix != ".png") == [
        "defective.txt", "good.txt", "objects.csv", "objects.json", "predictions.csv",
    ]  # fmt: skip


def test_names_of_any_bytes_are_listed(tmp_path, capsys):
    odd = [os.fsdecode(b"caf\xe9.png"), "two\nlines.png", '"quoted", ü.png']
    for name in odd:
        Image.fromarray(np.full((8, 9, 3), (255, 0, 0), np.uint8)).save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(tmp_path / name)
    writer.write(Levels(), [tmp_path / name for name in odd], settings(tmp_path / "out"))
    listed = (tmp_path / "out" / "good.txt").read_bytes().splitlines()
    assert listed == [os.fsencode(tmp_path / name) for name in (odd[0], odd[2])]
    assert "1 files with a line break in their name" in capsys.readouterr().out
    assert [i["file_name"] for i in json.loads((tmp_path / "out" / "objects.json").read_text())["images"]] == odd


@pytest.mark.parametrize("more", [{"tile": 64}, {"flips": True}, {"mc_samples": 3}])
def test_windows_mirror_images_and_samples_are_decided_alike(more, calibrated, trained, cable):
    """The point is applied to the mean probabilities, whatever they are the mean of."""
    from segnet.deployment.predictor import Predictor

    image = np.tile(read_rgb(sorted((cable / "images").iterdir())[1]), (2, 1, 1))
    found = []
    for path in (calibrated, trained / "checkpoints" / "best.ckpt"):
        module = load_module(path)
        if "mc_samples" in more:
            module.net = torch.nn.Sequential(module.net, torch.nn.Dropout(0.2))
        torch.manual_seed(0)
        found.extend(Predictor(module, **more)([image]))
    mask, score = plain(found[1].probabilities.double().numpy(), POINT.stored())
    assert np.array_equal(found[0].mask(), mask)
    assert found[0].decided()[1] == pytest.approx(score, abs=1e-5)
    assert found[0].confidence() is not None
    assert (found[0].variance is None) == ("mc_samples" not in more)


def test_the_confidence_is_that_of_the_class_decided_for():
    p = torch.tensor([[[0.6, 0.2]], [[0.3, 0.3]], [[0.1, 0.5]]])
    point = OperatingPoint((0.25, 0.25), (0.25, 0.25), (1, 1))
    found = Prediction(p, point=point)
    assert found.mask().tolist() == [[1, 2]]
    assert found.confidence().tolist() == [[pytest.approx(0.3), 0.5]]
    assert replace(found, point=None).confidence().tolist() == [[pytest.approx(0.6), 0.5]]
