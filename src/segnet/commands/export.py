"""Export a checkpoint as an ONNX or pt2 model, and verify how closely it follows the checkpoint."""

from omegaconf import DictConfig

from segnet.cli import command
from segnet.errors import UserError
from segnet.files import check_output


def run(cfg: DictConfig) -> None:
    """Write the model and its verification; nothing is kept if it is outside its tolerance."""
    if cfg.format not in ("onnx", "pt2"):
        raise UserError(f"format={cfg.format}: must be onnx or pt2")
    if cfg.quantize not in (None, "int8"):
        raise UserError(f"quantize={cfg.quantize}: must be null or int8")
    if cfg.quantize and cfg.format != "onnx":
        raise UserError(f"quantize={cfg.quantize} with format={cfg.format}: only ONNX is quantised; use format=onnx")
    import json
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from segnet import environment
    from segnet.configuration import instantiate
    from segnet.decisions import given
    from segnet.deployment import exported_model, verification
    from segnet.runs import checkpoint_data
    from segnet.training.checkpoint import load_module

    environment.keep_freed_memory()
    module = load_module(cfg.ckpt_path, cfg.trust)
    module.operating_point = given.chosen(cfg.operating_point, module.operating_point, module.classes)
    print(given.told(module.operating_point, module.classes))
    settings = checkpoint_data.settings(module.config, cfg)
    checkpoint_data.check_sizes(settings, module.config["data"], "an exported model")
    data = instantiate(settings, "data")
    check_output(cfg.output_dir, "data.root", data.root)
    data.prepare_data()
    data.setup()
    data.require("val", *(["train"] if cfg.quantize else []))
    print(data.used("val", *(["train"] if cfg.quantize else [])))
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"model.{cfg.format}"
    with TemporaryDirectory(prefix=".draft-", dir=folder) as scratch:
        draft, plain = (Path(scratch) / f"{name}.{cfg.format}" for name in ("draft", "plain"))
        exported_model.write(module, draft, verification.metadata(module, Path(cfg.ckpt_path)))
        if cfg.quantize:
            draft.rename(plain)
            pairs = verification.pairs(data, "train", cfg.calibration)
            exported_model.quantize(plain, draft, (image.transpose(2, 0, 1) for image, _ in pairs))
        found = verification.compare(module, exported_model.ExportedModel(draft, trusted=True), data, cfg.images)
        verification.check(found, cfg.tolerance_int8 if cfg.quantize else cfg.tolerance)
        (folder / "verification.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        draft.rename(target)
    print(verification.summary(found))
    print(f"written to {target}")


main = command("export")(run)
