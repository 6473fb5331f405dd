"""The section on decisions of a card: names as they are, and each figure under what it was counted by."""

from segnet.reports.decisions import section


def results(**metrics):
    described = {"unit": "parts", "operating_point": None, "counted": {}}
    splits = {
        "val": described | {"area_edges": [4.0, 9.0, 16.0]},
        "test": described | {"area_edges": [25.0, 36.0, 49.0]},
    }
    return {"decisions": splits, "metrics": metrics}


def test_sizes_are_those_of_the_split_that_is_shown():
    """Each split is divided by its own quarters."""
    text = section(results(**{f"{split}/object_recall/size/4": 0.5 for split in ("val", "test")}), ["val", "test"])
    (head, row) = (line for line in text.splitlines() if "by size" in line or "above" in line)
    assert head == "| by size (quarters of the defects) | test |"
    assert row.startswith("| defects found, above 49 | 0.5000")


def test_names_break_no_table():
    text = section(results(**{"val/escape_rate/kind/a|b <i>&": 0.5, "test/escape_rate/kind/a|b <i>&": 0.25}), ["val"])
    assert "| escaped, a\\|b &lt;i>&amp; | 0.5000 (interval unknown) |" in text
