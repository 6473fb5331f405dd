"""Runs side by side, on folders written by hand, whose order, means and differences can be told by eye."""

import csv
import json
import re

import numpy as np
import pytest
from matplotlib import image as reader
from omegaconf import OmegaConf

from helpers import write_run
from segnet import tables
from segnet.errors import UserError
from segnet.runs.comparison import bootstrap, find, iou, over_seeds, paired_bootstraps, short, table
from segnet.runs.finished import Run
from segnet.visualization.figures import curves


def test_a_sweep_becomes_tables_means_and_curves(run_main, sweep, tmp_path):
    code, err = run_main("compare", tmp_path / "c", f"runs={sweep}", "resamples=200")
    assert code == 0, err
    with (tmp_path / "c" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = {  # best first; of run 3 no best value is known
        "run": "1023", "seed": "1001", "lr": ["0.1", "0.1", "0.0001", "0.0001"], "best val/iou": [0.7, 0.5, 0.2, None],
        "final val/iou": [1.0, 0.0, 2.0, 3.0], "val/loss": [0.5] * 4, "test/iou": [0.75, 0.5, 0.25, 0.125],
        "test/loss": [3.0, 1.0, 0.5, 0.25], "epochs": "2222", "parameters": ["1234"] * 4, "seconds": ["5.5"] * 4,
    }  # fmt: skip
    assert list(rows[0]) == list(expected)
    for name, values in expected.items():
        told = [str("nan" if value is None else value) for value in values]
        assert [row[name] for row in rows] == told

    text = (tmp_path / "c" / "comparison.md").read_text()
    assert "| 3 | 1 | 0.0001 | – | 3.0000 | 0.5000 | 0.1250 | 0.2500 | 2 | 1234 | 5.5000 |\n" in text
    assert "| 0.1 | 2 | 0.6000 ± 0.1414 | 0.6250 ± 0.1768 | 2.0000 ± 1.4142 |\n" in text  # deviation of a sample
    assert "## Is 1 better? Test IoU, paired bootstrap" in text
    assert "| 0 | +0.2500 | +0.2500 to +0.2500 | 100.0% of draws |\n" in text
    assert "| 3 | +0.6250 | +0.6250 to +0.6250 | 100.0% of draws |\n" in text
    assert reader.imread(tmp_path / "c" / "curves.png").shape[:2] == (495, 1650)


def test_a_baseline_is_what_the_others_are_held_against(run_main, sweep, tmp_path):
    code, err = run_main("compare", tmp_path / "c", f"runs={sweep}", "resamples=100", "baseline=0")
    assert code == 0, err
    text = (tmp_path / "c" / "comparison.md").read_text().partition("## Is 0 better?")[2]
    assert re.findall(r"^\| (\d.*) \|$", text, re.MULTILINE) == [
        "1 | -0.2500 | -0.2500 to -0.2500 | 0.0% of draws",
        "2 | +0.2500 | +0.2500 to +0.2500 | 100.0% of draws",
        "3 | +0.3750 | +0.3750 to +0.3750 | 100.0% of draws",
    ]


def test_the_chance_to_be_better_is_the_share_of_draws(tmp_path):
    """Of two images the first run wins one by 0.6 and loses the other by 0.2: it loses where that is drawn twice."""
    write_run(tmp_path / "a", {"val/iou": 0.9}, {"x": (0, 0, 20, 80), "y": (0, 0, 60, 40)})
    write_run(tmp_path / "b", {"val/iou": 0.8}, {"x": (0, 80, 0, 20), "y": (0, 40, 0, 60)})
    (row,) = paired_bootstraps(find([str(tmp_path)]), 4000, 0)
    assert (row["difference"], row["95 %"]) == ("+0.2000", "-0.2000 to +0.6000")
    assert float(row["better in"].removesuffix("% of draws")) == pytest.approx(75, abs=3)


def test_draws_without_a_defect_are_none(tmp_path):
    """Of three images one has a defect, which the first run finds better: so it is better in every draw with it."""
    write_run(tmp_path / "a", {"val/iou": 0.9}, {"x": (50, 0, 10, 40), "y": (100, 0, 0, 0), "z": (100, 0, 0, 0)})
    write_run(tmp_path / "b", {"val/iou": 0.8}, {"x": (50, 0, 30, 20), "y": (100, 0, 0, 0), "z": (100, 0, 0, 0)})
    (row,) = paired_bootstraps(find([str(tmp_path)]), 400, 0)
    assert (row["95 %"], row["better in"]) == ("+0.4000 to +0.4000", "100.0% of draws")
    for name in "ab":
        write_run(tmp_path / "none" / name, {"val/iou": 0.9}, {"y": (100, 0, 0, 0), "z": (100, 0, 0, 0)})
    (row,) = paired_bootstraps(find([str(tmp_path / "none")]), 400, 0)
    assert (row["95 %"], row["better in"]) == ("–", "–")


def test_other_test_images_or_classes_are_told_not_compared(tmp_path):
    for name, images in {"a": {"x": (1, 2, 3, 4)}, "b": {"y": (1, 2, 3, 4)}, "c": {"x": (1,) * 9}, "d": {}}.items():
        write_run(tmp_path / name, {"val/iou": 1.0}, images)
    rows = paired_bootstraps(find([str(tmp_path)]), 100, 0)
    told = dict.fromkeys("bc", "other test images or classes") | {"d": "no test images (data.split.test)"}
    assert rows == [{"against": run, "difference": why, "95 %": "", "better in": ""} for run, why in told.items()]


def test_the_bootstrap_against_plain_loops():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 100, (2, 30, 4))
    second[:, 3] += 60  # more hits
    found = bootstrap(first, second, True, 4000, 0)
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
    assert (bootstrap(one, one, False, 100, 0) == 0).all()


def test_iou_of_several_classes_leaves_out_absent_ones():
    matrix = np.array([[[3, 1, 0], [2, 4, 0], [0, 0, 0]]]).reshape(1, 9)
    assert iou(matrix, False)[0] == pytest.approx((3 / 6 + 4 / 7) / 2)


def test_of_two_named_classes_both_count(tmp_path):
    """The first run finds b better, the second a: as the defect and its background, or as two classes."""
    images = {"a": {"x": (80, 20, 0, 100)}, "b": {"x": (100, 0, 10, 90)}}
    for classes, expected in ((1, 100 / 120 - 90 / 100), (2, (80 / 100 + 100 / 120) / 2 - (100 / 110 + 90 / 100) / 2)):
        for name, given in images.items():
            folder = tmp_path / str(classes) / name
            write_run(folder, {"val/iou": 1.0 - (name == "b")}, given)
            config = OmegaConf.load(folder / ".hydra" / "config.yaml")
            OmegaConf.update(config, "data.num_classes", classes)
            OmegaConf.save(config, folder / ".hydra" / "config.yaml")
        (row,) = paired_bootstraps(find([str(tmp_path / str(classes))]), 100, 0)
        assert row["difference"] == f"{expected:+.4f}"


def test_names_are_as_short_as_they_can_be():
    assert short(["model.optimizer.lr", "data.batch_size", "a.b", "c.b"]) == ["lr", "batch_size", "a.b", "c.b"]
    assert short(["b", "a.b", "x.a.b", "xb"]) == ["b", "a.b", "x.a.b", "xb"]


@pytest.mark.parametrize(("monitor", "mode", "order"), [("val/iou", "max", "bac"), ("val/loss", "min", "cab")])
def test_the_best_run_comes_first_whatever_the_mode(tmp_path, monitor, mode, order):
    for name, value in {"a": 0.5, "b": 0.9, "c": 0.1}.items():
        write_run(tmp_path / name, {monitor: value}, {"x": (1, 1, 1, 1)}, monitor=monitor, mode=mode)
    assert "".join(run.name for run in find([str(tmp_path)])) == order
    for given in ([f"{tmp_path}/[{order[:2]}]"], [f"{tmp_path}/{name}" for name in order[:2]]):
        assert [run.folder.name for run in find(given)] == list(order[:2])


def test_runs_are_named_by_what_sets_their_folders_apart(tmp_path):
    for name in ("one/a", "two/b/0", "two/b/1"):
        write_run(tmp_path / name, {"val/iou": 1.0}, {"x": (1, 1, 1, 1)})
    assert [run.name for run in find([str(tmp_path)])] == ["one/a", "two/b/0", "two/b/1"]
    assert [run.name for run in find([str(tmp_path / "two")])] == ["0", "1"]
    (tmp_path / "one" / "a" / "metrics.csv").unlink()  # not a training
    assert [run.name for run in find([str(tmp_path)])] == ["0", "1"]


def test_over_seeds_only_where_runs_differ_in_nothing_else(tmp_path):
    for name, lr, seed in (("a", 0.1, 0), ("b", 0.1, 1), ("c", 0.2, 0)):
        write_run(tmp_path / name, {"val/iou": seed + lr}, {"x": (1, 1, 1, 1)}, lr=lr, seed=seed)
    runs = find([str(tmp_path)])
    rows = over_seeds(runs)
    assert [(row["lr"], row["seeds"], row["val/iou"]) for row in rows] == [
        ("0.1", 2, "0.6000 ± 0.7071"), ("0.2", 1, "0.2000")
    ]  # fmt: skip
    assert over_seeds([run for run in runs if run.name != "b"]) == []


def test_curves_are_the_epochs_of_each_run():
    rows = [{"epoch": "0", "train/loss": "0.9", "val/iou": "0.1"}, {"epoch": "1", "train/loss": "0.5", "val/iou": ""}]
    axes = curves({"mine": rows, "other": rows[:1]}).axes
    assert [axis.get_title() for axis in axes] == ["train/loss", "val/loss", "val/iou"]
    assert [axis.get_yscale() for axis in axes] == ["log", "log", "linear"]
    drawn = [[(line.get_label(), line.get_xydata().tolist()) for line in axis.lines] for axis in axes]
    assert drawn[0] == [("mine", [[1, 0.9], [2, 0.5]]), ("other", [[1, 0.9]])]
    assert drawn[1:] == [[], [("mine", [[1, 0.1]]), ("other", [[1, 0.1]])]]


@pytest.mark.slow
def test_the_files_of_a_true_run_are_read(trained):
    run = Run(trained, "trained")
    metrics = json.loads((trained / "results.json").read_text())["metrics"]
    whole = sum(run.images.values())
    assert run.binary
    assert iou(whole[None], run.binary)[0] == pytest.approx(metrics["test/iou"], abs=1e-6)
    (row,) = table([run])
    assert (row["best val/iou"], row["epochs"], run.sign) == (metrics["val/iou"], 20, 1)
    assert row["final val/iou"] == float(run.epochs[-1]["val/iou"])
    assert run.config["model.net._target_"] == "segnet.networks.segnet.SegNet"


def test_a_table_for_people_escapes_and_shortens():
    rows = [{"a": 0.123456, "b": "x|y"}, {"a": 123.4, "c": float("nan")}]
    assert tables.markdown(rows) == ("| a | b | c |\n| --- | --- | --- |\n| 0.1235 | x\\|y |  |\n| 123 |  | – |")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["runs=/nowhere"], "runs=/nowhere: no finished training run there"),
        (["runs={sweep}", "resamples=99"], "resamples=99: must be an integer of at least 100"),
        (["runs={sweep}", "baseline=9"], "baseline=9: must be one of 1, 0, 2, 3"),
        ([], "runs is missing"),
    ],
)
def test_bad_input(run_main, sweep, tmp_path, overrides, message):
    code, err = run_main("compare", tmp_path / "o", *(o.replace("{sweep}", str(sweep)) for o in overrides))
    assert code == 1
    assert message in err
    assert not (tmp_path / "o").exists()


def test_means_leave_out_what_is_undefined_and_say_so():
    assert tables.spread([0.5, 0.7], "seeds") == "0.6000 ± 0.1414"
    assert tables.spread([0.5, float("nan"), 0.7], "seeds") == "0.6000 ± 0.1414 (2 of 3 seeds)"
    assert tables.spread([12.6], "seeds", ".0f") == "13"
    assert tables.spread([float("nan")] * 2, "seeds") == "–"


def test_runs_without_a_test_have_a_dash_over_seeds(run_main, tmp_path):
    for seed in (0, 1):
        images = {"images/0.png": (60, 10, 10, 20)}
        write_run(tmp_path / "sweep" / str(seed), {"val/iou": 0.5, "test/iou": None}, images, seed=seed)
    code, err = run_main("compare", tmp_path / "c", f"runs={tmp_path / 'sweep'}", "resamples=100")
    assert code == 0, err
    text = (tmp_path / "c" / "comparison.md").read_text()
    assert "| 2 | 0.5000 ± 0.0000 | – | – |" in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        (
            "results.json",
            ["", "{", "[]", "null", "{}", '{"monitor": 1, "metrics": {}}', '{"monitor": "a", "metrics": 1}'],
        ),
        ("metrics.csv", ["epoch,val/iou\n0,x\n", "epoch,val/iou\n0\n", "epoch\n0,1\n", "a,val/iou\n1,2\n"]),
        ("images.csv", ["file,0>0,0>1,1>0,1>1\na,1,2\n", "file,0>0,0>1,1>0,1>1\na,1,2,3,x\n"]),
    ],
)
def test_a_damaged_file_of_a_run_is_one_line(name, contents, tmp_path):
    for run in "ab":
        write_run(tmp_path / run, {"val/iou": 0.5, "test/iou": 0.5}, {"a": [1, 2, 3, 4]}, seed=ord(run))

    def compare():
        runs = find([str(tmp_path)])
        return table(runs), paired_bootstraps(runs, 100, 0)

    whole = (tmp_path / "b" / name).read_bytes()
    for content in contents:
        (tmp_path / "b" / name).write_text(content)
        with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'b' / name}: is damaged (")) as told:
            compare()
        assert "\n" not in str(told.value)
    (tmp_path / "b" / name).write_bytes(whole)
    assert len(compare()[0]) == 2
