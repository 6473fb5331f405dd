"""What `export.py` is asked for, checked before anything is loaded."""

from dataclasses import replace

from omegaconf import DictConfig

from segnet.deployment.form import Form, parsed
from segnet.deployment.formats import FORMATS, Format
from segnet.errors import UserError


def checked(cfg: DictConfig) -> tuple[Format, Form]:
    """The format, and what its file takes as far as it is known without the network.

    Raises:
        UserError: the settings contradict each other.
    """
    kind = FORMATS[cfg.format]
    if cfg.quantize and not kind.quantizes:
        able = " or ".join(f"format={name}" for name, format_ in FORMATS.items() if format_.quantizes)
        raise UserError(f"quantize={cfg.quantize} with format={cfg.format}: it is not quantised; use {able}")
    outside = cfg.preprocessing == "outside"
    if outside and cfg.input == "uint8":
        raise UserError("input=uint8 with preprocessing=outside: normalised images are float32; leave input out")
    if outside and cfg.size is not None:
        raise UserError(
            f"size={cfg.size} with preprocessing=outside: the file takes the network's own size; leave it out"
        )
    try:
        size = parsed(None if cfg.size is None else str(cfg.size))
    except ValueError as error:
        raise UserError(f"size={cfg.size}: {error}") from error
    given = cfg.input or ("float32" if outside else "uint8")
    # Outside, the size is the network's, which is not known yet.
    form = Form(size or ((1, 1) if outside else None), cfg.batch, cfg.preprocessing, cfg.layout, given)
    return kind, form


def of_network(form: Form, kind: Format, image_size: tuple[int, int]) -> Form:
    """The form for a network that computes at ``image_size``."""
    size = image_size if form.outside or (kind.fixed and form.size is None) else form.size
    return replace(form, size=size, batch=form.batch or (1 if kind.fixed else None))


def tolerance(quantized: object, kind: Format) -> str:
    """The key of the tolerance that holds for a file of a format, quantised or not."""
    return "tolerance_int8" if quantized else "tolerance_float16" if kind.half else "tolerance"
