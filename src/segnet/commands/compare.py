"""Compare runs: tables, means over seeds, paired bootstrap over the test images, curves."""

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError


def run(cfg: DictConfig) -> None:
    """Write and print the comparison of ``runs``."""
    from pathlib import Path

    from segnet import tables
    from segnet.files import write_csv
    from segnet.runs import comparison, paired
    from segnet.visualization.figures import curves

    runs = comparison.find([cfg.runs] if isinstance(cfg.runs, str) else list(cfg.runs))
    reference = runs[0]
    if cfg.baseline is not None:
        named = [run for run in runs if run.name == str(cfg.baseline)]
        if not named:
            raise UserError(f"baseline={cfg.baseline}: must be one of {', '.join(run.name for run in runs)}")
        reference = named[0]
    others = [run for run in runs if run is not reference]
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    rows = comparison.table(runs)
    write_csv(folder / "runs.csv", rows)
    parts = ["## Runs", tables.markdown(rows)]
    if seeds := comparison.over_seeds(runs):
        parts += ["## Over seeds, mean ± standard deviation", tables.markdown(seeds)]
    if drawn := comparison.paired_bootstraps([reference, *others], cfg.resamples, cfg.seed):
        parts += [f"## Is {reference.name} better? Test IoU, paired bootstrap", tables.markdown(drawn)]
    if decided := paired.paired_decisions([reference, *others]):
        parts += [
            f"## Does {reference.name} decide better? Differences of the test's rates",
            tables.markdown(decided),
        ]
    if decided := paired.over_seeds([reference, *others], cfg.resamples, cfg.seed):
        parts += ["## Its settings against others, over seeds", tables.markdown(decided)]
    text = "\n\n".join([*parts, "![curves](curves.png)"]) + "\n"
    (folder / "comparison.md").write_text(text, encoding="utf-8")
    curves({run.name: run.epochs for run in runs}).savefig(folder / "curves.png", dpi=110)
    print("\n\n".join(parts))
    print(f"\nwritten to {folder}")


main = command("compare")(run)
