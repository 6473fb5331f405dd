"""Speed and memory of training, data path, inference and whole program, beside those of the original."""

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError
from segnet.files import ending_on_sigterm, write_json, write_text


@ending_on_sigterm()
def run(cfg: DictConfig) -> None:
    """Measure the chosen parts, print the table, write results.json, table.md and plots (speed.png, runtimes.png)."""
    from pathlib import Path

    from segnet.benchmark import runtimes_table, steps, suite

    steps.as_in_training()
    bench = suite.Bench(cfg)
    check(bench.cfg)
    folder = Path(cfg.output_dir)
    try:
        bench.measure()
    finally:  # what was measured before a part failed or was stopped is kept
        if bench.rows or bench.side_by_side.rows:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "results.json", bench.results())
            write_text(folder / "table.md", bench.table() + "\n")
            if bench.rows:
                bench.bars().savefig(folder / "speed.png", dpi=100)
            if bench.side_by_side.rows:
                runtimes_table.bars(bench.side_by_side).savefig(folder / "runtimes.png", dpi=100)
    print(bench.table())
    print(f"written to {folder}")


def check(cfg: DictConfig) -> None:
    """Refuse what no declared type can.

    Raises:
        UserError: a loop of one epoch or of too small images, or a checkpoint that no part measures.
    """
    loop = cfg.loop
    if loop.epochs < 2:
        raise UserError(f"loop.epochs={loop.epochs}: must be at least 2, because the first epoch warms up")
    for key in ("image_size", "crop"):
        if loop[key] < 32:
            raise UserError(
                f"loop.{key}={loop[key]}: must be at least 32 pixels, such as {96 if key == 'crop' else 128}"
            )
    if loop.crop > loop.image_size:
        raise UserError(f"loop.crop={loop.crop}: must be at most loop.image_size={loop.image_size}")
    if cfg.get("ckpt_path") is not None and "runtimes" not in cfg.parts:
        raise UserError(f"ckpt_path={cfg.ckpt_path}: only the part runtimes takes it; add 'parts=[runtimes]'")


main = command("benchmark")(run)
