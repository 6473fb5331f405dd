"""Choose the operating point of a checkpoint: which objects count, and which images are defective."""

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError
from segnet.files import check_output, ending_on_sigterm

if TYPE_CHECKING:
    from segnet.decisions.targets import Target


@ending_on_sigterm()
def run(cfg: DictConfig) -> float | None:
    """Choose for ``target`` on ``split``, confirm on ``confirm``, write a checkpoint that carries the point.

    Returns:
        The escape rate on the images that confirm, or without any on those that chose; nan without defective ones.
    """
    target = _check(cfg)

    import torch
    from lightning.pytorch import seed_everything

    from segnet import environment
    from segnet.configuration import instantiate
    from segnet.data.splits import ALL
    from segnet.decisions import targets
    from segnet.reports import calibration, calibration_files, subsets
    from segnet.reports.out_of_fold import FOLDER
    from segnet.runs import checkpoint_data
    from segnet.training.checkpoint import load_module

    environment.keep_freed_memory()
    module = load_module(cfg.ckpt_path, cfg.trust)
    module.operating_point = None  # an earlier one does not matter
    seed_everything(cfg.seed, workers=True, verbose=False)
    settings = checkpoint_data.settings(module.config, cfg, cfg.split == ALL)
    checkpoint_data.check_sizes(settings, module.config["data"], "an operating point")
    data = instantiate(settings, "data")
    check_output(cfg.output_dir, "data.root", data.root)
    data.prepare_data()
    data.setup()
    run_folder = Path(cfg.ckpt_path).resolve().parents[1] if cfg.split == FOLDER else None
    if run_folder is not None:
        chosen_on = subsets.of_folds(data, run_folder, module.classes)
    else:
        chosen_on = subsets.of_split(data, cfg.split, "split")
    targets.require(target, *chosen_on.counts, f"split={cfg.split}", chosen_on.what)
    other = None if cfg.confirm is None else subsets.of_split(data, cfg.confirm, "confirm")
    if other is not None and 0 in other.counts and target.kind != "f1":
        raise UserError(
            f"confirm={cfg.confirm}: has {other.counts[0]} defective and {other.counts[1]} good {other.what}, so it "
            f"cannot confirm both rates; name another split, or write confirm=null"
        )
    if cfg.split in ("train", "val") and (caveat := getattr(data.split, "caveat", None)):
        print(f"{caveat}; or write split={FOLDER}")
    device = torch.device(environment.device_of(cfg.device))
    network = subsets.Source(module, device, data, None)
    source = network if run_folder is None else subsets.Source(module, device, data, run_folder)
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    confirmed = None if other is None else (other, network)
    found = calibration.calibrate(source, chosen_on, confirmed, target, folder, cfg.temperature)
    calibration_files.write(found, cfg, source if other is None else network)
    print("\n".join(calibration.told(found)))
    print(
        f"written to {folder}; use {folder / 'calibrated.ckpt'} as ckpt_path of predict.py, eval.py, export.py, demo.py"
    )
    return found.splits[-1].after["escape_rate"]


def _check(cfg: DictConfig) -> "Target":
    """What is to be reached; arguments that contradict each other are refused, before anything slow is imported."""
    from segnet.data.splits import ALL, SPLITS
    from segnet.decisions import targets
    from segnet.deployment.formats import SUFFIXES
    from segnet.reports.out_of_fold import FOLDER

    path = Path(str(cfg.ckpt_path))
    if path.suffix in SUFFIXES:
        raise UserError(f"ckpt_path={path}: calibrate the checkpoint, then export it: the model carries the point")
    if cfg.split not in (*SPLITS, ALL, FOLDER):
        raise UserError(f"split={cfg.split}: must be one of {', '.join(SPLITS)}, {ALL} or {FOLDER}")
    if cfg.confirm not in (*SPLITS, None):
        raise UserError(f"confirm={cfg.confirm}: must be one of {', '.join(SPLITS)}, or null")
    if cfg.confirm is not None and (cfg.split == ALL or cfg.split == cfg.confirm):
        raise UserError(
            f"confirm={cfg.confirm}: images that choose (split={cfg.split}) cannot confirm; name other ones, or write "
            f"confirm=null"
        )
    return targets.parse(cfg.target)


main = command("calibrate")(run)
