import json
import pickle
import zipfile

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from exports import about, module_of, photos, probabilities
from segnet.deployment import exported_model, formats
from segnet.deployment.exported_model import ExportedModel
from segnet.deployment.portable import resize_by_products
from segnet.networks import lmffnet
from segnet.networks.ddrnet import DDRNet
from segnet.networks.lmffnet import LMFFNet


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
    torch.export.save(exported, tmp_path / "a.pt2", extra_files={formats.KEY: json.dumps(about)})
    return tmp_path / "a.pt2"


@pytest.mark.parametrize("size", [(50, 33), (64, 64), (100, 130), (97, 65)])
def test_resizing_by_products_is_torchs_antialiased_resizing(size):
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    expected = F.interpolate(images.double(), (64, 48), mode="bilinear", antialias=True)
    torch.testing.assert_close(resize_by_products(images, (64, 48)).double(), expected, atol=1e-4, rtol=0)


def test_a_model_says_what_it_is(file):
    found = ExportedModel(file, trusted=True)
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
    helper.set_model_props(model, {formats.KEY: json.dumps(about)})
    save(model, tmp_path / "a.onnx")
    images = torch.randint(0, 256, (1, 3, 33, 70), dtype=torch.uint8)
    torch.testing.assert_close(ExportedModel(tmp_path / "a.onnx")(images), images.float())


def test_a_pt2_file_is_opened_only_if_it_is_trusted(file):
    """Whoever wrote it: a file that was replaced after the export looks the same."""
    with pytest.raises(ValueError, match=r"a\.pt2: a pt2 file can run any code .* ONNX .* add trust=true"):
        ExportedModel(file)


@pytest.mark.parametrize("attack", ["constant", "expression"])
def test_an_untrusted_pt2_file_runs_nothing(file, attack, tmp_path):
    """Two of the ways in which the loader runs code that the file holds."""
    other = file.with_name("b.pt2")
    code = f"open({str(tmp_path / 'ran')!r},'w')"

    class Attack:
        def __reduce__(self):
            return (exec, (code,))

    with zipfile.ZipFile(file) as source, zipfile.ZipFile(other, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if attack == "constant" and "sample_inputs" in item.filename:
                content = pickle.dumps(Attack())
            if attack == "expression" and item.filename.endswith("models/model.json"):
                content = content.replace(b"Symbol('", f"exec({code!r}) or Symbol('".encode())
            target.writestr(item, content)
    with pytest.raises(ValueError, match="a pt2 file can run any code"):
        ExportedModel(other)
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("build", [lambda: DDRNet(2, width=8), lambda: LMFFNet(2)], ids=["ddrnet23_slim", "lmffnet"])
def test_the_onnx_file_of_a_baseline_runs_untrusted(build, tmp_path, monkeypatch):
    """What SegNet has not: batch norms that no convolution takes up, PReLU, pyramids of pooled maps."""
    monkeypatch.setattr(lmffnet, "DILATIONS", ((2,), (4,)))  # 2 blocks instead of 11 take less time to export
    module = module_of(build(), ("good", "defect"))
    exported_model.write(module, tmp_path / "model.onnx", about(module))
    exported = ExportedModel(tmp_path / "model.onnx")
    for size in [(48, 64), (75, 51)]:
        images = photos(2, size)
        expected = probabilities(module, images)
        assert expected.std() > 0.1
        assert (exported(images) - expected).abs().mean() < 1e-5


@pytest.mark.parametrize("name", ["a.onnx", "a.pt2"])
@pytest.mark.parametrize("content", [b"", b"no model at all", b"PK\x03\x04 cut off"])
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"not a model that export\.py wrote"):
        ExportedModel(tmp_path / name, trusted=True)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"export\.py writes it, such as model\.onnx"):
        ExportedModel(tmp_path / "a.onnx")
