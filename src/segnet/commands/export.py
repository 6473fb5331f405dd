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
    from segnet.deployment import device_folder, exported_model, request, verification, verification_page
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
    form = request.of_network(form, kind, module.image_size)
    with TemporaryDirectory(prefix=".draft-", dir=folder) as scratch:
        plain, draft = (Path(scratch) / name / f"model{kind.suffix}" for name in ("plain", "draft"))
        for file in (plain, draft):
            file.parent.mkdir()
        metadata = verification.metadata(module, Path(cfg.ckpt_path))
        exported_model.write(module, plain if cfg.quantize else draft, metadata, form, cfg.opset)
        if cfg.quantize:
            pairs = verification.pairs(data, "train", cfg.calibration)
            exported_model.quantize(module, plain, draft, form, (image for image, _ in pairs))
        found = verification.compare(module, exported_model.ExportedModel(draft, trusted=True), data, cfg.images)
        verification.check(found, cfg[request.tolerance(cfg, kind)])
        (folder / "verification.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        (folder / "verification.md").write_text(verification_page.text(draft.name, found), encoding="utf-8")
        shown = verification.pairs(data, "val", cfg.samples)
        device_folder.write(draft, metadata, form, device_folder.of_pairs(module, form, shown))
        for file in sorted(draft.parent.iterdir()):  # what belongs together; of most formats one file
            file.rename(folder / file.name)
    print(verification.summary(found))
    print(f"written to {folder / draft.name}")


main = command("export")(run)
