"""Evaluate a checkpoint on a split: metrics, confusion matrix, the worst images."""

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError
from segnet.files import check_output


def run(cfg: DictConfig) -> float | None:
    """Evaluate ``ckpt_path``; the data comes from the checkpoint unless ``data`` says otherwise.

    Returns:
        The split's IoU.
    """
    import torch
    from lightning.pytorch import seed_everything
    from omegaconf import OmegaConf

    from segnet import environment
    from segnet.configuration import instantiate
    from segnet.data.splits import SPLITS
    from segnet.reports import evaluation
    from segnet.training.checkpoint import load_module

    if cfg.split not in SPLITS:
        raise UserError(f"split={cfg.split}: must be one of {', '.join(SPLITS)}")
    for key in ("worst", "grid"):
        if type(cfg[key]) is not int or cfg[key] < 0:
            raise UserError(f"{key}={cfg[key]}: must be an integer of at least 0")
    environment.keep_freed_memory()
    torch.set_float32_matmul_precision("high")
    module = load_module(cfg.ckpt_path, cfg.trust)
    if type(cfg.mc_samples) is not int or cfg.mc_samples < 0:
        raise UserError(f"mc_samples={cfg.mc_samples}: must be an integer of at least 0")
    if cfg.mc_samples and not any(isinstance(part, torch.nn.Dropout) for part in module.net.modules()):
        raise UserError(f"mc_samples={cfg.mc_samples}: the network has no dropout; train with model=bayesian_segnet")
    module.mc_samples = cfg.mc_samples
    seed_everything(module.config["seed"], workers=True, verbose=False)
    chosen = {k: v for k, v in OmegaConf.to_container(cfg.data, resolve=True).items() if v is not None}  # type: ignore[union-attr]
    if "_target_" not in chosen:
        chosen = {**module.config["data"], **chosen}
    data = instantiate(chosen, "data")
    check_output(cfg.output_dir, "data.root", data.root)
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = environment.fastest_precision(cfg.trainer.accelerator)
    trainer = instantiate(cfg.trainer, "trainer")
    data.prepare_data()
    data.setup()
    loader = data.loader(cfg.split)
    trainer.test(module, loader, verbose=False)
    return evaluation.write(trainer, module, data, cfg)


main = command("eval")(run)
