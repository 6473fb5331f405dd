import json
import zipfile

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segnet.deployment import exported_model
from segnet.deployment.exported_model import ExportedModel, resize_by_products


class Half(nn.Module):
    """A stand-in for an exported network: any model of one uint8 input."""

    def forward(self, images):
        return images[:, :1].float() / 510


@pytest.fixture
def file(tmp_path):
    dims = {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    example = torch.zeros(2, 3, 40, 50, dtype=torch.uint8)
    exported = torch.export.export(Half(), (example,), dynamic_shapes={"images": dims})
    about = {"classes": ["defect"], "colors": None, "image_size": [40, 50]}
    torch.export.save(exported, tmp_path / "a.pt2", extra_files={exported_model.KEY: json.dumps(about)})
    return tmp_path / "a.pt2"


@pytest.mark.parametrize("size", [(50, 33), (64, 64), (100, 130), (97, 65)])
def test_resizing_by_products_is_torchs_antialiased_resizing(size):
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    expected = F.interpolate(images.double(), (64, 48), mode="bilinear", antialias=True)
    torch.testing.assert_close(resize_by_products(images, (64, 48)).double(), expected, atol=1e-4, rtol=0)


def test_a_model_says_what_it_is(file):
    found = ExportedModel(file)
    assert (found.classes, found.image_size) == (["defect"], (40, 50))
    images = torch.randint(0, 256, (1, 3, 33, 70), dtype=torch.uint8)
    torch.testing.assert_close(found(images), images[:, :1] / 510)


def test_an_onnx_file_whose_input_has_its_old_name(tmp_path):
    from onnx import TensorProto, helper, save

    node = helper.make_node("Cast", ["pictures"], ["probabilities"], to=TensorProto.FLOAT)
    sides = ("n", 3, "h", "w")
    given = helper.make_tensor_value_info("pictures", TensorProto.UINT8, sides)
    result = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, sides)
    graph = helper.make_graph([node], "old", [given], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    about = {"classes": ["a", "b", "c"], "colors": None, "image_size": [40, 50]}
    helper.set_model_props(model, {exported_model.KEY: json.dumps(about)})
    save(model, tmp_path / "a.onnx")
    images = torch.randint(0, 256, (1, 3, 33, 70), dtype=torch.uint8)
    torch.testing.assert_close(ExportedModel(tmp_path / "a.onnx")(images), images.float())


def altered(file, change):
    """A copy of the file with its graph changed as text, or with a member more."""
    other = file.with_name("b.pt2")
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(other, "w") as target:
        for item in source.infolist():
            text = source.read(item)
            if item.filename.endswith("models/model.json"):
                text = change(text.decode()).encode()
            target.writestr(item, text)
    return other


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("torch.ops.aten.div.Tensor", "torch.load", "it names the operator 'torch.load'"),
        ("torch.ops.aten.div.Tensor", "_operator.call", "it names the operator '_operator.call'"),
        ('"guards_code": []', '"guards_code": ["__import__(\'os\')"]', "it holds guard code"),
        ("Symbol('", "__import__('os').system('touch /tmp/x') or Symbol('", "it holds the expression"),
        ("builtins.tuple", "os.path", "it takes or gives"),
    ],
)
def test_a_strangers_model_runs_no_code(file, old, new, message):
    def change(text):
        assert old in text
        return text.replace(old, new)

    with pytest.raises(ValueError, match=r"b\.pt2: not a model that export\.py wrote") as error:
        ExportedModel(altered(file, change))
    assert message in str(error.value)


def test_a_compiled_library_in_the_file_is_refused(file):
    other = altered(file, str)
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("a/data/aotinductor/model/x.so", b"\x7fELF")
    with pytest.raises(ValueError, match=r"it holds 'data/aotinductor/model/x\.so'"):
        ExportedModel(other)


def test_pickles_inside_run_no_code(file, tmp_path):
    import pickle

    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    other = file.with_name("b.pt2")
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(other, "w") as target:
        for item in source.infolist():
            attacked = "sample_inputs" in item.filename
            target.writestr(item, pickle.dumps(Attack()) if attacked else source.read(item))
    with pytest.raises(ValueError, match=r"not a model that export\.py wrote"):
        ExportedModel(other)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["a.onnx", "a.pt2"])
@pytest.mark.parametrize("content", [b"", b"no model at all", b"PK\x03\x04 cut off"])
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"not a model that export\.py wrote"):
        ExportedModel(tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"export\.py writes model\.onnx or model\.pt2"):
        ExportedModel(tmp_path / "a.onnx")
