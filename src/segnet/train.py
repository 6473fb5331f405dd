"""Fit, test the best checkpoint, write the report; the value that a sweep optimises comes back."""

from omegaconf import DictConfig, open_dict

from segnet.command import check_entries, command


def run(cfg: DictConfig) -> float | None:
    """Train as configured.

    Returns:
        The best value of ``monitor``; None where no checkpoint was made (debug runs).
    """
    check_entries(cfg, "callbacks")
    check_entries(cfg, "logger")
    if not isinstance(cfg.seed, int):
        raise ValueError(f"seed={cfg.seed}: must be an integer")
    if not isinstance(cfg.trainer.max_epochs, int):
        raise ValueError(f"trainer.max_epochs={cfg.trainer.max_epochs}: must be an integer, -1 for no end")
    if cfg.trainer.fast_dev_run:  # ModelCheckpoint would write last.ckpt all the same
        with open_dict(cfg):
            cfg.callbacks.pop("checkpoint", None)
    # Imported here, so that --help and errors of composition answer at once.
    import torch
    from hydra.utils import instantiate
    from lightning.pytorch import seed_everything
    from lightning.pytorch.utilities import rank_zero_info
    from omegaconf import OmegaConf

    from segnet import environment, report

    environment.keep_freed_memory()
    torch.set_float32_matmul_precision("high")
    seed_everything(cfg.seed, workers=True, verbose=False)
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = environment.fastest_precision(cfg.trainer.accelerator)
    data = instantiate(cfg.data, _convert_="all")
    module = instantiate(cfg.model, _convert_="all")
    keep = {key: cfg[key] for key in ("data", "model", "seed", "monitor", "mode")}
    module.config = OmegaConf.to_container(OmegaConf.create(keep), resolve=True)
    trainer = instantiate(cfg.trainer, _convert_="all")
    rank_zero_info(
        f"precision: {trainer.precision} on {environment.hardware(trainer.strategy.root_device)}; run: {cfg.output_dir}"
    )
    report.log_config(trainer, cfg)
    trainer.fit(module, data)
    best = trainer.checkpoint_callback.best_model_path if trainer.checkpoint_callback else ""
    if trainer.fast_dev_run:
        return None
    trainer.test(module, data, ckpt_path=best or None, weights_only=True, verbose=False)
    report.write(trainer, module, data, cfg)
    if not best:
        return None
    return float(trainer.checkpoint_callback.best_model_score)


main = command("train")(run)
