"""Predict files, folders, globs and videos: masks, overlays, probabilities, a table."""

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError
from segnet.files import check_output


def run(cfg: DictConfig) -> None:
    """Predict ``input``; unreadable files are skipped, listed at the end, and make the exit code 1."""
    from pathlib import Path

    import torch

    from segnet import environment
    from segnet.deployment import writer
    from segnet.deployment.predictor import Predictor, load_model

    environment.keep_freed_memory()
    files = writer.find(str(cfg.input))
    if Path(str(cfg.input)).is_dir():
        check_output(cfg.output_dir, "input", cfg.input)
    if Path(cfg.output_dir).resolve() in {file.resolve().parent for file in files}:
        raise UserError(f"output_dir={cfg.output_dir}: holds the images of input={cfg.input}; choose another folder")
    device = environment.device_of(cfg.device)
    torch.manual_seed(cfg.seed)  # of the Monte-Carlo samples
    precision = environment.fastest_precision(device) if cfg.precision == "auto" else cfg.precision
    predictor = Predictor(
        load_model(str(cfg.ckpt_path), device, cfg.trust, precision),
        precision,
        cfg.tile,
        cfg.overlap,
        cfg.flips,
        list(cfg.scales),
        cfg.mc_samples,
        cfg.batch_size,
    )
    writer.write(predictor, files, cfg)


main = command("predict")(run)
