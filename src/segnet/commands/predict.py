"""Predict files, folders, globs and videos: masks, overlays, probabilities, verdicts, objects."""

import sys

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError
from segnet.files import check_output

DEFECTIVE = 10  # the exit code, where exit_code=verdict asks for one


def run(cfg: DictConfig) -> None:
    """Predict ``input``; unreadable files are skipped, listed at the end, and make the exit code 1."""
    from pathlib import Path

    import torch
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from segnet import environment
    from segnet.decisions import given
    from segnet.deployment import writer
    from segnet.deployment.predictor import Predictor, load_model

    if cfg.exit_code == "verdict" and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError("exit_code=verdict: -m runs several predictions, and has one exit code; leave one of them out")
    environment.keep_freed_memory()
    files = writer.find(str(cfg.input))
    if Path(str(cfg.input)).is_dir():
        check_output(cfg.output_dir, "input", cfg.input)
    if Path(cfg.output_dir).resolve() in {file.resolve().parent for file in files}:
        raise UserError(f"output_dir={cfg.output_dir}: holds the images of input={cfg.input}; choose another folder")
    device = environment.device_of(cfg.device)
    torch.manual_seed(cfg.seed)  # of the Monte-Carlo samples
    precision = environment.fastest_precision(device) if cfg.precision == "auto" else cfg.precision
    model = load_model(str(cfg.ckpt_path), device, cfg.trust, precision)
    model.operating_point = given.chosen(cfg.operating_point, model.operating_point, model.classes)
    print(given.told(model.operating_point, model.classes))
    predictor = Predictor(
        model,
        precision,
        cfg.tile,
        cfg.overlap,
        cfg.flips,
        list(cfg.scales),
        cfg.mc_samples,
        cfg.batch_size,
    )
    if writer.write(predictor, files, cfg) and cfg.exit_code == "verdict":
        sys.exit(DEFECTIVE)


main = command("predict")(run)
