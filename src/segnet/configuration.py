"""Objects from a configuration, with one clear line for an argument that does not fit."""

import inspect
from collections.abc import Callable
from pkgutil import resolve_name
from traceback import walk_tb
from typing import Annotated, Any, get_type_hints

from omegaconf import Container, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segnet import rules
from segnet.errors import UserError
from segnet.settings import declared

_HYDRA = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


def instantiate(config: Any, key: str) -> Any:
    """The object that a configuration describes, its lists and dicts as plain Python.

    Args:
        config: a DictConfig or a plain dict, with ``_target_`` and its arguments, nested as deep as need be.
        key: its name, which errors begin with.

    Raises:
        UserError: there is no such target, it takes no such argument, or a library refuses a value.
        Exception: what a target of this package raises, as it is.
    """
    import hydra
    from hydra.errors import InstantiationException

    from segnet.hydra_versions import INSTANTIATE

    check_arguments(config, key)
    try:
        return hydra.utils.instantiate(config, _convert_="all", **INSTANTIATE)
    except OmegaConfBaseException:
        raise
    except Exception as error:
        # Hydra 1.3 wraps what a target raises, 1.4 adds a note to it; both end in the key.
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if cause is None or not _passed_through_this_package(cause):
            text, _, where = "\n".join([str(error), *getattr(error, "__notes__", ())]).partition("\nfull_key: ")
            told = str(cause) if text.startswith("Error in call") else text  # else it names the target
            place = where if where.startswith(key) else ".".join(filter(None, (key, where)))
            raise UserError(f"{place}: {' '.join(told.split())}") from error
        raise cause from cause.__cause__


def call(factory: Callable[..., Any], key: str, *args: Any, **kwargs: Any) -> Any:
    """What a factory of the configuration (``_partial_: true``) makes.

    Raises:
        UserError: a library refuses a value, or a check of this package does; the message begins with ``key``.
    """
    try:
        return factory(*args, **kwargs)
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError) or not _passed_through_this_package(error):
            raise UserError(f"{key}: {error}") from error
        raise


def check_arguments(config: Any, key: str) -> None:
    """Compare the arguments of every ``_target_`` in a configuration, at any depth, with its signature.

    Raises:
        UserError: there is no such target, it takes no such argument, or needs one that is not given.
    """
    node = plain(config)
    if isinstance(node, list | tuple):
        for i, entry in enumerate(node):
            check_arguments(entry, f"{key}.{i}")
    elif isinstance(node, dict):
        if "_target_" in node:
            _check_call(node, key)
        for name, entry in node.items():
            check_arguments(entry, f"{key}.{name}")


def plain(config: Any) -> Any:
    """A configuration as plain containers, its interpolations resolved."""
    if isinstance(config, Container):
        return OmegaConf.to_container(config, resolve=True)
    if isinstance(config, dict):
        return {name: plain(entry) for name, entry in config.items()}
    return [plain(entry) for entry in config] if isinstance(config, list | tuple) else config


def _check_call(node: dict[Any, Any], key: str) -> None:
    target = str(node["_target_"])
    try:
        function = resolve_name(target)
        signature = inspect.signature(function)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{key}._target_={target}: no such class or function ({error}); give the full name of one"
        ) from error
    except (TypeError, ValueError):  # not callable, which Hydra reports; or written in C, without a signature
        return
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    given = [name for name in node if name not in _HYDRA]
    known = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    passed_on = inspect.Parameter.VAR_KEYWORD in kinds
    if target.startswith("segmentation_models_pytorch.") and not str(node.get("encoder_name")).startswith("tu-"):
        passed_on = False  # only timm's encoders take more; others would ignore it
    if target.endswith(".EMAWeightAveraging"):
        passed_on = False  # to torch's AveragedModel, which takes nothing beyond what this class gives it
    if not passed_on and (unknown := [name for name in given if name not in known]):
        raise UserError(
            f"{key}.{unknown[0]}={node[unknown[0]]}: {target.rpartition('.')[2]} takes no such argument; "
            f"it takes {', '.join(known)}"
        )
    needed = [p.name for p in signature.parameters.values() if p.name in known and p.default is p.empty]
    missing = [name for name in needed if name not in given]
    if missing and not node.get("_partial_") and "_args_" not in node:
        raise UserError(f"{key}: {target.rpartition('.')[2]} needs {', '.join(missing)}, which is not given")
    types = {**_annotations(function), **declared(target)}
    for name in given:
        if name in types and not _holds_objects(node[name]):
            rules.check(f"{key}.{name}", node[name], types[name])


def _annotations(function: Any) -> dict[str, Any]:
    """The declared types of what a class or function takes; none where they cannot be read."""
    schema = getattr(function, "InitSchema", None)  # of albumentations, with the ranges
    try:
        if schema is not None:
            return {name: Annotated[(field.annotation, field)] for name, field in schema.model_fields.items()}
        return get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    except Exception:  # a library's annotation names something that is not there
        return {}


def _holds_objects(value: Any) -> bool:
    """Whether a value is, or has in it, what becomes an object later."""
    if isinstance(value, dict):
        return "_target_" in value or any(_holds_objects(part) for part in value.values())
    return isinstance(value, list | tuple) and any(_holds_objects(part) for part in value)


def _passed_through_this_package(error: BaseException) -> bool:
    """Whether code of this package called what failed; the frame that has caught the error does not count."""
    package = __name__.partition(".")[0]
    assert error.__traceback__ is not None
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__.tb_next))
    return any(module.partition(".")[0] == package for module in modules)
