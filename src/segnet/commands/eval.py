"""Evaluate a checkpoint on a split: metrics, confusion matrix, the worst pictures."""

from omegaconf import DictConfig

from segnet.cli import command


def run(cfg: DictConfig) -> float | None:
    """Evaluate ``ckpt_path``; the data comes from the checkpoint unless ``data`` says otherwise.

    Returns:
        The split's IoU.
    """
    import torch
    from hydra.utils import instantiate
    from lightning.pytorch import seed_everything
    from omegaconf import OmegaConf

    from segnet import environment
    from segnet.data.splits import SPLITS
    from segnet.reports import run_report
    from segnet.training.checkpoint import load_module

    if cfg.split not in SPLITS:
        raise ValueError(f"split={cfg.split}: must be one of {', '.join(SPLITS)}")
    for key in ("worst", "grid"):
        if type(cfg[key]) is not int or cfg[key] < 0:
            raise ValueError(f"{key}={cfg[key]}: must be an integer of at least 0")
    environment.keep_freed_memory()
    torch.set_float32_matmul_precision("high")
    module = load_module(cfg.ckpt_path)
    if type(cfg.mc_samples) is not int or cfg.mc_samples < 0:
        raise ValueError(f"mc_samples={cfg.mc_samples}: must be an integer of at least 0")
    if cfg.mc_samples and not any(isinstance(part, torch.nn.Dropout) for part in module.net.modules()):
        raise ValueError(f"mc_samples={cfg.mc_samples}: the network has no dropout; train with model=bayesian_segnet")
    module.mc_samples = cfg.mc_samples
    seed_everything(module.config["seed"], workers=True, verbose=False)
    chosen = {k: v for k, v in OmegaConf.to_container(cfg.data, resolve=True).items() if v is not None}  # type: ignore[union-attr]
    if "_target_" not in chosen:
        chosen = {**module.config["data"], **chosen}
    data = instantiate(chosen, _convert_="all")
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = environment.fastest_precision(cfg.trainer.accelerator)
    trainer = instantiate(cfg.trainer, _convert_="all")
    data.prepare_data()
    data.setup()
    loader = data.loader(cfg.split)
    trainer.test(module, loader, verbose=False)
    return run_report.write_evaluation(trainer, module, data, cfg)


main = command("eval")(run)
