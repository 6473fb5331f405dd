"""Speed and memory of training, data path, inference and whole program, beside those of the original."""

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError


def run(cfg: DictConfig) -> None:
    """Measure the chosen parts, print the table, write results.json and speed.png."""
    import json
    from pathlib import Path

    from segnet import environment
    from segnet.benchmark import suite

    environment.keep_freed_memory()
    bench = suite.Bench(cfg)
    parts = {part: getattr(bench, part, None) for part in cfg.parts}
    if unknown := [part for part, method in parts.items() if method is None or part.startswith("_")]:
        raise UserError(f"parts={unknown}: unknown; choose from ceiling, training, index, memory, data, ...")
    for method in parts.values():
        assert method is not None
        method()
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(bench.results(), indent=2) + "\n", encoding="utf-8")
    bench.figure().savefig(folder / "speed.png", dpi=100)
    print(bench.table())
    print(f"written to {folder}")


main = command("benchmark")(run)
