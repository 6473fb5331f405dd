"""Which folder a command works in: a new run gets one of its own, and one process at a time works in it."""

import fcntl
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from segnet.command_line import override
from segnet.errors import UserError, explain
from segnet.runs.record import has_record

LOCK = Path(".hydra") / "lock"
RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # of a process among those that train together
_locks: list[int] = []  # files that are open, and so locked, until this process ends or begins another command


class OwnFolder(Callback):  # type: ignore[misc]
    """Hydra calls it before it writes anything: claims the command's folder.

    A folder that is named by the time gets a suffix if another command, started in the same second, has it.

    Args:
        run: the command trains: its folder must be empty, or be the one to resume, and is locked while it works.
    """

    def __init__(self, run: bool = False) -> None:
        self.run = run

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Of a single command."""
        self._start(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Of a sweep, whose jobs get numbered folders in it."""
        self._start(config, "hydra.sweep.dir")

    def _start(self, config: DictConfig, key: str) -> None:
        while _locks:
            os.close(_locks.pop())
        if any(os.environ.get(name, "0") != "0" for name in RANKS):
            return  # the first process does it for all
        try:
            self._claim(config, key)
        except Exception as error:
            if (message := explain(error)) is None:
                raise
            print(f"error: {message}", file=sys.stderr)
            sys.exit(1)  # Hydra makes a warning of any error here

    def _claim(self, config: DictConfig, key: str) -> None:
        folder = Path(str(OmegaConf.select(config, key)))
        given = OmegaConf.to_container(config.hydra.overrides, resolve=False)  # ${...} as it was typed
        assert isinstance(given, dict)
        overrides = [str(override) for kind in ("task", "hydra") for override in given[kind]]
        named = any(override.lstrip("+").partition("=")[0] in ("output_dir", key) for override in overrides)
        resumed = config.get("resume") is not None and has_record(folder)
        if not named and not resumed:
            folder = fresh(folder)
            _use(config, key, folder)
            if self.run:
                lock(folder)
        elif self.run:
            if not resumed and (there := occupied(folder)):
                remedy = (
                    f", or resume the run that is there: {shlex.quote(override('resume', str(folder)))}"
                    if has_record(folder)
                    else ""
                )
                raise UserError(
                    f"output_dir={folder}: is not empty ({there}, …), and a new run would replace what is there; "
                    f"choose another folder{remedy}"
                )
            lock(folder)


def _resuming(folder: Path) -> str:
    return shlex.quote(override("resume", str(folder)))


def fresh(folder: Path) -> Path:
    """Make a folder that nobody else has: of this name, or with ``_1``, ``_2``, … behind it."""
    number, candidate = 0, folder
    while True:
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            number += 1
            candidate = folder.with_name(f"{folder.name}_{number}")
        else:
            return candidate


def occupied(folder: Path) -> str | None:
    """Something that is in a folder already; an incomplete record, of a run killed at once, does not count."""
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    together = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))) > 1
    if together or not has_record(folder):  # of several processes another may have been here a moment earlier
        names = [name for name in names if name != LOCK.parent.name]
    return names[-1] if names else None  # hidden ones come first


def lock(folder: Path) -> None:
    """Keep every other process out of a run folder until this one ends.

    By a lock that a forked loader does not inherit: it would keep it for seconds after a kill.

    Raises:
        UserError: another process works there.
    """
    path = folder / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    _locks.append(os.open(path, os.O_CREAT | os.O_RDWR, 0o644))
    try:
        fcntl.lockf(_locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{folder}: another process works on this run; wait for its end, or stop it and resume: {_resuming(folder)}"
        ) from None


def _use(config: DictConfig, key: str, folder: Path) -> None:
    """Make a claimed folder the command's."""
    if str(folder) == str(OmegaConf.select(config, key)):
        return
    if key == "hydra.run.dir":
        config.output_dir = str(folder)
        return
    OmegaConf.set_readonly(config.hydra, False)  # jobs are composed anew from the overrides
    config.hydra.sweep.dir = str(folder)
    config.hydra.overrides.hydra.append(f"{key}='{folder}'")
    OmegaConf.set_readonly(config.hydra, True)
