"""What a command line leaves open and the data decide: settled once, before anything is built, and recorded."""

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from segnet import rules, settings
from segnet.commands import auto, widths
from segnet.errors import UserError
from segnet.mirror import is_mirror
from segnet.runs import record
from segnet.terminal import is_first, tell

# Settings that the search of a folder reads before anything is made of them.
SEARCHED: dict[str, Any] = {
    "images": settings.Images, "masks": settings.Masks, "classes": settings.Classes, "num_classes": settings.NumClasses,
}  # fmt: skip


def complete(cfg: DictConfig) -> DictConfig:
    """The configuration of a new training, with everything settled that its command line leaves open."""
    start = time.monotonic()
    record_data(cfg)  # seconds, in which torch is imported
    return widths.complete(auto.complete(cfg, start))


def for_trials(cfg: DictConfig, given: Sequence[str], varied: Collection[str]) -> list[str]:
    """The overrides of all trials of a search, with a recipe in place of ``experiment=auto``; see `auto.expand`."""
    if cfg.get("auto"):  # data are settled by every trial
        settle_data(cfg)
    return auto.expand(cfg, given, varied)


def record_data(cfg: DictConfig) -> None:
    """Settle the data, in the run's record too; the mirror of a URL takes its place there, see `segnet.mirror`."""
    if settle_data(cfg) or is_mirror(cfg.data.root):
        write_record(cfg, "data")


def settle_data(cfg: DictConfig, asking: bool = True, decide: bool = False) -> bool:
    """Fill in the null settings of ``cfg.data`` as `segnet.data.folder.settle` does, and tell where they come from.

    Returns:
        whether there were any.

    Raises:
        UserError: more than one reading fits the data, or none.
    """
    if not isinstance(cfg.data, DictConfig):
        raise UserError(f"data={cfg.data}: must be one of the options in conf/data/")
    before: Any = OmegaConf.to_container(cfg.data, resolve=True, throw_on_missing=False)
    for key, kind in SEARCHED.items():
        rules.check(f"data.{key}", before.get(key), kind | None)
    from segnet.data import folder  # torch comes with it

    if not folder.is_open(before):
        return False
    assert cfg.data.root is not None  # OmegaConf says it where it is missing
    after, lines = folder.settle(before, asking, decide)
    with open_dict(cfg):
        for key in after:
            if key not in before or after[key] != before[key]:
                cfg.data[key] = after[key]
    tell(*lines)
    return True


def write_record(cfg: DictConfig, *keys: str) -> None:
    """Make these parts of the record in a run's folder what they are in the configuration."""
    path = Path(str(cfg.output_dir)) / record.CONFIG
    if not path.is_file() or not is_first():
        return
    kept = record.configuration(path.parents[1])
    with open_dict(kept):
        for key in keys:
            kept[key] = OmegaConf.to_container(cfg, resolve=False)[key]  # type: ignore[call-overload, index]
    record.save(path, kept)
