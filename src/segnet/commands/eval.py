"""Evaluate a checkpoint on a split: metrics, confusion matrix, the worst images."""

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError
from segnet.files import check_output, ending_on_sigterm


@ending_on_sigterm()
def run(cfg: DictConfig) -> float | None:
    """Evaluate ``ckpt_path`` on the data that `segnet.runs.checkpoint_data` describes.

    Returns:
        The split's IoU, nan where no image shows a defect.
    """
    import torch
    from lightning.pytorch import seed_everything

    from segnet import environment
    from segnet.configuration import instantiate
    from segnet.data.splits import ALL, SPLITS
    from segnet.decisions import given
    from segnet.reports import evaluation
    from segnet.runs import checkpoint_data
    from segnet.training.checkpoint import load_module
    from segnet.training.progress import Progress

    if cfg.split not in (*SPLITS, ALL):
        raise UserError(f"split={cfg.split}: must be one of {', '.join(SPLITS)}, or {ALL} for every image")
    environment.keep_freed_memory()
    torch.set_float32_matmul_precision("high")
    module = load_module(cfg.ckpt_path, cfg.trust)
    module.operating_point = given.chosen(cfg.operating_point, module.operating_point, module.classes)
    print(given.told(module.operating_point, module.classes))
    if cfg.mc_samples == 1:
        raise UserError("mc_samples=1: must be 0, or an integer of at least 2")
    if cfg.mc_samples and not any(isinstance(part, torch.nn.Dropout) for part in module.net.modules()):
        raise UserError(f"mc_samples={cfg.mc_samples}: the network has no dropout; train with model=bayesian_segnet")
    module.mc_samples = cfg.mc_samples
    seed_everything(module.config["seed"], workers=True, verbose=False)
    settings = checkpoint_data.settings(module.config, cfg, cfg.split == ALL)
    checkpoint_data.check_sizes(settings, module.config["data"], "an evaluation", keys=("crop", "scale"))
    data = instantiate(settings, "data")
    check_output(cfg.output_dir, "data.root", data.root)
    cfg.trainer.precision = environment.precision_of(cfg.trainer.precision, cfg.trainer.accelerator)
    shows, cfg.trainer.enable_progress_bar = cfg.trainer.enable_progress_bar is True, False
    trainer = instantiate(cfg.trainer, "trainer")
    environment.check_processes(trainer)
    if shows:
        trainer.callbacks.append(Progress())
    data.prepare_data()
    data.setup()
    if not data.indices[cfg.split]:
        raise UserError(
            f"split={cfg.split}: {data.used(cfg.split)}; split=all takes every image, or correct data.split"
        )
    loader = data.loader(cfg.split, whole=data.plan is not None)
    sizes = ["×".join(map(str, size)) for size in (data.image_size, module.image_size)]
    told = f"image size {sizes[0]}{', as trained' if sizes[0] == sizes[1] else f' (trained at {sizes[1]})'}"
    print(f"{f'whole images by windows of {data.plan}, as trained' if data.plan else told}; {data.mask}")
    print(data.used(cfg.split))
    if cfg.split in ("train", "val") and (caveat := getattr(data.split, "caveat", None)):
        print(caveat)
    trainer.test(module, loader, verbose=False)
    if not module.image_counts.found:
        raise UserError(f"trainer.limit_test_batches={cfg.trainer.limit_test_batches}: no image is evaluated; raise it")
    return evaluation.write(trainer, module, data, cfg)


main = command("eval")(run)
