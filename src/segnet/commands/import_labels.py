"""Labels of other programs to an ordinary folder of images and masks."""

from omegaconf import DictConfig

from segnet.cli import command


def run(cfg: DictConfig) -> None:
    """Find out the format, read it, write the folder and say what was counted."""
    from pathlib import Path

    from omegaconf import OmegaConf

    from segnet.annotations import classes, finding, writing
    from segnet.annotations.records import Choices
    from segnet.data.listing import amount
    from segnet.errors import printable
    from segnet.files import check_output, ending_on_sigterm

    given, out = Path(str(cfg.input)), Path(str(cfg.output))
    for key, folder in (("input", cfg.input), ("images", cfg.images)):
        if folder is not None and Path(str(folder)).is_dir():
            check_output(out, key, str(folder), "output")
            check_output(cfg.output_dir, key, str(folder))
    settings = OmegaConf.to_object(cfg)
    assert isinstance(settings, dict)
    wanted, ignore = settings["classes"], [str(label) for label in settings["ignore"]]
    choices = Choices(
        cfg.boxes, cfg.line_width, cfg.missing, cfg.crowd, ignore, classes.named(wanted), cfg.masks and str(cfg.masks)
    )
    source, root, title = finding.read(given, Path(str(cfg.images)) if cfg.images else None, cfg.format, choices)
    chosen = classes.choose(source, wanted, ignore)
    told = [title, *source.told, *classes.told(chosen, wanted)]
    images = writing.unlabelled(source, cfg.unlabelled, told)
    with ending_on_sigterm():  # the folder that is not yet whole goes with it, as on Ctrl-C
        told += writing.write(images, root, out, chosen, title, cfg.drawn)
    told.append(f"classes: {', '.join(chosen.names)}")
    told.append(f"{amount(len(images), 'image')} written to {out}")
    print("\n".join(map(printable, told)))


main = command("import_labels")(run)
