import json
import math

import pytest
import torch
from PIL import Image
from torch import nn

from segnet.training.checkpoint import load_module


def test_a_checkpoint_alone_is_enough(run_main, trained, tmp_path):
    code, err = run_main("eval", tmp_path / "e", f"ckpt_path={trained}/checkpoints/best.ckpt", "trainer=cpu")
    assert code == 0, err
    found = json.loads((tmp_path / "e" / "results.json").read_text())["metrics"]
    expected = json.loads((trained / "results.json").read_text())["metrics"]
    error = found.pop("test/calibration_error")
    assert {k: v for k, v in expected.items() if k.startswith("test/")} == pytest.approx(found, abs=1e-6)
    assert 0 < error < 0.5
    with Image.open(tmp_path / "e" / "reliability.png") as image:
        assert image.width > 100
    with Image.open(tmp_path / "e" / "confusion.png") as image:
        assert image.width > 100
    worst = sorted((tmp_path / "e" / "worst").glob("*.png"))
    scores = [float(path.stem.rpartition("iou")[2]) for path in worst]
    assert len(worst) == 12
    assert scores == sorted(scores)
    with Image.open(tmp_path / "e" / "grid.jpg") as image:
        assert image.size == (4 * 64 + 3 * 8, 4 * 64 + 3 * 8)


def test_other_data_and_split_by_override(run_main, trained, cable, tmp_path):
    code, err = run_main(
        "eval", tmp_path / "e", f"ckpt_path={trained}/checkpoints/best.ckpt", "split=val", f"data.root={cable}"
    )
    assert code == 0, err
    results = json.loads((tmp_path / "e" / "results.json").read_text())
    assert 0 <= results["metrics"]["val/iou"] <= 1
    assert results["images"] < 24


def test_the_mean_of_samples_is_evaluated(trained):
    """Dropout of half over a constant logit of 1: the mean probability lies between sigmoid(0) and sigmoid(2)."""
    module = load_module(trained / "checkpoints" / "best.ckpt")
    conv = nn.Conv2d(3, 1, 1)
    nn.init.zeros_(conv.weight)
    nn.init.constant_(conv.bias, 1.0)
    module.net = nn.Sequential(conv, nn.Dropout(0.5))
    torch.manual_seed(0)
    with torch.no_grad():
        found = module.mean_of_samples(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 200).sigmoid()
    assert found.mean().item() == pytest.approx((0.5 + 1 / (1 + math.exp(-2))) / 2, abs=0.003)
    assert found.std().item() < 0.03


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ckpt_path=/nowhere.ckpt"], "ckpt_path=/nowhere.ckpt: no such file"),
        (["ckpt_path={best}", "split=nope"], "split=nope: must be one of train, val, test"),
        (["ckpt_path={best}", "data=camvid", "data.root=/etc"], "camvid|nothing matches|knows"),
        (["ckpt_path={best}", "grid=-1"], "grid=-1: must be an integer of at least 0"),
        (["ckpt_path={best}", "mc_samples=4"], "mc_samples=4: the network has no dropout"),
        ([], "ckpt_path"),
    ],
)
def test_bad_input(run_main, trained, tmp_path, overrides, message):
    import re

    best = trained / "checkpoints" / "best.ckpt"
    code, err = run_main("eval", tmp_path / "e", *(o.replace("{best}", str(best)) for o in overrides))
    assert code == 1
    assert re.search(message, err)
    assert not (tmp_path / "e").exists()
