"""publish.py end to end, and its folder in place of a checkpoint."""

import hashlib
import json
import pickle
import re
import shutil
import struct
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from helpers import SMALL, call_main
from segnet.decisions import OperatingPoint
from segnet.deployment.predictor import load_model
from segnet.reports import released
from segnet.reports.released import without_paths
from segnet.training import published
from segnet.training.checkpoint import load_module, read, start_from, write_calibrated
from segnet.training.distillation import teacher

TINY = ("model.net.widths=[4,4,8,8,8]", "experiment=quickstart", "data=folder", "~callbacks.forecast")


@pytest.fixture(scope="module")
def run(shared, cable, cache):
    """The folder of a finished run of a tiny network."""

    def train(out):
        where = (f"data.root={cable}", f"data.cache_dir={cache}", f"output_dir={out}")
        assert call_main("train", *SMALL, *TINY, *where) == 0

    return shared("tiny-run", train)


@pytest.fixture(scope="module")
def release(shared, run):
    def publish(out):
        given = (f"run={run}", f"output={out}", "format=none", f"output_dir={out.parent}/tiny-log")
        assert call_main("publish", *given) == 0

    return shared("tiny-release", publish)


@pytest.fixture
def copy(release, tmp_path):
    """A copy to change."""
    return shutil.copytree(release, tmp_path / "copy")


@pytest.fixture
def publish(run, tmp_path, capfd):
    """``publish(*overrides)``: the new folder, the exit code, what is printed."""

    def call(*overrides):
        code = call_main(
            "publish", f"run={run}", f"output={tmp_path}/new/folder", f"output_dir={tmp_path}/log", *overrides
        )
        printed = capfd.readouterr()
        return tmp_path / "new" / "folder", code, printed.out + printed.err

    return call


def best(run):
    return run / "checkpoints" / "best.ckpt"


def arrays(file):
    """A safetensors file by its definition: the header's length, the header as JSON, the values."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    kinds = {"F32": np.float32, "I64": np.int64}
    parts = {name: (entry, content[8 + length :][slice(*entry["data_offsets"])]) for name, entry in header.items()}
    return {n: np.frombuffer(part, kinds[e["dtype"]]).reshape(e["shape"]) for n, (e, part) in parts.items()}


def reseal(folder, **files):
    """Other content under right checksums, as a stranger could write it."""
    for name, content in files.items():
        (folder / {"weights": published.WEIGHTS, "config": published.CONFIG}[name]).write_bytes(content)
    published.seal(folder)


def test_the_folder_holds_the_weights_alone_and_what_rebuilds_the_network(release, run):
    found = torch.load(best(run), weights_only=True)
    state = found["state_dict"]
    weights = arrays(release / "model.safetensors")
    assert weights.keys() == state.keys()
    assert all(np.array_equal(weights[name], value.numpy()) for name, value in state.items())
    values = sum(value.numel() * value.element_size() for value in state.values())
    assert (release / "model.safetensors").stat().st_size - values < 100 * len(state)  # no optimizer state
    about = json.loads((release / "config.json").read_text())
    assert about["classes"] == found["config"]["model"]["classes"]
    assert (about["mean"], about["std"]) == tuple(state[name].flatten().tolist() for name in ("mean", "std"))
    assert (about["image_size"], about["operating_point"]) == ([32, 32], None)
    assert {k: v for k, v in about["config"]["model"].items() if k != "net"} == {
        k: v for k, v in found["config"]["model"].items() if k != "net"
    }
    files = {path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()}
    outputs = {f"photo/{i}.png" for i in range(2)} | {"train.png", "val.png"}
    assert files == {"model.safetensors", "config.json", "README.md", "SHA256SUMS", *outputs}
    card = (release / "README.md").read_text()
    assert "## Results" in card
    assert set(re.findall(r"!\[.*?\]\((.*?)\)", card)) == outputs


def test_coreutils_confirm_its_checksums(release):
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=release, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == sum(path.is_file() for path in release.rglob("*")) - 1


def test_no_file_names_a_path_of_this_machine(release, run, cable):
    assert str(cable) in (run / "README.md").read_text()
    for path in release.rglob("*"):
        assert path.is_dir() or str(cable.parent).encode() not in path.read_bytes(), path
    assert "data.root=cable " in (release / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "`train.py data.root=/sets/tiles weights=[/a/b/c.ckpt,~/d/e]`",
            "`train.py data.root=tiles weights=[c.ckpt,e]`",
        ),
        ("| teacher | `/a/b c/d` |", "| teacher | `d` |"),
        (
            """python src/train.py 'data.root="/mnt/c/Users/Jane (Work)/my set"' 'weights=["/a b/c.ckpt",~/d/e]'""",
            """python src/train.py 'data.root="my set"' 'weights=["c.ckpt",e]'""",
        ),
        (
            "python src/train.py 'data.masks=\"{dir}/gt/{stem}.png\"' 'data.images=[\"**/rgb/*.png\",a/*/*/img.png]'",
            None,
        ),
        ("python src/train.py weights=file:///sets/x.ckpt a=b/c", "python src/train.py weights=x.ckpt a=b/c"),
        ("python src/train.py data.root=s3://bucket/a 'data.masks=\"masks/{stem} 1.png\"'", None),
        ("val/iou and 13 images/s, 1 / 2, https://host/a/b, s3://bucket/a/b, ./a/b", None),
    ],
)
def test_absolute_paths_are_cut(text, expected):
    assert without_paths(text) == (expected or text)


def test_of_a_root_that_is_no_absolute_path_nothing_is_cut(tmp_path):
    for name in ("run", "out"):
        (tmp_path / name).mkdir()
    text = "# SegNet on tiles\n\n| mean | 0.485 |\n\n```\npython src/train.py data.root=.\n```\n"
    (tmp_path / "run" / "README.md").write_text(text)
    released.write(tmp_path / "run", tmp_path / "out", ".", False, False, ["A note."])
    assert text.replace("tiles\n", "tiles\n\nA note.\n") in (tmp_path / "out" / "README.md").read_text()


def test_weights_that_the_card_is_not_about_are_told(run, publish):
    folder, code, _ = publish("format=none", f"ckpt_path={run}/checkpoints/last.ckpt")
    assert code == 0
    told = "The weights of this release are those of `last.ckpt`; the figures below are of `best.ckpt`."
    assert (folder / "README.md").read_text().partition("# ")[2].splitlines()[1:4] == ["", told, ""]


def test_published_twice_it_is_the_same(release, publish):
    folder, code, _ = publish("format=none")
    assert code == 0
    for name in ("model.safetensors", "SHA256SUMS"):
        assert (folder / name).read_bytes() == (release / name).read_bytes()


def test_its_logits_are_the_checkpoints_in_every_bit(release, run):
    images = torch.randint(0, 256, (3, 3, 40, 52), dtype=torch.uint8)
    with torch.no_grad():
        expected = load_module(best(run))(images)
        assert torch.equal(load_module(release)(images), expected)
        assert torch.equal(load_model(str(release), "cpu")(images), expected)  # of predict.py, demo.py


def test_training_from_it_starts_from_the_checkpoints_weights(release, run, cable, cache, tmp_path):
    """A step of length 0 changes the statistics of batch norms alone."""
    given = (f"data.root={cable}", f"data.cache_dir={cache}", "trainer.limit_train_batches=1", "~callbacks.panels")
    still = ("optimizer=sgd", "model.optimizer.lr=0", "scheduler=constant", "own_size=false")
    assert call_main("train", *SMALL, *TINY, *given, *still, f"weights={release}", f"output_dir={tmp_path}/out") == 0
    state = torch.load(tmp_path / "out" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    module = load_module(best(run))
    assert all(torch.equal(state[name], value) for name, value in module.named_parameters())
    whole = {name: value.clone() for name, value in module.net.state_dict().items()}
    for layer in module.net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    start_from(module, [release, best(run)])  # their mean is either
    assert all(torch.equal(value, whole[name]) for name, value in module.net.state_dict().items())


def test_other_commands_take_it(release, run, cable, tmp_path, capfd):
    given = ("trainer=cpu", "trainer.enable_progress_bar=false", f"output_dir={tmp_path}/eval")
    assert call_main("eval", f"ckpt_path={release}", f"data.root={cable}", "own_size=false", *given) == 0
    assert call_main("predict", f"ckpt_path={release}", f"input={cable}/images", f"output_dir={tmp_path}/predict") == 0
    capfd.readouterr()
    assert call_main("eval", f"ckpt_path={release}", *given) == 1
    assert "data.root=cable" in capfd.readouterr().err
    point = OperatingPoint((0.25,), (0.25,), (3,), False)
    write_calibrated(release, tmp_path / "calibrated.ckpt", point)
    assert load_module(tmp_path / "calibrated.ckpt").operating_point == point
    taught = teacher(release, SimpleNamespace(weight=0.5, temperature=2.0), load_module(best(run)))
    assert (taught.path, taught.module.classes) == (release, ["defect"])


def test_an_operating_point_travels_with_it(publish, tmp_path):
    point = OperatingPoint((0.25,), (0.125,), (3,), True)
    (tmp_path / "point.json").write_text(json.dumps(point.stored()))
    folder, code, _ = publish("format=none", f"operating_point={tmp_path}/point.json")
    assert code == 0
    assert load_module(folder).operating_point == point
    assert "Released with another operating point: defect above 0.25 (" in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "README.md", "photo/0.png"])
def test_a_changed_byte_is_refused(name, copy, release, capfd, tmp_path):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    message = rf"weights={copy}: {name} is not the file that was published .*; copy or download the folder again"
    with pytest.raises(ValueError, match=message):
        start_from(load_module(release), copy)
    if name == "README.md":  # by the command
        given = (f"ckpt_path={copy}", f"input={copy}/photo", f"output_dir={tmp_path}/out")
        assert call_main("predict", *given) == 1
        assert f"error: {message.replace('weights', 'ckpt_path').partition(' .*')[0]}" in capfd.readouterr().err


def test_what_is_not_whole_is_named(copy):
    (copy / "photo" / "0.png").unlink()  # is read by nobody here
    load_module(copy)
    whole = (copy / "SHA256SUMS").read_text()
    for text, message in (
        ("", "is no list of this folder's files"),
        ("nothing\n", "is no list of this folder's files"),
        (whole.replace("README.md", "../README.md"), "is no list of this folder's files"),
        (whole.replace("README.md", "/etc/passwd"), "is no list of this folder's files"),
        (whole.replace("config.json", "other.json"), "does not list config.json"),
    ):
        (copy / "SHA256SUMS").write_text(text)
        with pytest.raises(ValueError, match=rf"ckpt_path={copy}: SHA256SUMS {message}; .*again"):
            read(copy)
    (copy / "SHA256SUMS").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is no list"):
        read(copy)
    (copy / "SHA256SUMS").write_text(whole)
    (copy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        read(copy)
    (copy / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match=r"a folder without SHA256SUMS, .*checkpoints/best.ckpt"):
        read(copy)


def test_a_strangers_folder_runs_no_code(copy, release, tmp_path):
    about = json.loads((release / "config.json").read_text())
    owned = tmp_path / "owned"
    for change, message in (
        ({"net": {"_target_": "os.system", "command": f"touch {owned}"}}, "names code that a file must not run"),
        ({"net": {"_target_": "segnet.training.published.seal", "folder": str(owned)}}, "names code"),
        ({"loss": {"_target_": "torch.load", "f": "x"}}, "names code"),
        ({"net": {**about["config"]["model"]["net"], "widths": "${oc.env:HOME}"}}, "a file must not choose"),
    ):
        config = {**about["config"], "model": {**about["config"]["model"], **change}}
        reseal(copy, config=json.dumps({**about, "config": config}).encode())
        with pytest.raises(ValueError, match=rf"ckpt_path={copy}: .*{message}"):
            load_module(copy)
        with pytest.raises(ValueError, match=rf"weights={copy}: .*{message}"):
            start_from(load_module(release), copy)

    class Attack:
        def __reduce__(self):
            return (exec, (f"open({str(owned)!r}, 'w')",))

    reseal(copy, weights=pickle.dumps(Attack()), config=(release / "config.json").read_bytes())
    with pytest.raises(ValueError, match=r"cannot be read as model\.safetensors and config\.json"):
        load_module(copy)
    assert not owned.exists()
    whole = (release / "model.safetensors").read_bytes()
    for content, message in (
        (b"{", "cannot be read"), (b"[]", "describes no network"), (b'{"config": 5}', "holds no configuration"),
        (b"[" * 100_000, "cannot be read"), (b" " * 2_000_000 + b"{}", "describes no network"),
    ):  # fmt: skip
        reseal(copy, weights=whole, config=content)
        with pytest.raises(ValueError, match=message):
            load_module(copy)


def test_what_is_there_stays(publish, run, release, tmp_path, capfd):
    (tmp_path / "new" / "folder").mkdir(parents=True)
    (tmp_path / "new" / "folder" / "mine").write_text("mine")
    folder, code, printed = publish("format=none")
    assert (code, [path.name for path in folder.iterdir()]) == (1, ["mine"])
    assert f"output={folder}: exists and is not an empty folder" in printed
    (folder / "mine").unlink()
    assert publish("format=none")[1] == 0  # an empty one
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    (tmp_path / "empty").mkdir()
    for given, message in (
        ([f"run={run}", f"output={run}/release"], "output=.*lies in it"),
        ([f"run={tmp_path}/none", f"output={tmp_path}/a"], r"run=.*results.json is missing\); give logs/train/<run>$"),
        (
            [f"run={tmp_path}/empty", f"output={tmp_path}/a"],
            "run=.*results.json is missing.*, or finish it: python src/train.py",
        ),
        ([f"run={run}", f"output={tmp_path}/a", f"ckpt_path={release}"], "does not lie in run=.*operating_point="),
        ([f"run={run}", f"output={tmp_path}/a", "push=name", "format=none"], "push=name: must be <user>/<name>"),
        ([f"run={run}", f"output={tmp_path}/a", "verify=x"], "verify"),
        ([f"run={run}", f"output={tmp_path}/a", "images=0"], "images"),
    ):
        assert call_main("publish", *given, f"output_dir={tmp_path}/log2") == 1
        assert re.search(f"error: .*{message}", capfd.readouterr().err)
    assert not (tmp_path / "a").exists()


def test_the_int8_file_is_verified_and_names_no_path(publish, cable):
    loose = ("tolerance_int8.decisions=0", "tolerance_int8.iou=1", "max_drop=0.9", "images=3", "calibration=3")
    folder, code, printed = publish(*loose, "photos=false")
    assert code == 0, printed
    record = json.loads((folder / "onnx" / "verification.json").read_text())
    digest = hashlib.sha256((folder / "onnx" / "model.onnx").read_bytes()).hexdigest()
    assert (record["sha256"], record["verified"], record["images"]) == (digest, True, 3)
    assert f"{digest}  onnx/model.onnx" in (folder / "SHA256SUMS").read_text().splitlines()
    model = load_model(str(folder / "onnx" / "model.onnx"), "cpu")
    assert model.metadata["quantize"] == "int8"
    assert model.metadata["card"] == (folder / "README.md").read_text()
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert str(cable.parent).encode() not in content
        assert sys.prefix.encode() not in content  # of stack traces
        assert b"site-packages" not in content
    assert not (folder / "photo").exists()
    assert "photo/" not in (folder / "README.md").read_text()
    assert "## Versions" in (folder / "README.md").read_text()


def test_what_is_left_out_is_told(publish, monkeypatch):
    for package in ("onnx", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    folder, code, printed = publish()
    assert code == 0
    assert "the int8 file is left out: no runtime is installed: pip install 'segnet-lightning[export]'" in printed
    assert not (folder / "onnx").exists()


def test_without_the_data_the_int8_file_is_left_out_or_refused(run, tmp_path, capfd):
    moved = shutil.copytree(run, tmp_path / "run")
    content = torch.load(best(moved), weights_only=True)
    content["config"]["data"]["root"] = "/no/such/data"
    torch.save(content, best(moved))
    given = (f"run={moved}", f"output={tmp_path}/a", f"output_dir={tmp_path}/log")
    assert call_main("publish", *given, "format=onnx") == 1
    assert "error: format=onnx: the checkpoint's data.root=/no/such/data is not there" in capfd.readouterr().err
    assert not (tmp_path / "a").exists()
    assert call_main("publish", *given) == 0
    told = "the int8 file is left out: the checkpoint's data.root=/no/such/data is not there; add data.root="
    assert told in capfd.readouterr().out
