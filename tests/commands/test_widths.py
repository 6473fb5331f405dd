"""``budget_ms``: what was measured stands in the run as if it had been typed."""

import json

import pytest
import torch
import yaml

from exports import module_of
from helpers import SMALL, call_main
from segnet.networks.segnet import SegNet, count_parameters
from segnet.recipe import latency

VGG16 = [64, 128, 256, 512, 512]


def test_a_run_has_the_widest_network_that_fits(cable, cache, tmp_path, capfd):
    quick, slow = (
        latency.measure(module_of(SegNet(1, latency.scaled(VGG16, part)), size=(32, 32)), "pytorch").median
        for part in (latency.PARTS[0], latency.PARTS[-1])
    )
    assert slow > 3 * quick
    words = [*SMALL, "~callbacks.panels", "data=folder", f"data.root={cable}", f"data.cache_dir={cache}"]
    words += ["model=segnet_vgg16", "runtime=pytorch", f"output_dir={tmp_path}"]
    assert call_main("train", *words, f"budget_ms={(quick * slow) ** 0.5}") == 0
    config = yaml.safe_load((tmp_path / ".hydra" / "config.yaml").read_text())
    widths = config["model"]["net"]["widths"]
    assert widths in [latency.scaled(VGG16, part) for part in latency.PARTS[:-1]]
    assert (config["budget_ms"], config["runtime"]) == (None, None)
    overrides = yaml.safe_load((tmp_path / ".hydra" / "overrides.yaml").read_text())
    assert f"model.net.widths=[{','.join(map(str, widths))}]" in overrides
    assert not any(word.startswith(("budget_ms=", "runtime=")) for word in overrides)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["parameters"] == count_parameters(SegNet(1, widths, bias=True))
    err = capfd.readouterr().err
    assert "the widest within" in err
    assert f"{torch.get_num_threads()} threads, pytorch, float32, data.image_size=32" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["budget_ms=15"], "budget_ms=15: needs the runtime"),
        (["runtime=onnx"], "runtime=onnx: needs budget_ms"),
        (["budget_ms=0", "runtime=onnx"], "budget_ms=0: must be a number above 0 or null"),
        (["budget_ms=15", "runtime=tflite"], "runtime=tflite: must be pytorch, onnx, openvino, executorch, litert or"),
        (["budget_ms=15", "runtime=onnx", "model=segnet_compact"], "budget_ms=15: SegNetCompact has no widths"),
        (["budget_ms=9", "runtime=onnx", "model=segnet_vgg16", "model.net.pretrained=true"], "budget_ms=9: SegNet w"),
        (["budget_ms=15", "runtime=onnx", "trainer.devices=2"], "budget_ms=15 with trainer.devices=2"),
        (["budget_ms=1e-6", "runtime=pytorch"], "budget_ms=1e-06: model.net.widths=[2,4,10,19,23], the narrowest"),
    ],
)  # fmt: skip
def test_a_budget_that_says_nothing_is_one_line(words, told, cable, tmp_path, run_main):
    code, err = run_main("train", tmp_path / "out", "data=folder", f"data.root={cable}", *words)
    assert code == 1
    assert told in err


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_an_exported_network_is_timed(runtime):
    pytest.importorskip(runtime, reason=f"pip install 'segnet-lightning[{runtime}]'")
    small, large = (
        latency.measure(module_of(SegNet(1, widths), size=(64, 128)), runtime)
        for widths in ([2, 2, 2, 2, 2], [64, 64, 64, 64, 64])
    )
    assert small.low <= small.median <= small.high
    assert small.median < large.median


def test_a_search_refuses_a_budget(cable, tmp_path, run_main):
    code, err = run_main("tune", tmp_path / "out", *SMALL, f"data.root={cable}", "budget_ms=5", "runtime=pytorch")
    assert code == 1
    assert "budget_ms=5: is for one training, and a search has many; leave it out" in err


def test_a_run_that_was_stopped_before_is_not_resumed(trained, tmp_path, capfd):
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    config = yaml.safe_load((trained / ".hydra" / "config.yaml").read_text())
    config |= {"budget_ms": 5.0, "runtime": "pytorch"}
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".hydra" / "overrides.yaml").write_text("[budget_ms=5, runtime=pytorch]")
    assert call_main("train", f"resume={folder}") == 1
    assert "was stopped before its recipe was chosen; start it anew" in capfd.readouterr().err
