import json

import pytest
import torch

from segnet.benchmark.reference import StockNetwork
from segnet.networks.segnet import SegNet, SegNetCompact


@pytest.mark.parametrize("net", [SegNet(1), SegNetCompact(1)])
def test_the_baseline_computes_the_same_with_stock_operators(net):
    net.eval()
    x = torch.randn(1, 3, 45, 64)
    with torch.no_grad():
        torch.testing.assert_close(StockNetwork(net)(x), net(x), atol=1e-4, rtol=1e-4)


def test_runs_and_reports(run_main, tmp_path):
    parts = "parts=[ceiling,training,index,data,inference]"
    code, err = run_main("benchmark", tmp_path / "b", "image_size=64", "batch_size=2", "repeats=2", "images=24", parts)
    assert code == 0, err
    rows = json.loads((tmp_path / "b" / "results.json").read_text())["rows"]
    assert {row["part"] for row in rows} >= {"matrix product", "training step", "data path", "inference, batch 8"}
    assert all(0 < row["least"] <= row["median"] <= row["greatest"] for row in rows)
    assert (tmp_path / "b" / "speed.png").stat().st_size > 5000


def test_unknown_part(run_main, tmp_path):
    code, err = run_main("benchmark", tmp_path / "b", "parts=[speed]")
    assert code == 1
    assert "parts=['speed']: unknown" in err
