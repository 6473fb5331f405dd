"""Make a finished run a folder to release: weights, what rebuilds the network, model card, exported file, checksums."""

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from segnet.cli import command
from segnet.command_line import command_line, override
from segnet.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from segnet.training.module import SegmentationModule


def run(cfg: DictConfig) -> None:
    """Write the folder, whole or not at all, and upload it where that is asked for."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from segnet import environment, hub
    from segnet.decisions import given
    from segnet.deployment import verification
    from segnet.files import check_output, ending_on_sigterm
    from segnet.networks.ensemble import Ensemble
    from segnet.reports import released
    from segnet.training import published
    from segnet.training.checkpoint import load_module

    source, out = Path(str(cfg.run)), Path(str(cfg.output))
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UserError(f"output={out}: exists and is not an empty folder; choose another, or remove it")
    check_output(out, "run", source, "output")
    checkpoint = checkpoint_of(source, cfg.ckpt_path)
    if cfg.push is not None:
        hub.check(cfg.push, cfg.private)
    environment.keep_freed_memory()
    module = load_module(checkpoint, cfg.trust)
    module.operating_point = given.chosen(cfg.operating_point, module.operating_point, module.classes)
    point = given.told(module.operating_point, module.classes)
    print(point)
    root = str(module.config["data"]["root"])
    if Path(root).is_dir():
        check_output(out, "data.root", root, "output")
    out.parent.mkdir(parents=True, exist_ok=True)
    with ending_on_sigterm(), TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        draft = Path(scratch) / "release"
        draft.mkdir()
        notes = other_than_card(source, checkpoint)
        if cfg.operating_point is not None:
            other = "another " if module.operating_point else ""
            notes.append(f"Released with {other}{point}. The decisions below were not made with it.")
        told = released.write(source, draft, root, cfg.photos, isinstance(module.net, Ensemble), notes)
        about = verification.metadata(module, draft)
        del about["card"]  # README.md
        config = {**module.config, "data": {**module.config["data"], "root": Path(root).absolute().name}}
        published.write(draft, module.state_dict(), {**about, "config": config})
        told += exported(cfg, module, draft)
        published.seal(draft)
        load_module(draft, cfg.trust)  # as others will
        told += [f"{size / 1e6:8.3f} MB  {name}" for name, size in sizes(draft)]
        if out.exists():
            out.rmdir()
        draft.rename(out)
    print("\n".join([*told, f"written to {out}"]))
    if cfg.push is not None:
        print(f"pushed to {hub.push(out, cfg.push, cfg.private)}")


def checkpoint_of(folder: "Path", given: Any) -> "Path":
    """The checkpoint of a finished run that its card is about, or another one in its folder.

    Raises:
        UserError: no finished run is there, or the checkpoint is not one of it.
    """
    import json
    from pathlib import Path

    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        kept = results["checkpoint"]
    except FileNotFoundError:
        finish = f", or finish it: {command_line('train', [override('resume', str(folder))])}"
        raise UserError(
            f"run={folder}: no finished run is there (results.json is missing); give logs/train/<run>"
            f"{finish if folder.is_dir() else ''}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"run={folder}: its results.json cannot be read ({error}); give another run") from error
    if kept and Path(str(kept)).name != kept:  # of eval.py or calibrate.py
        raise UserError(f"run={folder}: is no training run; give the run of {kept}, which it is about")
    if given is None and not kept:
        raise UserError(f"run={folder}: it has kept no checkpoint; train again without ~callbacks.checkpoint")
    path = folder / "checkpoints" / str(kept) if given is None else Path(str(given))
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"ckpt_path={path}: does not lie in run={folder}, whose card is published; leave it out, and give what "
            f"calibrate.py has chosen as operating_point=<its folder>/operating_point.json"
        )
    return path


def other_than_card(source: "Path", checkpoint: "Path") -> list[str]:
    """What a reader of the run's card must know where the weights are not those that it is about."""
    import json

    kept = json.loads((source / "results.json").read_text(encoding="utf-8"))["checkpoint"]
    told = f"The weights of this release are those of `{checkpoint.name}`; the figures below are of `{kept}`."
    return [told] if checkpoint.resolve() != (source / "checkpoints" / str(kept)).resolve() else []


def exported(cfg: DictConfig, module: "SegmentationModule", folder: "Path") -> list[str]:
    """Export into a folder of the format's name below this one; what is to be told.

    What nobody asked for by name is left out where its runtime or the data are missing, and told.

    Raises:
        UserError: what is asked for by name cannot be written, or the file is outside its tolerance.
        ModuleNotFoundError: its runtime is missing.
    """
    from segnet.commands import export
    from segnet.deployment import request, verified
    from segnet.runs import checkpoint_data

    if cfg.format == "none":
        return []
    what = f"the {cfg.quantize or 'float32'} file is left out"
    name = installed() if cfg.format == "auto" else cfg.format
    if name is None:
        return [f"{what}: no runtime is installed: pip install 'segnet-lightning[export]'"]
    settings = checkpoint_data.settings(module.config, cfg)
    if checkpoint_data.is_missing(settings):
        reason = f"the checkpoint's data.root={settings['root']} is not there; add data.root=<folder of the data>"
        if cfg.format == "auto":
            return [f"{what}: {reason}"]
        raise UserError(f"format={cfg.format}: {reason}, or format=none")
    settled: Any = OmegaConf.merge(cfg, {"format": name, "ckpt_path": str(folder), "output_dir": str(folder / name)})
    kind, form = request.checked(settled)
    model, told = export.write(settled, module, kind, form)
    kept = len(verified.recorded(model).get("quantization", {}).get("float32", {}))
    return [
        *told.splitlines(),
        *[f"{cfg.quantize}: {kept} layer(s) stayed in float32, see {name}/verification.json"] * bool(kept),
    ]


def installed() -> str | None:
    """The first format of those that are quantised whose packages are here."""
    from importlib.util import find_spec

    for name, packages in {"onnx": ("onnx", "onnxruntime", "onnxscript"), "openvino": ("openvino", "nncf")}.items():
        if all(find_spec(package) for package in packages):
            return name
    return None


def sizes(folder: "Path") -> list[tuple[str, int]]:
    """Names and bytes of the files that are released, the largest first."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]
    return sorted(found, key=lambda row: (-row[1], row[0]))


main = command("publish")(run)
