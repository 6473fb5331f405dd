"""The record of a run, which Hydra keeps in ``.hydra/`` of its folder, read as a file that a stranger may have made."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import Container, DictConfig, OmegaConf

from segnet import hub, rules, trust
from segnet.errors import UserError
from segnet.files import atomic_write
from segnet.settings import COMMANDS, SHARED, PathText

CONFIG = Path(".hydra") / "config.yaml"
OVERRIDES = CONFIG.with_name("overrides.yaml")  # which Hydra writes last
_REFERENCE = re.compile(r"\$\{\.*[A-Za-z]\w*(\.\w+)*\}|\$\{oc\.dict\.values:(callbacks|logger)\}")


def has_record(folder: Path) -> bool:
    """Whether the record of a run is whole: a kill while Hydra wrote it leaves its last file empty, before any work."""
    return (folder / OVERRIDES).is_file() and (folder / OVERRIDES).stat().st_size > 0


def load(path: Path) -> Container:
    """A file of the record; nothing in it is resolved.

    Raises:
        UserError: it cannot be read, is too large or too deep, or repeats its parts by aliases.
    """
    try:
        if path.stat().st_size > trust.BYTES:
            raise UserError(f"{path}: larger than {trust.BYTES} bytes, so no record of a run")
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > trust.DEPTH:
                raise UserError(f"{path}: has an alias or is too deep, so no record of a run")
        return OmegaConf.create(text)  # type: ignore[return-value]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot be read as the record of a run ({reason})") from error


def recorded(folder: Path) -> list[str]:
    """The overrides that a run folder's run was started with, ``${...}`` as it was given; none where no record is."""
    if not has_record(folder):
        return []
    content = load(folder / OVERRIDES)
    overrides = OmegaConf.to_container(content, resolve=False)
    if not isinstance(overrides, list):
        raise UserError(f"{folder / OVERRIDES}: not the list of overrides that a run records")
    return [str(override) for override in overrides]


def configuration(folder: Path) -> DictConfig:
    """The configuration that a run folder's run was started with."""
    content = load(folder / CONFIG)
    if not isinstance(content, DictConfig):
        raise UserError(f"{folder / CONFIG}: not the configuration that a run records")
    return content


def write(config: DictConfig, overrides: Sequence[str], folder: Path) -> None:
    """What Hydra leaves in a run folder, so that one which another command makes is compared and resumed like any."""
    save(folder / CONFIG, config)
    save(folder / OVERRIDES, OmegaConf.create(list(overrides)))


def save(path: Path, content: Container) -> None:
    """A file of the record, whole."""
    with atomic_write(path) as part:
        OmegaConf.save(content, part)


def check(config: DictConfig, source: str) -> None:
    """Refuse a configuration that would build more than `segnet.trust` allows, or read more than its own keys.

    Args:
        config: as recorded, with the run's folder as ``output_dir``.
        source: what errors call it, such as ``resume=logs/train/a``.

    Raises:
        UserError: naming the entry.
    """
    check_references(OmegaConf.to_container(config, resolve=False), source)
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    trust.check(resolved, source, trust.RUN, Path(config.output_dir))
    if hub.SCHEME in str(resolved.get("weights")):
        trust.refuse(source, f"weights={resolved['weights']}", "would send the run over the network")
    data = resolved.get("data") or {}
    root = Path(str(data.get("root"))).resolve()  # without `..`, which would lead out
    if data.get("prepare") is not None and not root.exists() and not root.is_relative_to(Path.cwd().resolve()):
        raise UserError(f"{source}: data.root={root} would be made, outside of this folder; {trust.REMEDY}")


def check_values(config: DictConfig, source: str) -> None:
    """Refuse a configuration that has no data, model or trainer to build, or values of other types than a run takes.

    Raises:
        UserError: naming the key.
    """
    for group in ("data", "model", "trainer"):
        node = config.get(group)
        if not isinstance(node, DictConfig) or "_target_" not in node:
            raise UserError(f"{source}: its {group} is no object with _target_; give the folder of another run")
    for key, kind in {**SHARED, **COMMANDS["train"], "data.root": PathText}.items():
        value = OmegaConf.select(config, key, default=OVERRIDES)  # a key that the run is older than
        if value is not OVERRIDES:
            rules.check(f"{source}: {key}", OmegaConf.to_object(value) if OmegaConf.is_config(value) else value, kind)


def check_references(config: Any, source: str) -> None:
    """Refuse interpolations that read more than other keys, such as ``${oc.env:HOME}``.

    Raises:
        UserError: naming the text.
    """
    texts = [trust.plain(config, source)]
    while texts:
        value = texts.pop()
        if isinstance(value, dict):
            texts += [*value, *value.values()]
            if isinstance(target := value.get("_target_"), str) and "${" in target:
                trust.refuse(source, f"_target_={target!r}", "is put together from other keys")
        elif isinstance(value, list):
            texts += value
        elif isinstance(value, str) and "${" in _REFERENCE.sub("", value):
            trust.refuse(source, repr(value), "is an interpolation that a file must not use")


def check_overrides(overrides: Sequence[str], source: str) -> None:
    """Refuse overrides that are composed into a configuration and set Hydra itself, or read other files.

    Raises:
        UserError: naming the override.
    """
    check_references(list(overrides), source)
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(f"{source}: its overrides cannot be parsed ({error})") from error
    for override, text in zip(parsed, overrides, strict=True):
        name = override.key_or_group.removeprefix("/")
        hydra = name.partition("/")[0].partition(".")[0] == "hydra" or (override.package or "").startswith("hydra")
        elsewhere = "." not in name and ".." in text  # another file in place of an option of a group
        if hydra or elsewhere or "@" in text.partition("=")[0] or name == "trust":
            raise UserError(f"{source}: has the override {text!r}, which a file must not set; {trust.REMEDY}")


def check_links(folder: Path, source: str) -> None:
    """Refuse a run folder with a symbolic link that leads out of it: the run writes here.

    Raises:
        UserError: naming the link.
    """
    home = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise UserError(f"{source}: {path} is a link out of this folder, in which the run writes; {trust.REMEDY}")
