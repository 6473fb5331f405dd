import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from segnet.runs.comparison import bootstrap, find, iou, short


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_sweep_becomes_tables_means_and_curves(run_main, sweep, tmp_path):
    code, err = run_main("compare", tmp_path / "c", f"runs={sweep}", "resamples=200")
    assert code == 0, err
    with (tmp_path / "c" / "runs.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"0", "1", "2", "3"}
    for name, row in rows.items():
        expected = results(sweep / name)
        assert float(row["best val/iou"]) == expected["metrics"]["val/iou"]
        assert float(row["test/loss"]) == expected["metrics"]["test/loss"]
        assert row["parameters"] == "3087185"
        assert row["lr"] in ("0.1", "0.0001")
    best = [float(row["best val/iou"]) for row in rows.values()]
    assert best == sorted(best, reverse=True)

    text = (tmp_path / "c" / "comparison.md").read_text()
    for lr in ("0.1", "0.0001"):
        losses = [float(row["test/loss"]) for row in rows.values() if row["lr"] == lr]
        assert f"{np.mean(losses):.4f} ± {abs(losses[0] - losses[1]) / np.sqrt(2):.4f}" in text
    assert text.count("% of draws") == 3
    with Image.open(tmp_path / "c" / "curves.png") as image:
        assert np.asarray(image).std() > 10


def test_a_baseline_is_what_the_others_are_held_against(run_main, sweep, tmp_path):
    code, err = run_main("compare", tmp_path / "c", f"runs={sweep}", "resamples=100", "baseline=3")
    assert code == 0, err
    text = (tmp_path / "c" / "comparison.md").read_text().partition("## Is 3 better?")[2]
    assert re.findall(r"^\| (\d) \|", text, re.MULTILINE) == [run.name for run in find([str(sweep)]) if run.name != "3"]


def test_the_bootstrap_against_plain_loops():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 100, (2, 30, 4))
    second[:, 3] += 60  # more hits
    found = bootstrap(first, second, 4000, 0)
    expected = []
    for _ in range(4000):
        draw = rng.integers(0, 30, 30)
        value = [m[draw, 3].sum() / m[draw, 1:].sum() for m in (first, second)]
        expected.append(value[0] - value[1])
    assert found.mean() == pytest.approx(np.mean(expected), abs=0.003)
    assert np.quantile(found, [0.025, 0.975]) == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=0.01)
    assert (found < 0).mean() == pytest.approx((np.array(expected) < 0).mean(), abs=0.01)


def test_equal_runs_do_not_differ():
    one = np.random.default_rng(1).integers(0, 9, (10, 9))
    assert (bootstrap(one, one, 100, 0) == 0).all()


def test_iou_of_several_classes_leaves_out_absent_ones():
    matrix = np.array([[[3, 1, 0], [2, 4, 0], [0, 0, 0]]]).reshape(1, 9)
    assert iou(matrix)[0] == pytest.approx((3 / 6 + 4 / 7) / 2)


def test_names_are_as_short_as_they_can_be():
    assert short(["model.optimizer.lr", "data.batch_size", "a.b", "c.b"]) == ["lr", "batch_size", "a.b", "c.b"]


def test_the_best_run_comes_first_whatever_the_mode(sweep):
    runs = find([str(sweep)])
    values = [run.metric("val/iou") for run in runs]
    assert values == sorted(values, reverse=True)
    assert [run.folder for run in find([f"{sweep}/[01]"])] == [run.folder for run in runs if run.name in "01"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["runs=/nowhere"], "runs=/nowhere: no finished training run there"),
        (["runs={sweep}", "resamples=3"], "resamples=3: must be an integer of at least 100"),
        (["runs={sweep}", "baseline=9"], "baseline=9: must be one of"),
        ([], "runs"),
    ],
)
def test_bad_input(run_main, sweep, tmp_path, overrides, message):
    code, err = run_main("compare", tmp_path / "o", *(o.replace("{sweep}", str(sweep)) for o in overrides))
    assert code == 1
    assert re.search(message, err)
    assert not (tmp_path / "o").exists()
