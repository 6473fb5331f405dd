"""Predict files, folders, globs and videos: masks, overlays, probabilities, a table."""

from omegaconf import DictConfig

from segnet.command import command


def run(cfg: DictConfig) -> None:
    """Predict ``input``; unreadable files are told, passed over, and make the exit code 1."""
    import torch

    from segnet import environment, prediction
    from segnet.checkpoint import load_model
    from segnet.inference import Predictor

    environment.keep_freed_memory()
    files = prediction.find(str(cfg.input))
    device = ("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device
    torch.manual_seed(cfg.seed)  # of the Monte-Carlo samples
    predictor = Predictor(
        load_model(str(cfg.ckpt_path), device),
        environment.fastest_precision(device) if cfg.precision == "auto" else cfg.precision,
        cfg.tile,
        cfg.overlap,
        cfg.flips,
        list(cfg.scales),
        cfg.mc_samples,
        cfg.batch_size,
    )
    prediction.write(predictor, files, cfg)


main = command("predict")(run)
