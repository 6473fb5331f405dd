"""ONNX models that a stranger may have made: what they hold is checked, and what they take is bounded."""

import json
import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import AttributeProto, TensorProto, helper, numpy_helper, save

from segnet.deployment import formats, onnx_model
from segnet.deployment.exported_model import ExportedModel

SIDES = ("n", 3, "h", "w")
ABOUT = {"classes": ["a", "b", "c"], "colors": None, "image_size": [40, 50]}
IMAGES = torch.randint(0, 256, (1, 3, 33, 70), dtype=torch.uint8)
CAST = helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT)
LAST = helper.make_node("Identity", ["x"], ["probabilities"])


def constant(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def written(
    path, nodes, weights=(), change=lambda model: None, about=ABOUT, sides=(SIDES, SIDES), kind=TensorProto.UINT8
):
    given = helper.make_tensor_value_info("images", kind, sides[0])
    result = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, sides[1])
    graph = helper.make_graph(list(nodes), "g", [given], [result], list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {formats.KEY: json.dumps(about)})
    change(model)
    save(model, path)
    return path


def subgraph(name):
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node("Identity", ["x"], [name])], name, [], [out])


LOOP = helper.make_node("Loop", ["many", "true"], ["y"], body=subgraph("b"))
IF = helper.make_node("If", ["true"], ["y"], then_branch=subgraph("t"), else_branch=subgraph("e"))
HIDDEN = helper.make_node("Identity", ["x"], ["y"], hidden=subgraph("h"))
SCAN = helper.make_node("Scan", ["x"], ["y"], body=subgraph("s"), num_scan_inputs=1)
SEQUENCE = helper.make_node("SequenceMap", ["x"], ["y"], body=subgraph("q"))
FOREIGN = helper.make_node("Identity", ["x"], ["y"], domain="com.stranger")
RANDOM = helper.make_node("RandomNormal", [], ["y"], shape=[10])
REFERENCE = helper.make_node("Identity", ["x"], ["y"])
REFERENCE.attribute.append(AttributeProto(name="a", ref_attr_name="b", type=AttributeProto.INT))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (LOOP, "the operator 'Loop'"),
        (IF, "the operator 'If'"),
        (SCAN, "the operator 'Scan'"),
        (SEQUENCE, "the operator 'SequenceMap'"),
        (FOREIGN, r"the operator 'com\.stranger\.Identity'"),
        (RANDOM, "the operator 'RandomNormal'"),
        (HIDDEN, "'Identity' holds a graph"),
        (REFERENCE, "'Identity' holds a graph"),
    ],
)
def test_other_operators_and_nested_graphs_are_refused(tmp_path, node, message):
    file = written(tmp_path / "a.onnx", [CAST, node, LAST])
    with pytest.raises(ValueError, match=rf"a\.onnx: .*{message}.*add trust=true"):
        ExportedModel(file)


def outside(tensor, location):
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def library(model):
    model.opset_import.append(helper.make_opsetid("com.stranger", 1))


def function(model):
    model.functions.append(helper.make_function("com.stranger", "f", ["a"], ["b"], [], [helper.make_opsetid("", 18)]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (library, r"needs the operators of 'com\.stranger'"),
        (function, "holds functions"),
        (lambda model: outside(model.graph.initializer[0], "secret"), "lie in another file"),
        (lambda model: outside(model.graph.initializer[0], "../../secret"), "lie in another file"),
        (lambda model: outside(model.graph.node[1].attribute[0].t, "secret"), "lie in another file"),
        (lambda model: model.graph.node.extend([LAST] * onnx_model.NODES), "more than 20000 operators"),
        (lambda model: model.graph.input.append(model.graph.input[0]), "2 inputs and 1 outputs"),
        (lambda model: model.graph.output.append(model.graph.output[0]), "1 inputs and 2 outputs"),
    ],
)
def test_what_lies_outside_of_the_graph_is_refused(tmp_path, change, message):
    (tmp_path / "secret").write_bytes(b"\0\0\x80?")
    node = helper.make_node("Constant", [], ["z"], value=constant("", np.ones(1, np.float32)))
    add = helper.make_node("Mul", ["x", "one"], ["probabilities"])
    one = constant("one", np.ones(1, np.float32))
    assert ExportedModel(written(tmp_path / "good.onnx", [CAST, node, add], [one])).classes == ["a", "b", "c"]
    with pytest.raises(ValueError, match=rf"a\.onnx: .*{message}"):
        ExportedModel(written(tmp_path / "a.onnx", [CAST, node, add], [one], change))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": TensorProto.DOUBLE}, "'images' is not uint8"),
        ({"sides": (("n", 1, "h", "w"), SIDES)}, "'images' is not of three channels"),
        ({"sides": (("n", 3, "h"), SIDES)}, "'images' is not uint8"),
        ({"sides": (SIDES, ("n", 3))}, "'probabilities' is not float32"),
        ({"about": {**ABOUT, "classes": []}}, "num_classes=0"),
        ({"about": {**ABOUT, "colors": [[0, 0, 300]] * 3}}, "no colour"),
        ({"about": {**ABOUT, "image_size": [1, 2, 3]}}, "values to unpack"),
        ({"about": [[]]}, "indices"),
    ],
)
def test_other_inputs_outputs_and_metadata_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=rf"a\.onnx: not a model that export\.py wrote \(.*{message}"):
        ExportedModel(written(tmp_path / "a.onnx", [CAST, LAST], **options))


def doubled(times):
    """Each node takes twice the memory of the one before."""
    names = ["x", *(f"x{i}" for i in range(times - 1)), "y"]
    return [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in pairwise(names)]


MEMORY = {
    "tile": ([helper.make_node("Expand", ["x", "large"], ["y"])], [constant("large", [100_000, 3, 33, 70])]),
    "fill": ([helper.make_node("ConstantOfShape", ["large"], ["y"])], [constant("large", [10**11])]),
    "range": ([helper.make_node("Range", ["zero", "end", "step"], ["y"])],
              [constant("zero", 0), constant("end", 10**12), constant("step", 1)]),
    "resize": ([helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")],
               [constant("scales", np.array([1, 1, 5000, 5000], np.float32))]),
    "double": (doubled(30), []),
}  # fmt: skip


@pytest.mark.parametrize("attack", MEMORY)
def test_its_memory_is_bounded(tmp_path, attack, monkeypatch):
    monkeypatch.setattr(onnx_model, "MEMORY", 2**29)
    nodes, weights = MEMORY[attack]
    sums = [
        helper.make_node("Cast", ["y"], ["z"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["z"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["probabilities"]),
    ]
    file = written(tmp_path / "a.onnx", [CAST, *nodes, *sums], weights)
    before = time.monotonic()
    with pytest.raises(ValueError, match=r"a\.onnx: .*(memory|alloc)"):
        ExportedModel(file)(IMAGES)
    assert time.monotonic() - before < 30


def test_its_time_is_bounded_and_its_process_ends(tmp_path, monkeypatch):
    file = written(tmp_path / "a.onnx", [CAST, *multiplied(20), LAST], [])
    model = ExportedModel(file)
    child = model._run._process
    monkeypatch.setattr(onnx_model, "SECONDS", 0.5)
    before = time.monotonic()
    with pytest.raises(ValueError, match=r"a\.onnx: the model took longer than 0 s; .* add trust=true, which lifts"):
        model(torch.zeros(1, 3, 2000, 2000, dtype=torch.uint8))
    assert time.monotonic() - before < 10
    assert child.returncode is not None


def multiplied(times):
    """So many products of the image with itself, which nothing can leave out."""
    nodes = []
    for i in range(times):
        source = "x" if i == 0 else f"x{i - 1}"
        nodes += [helper.make_node("Transpose", [source], [f"t{i}"], perm=[0, 1, 3, 2])]
        nodes += [helper.make_node("MatMul", [source, f"t{i}"], [f"m{i}"])]
        nodes += [helper.make_node("MatMul", [f"m{i}", source], [f"x{i}"])]
    return [*nodes, helper.make_node("Identity", [f"x{times - 1}"], ["y"])]


def test_an_answer_of_another_shape_is_refused(tmp_path):
    node = helper.make_node("Concat", ["x", "x"], ["probabilities"], axis=1)
    model = ExportedModel(written(tmp_path / "a.onnx", [CAST, node]))
    with pytest.raises(ValueError, match=r"it gave float32 \(1, 6, 33, 70\) instead of float32 \(1, 3, 33, 70\)"):
        model(IMAGES)


def test_no_file_of_the_current_folder_is_imported(tmp_path, monkeypatch):
    for name in ("numpy", "onnxruntime", "multiprocessing", "json"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    model = ExportedModel(written(tmp_path / "a.onnx", [CAST, LAST]))
    assert torch.equal(model(IMAGES), IMAGES.float())
    assert not (tmp_path / "ran").exists()


def test_trust_lifts_the_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_model, "SECONDS", 0.0)
    file = written(tmp_path / "a.onnx", [CAST, helper.make_node("Sin", ["x"], ["probabilities"])])
    with pytest.raises(ValueError, match="the operator 'Sin'"):
        ExportedModel(file)
    torch.testing.assert_close(ExportedModel(file, trusted=True)(IMAGES), IMAGES.float().sin())


def test_its_process_ends_with_the_object(tmp_path):
    model = ExportedModel(written(tmp_path / "a.onnx", [CAST, LAST]))
    process = model._run._process.pid
    assert Path(f"/proc/{process}").exists()
    del model
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
