"""Objects from a configuration, with one clear line for an argument that does not fit."""

import inspect
from collections.abc import Callable
from pkgutil import resolve_name
from traceback import walk_tb
from typing import Any

from omegaconf import Container, OmegaConf

from segnet.errors import UserError

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

    check_arguments(config, key)
    try:
        return hydra.utils.instantiate(config, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if cause is None or not _passed_through_this_package(cause):
            raise UserError(f"{key}: {' '.join(str(error).split())}") from error  # names target, error and key
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
    node: Any = OmegaConf.to_container(config, resolve=True) if isinstance(config, Container) else config
    if isinstance(node, list | tuple):
        for i, entry in enumerate(node):
            check_arguments(entry, f"{key}.{i}")
    elif isinstance(node, dict):
        if "_target_" in node:
            _check_call(node, key)
        for name, entry in node.items():
            check_arguments(entry, f"{key}.{name}")


def _check_call(node: dict[Any, Any], key: str) -> None:
    target = str(node["_target_"])
    try:
        signature = inspect.signature(resolve_name(target))
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}._target_={target}: no such class or function ({error})") from error
    except (TypeError, ValueError):  # not callable, which Hydra reports; or written in C, without a signature
        return
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    given = [name for name in node if name not in _HYDRA]
    known = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if inspect.Parameter.VAR_KEYWORD not in kinds and (unknown := [name for name in given if name not in known]):
        raise UserError(
            f"{key}.{unknown[0]}={node[unknown[0]]}: {target.rpartition('.')[2]} takes no such argument; "
            f"it takes {', '.join(known)}"
        )
    needed = [p.name for p in signature.parameters.values() if p.name in known and p.default is p.empty]
    missing = [name for name in needed if name not in given]
    if missing and not node.get("_partial_") and "_args_" not in node:
        raise UserError(f"{key}: {target.rpartition('.')[2]} needs {', '.join(missing)}, which is not given")


def _passed_through_this_package(error: BaseException) -> bool:
    """Whether code of this package called what failed; the frame that has caught the error does not count."""
    package = __name__.partition(".")[0]
    assert error.__traceback__ is not None
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__.tb_next))
    return any(module.partition(".")[0] == package for module in modules)
