"""Export a checkpoint as a file for a runtime, and verify how closely it follows the checkpoint."""

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from segnet.cli import command
from segnet.command_line import override
from segnet.errors import UserError
from segnet.files import check_output, ending_on_sigterm

if TYPE_CHECKING:
    from pathlib import Path

    from segnet.data.datamodule import SegmentationDataModule
    from segnet.deployment.form import Form
    from segnet.deployment.formats import Format
    from segnet.training.module import SegmentationModule

# What a file that is there says itself.
OF_THE_FILE = ("format", "quantize", "size", "batch", "preprocessing", "layout", "input", "opset", "calibration")


@ending_on_sigterm()
def run(cfg: DictConfig) -> None:
    """Write the model and its verification; nothing is kept if it is outside its tolerance."""
    from segnet import environment
    from segnet.decisions import given
    from segnet.deployment import request
    from segnet.training.checkpoint import load_module

    kind, form = request.checked(cfg)
    environment.keep_freed_memory()
    module = load_module(cfg.ckpt_path, cfg.trust)
    module.operating_point = given.chosen(cfg.operating_point, module.operating_point, module.classes)
    print(given.told(module.operating_point, module.classes))
    if cfg.verify is not None:
        verify(cfg, module)
        return
    model, told = write(cfg, module, kind, form)
    print(told)
    print(f"written to {model}")


def write(cfg: DictConfig, module: "SegmentationModule", kind: "Format", form: "Form") -> "tuple[Path, str]":
    """Write the model and its verification into ``output_dir``; the file, and what is to be told about it.

    Raises:
        UserError: it is outside its tolerance, and nothing is kept; or images are asked for that are not there.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from segnet.deployment import device_folder, exported_model, request, verification, verified
    from segnet.deployment.calibration import Calibration

    splits = [*["val"] * (cfg.images > 0 or cfg.samples > 0), *["train"] * bool(cfg.quantize)]
    data, reason = images(cfg, module, *splits)
    for key, need in (("quantize", "calibration needs training images"), ("samples", "they are validation images")):
        if cfg[key] and data is None:
            raise UserError(
                f"{key}={cfg[key]}: {need}, and {reason}; set data.root to the folder of the data set, or export "
                f"without {key}"
            )
    compared = data is not None and cfg.images > 0
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    form = request.of_network(form, kind, module.image_size, bool(cfg.quantize))
    with TemporaryDirectory(prefix=".draft-", dir=folder) as scratch:
        draft = Path(scratch) / f"model{kind.suffix}"
        metadata = verification.metadata(module, Path(cfg.ckpt_path))
        metadata |= {"quantize": cfg.quantize, verified.KEY: compared}
        found: dict[str, Any] = {"reason": reason}
        if cfg.quantize and data is not None:
            calibrating = [image for image, _ in verification.pairs(data, "train", cfg.calibration)]
            examples = list(verification.pairs(data, "val", cfg.images))
            calibration = Calibration(module, form, calibrating, examples, cfg.max_drop)
            how = {"quantization": exported_model.quantize(calibration, draft, metadata, cfg.opset)}
        else:
            exported_model.write(module, draft, metadata, form, cfg.opset)
            how = {}
        if compared and data is not None:
            found = verification.compare(module, exported_model.ExportedModel(draft, trusted=True), data, cfg.images)
            verification.check(found, cfg[request.tolerance(cfg.quantize, kind)])
        shown = None
        if cfg.samples and data is not None:
            shown = device_folder.of_pairs(module, form, verification.pairs(data, "val", cfg.samples))
        verified.record(draft, found | how, folder, compared)
        device_folder.write(draft, metadata, form, shown)
        for file in sorted(draft.parent.iterdir()):  # what belongs together; of most formats one file
            file.rename(folder / file.name)
    model = folder / draft.name
    point = [] if cfg.operating_point is None else [override("operating_point", str(cfg.operating_point))]
    later = verified.later(model, reason, str(cfg.ckpt_path), *point)
    return model, verification.summary(found) if compared else later


def verify(cfg: DictConfig, module: "SegmentationModule") -> None:
    """Compare a file that was exported before with its checkpoint, and record it beside the file.

    Raises:
        UserError: the file is none of this checkpoint's, or outside its tolerance; then nothing is written.
    """
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from segnet.deployment import request, verification, verified
    from segnet.deployment.exported_model import ExportedModel
    from segnet.deployment.formats import SUFFIXES

    path = Path(str(cfg.verify))
    if path.suffix not in SUFFIXES:
        raise UserError(f"verify={path}: is no exported model; give a file {', '.join(SUFFIXES)} that export.py wrote")
    words = [word for word in HydraConfig.get().overrides.task if word.lstrip("+").partition("=")[0] in OF_THE_FILE]
    if words:
        raise UserError(f"{' '.join(words)} with verify={path}: the file itself says so; leave it out")
    exported = ExportedModel(path, trusted=cfg.trust, key="verify")
    for what, theirs, ours in (
        ("classes", exported.classes, module.classes),
        ("image_size", list(exported.image_size), list(module.image_size)),
        (
            "operating_point",
            *(point and point.stored() for point in (exported.operating_point, module.operating_point)),
        ),
    ):
        if theirs != ours:
            remedy = (
                "add the operating_point that it was exported with" if what == "operating_point" else "name its own"
            )
            raise UserError(f"verify={path}: its {what} is not that of ckpt_path={cfg.ckpt_path}; {remedy}")
    data, reason = images(cfg, module, "val")
    if data is None or not cfg.images:
        raise UserError(
            f"verify={path}: needs validation images, and {reason}; set data.root to the folder of the data"
        )
    beside = path.with_name(verified.RECORD)
    if verified.recorded(path).get("file", path.name) != path.name:
        raise UserError(f"verify={path}: {beside} is of another file; move this one into a folder of its own")
    found = verification.compare(module, exported, data, cfg.images)
    print(verification.summary(found))
    quantized = exported.metadata.get("quantize")
    verification.check(found, cfg[request.tolerance(quantized, SUFFIXES[path.suffix])], "the file stays as it was")
    for place in {path.parent, Path(cfg.output_dir)}:  # beside the file it says that this one is verified
        verified.record(path, found, place)
    print(f"verified: written to {beside}")


def images(cfg: DictConfig, module: "SegmentationModule", *splits: str) -> tuple["SegmentationDataModule | None", str]:
    """The data with these splits, or None and why there are none."""
    from segnet.configuration import instantiate
    from segnet.runs import checkpoint_data

    settings = checkpoint_data.settings(module.config, cfg)
    checkpoint_data.check_sizes(settings, module.config["data"], "an exported model")
    if not splits:
        return None, "images=0 asks for none"
    if checkpoint_data.is_missing(settings):
        return None, f"the checkpoint's data.root={settings['root']} is not there"
    data: SegmentationDataModule = instantiate(settings, "data")
    check_output(cfg.output_dir, "data.root", data.root)
    data.prepare_data()
    data.setup()
    data.require(*splits)
    print(data.used(*splits))
    return data, "" if cfg.images else "images=0 asks for none"


main = command("export")(run)
