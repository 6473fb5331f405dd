import hashlib
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from helpers import call_main
from segnet.data.images import read_rgb
from segnet.deployment.exported_model import ExportedModel
from segnet.training.checkpoint import load_module


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """One folder for each kind of model, written by the command."""
    folders = {}
    for kind in ("onnx", "pt2", "int8"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        loose = ["max_drop=0.9", "tolerance_int8.iou=0.2", "tolerance_int8.decisions=0.9"]
        given = ["quantize=int8", *loose] if kind == "int8" else []
        given += ["samples=3"] if kind == "onnx" else []
        code = call_main(
            "export", f"ckpt_path={trained}/checkpoints/best.ckpt", f"format={'pt2' if kind == 'pt2' else 'onnx'}",
            "images=6", f"output_dir={folders[kind]}", *given,
        )  # fmt: skip
        assert code == 0
    return folders


@pytest.mark.parametrize("kind", ["onnx", "int8", "pt2"])
def test_no_stack_traces_are_in_the_file(exported, kind):
    """They name files of the machine that exported it. A pt2 file is a zip archive of plain JSON and tensors."""
    (file,) = (*exported[kind].glob("model.onnx"), *exported[kind].glob("model.pt2"))
    parts = [file.read_bytes()]
    if kind == "pt2":
        with zipfile.ZipFile(file) as archive:
            parts = [archive.read(name) for name in archive.namelist()]
    assert any(b"SegNet" in part for part in parts)  # of the model card: what is looked at can be read
    for part in parts:
        assert b"site-packages" not in part
        assert b"portable.py" not in part


@pytest.fixture(scope="module")
def module(trained):
    return load_module(trained / "checkpoints" / "best.ckpt")


def photos(trained, count, size):
    """Rendered cables at a size of their own: uint8 (count, 3, H, W)."""
    root = load_module(trained / "checkpoints" / "best.ckpt").config["data"]["root"]
    from pathlib import Path

    files = sorted((Path(root) / "images").iterdir())[:count]
    arrays = [np.asarray(Image.fromarray(read_rgb(f)).resize(size[::-1])) for f in files]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def test_only_the_model_and_its_verification_are_left(exported):
    for kind, folder in exported.items():
        files = {path.name for path in folder.iterdir() if path.is_file()}
        model = "model.pt2" if kind == "pt2" else "model.onnx"
        beside = {"verification.json", "verification.md", "measure.py", "measure.json"}
        assert files == {model, *beside, *(["samples.npz"] if kind == "onnx" else [])}


def test_the_script_beside_the_model_decides_as_the_checkpoint_did(exported, module):
    """On the validation images that the user asked for, in a process that cannot import this project."""
    command = [sys.executable, "-I", str(exported["onnx"] / "measure.py"), "--seconds=0.01"]
    names, _, values = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = dict(zip(names.strip("| ").split(" | "), map(float, values.strip("| ").split(" | ")), strict=True))
    samples = np.load(exported["onnx"] / "samples.npz")
    assert samples["images"].shape == (3, 64, 64, 3)
    with torch.no_grad():
        decided = module(torch.tensor(samples["images"]).permute(0, 3, 1, 2))[:, 0].numpy() > 0
    truth = samples["masks"] == 1
    assert found["decisions"] > 0.999
    assert found["IoU"] == pytest.approx((truth & decided).sum() / (truth | decided).sum(), abs=1e-3)


def test_the_page_says_what_the_verification_says(exported):
    for folder in exported.values():
        found = json.loads((folder / "verification.json").read_text())
        page = (folder / "verification.md").read_text()
        assert f"| {found['decisions']:.6g} | ≥ {found['tolerance']['decisions']:g} | within |" in page
        assert f"| {found['difference']:.6g} | ≤ {found['tolerance']['difference']:g} | within |" in page
        for row in found["sizes"]:
            assert f"| {row['size'][0]}×{row['size'][1]} | {row['difference']:.2e} | {row['decisions']:.6f} |" in page
            assert f"| {row['objects_checkpoint']} | {row['iou_checkpoint']:.4f} | {row['iou_exported']:.4f} |" in page
        assert found["commit"] in page
        assert "no operating point" in page


def test_int8_is_for_one_size_and_says_what_stayed_in_float32(exported):
    model = onnx.load(exported["int8"] / "model.onnx")
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[2:]] == [64, 64]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    plain = [node.name for node in convolutions if producers.get(node.input[1]) != "DequantizeLinear"]
    told = json.loads((exported["int8"] / "verification.json").read_text())["quantization"]
    assert list(told["float32"]) == plain == [convolutions[0].name, convolutions[-1].name]
    assert told["images"] == 63  # all training images; there are fewer than export.yaml's 64


@pytest.mark.parametrize(("count", "size"), [(1, (64, 64)), (3, (64, 64)), (2, (97, 65)), (1, (41, 130))])
def test_onnx_runtime_equals_the_module(exported, module, trained, count, size):
    session = onnxruntime.InferenceSession(exported["onnx"] / "model.onnx")
    batch = photos(trained, count, size)
    (found,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
    with torch.no_grad():
        expected = module(batch).sigmoid().numpy()
    assert found.dtype == np.float32
    assert found.shape == (count, 1, *size)
    difference = np.abs(found - expected)
    # Rounding may move single maxima of the pooling: 1e-4 for all but a few pixels.
    assert np.quantile(difference, 0.99) < 1e-4
    assert difference.max() < 0.05


@pytest.mark.parametrize(("count", "size"), [(1, (64, 64)), (3, (97, 65))])
def test_pt2_equals_the_module_without_this_project(exported, module, trained, count, size):
    exported_module = torch.export.load(exported["pt2"] / "model.pt2").module()
    batch = photos(trained, count, size)
    with torch.no_grad():
        torch.testing.assert_close(exported_module(batch), module(batch).sigmoid(), atol=1e-4, rtol=1e-4)


def test_the_metadata_describes_the_model(exported, module):
    session = onnxruntime.InferenceSession(exported["onnx"] / "model.onnx")
    found = json.loads(session.get_modelmeta().custom_metadata_map["segnet.json"])
    extra = {"segnet.json": ""}
    torch.export.load(exported["pt2"] / "model.pt2", extra_files=extra)
    assert found == json.loads(extra["segnet.json"])
    assert found["classes"] == ["defect"]
    assert found["image_size"] == [64, 64]
    np.testing.assert_allclose(found["mean"], module.mean.flatten().numpy())
    assert found["commit"]
    assert "## Model info" in found["card"]


def test_the_verification_counts_what_it_says(exported, module, trained):
    found = json.loads((exported["onnx"] / "verification.json").read_text())
    assert found["images"] == 6
    assert found["sizes"][0]["size"] == [64, 64]
    assert any(side % 2 for row in found["sizes"] for side in row["size"])
    assert found["decisions"] == min(row["decisions"] for row in found["sizes"]) > 0.999
    assert found["bytes"] == (exported["onnx"] / "model.onnx").stat().st_size


def test_int8_is_a_quarter_of_the_size_and_close(exported, trained, module):
    sizes = [(exported[kind] / "model.onnx").stat().st_size for kind in ("onnx", "int8")]
    assert sizes[1] < 0.3 * sizes[0]
    batch = photos(trained, 8, (64, 64))
    (found,) = onnxruntime.InferenceSession(exported["int8"] / "model.onnx").run(None, {"images": batch.numpy()})
    with torch.no_grad():
        expected = module(batch).sigmoid().numpy()
    assert ((found > 0.5) == (expected > 0.5)).mean() > 0.97
    assert np.abs(found - expected).max() > 1e-3  # it is quantised


def test_predict_runs_exported_models_as_it_runs_the_checkpoint(run_main, exported, trained, cable, tmp_path):
    masks = {}
    models = {"ckpt": trained / "checkpoints" / "best.ckpt"}
    models |= {"onnx": exported["onnx"] / "model.onnx", "pt2": exported["pt2"] / "model.pt2"}
    for name, model in models.items():
        code, err = run_main(
            "predict",
            tmp_path / name,
            f"ckpt_path={model}",
            f"input={cable}/images",
            "flips=true",
            "tile=64",
            f"trust={'true' if name == 'pt2' else 'false'}",
        )
        assert code == 0, err
        files = sorted((tmp_path / name).glob("*_overlay.png"))
        assert len(files) == 24
        masks[name] = np.stack([np.asarray(Image.open(str(f).replace("_overlay", ""))) for f in files])
    for name in ("onnx", "pt2"):
        assert (masks[name] == masks["ckpt"]).mean() > 0.9999


def test_a_file_of_one_size_is_verified_there_and_predicts(run_main, trained, module, cable, tmp_path):
    """NHWC float32 of one image of 64×64: another program feeds the camera's image, predict.py one of any size."""
    code, err = run_main(
        "export", tmp_path / "o", f"ckpt_path={trained}/checkpoints/best.ckpt", "images=3", "size=64x64", "batch=1",
        "layout=nhwc", "input=float32", "opset=17",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads((tmp_path / "o" / "verification.json").read_text())
    assert [row["size"] for row in found["sizes"]] == [[64, 64]]
    model = tmp_path / "o" / "model.onnx"
    batch = photos(trained, 1, (64, 64))
    given = batch.permute(0, 2, 3, 1).float().numpy()
    (p,) = onnxruntime.InferenceSession(model).run(None, {"images": np.ascontiguousarray(given)})
    with torch.no_grad():
        np.testing.assert_allclose(p, module(batch).sigmoid().permute(0, 2, 3, 1).numpy(), atol=1e-3)
    code, err = run_main("predict", tmp_path / "p", f"ckpt_path={model}", f"input={cable}/images")
    assert code == 0, err
    code, err = run_main(
        "predict", tmp_path / "c", f"ckpt_path={trained}/checkpoints/best.ckpt", f"input={cable}/images"
    )
    masks = [np.stack([np.asarray(Image.open(f)) for f in sorted((tmp_path / n).glob("*[0-9].png"))]) for n in "pc"]
    assert (masks[0] == masks[1]).mean() > 0.9999


def test_other_images_are_read_with_the_settings_of_the_checkpoint(trained, cable, tmp_path, capfd):
    """The group's own image size, 480, and its placeholders count no more than in eval.py."""
    code = call_main(
        "export", f"output_dir={tmp_path / 'o'}", f"ckpt_path={trained}/checkpoints/best.ckpt", "images=2",
        "data=folder", f"data.root={cable}", "format=pt2",
    )  # fmt: skip
    printed = capfd.readouterr()
    assert code == 0, printed.err
    assert "4 of 24 images used (val); left out: 17 train, 3 test" in printed.out
    found = json.loads((tmp_path / "o" / "verification.json").read_text())
    assert found["images"] == 2
    assert found["sizes"][0]["size"] == [64, 64]


def test_outside_its_tolerance_nothing_is_kept(run_main, trained, tmp_path):
    out = tmp_path / "o"
    code, err = run_main(
        "export", out, f"ckpt_path={trained}/checkpoints/best.ckpt", "quantize=int8", "images=2", "calibration=2",
        "max_drop=0.9", "tolerance_int8.difference=0",
    )  # fmt: skip
    assert code == 1
    assert "the exported model is outside its tolerance: difference" in err
    assert "nothing was kept" in err
    assert not out.exists()


@pytest.fixture(scope="module")
def elsewhere(trained, cable, tmp_path_factory):
    """The checkpoint on a machine that has not its data, which nobody makes there; and the data's folder."""
    path = tmp_path_factory.mktemp("elsewhere") / "best.ckpt"
    ckpt = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    ckpt["config"]["data"] |= {"root": "/nowhere/cables", "prepare": None}
    torch.save(ckpt, path)
    return path, cable


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_without_the_data_it_is_unverified_until_it_is_verified(kind, elsewhere, exported, tmp_path, capfd):
    path, cable = elsewhere
    folder, trust = tmp_path / "e", ["trust=true"] * (kind == "pt2")
    assert call_main("export", f"ckpt_path={path}", f"format={kind}", "size=64x64", f"output_dir={folder}") == 0
    printed = capfd.readouterr().out
    model = folder / f"model.{kind}"
    (line,) = [line for line in printed.splitlines() if "unverified" in line]
    command = line.partition("python src/export.py ")[2].split()
    assert command == [f"ckpt_path={path}", f"verify={model}", *trust]
    assert "data.root=/nowhere/cables is not there" in line
    assert json.loads((folder / "verification.json").read_text())["verified"] is False
    metadata = ExportedModel(model, trusted=True).metadata
    assert metadata["verified"] is False
    assert ExportedModel(exported[kind] / f"model.{kind}", trusted=True).metadata["verified"] is True

    def told(at=model):
        image = min((cable / "images").iterdir())
        assert call_main("predict", f"ckpt_path={at}", f"input={image}", f"output_dir={tmp_path / 'p'}", *trust) == 0
        return capfd.readouterr().out.count("is unverified")

    assert told() == 1
    assert call_main("export", *command, f"output_dir={tmp_path / 'v'}") == 1  # the data are not here yet
    assert "needs validation images, and the checkpoint's data.root=/nowhere/cables is not" in capfd.readouterr().err
    data = (f"data.root={cable}", "images=3")
    assert call_main("export", *command, *data, f"output_dir={tmp_path / 'v'}", "tolerance.difference=0") == (
        1 if kind == "onnx" else 0
    )  # a pt2 file has the same bits
    printed = capfd.readouterr()
    if kind == "onnx":
        assert "outside its tolerance: difference" in printed.err
        assert "the file stays as it was" in printed.err
        assert told() == 1
        assert call_main("export", *command, *data, f"output_dir={tmp_path / 'v'}") == 0
        printed = capfd.readouterr()
    assert "equal decisions 1.0" in printed.out
    found, usual = (json.loads((f / "verification.json").read_text()) for f in (folder, exported[kind]))
    assert found["verified"] is True
    assert set(found) == set(usual)
    assert found["images"] == 3
    assert found["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert json.loads((tmp_path / "v" / "verification.json").read_text()) == found
    assert told() == 0
    shutil.copytree(folder, tmp_path / "moved")
    assert told(tmp_path / "moved" / model.name) == 0
    other = torch.load(path, weights_only=True)
    other["state_dict"] = {key: value * 1.01 for key, value in other["state_dict"].items()}
    torch.save(other, tmp_path / "other.ckpt")
    given = (f"ckpt_path={tmp_path}/other.ckpt", f"format={kind}", "size=64x64", f"output_dir={tmp_path / 'other'}")
    assert call_main("export", *given) == 0
    capfd.readouterr()
    shutil.copy(folder / "verification.json", tmp_path / "other")  # the record of another file
    assert told(tmp_path / "other" / model.name) == 1


def test_int8_without_images_to_calibrate_on_is_one_line(elsewhere, run_main, tmp_path):
    code, err = run_main("export", tmp_path / "o", f"ckpt_path={elsewhere[0]}", "quantize=int8")
    assert code == 1
    assert err.count("error: ") == 1
    assert "quantize=int8: calibration needs training images, and the checkpoint's data.root=/nowhere/cables is" in err
    assert not (tmp_path / "o").exists()


def test_int8_is_verified_later_by_its_own_tolerance(trained, tmp_path, capfd):
    given = (f"ckpt_path={trained}/checkpoints/best.ckpt", f"output_dir={tmp_path / 'e'}")
    assert call_main("export", *given, "quantize=int8", "calibration=4", "images=0") == 0
    assert "model.onnx is unverified (images=0 asks for none)" in capfd.readouterr().out
    later = (given[0], f"verify={tmp_path / 'e' / 'model.onnx'}", f"output_dir={tmp_path / 'v'}", "images=3")
    wide = ("tolerance_int8.iou=1", "tolerance_int8.decisions=0.5", "tolerance_int8.verdicts=0")
    assert call_main("export", *later, *wide, "tolerance_int8.difference=0") == 1
    assert "outside its tolerance: difference" in capfd.readouterr().err
    assert call_main("export", *later, *wide, "tolerance.difference=0") == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["verify=/nowhere/model.onnx"], "verify=/nowhere/model.onnx: no such file"),
        (["verify={exported}/verification.json"], "is no exported model; give a file .onnx, .xml"),
        (["verify={pt2}/model.pt2"], "add trust=true"),
        (["verify={exported}/model.onnx", "format=pt2"], "format=pt2 with verify="),
        (["verify={exported}/model.onnx", "images=0"], "needs validation images, and images=0 asks for none"),
        (["verify={renamed}"], "is of another file; move this one into a folder of its own"),
    ],
)
def test_what_cannot_be_verified(run_main, trained, exported, tmp_path, overrides, message):
    renamed = tmp_path / "other.onnx"
    shutil.copy(exported["onnx"] / "model.onnx", renamed)
    shutil.copy(exported["onnx"] / "verification.json", tmp_path)
    names = {"exported": exported["onnx"], "pt2": exported["pt2"], "renamed": renamed}
    code, err = run_main(
        "export", tmp_path / "o", f"ckpt_path={trained}/checkpoints/best.ckpt", *(o.format(**names) for o in overrides)
    )
    assert code == 1
    assert err.count("error: ") == 1
    assert message in err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["format=tflite"], "format=tflite: must be onnx, openvino, executorch, litert or pt2"),
        (["quantize=int4"], "quantize=int4: must be int8 or null"),
        (["format=pt2", "quantize=int8"], "quantize=int8 with format=pt2: it is not quantised; use format=onnx"),
        (["size=480"], "size=480: must be <height>x<width>, such as 480x480, or null"),
        (["size=480x31"], "size=480x31: must be <height>x<width>, at least 32 each, such as 480x480, or null"),
        (["opset=16"], "opset=16: must be an integer in [17, 23]"),
        (["layout=chw"], "layout=chw: must be nchw or nhwc"),
        (["preprocessing=outside", "input=uint8"], "normalised images are float32; leave input out"),
        (["preprocessing=outside", "size=64x64"], "the file takes the network's own size; leave it out"),
        (["data.root=/nowhere"], "data.root=/nowhere: no such folder"),
        (
            ["data.image_size=96"],
            "data.image_size=96: an exported model has that of the network's training, 64",
        ),
        (["data.split.val=0", "data.split.train=0.85"], "gives no image to val (train 79, val 0, test 17) of the 96"),
    ],
)
def test_bad_input(run_main, trained, tmp_path, overrides, message):
    code, err = run_main("export", tmp_path / "o", f"ckpt_path={trained}/checkpoints/best.ckpt", *overrides)
    assert code == 1
    assert message in err
    assert not (tmp_path / "o").exists()
