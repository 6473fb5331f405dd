"""Export a checkpoint as an ONNX or pt2 model, and verify how closely it follows the checkpoint."""

from omegaconf import DictConfig

from segnet.cli import command
from segnet.files import check_output


def run(cfg: DictConfig) -> None:
    """Write the model and its verification; nothing is kept if it is outside its tolerance."""
    import json
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from segnet import environment
    from segnet.configuration import instantiate
    from segnet.decisions import given
    from segnet.deployment import exported_model, request, verification
    from segnet.deployment.calibration import Calibration
    from segnet.runs import checkpoint_data
    from segnet.training.checkpoint import load_module

    kind, form = request.checked(cfg)
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
    form = request.of_network(form, kind, module.image_size, bool(cfg.quantize))
    with TemporaryDirectory(prefix=".draft-", dir=folder) as scratch:
        draft = Path(scratch) / f"model{kind.suffix}"
        metadata = verification.metadata(module, Path(cfg.ckpt_path))
        how = {}
        if cfg.quantize:
            images = [image for image, _ in verification.pairs(data, "train", cfg.calibration)]
            examples = list(verification.pairs(data, "val", cfg.images))
            calibration = Calibration(module, form, images, examples, cfg.max_drop)
            how = {"quantization": exported_model.quantize(calibration, draft, metadata, cfg.opset)}
        else:
            exported_model.write(module, draft, metadata, form, cfg.opset)
        exported = exported_model.ExportedModel(draft, trusted=True)
        found = verification.compare(module, exported, data, cfg.images) | how
        verification.check(found, cfg[request.tolerance(cfg, kind)])
        (folder / "verification.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        for file in sorted(draft.parent.iterdir()):  # what belongs together; of most formats one file
            file.rename(folder / file.name)
    print(verification.summary(found))
    print(f"written to {folder / draft.name}")


main = command("export")(run)
