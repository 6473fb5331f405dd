"""Speed and memory of training, data path, inference and whole program, beside those of the original."""

from omegaconf import DictConfig

from segnet.cli import command
from segnet.files import ending_on_sigterm


@ending_on_sigterm()
def run(cfg: DictConfig) -> None:
    """Measure the chosen parts, print the table, write results.json, table.md and plots (speed.png, runtimes.png)."""
    import json
    from pathlib import Path

    from segnet.benchmark import runtimes_table, steps, suite

    steps.as_in_training()
    bench = suite.Bench(cfg)
    folder = Path(cfg.output_dir)
    try:
        bench.measure()
    finally:  # what was measured before a part failed or was stopped is kept
        if bench.rows or bench.side_by_side.rows:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "results.json").write_text(json.dumps(bench.results(), indent=2) + "\n", encoding="utf-8")
            (folder / "table.md").write_text(bench.table() + "\n", encoding="utf-8")
            if bench.rows:
                bench.bars().savefig(folder / "speed.png", dpi=100)
            if bench.side_by_side.rows:
                runtimes_table.bars(bench.side_by_side).savefig(folder / "runtimes.png", dpi=100)
    print(bench.table())
    print(f"written to {folder}")


main = command("benchmark")(run)
