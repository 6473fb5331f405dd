"""Differences of decisions between runs, on tables written by hand."""

import csv
import json

import pytest

from helpers import write_run
from segnet.decisions.rates import paired_interval
from segnet.runs import paired
from segnet.runs.comparison import find, table

BAD, GOOD = 10, 20


def run(folder, escapes, overkills, seed=0, lr=0.1, part=False):
    """A run whose first images escape and are rejected; `escapes` and `overkills` are sets of their numbers."""
    metrics = {"val/iou": 0.5, "test/escape_rate": len(escapes) / BAD, "test/escape_rate_low": 0.1}
    metrics |= {"test/escape_rate_high": 0.9}
    files = [f"{'bad' if i < BAD else 'good'}/{i:02d}.png" for i in range(BAD + GOOD)]
    write_run(folder, metrics, dict.fromkeys(files, (1, 0, 0, 1)), lr=lr, seed=seed)
    with (folder / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        wrong = i in escapes or i - BAD in overkills
        row["truth"] = "defective" if i < BAD else "good"
        row["verdict"] = "defective" if (i < BAD) is not wrong else "good"
        row |= {"part": f"p{i // 2}"} if part else {}
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_two_runs_over_the_same_images(tmp_path, run_main):
    run(tmp_path / "s/0", {0, 1, 2}, {0})
    run(tmp_path / "s/1", {2, 3}, {0, 1, 2}, lr=0.2)
    runs = sorted(find([str(tmp_path / "s")]), key=lambda run: run.name)
    (row,) = paired.paired_decisions(runs)
    low, high = paired_interval(2, 1, BAD)
    assert row["escapes"] == "+0.1000"
    assert row["escapes, 95 % (of)"] == f"{low:+.4f} to {high:+.4f} ({BAD})"
    low, high = paired_interval(0, 2, GOOD)
    assert row["overkills"] == "-0.1000"
    assert row["overkills, 95 % (of)"] == f"{low:+.4f} to {high:+.4f} ({GOOD})"
    assert [one["test/escape_rate"] for one in table(runs)] == [
        "0.3000 (0.1000 to 0.9000)",
        "0.2000 (0.1000 to 0.9000)",
    ]
    code, err = run_main("compare", tmp_path / "c", f"runs={tmp_path}/s", "resamples=200", "baseline='0'")
    assert code == 0, err
    assert (
        f"| 1 | +0.1000 | {'{:+.4f} to {:+.4f}'.format(*paired_interval(2, 1, BAD))} (10) |"
        in (tmp_path / "c/comparison.md").read_text()
    )


def test_parts_are_compared_as_parts(tmp_path):
    run(tmp_path / "s/0", {0, 2, 3}, set(), part=True)  # of part 0 one of two escapes, part 1 escapes
    run(tmp_path / "s/1", set(), {0, 1}, lr=0.2, part=True)
    (row,) = paired.paired_decisions(sorted(find([str(tmp_path / "s")]), key=lambda run: run.name))
    assert (row["escapes"], row["overkills"]) == ("+0.2000", "-0.1000")  # of 5 and of 10 parts


def test_over_seeds_images_and_seeds_are_drawn(tmp_path):
    for seed, (one, two) in enumerate([({0, 1, 2}, {0}), ({0, 1, 2, 3}, {0}), ({0, 1}, {1})]):
        run(tmp_path / f"s/a{seed}", one, set(), seed=seed)
        run(tmp_path / f"s/b{seed}", two, set(), seed=seed, lr=0.2)
    runs = sorted(find([str(tmp_path / "s")]), key=lambda run: run.name)
    (row,) = paired.over_seeds(runs, 2000, 0)
    assert (row["against"], row["seeds"], row["escapes"]) == ("lr=0.2", "3 and 3", "+0.2000")
    low, high = (float(x) for x in row["escapes, 95 % (of)"].partition(" (")[0].split(" to "))
    assert -0.1 < low < 0.05
    assert 0.4 < high < 0.6
    assert row["overkills"] == "+0.0000"
    assert paired.over_seeds([run for run in runs if run.name.endswith("0")], 100, 0) == []


def test_other_images_and_runs_without_decisions_are_said(tmp_path):
    run(tmp_path / "s/0", {0}, set())
    run(tmp_path / "s/1", {0}, set(), lr=0.2)
    write_run(tmp_path / "s/2", {"val/iou": 0.1}, {"x.png": (1, 0, 0, 1)}, lr=0.3)
    lines = (tmp_path / "s/1/images.csv").read_text().splitlines()
    (tmp_path / "s/1/images.csv").write_text("\n".join(lines[:-1]) + "\n")
    rows = paired.paired_decisions(sorted(find([str(tmp_path / "s")]), key=lambda run: run.name))
    assert [row["escapes"] for row in rows] == ["other test images", "not counted"]
    assert paired.paired_decisions([one for one in find([str(tmp_path / "s")]) if one.name == "2"]) == []


@pytest.mark.parametrize("escapes", [set(), {0}])
def test_equal_runs_differ_by_nothing_and_the_interval_is_no_point(tmp_path, escapes):
    run(tmp_path / "s/0", escapes, set())
    run(tmp_path / "s/1", escapes, set(), lr=0.2)
    (row,) = paired.paired_decisions(find([str(tmp_path / "s")]))
    assert row["escapes"] == "+0.0000"
    low, high = (float(x) for x in row["escapes, 95 % (of)"].partition(" (")[0].split(" to "))
    assert low < -0.2
    assert high > 0.2
    assert json.loads((tmp_path / "s/0/results.json").read_text())["metrics"]["test/escape_rate"] == len(escapes) / BAD
