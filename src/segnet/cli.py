"""How a command starts and fails: Hydra composes, the body runs, bad input ends in one line and exit code 1."""

import io
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from tqdm import tqdm

from segnet import help_text, mirror, overrides, passwords, rules
from segnet.command_line import flags_last, texts_quoted
from segnet.errors import UserError, explain
from segnet.files import check_output
from segnet.hydra_versions import MAIN, register_resolver
from segnet.object_store import is_url
from segnet.old_names import update_targets
from segnet.overrides import CONF_DIR
from segnet.settings import COMMANDS, SETS, SHARED, is_path
from segnet.terminal import is_first, named, quieten, unread

RESUMING = ("reproduce", "train", "tune")  # look into the folder of an earlier run themselves
Body = Callable[[DictConfig], float | None]


def command(name: str) -> Callable[[Body], Callable[[], None]]:
    """Make a ``main`` of a body that takes the composed configuration of ``conf/<name>.yaml``."""

    def decorate(body: Body) -> Callable[[], None]:
        def job(cfg: DictConfig) -> float | None:
            hydra_cfg = HydraConfig.get()
            if hydra_cfg.mode == RunMode.RUN:
                return work(cfg, hydra_cfg)
            with named(str(hydra_cfg.job.num)):
                print(shlex.join(hydra_cfg.overrides.task))
                return work(cfg, hydra_cfg)

        def work(cfg: DictConfig, hydra_cfg: HydraConf) -> float | None:
            cfg.output_dir = hydra_cfg.runtime.output_dir  # in a sweep the job's own folder
            quieten(cfg.verbose is True)
            try:
                check_keys(cfg, name)
                check_settings(cfg, name)
                if hydra_cfg.mode == RunMode.RUN and name not in RESUMING and is_first():
                    check_place(Path(cfg.output_dir))
                if is_url(root := OmegaConf.select(cfg, "data.root")):  # from here on it is a folder of this machine
                    bounds = (OmegaConf.select(cfg, f"data.{key}") for key in ("cache_dir", "cache_gb"))
                    cfg.data.root = str(mirror.update(root, *bounds))
                    if "prepare" in cfg.data:
                        cfg.data.prepare = None  # nothing is ever made there
                for key in ("data.root", *SETS):
                    if isinstance(root := OmegaConf.select(cfg, key), str):
                        check_output(cfg.output_dir, key, root)
                update_targets(cfg)  # an experiment of the user's may be older than this version
                return body(cfg)
            except Exception as error:
                if hydra_cfg.mode == RunMode.RUN and is_first():
                    _remove_unfinished(Path(cfg.output_dir))
                if hydra_cfg.mode == RunMode.RUN:
                    _fail(error, name)  # here, before Hydra adds lines of its own
                raise

        def main() -> None:
            for stream in (sys.stdout, sys.stderr):  # a terminal that knows ASCII only, a name that is no UTF-8
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes errors on, and `_fail` prints them in one line
            try:
                if {"-h", "--help"} & set(sys.argv[1:]):
                    print(help_text.of(name))
                    return
                sys.argv[1:] = overrides.deleting(texts_quoted(flags_last(passwords.taken_apart(sys.argv[1:]))))
                overrides.check(sys.argv[1:])
                hydra.main(config_path=str(CONF_DIR), config_name=name, **MAIN)(job)()
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                sys.exit(130)
            except Exception as error:
                _fail(error, name)
            finally:
                unread()  # else Python says at its end that it could not write the rest

        return main

    return decorate


def _fail(error: Exception, name: str) -> None:
    """Print an error of the user in one line and exit with 1; raise any other, or every one with SEGNET_TRACEBACK=1."""
    if isinstance(error, BrokenPipeError) and unread():
        sys.exit(128 + signal.SIGPIPE)  # as a program that the signal ends
    message = explain(error)
    if message is None or os.environ.get("SEGNET_TRACEBACK") == "1":
        raise error
    # Through tqdm, which knows where a bar stands on the line.
    text = passwords.masked(f"{message}{overrides.remedy(error, name, sys.argv[1:])}")
    tqdm.write(f"error: {text}", file=sys.stderr)
    sys.exit(1)


def check_settings(cfg: DictConfig, name: str) -> None:
    """Refuse a value that is not of the type that `segnet.settings` declares, and expand ``~`` in paths."""
    declared = {**SHARED, **COMMANDS[name]}
    for key in ("data.root", "data.cache_dir", *(key for key, kind in declared.items() if is_path(kind))):
        if "~" in str(given := OmegaConf.select(cfg, key)):
            OmegaConf.update(cfg, key, expand_home(given))
    for key, annotation in declared.items():
        if key.partition(".")[0] not in cfg:
            continue
        try:
            value = OmegaConf.select(cfg, key, throw_on_missing=True)
        except MissingMandatoryValue:  # told where it is needed
            continue
        except OmegaConfBaseException as error:
            raise UserError(f"{key}: {error.msg or error}") from error
        rules.check(key, OmegaConf.to_object(value) if OmegaConf.is_config(value) else value, annotation)


def expand_home(path: Any) -> Any:
    """A path, or a list of them, with its ``~`` as the user's folder; anything else as it is."""
    if isinstance(path, list | ListConfig):
        return [expand_home(entry) for entry in path]
    return str(Path(path).expanduser()) if isinstance(path, str) and path.startswith("~") else path


register_resolver("expand_home", expand_home, replace=True)


def check_keys(cfg: DictConfig, name: str) -> None:
    """Refuse a top-level key that no configuration file has: Hydra accepts ``+typo=1`` silently."""
    described = help_text.keys(name)
    known = {key.name.partition(".")[0] for key in described}
    if unknown := sorted({str(key) for key in cfg} - known):
        valid = sorted(known & {str(key) for key in cfg})
        raise UserError(f"unknown key(s) {', '.join(unknown)}; known are {', '.join(valid)}")
    for section in (key.name for key in described if key.default is None and "." not in key.name):
        known = {key.name for key in described if key.name.rpartition(".")[0] == section}
        given = cfg.get(section)
        if isinstance(given, DictConfig) and (
            unknown := sorted({f"{section}.{entry}" for entry in map(str, given)} - known)
        ):
            raise UserError(f"unknown key(s) {', '.join(unknown)}; known are {', '.join(sorted(known))}")


def check_entries(cfg: DictConfig, group: str) -> None:
    """Every entry of a group of named objects must be an object, or null, which leaves it out."""
    for key, entry in list((cfg.get(group) or {}).items()):
        if entry is None:
            with open_dict(cfg):
                del cfg[group][key]
        elif not isinstance(entry, DictConfig) or "_target_" not in entry:
            raise UserError(f"{group}.{key}={entry}: has no _target_; to leave it out write ~{group}.{key}")


class Found(Callback):  # type: ignore[misc]
    """What was in the place of the run folder before Hydra made it (conf/base.yaml names this)."""

    before: ClassVar[set[Path] | None] = None  # the folder and its entries; None: not known

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra calls it before it writes anything."""
        folder = Path(config.hydra.run.dir).resolve()
        Found.before = {folder, *folder.iterdir()} if folder.is_dir() else set()


def check_place(folder: Path) -> None:
    """Refuse a folder that was there and holds files, unless a command has written into it before.

    Raises:
        UserError: naming some of them.
    """
    before, folder = Found.before or set(), folder.resolve()  # of another folder, if that of this second was taken
    files = sorted(path.name for path in before if path.is_file())
    if files and folder in before and folder / ".hydra" not in before:
        there = f"{', '.join(files[:3])}{', …' if len(files) > 3 else ''}"
        raise UserError(
            f"output_dir={folder}: holds files that no command here has made ({there}), which results could replace; "
            f"choose another folder"
        )


def _remove_unfinished(folder: Path) -> None:
    """Delete what a run has made that failed before it had anything to keep.

    This is Hydra's record, the environment and TensorBoard's events; what was there before stays.
    """
    folder = folder.resolve()
    if Found.before is None or not folder.is_dir():
        return
    made = {path for top in {*folder.iterdir()} - Found.before for path in (top, *top.rglob("*"))}
    files = {path for path in made if not path.is_dir()}
    boards = ("events.out.tfevents", "hparams.yaml", "environment.json", "data.csv")
    if all(path.parent.name == ".hydra" or path.name.startswith(boards) for path in files):
        for path in files:
            path.unlink()
        for path in sorted({folder, *made} - files - Found.before, reverse=True):
            path.rmdir()
