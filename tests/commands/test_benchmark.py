import json
import math

import numpy as np
import pytest
import torch

from segnet.benchmark import programs, recipe, runtimes, steps
from segnet.benchmark.reference import StockNetwork
from segnet.benchmark.runtimes import NAMES
from segnet.benchmark.table import figure
from segnet.configuration import instantiate
from segnet.deployment import device_folder, verification
from segnet.deployment.form import Form
from segnet.deployment.formats import FORMATS
from segnet.networks.ddrnet import DDRNet
from segnet.networks.segnet import SegNet, SegNetCompact
from segnet.training.checkpoint import load_module

TINY = ("image_size=64", "images=6", "cpu.batch_sizes=[2]", "repeats=2", "turn=0.001", "cpu.matrix=64", "cpu.copy_mb=1")
TINY += ("cpu.loop.images=10", "cpu.loop.image_size=64", "cpu.loop.crop=32", "cpu.loop.epochs=5", "workers=[0,1]")


@pytest.mark.parametrize("net", [SegNet(1), SegNetCompact(1)])
def test_the_baseline_computes_the_same_with_stock_operators(net):
    net.eval()
    x = torch.randn(1, 3, 45, 64)
    with torch.no_grad():
        torch.testing.assert_close(StockNetwork(net)(x), net(x), atol=1e-4, rtol=1e-4)


def test_every_part_runs_and_reports(run_main, tmp_path, monkeypatch):
    whole, measured, execute = [], {}, programs.execute
    monkeypatch.setattr(programs, "execute", whole.append)  # what `program` times; `loop` and `memory` run theirs

    def child(code):
        if code == "import torch":
            return whole.append(code)
        measured[code] = next(iter(measured.values())) if measured else execute(["-c", code])  # one for all variants
        return measured[code]

    monkeypatch.setattr(programs, "child", child)
    code, err = run_main("benchmark", tmp_path / "b", *TINY, "device=cpu")
    assert code == 0, err
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    parts = {row["part"] for row in results["rows"]}
    pooling = {part for part in parts if part.startswith("pool + unpool, forward + backward, batch 2, ")}
    assert "pool + unpool, forward + backward, batch 2, float32" in pooling
    assert parts - pooling == {
        "matrix product, 64³", "memory bandwidth", "training step, batch 2", "training loop, crops 32, batch 8",
        "inference, batch 1", "inference, batch 8",
        "image to probabilities, batch 1", "peak memory of training, batch 2", "data path",
        "experiment=camvid, images on the device", "whole program", "an epoch of 8 steps, default network",
    }  # fmt: skip
    assert {command if isinstance(command, str) else command[1] for command in whole} == {
        "import torch", "--help", "trainer=fast_dev_run",
    }  # fmt: skip
    assert len(measured) == len(steps.variants(torch.device("cpu"), [])) == 5
    assert all(0 < row["least"] <= row["median"] <= row["greatest"] for row in results["rows"])
    first = {row["part"]: row["median"] for row in reversed(results["rows"])}
    for row in results["rows"]:
        better = -1 if row["unit"] in ("ms", "MB", "s") else 1
        assert row["ratio"] == pytest.approx((row["median"] / first[row["part"]]) ** better), row
    table = (tmp_path / "b" / "table.md").read_text()
    assert all(f"| {row['name']} | {figure(row['median'])} |" in table for row in results["rows"])
    assert results["versions"]["torch"] in table
    assert results["commit"] in table
    assert (tmp_path / "b" / "speed.png").stat().st_size > 5000


def test_all_formats_of_a_checkpoint_side_by_side(run_main, trained, tmp_path):
    ckpt = trained / "checkpoints" / "best.ckpt"
    code, err = run_main(
        "benchmark", tmp_path / "b", "parts=[runtimes]", f"ckpt_path={ckpt}", "threads=[1]", "repeats=1",
        "runtimes.seconds=0.01", "runtimes.batch=1", "runtimes.images=6", "runtimes.calibration=4",
        "runtimes.max_drop=0.9",
    )  # fmt: skip
    assert code == 0, err
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    assert results["rows"] == []
    rows = {row["runtime"]: row for row in results["runtimes"]["rows"]}
    assert {"PyTorch, float32", "ONNX Runtime, float32", "ONNX Runtime, int8", "pt2, float32"} <= set(rows)
    module = load_module(ckpt)
    data = instantiate(module.config["data"], "data")
    data.setup()
    samples = device_folder.of_pairs(module, Form((64, 64)), verification.pairs(data, "val", 6))
    truth, decided = samples["masks"] == 1, samples["decided"] == 1
    for name in ("PyTorch, float32", "ONNX Runtime, float32", "pt2, float32"):
        assert rows[name]["decisions"]["median"] == pytest.approx(1, abs=1e-4)
        assert rows[name]["IoU"]["median"] == pytest.approx((truth & decided).sum() / (truth | decided).sum(), abs=1e-3)
    assert rows["ONNX Runtime, int8"]["file MB"]["median"] < 0.3 * rows["ONNX Runtime, float32"]["file MB"]["median"]
    # A process of its own each: that of ONNX Runtime holds neither torch nor this project.
    assert rows["ONNX Runtime, float32"]["memory MB"]["median"] < 0.5 * rows["PyTorch, float32"]["memory MB"]["median"]
    assert rows["ONNX Runtime, float32"]["start-up s"]["median"] < rows["PyTorch, float32"]["start-up s"]["median"]
    table = (tmp_path / "b" / "table.md").read_text()
    for name, row in rows.items():
        assert row["threads"] == 1
        assert f"| {name} | " in table
    for name in ("openvino", "executorch", "litert"):  # measured, or left out with the remedy
        told = [reason for reason in results["runtimes"]["left_out"].values() if f"segnet-lightning[{name}]'" in reason]
        assert any(key.startswith(NAMES[name]) for key in rows) or told
        assert all(reason in table for reason in told)
    assert (tmp_path / "b" / "runtimes.png").stat().st_size > 5000
    assert not (tmp_path / "b" / "speed.png").exists()


def test_without_the_data_formats_are_measured_and_a_runtime_that_fails_is_told(
    run_main, trained, tmp_path, monkeypatch
):
    content = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    content["config"]["data"] |= {"root": str(tmp_path / "gone"), "prepare": None}
    torch.save(content, tmp_path / "moved.ckpt")
    monkeypatch.setattr(runtimes, "FORMATS", {"onnx": FORMATS["onnx"]})
    rounds = iter([3.0, 1.0, 2.0])

    def measured(runtime, threads, batch, seconds):
        if runtime.name.startswith("PyTorch"):
            raise RuntimeError("python failed:\nout of memory")
        milliseconds = next(rounds)
        figures = {"threads": threads, "batch": batch, "p50 ms": milliseconds, "images/s": 1e3 / milliseconds}
        return figures | ({"decisions": 0.9, "IoU": math.nan} if milliseconds == 3 else {})  # of the first turn alone

    monkeypatch.setattr(runtimes.Runtime, "measure", measured)
    given = ("parts=[runtimes]", f"ckpt_path={tmp_path}/moved.ckpt", "threads=[2]", "repeats=3", "runtimes.batch=1")
    code, err = run_main("benchmark", tmp_path / "b", *given)
    assert code == 0, err
    found = json.loads((tmp_path / "b" / "results.json").read_text())["runtimes"]
    (row,) = found["rows"]
    assert (row["runtime"], row["threads"]) == ("ONNX Runtime, float32", 2)
    assert row["p50 ms"] == {"median": 2, "least": 1, "greatest": 3}
    assert row["images/s"]["median"] == 500
    assert row["decisions"] == dict.fromkeys(("median", "least", "greatest"), 0.9)
    assert "IoU" not in row
    assert found["left_out"]["PyTorch, float32"] == "out of memory"
    assert "the data of the checkpoint are not here" in found["left_out"]["decisions, IoU and int8"]
    table = (tmp_path / "b" / "table.md").read_text()
    assert "| ONNX Runtime, float32 | 2 (1 to 3) | 500 | 0.90000 | – |" in table
    assert "Left out: PyTorch, float32: out of memory" in table
    code, err = run_main("benchmark", tmp_path / "c", *given, f"data.root={tmp_path}/elsewhere")
    assert code == 1
    assert f"{tmp_path}/elsewhere" in err


def test_every_network_by_name(run_main, tmp_path):
    """Multiply-adds of every convolution by its layer's and its output's size."""
    names = ["segnet", "ddrnet23_slim"]
    code, err = run_main(
        "benchmark", tmp_path / "b", *TINY, "device=cpu", "parts=[networks]", f"networks=[{','.join(names)}]"
    )
    assert code == 0, err
    rows = json.loads((tmp_path / "b" / "results.json").read_text())["rows"]
    assert [row["name"] for row in rows] == names
    assert {(row["part"].rsplit(", ", 1)[0], row["unit"]) for row in rows} == {("networks, batch 1", "ms")}
    for net, row in zip((SegNet(1), DDRNet(1)), rows, strict=True):
        outputs = {}
        for conv in [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]:
            conv.register_forward_hook(lambda m, _, out, seen=outputs: seen.update({m: out[0, 0].numel()}))
        with torch.no_grad():
            net.eval()(torch.zeros(1, 3, 64, 64))
        work = sum(pixels * conv.weight.numel() for conv, pixels in outputs.items())
        parameters = sum(p.numel() for p in net.parameters())
        assert row["note"] == f"{parameters:,} parameters, {work / 1e9:.2f} G multiply-adds"


def test_chosen_parts_and_a_compiled_step(run_main, tmp_path, monkeypatch):
    modes = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, mode: modes.append(mode))
    code, err = run_main(
        "benchmark", tmp_path / "b", *TINY, "device=cpu", "parts=[training,index]", "compile=[default]"
    )
    assert code == 0, err
    rows = json.loads((tmp_path / "b" / "results.json").read_text())["rows"]
    assert {row["part"].split(",")[0] for row in rows} == {"training step", "pool + unpool"}
    (compiled,) = [row for row in rows if row["name"].endswith("compile=default")]
    assert "first step after" in compiled["note"]
    assert modes == ["default"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("parts=[speed]", "parts=[speed]: must be a list that is not empty, each ceiling, training, loop"),
        ("parts=[runtimes]", "needs a checkpoint; add ckpt_path=logs/train/<run>/checkpoints/best.ckpt"),
        (
            "parts=[ceiling] ckpt_path=a.ckpt",
            "ckpt_path=a.ckpt: only the part runtimes takes it; add 'parts=[runtimes]'",
        ),
        (
            "device=cpu parts=[loop] loop={images:8,image_size:64,crop:32,epochs:1}",
            "loop.epochs=1: must be at least 2, because the first epoch warms up",
        ),
        (
            "device=cpu parts=[data] loop={images:8,image_size:16,crop:16,epochs:2}",
            "loop.image_size=16: must be at least 32 pixels",
        ),
        (
            "device=cpu parts=[data] loop={images:8,image_size:64,crop:96,epochs:2}",
            "loop.crop=96: must be at most loop.image_size=64",
        ),
        ("device=tpu", "device=tpu: must be auto, cpu or cuda"),
        ("parts=[networks] networks=[]", "networks=[]: must be a list that is not empty"),
        ("parts=[networks] networks=[alexnet]", "alexnet"),
        ("compile=[fast]", "compile=[fast]: must be a list, each default, reduce-overhead or max-autotune"),
    ],
)
def test_what_cannot_be_measured_is_refused(run_main, tmp_path, given, said):
    code, err = run_main("benchmark", tmp_path / "b", *given.split())
    assert code == 1
    assert said in err


def test_a_step_is_torchs_own():
    variant = steps.Variant(SegNet, fast=False)
    cpu = torch.device("cpu")
    step = steps.training_step(variant, cpu, 32, 2)
    try:
        step()
    finally:
        torch.use_deterministic_algorithms(False)
    net = variant.network(cpu)
    masks = step.batch["mask"].float()
    torch.nn.functional.binary_cross_entropy_with_logits(net(step.batch["image"])[:, 0], masks).backward()
    for mine, own in zip(step.parameters, net.parameters(), strict=True):
        torch.testing.assert_close(mine, own - 0.01 * own.grad)


def test_only_ours_is_deterministic_and_only_a_gpu_captures():
    on_cpu = steps.variants(torch.device("cpu"), ["default"])
    on_gpu = steps.variants(torch.device("cuda"), ["default", "reduce-overhead"])
    assert [v.captured for v in on_cpu.values()] == [False] * 6
    assert [(v.captured, v.compile) for v in on_gpu.values() if v.captured or v.compile] == [
        (True, None), (True, "default"), (False, "reduce-overhead"),
    ]  # fmt: skip
    determinism = [steps.training_step(v, torch.device("cpu"), 32, 1).deterministic for v in on_cpu.values()]
    assert determinism == [False, False, True, False, True, True]


def test_flops_by_hand():
    # Compact at 32×32: pixels × in × out × 9 of each 3×3 convolution, twice for multiply and add.
    forward = 32 * 32 * 9 * (3 * 32 + 32 * 32) + 16 * 16 * 9 * (32 * 64 + 64 * 64) + 8 * 8 * 9 * (64 * 128 + 128 * 128)
    forward += 4 * 4 * 9 * (128 * 256 + 256 * 256) + 2 * 2 * (9 * 256 * 512 + 512 * 256)
    forward += 4 * 4 * 9 * (256 * 128 + 128 * 128) + 8 * 8 * 9 * (128 * 64 + 64 * 64)
    forward += 16 * 16 * 9 * (64 * 32 + 32 * 32) + 32 * 32 * (9 * (32 * 32 + 32 * 32) + 32)
    first = 32 * 32 * 9 * 3 * 32  # no gradient of the image
    assert steps.flops(SegNetCompact, 32) == 2 * (3 * forward - first)


def test_generated_images_show_every_class(tmp_path):
    from segnet.data.images import read_raw_mask

    recipe.write(tmp_path, 2, 1, 64)
    assert [len(list((tmp_path / name).iterdir())) for name in ("train", "trainannot", "val", "valannot")] == [
        2,
        2,
        1,
        1,
    ]
    mask = read_raw_mask(tmp_path / "trainannot" / "0001.png", "index")
    assert np.unique(mask).tolist() == list(range(12))


def test_figures_are_short():
    assert [figure(value) for value in (0.01234, 56.78, 1234.5, 702345.6)] == ["0.0123", "56.8", "1,234", "702,346"]
