"""Train a list of named runs over seeds, as far as the time allows, and tabulate what they reached."""

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from fnmatch import fnmatchcase
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError

from segnet import overrides as typed
from segnet.cli import command
from segnet.command_line import override
from segnet.errors import UserError
from segnet.rules import shown
from segnet.runs.record import recorded
from segnet.runs.stopping import Stop


def run(cfg: DictConfig) -> None:
    """Train what is not finished yet; write and print results.md."""
    check(cfg)
    end = time.monotonic() + 60 * (float("inf") if cfg.minutes is None else cfg.minutes)
    folder = Path(cfg.output_dir)
    names = [
        str(name) for name in cfg.runs if any(fnmatchcase(str(name), pattern) for pattern in str(cfg.only).split("|"))
    ]
    if not names:
        raise UserError(f"only={cfg.only}: must match one of the runs {', '.join(cfg.runs)}")
    extra = split("extra", cfg.extra)
    jobs = [
        (f"{name}/{seed}", [*shlex.split(_command(cfg, name)), *extra, f"seed={seed}"])
        for seed in cfg.seeds
        for name in names
    ]
    todo = [(name, overrides) for name, overrides in jobs if not finished(folder / name, overrides)]
    with Stop.on_signals() as stop:
        codes = _train(cfg, folder, todo, end, stop)
    failed = [name for name, code in codes.items() if code]
    if left := sum(code is None for code in codes.values()):
        why = "time is up" if stop.received is None else f"stopped by {signal.Signals(stop.received).name}"
        print(f"{why}, {left} of {len(jobs)} runs are not finished; the same command resumes them")
    if stop.received is not None:
        sys.exit(128 + stop.received)
    if done := [name for name in names if any((folder / name).glob("*/results.json"))]:
        text = results(folder, done)
        (folder / "results.md").write_text(text, encoding="utf-8")
        print(text)
    if failed:
        raise UserError(f"{len(failed)} of {len(todo)} runs failed for the reasons above: {', '.join(failed)}")


def _command(cfg: DictConfig, name: str) -> str:
    try:
        return str(cfg.runs[name])
    except InterpolationToMissingValueError as error:
        missing = re.search(r"Missing mandatory value: (\w+)", str(error))
        raise UserError(f"runs.{name}: needs {missing[1] if missing else '???'}=<folder of this data set>") from error


def _train(
    cfg: DictConfig, folder: Path, todo: Sequence[tuple[str, Sequence[str]]], end: float, stop: Stop
) -> dict[str, int | None]:
    """The exit code of each run, None if it was stopped; ``cfg.jobs`` at a time, in the order of the list.

    A run whose command names the folder of another, such as that of its teacher, waits for it.
    """
    started: dict[str, Future[int | None]] = {}

    def one(i: int, name: str, overrides: Sequence[str]) -> int | None:
        said = " ".join(overrides).replace("${seed}", name.rpartition("/")[2])
        for other, _ in todo[:i]:
            if str(folder / other) in said:
                started[other].result()
        if time.monotonic() >= end or stop.received is not None:
            return None
        print(f"[{i + 1}/{len(todo)}] {name}: train.py {shlex.join(overrides)}", flush=True)
        log = folder / f"{name}.log" if cfg.jobs > 1 else None
        note(folder / name, overrides)
        code = train(folder / name, overrides, end, stop, cfg.trust, cfg.verbose, log)
        if code and log is not None:
            print(f"{name}: {_last_line(log)} ({log} has more)", file=sys.stderr, flush=True)
        if code == 0 and cfg.keep == "weights":
            keep_weights(folder / name)
        return code

    with ThreadPoolExecutor(cfg.jobs) as pool:
        try:
            for i, (name, overrides) in enumerate(todo):
                started[name] = pool.submit(one, i, name, overrides)
            return {name: future.result() for name, future in started.items()}
        except KeyboardInterrupt:  # the runs got it from the terminal too, and are waited for
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


def keep_weights(folder: Path) -> None:
    """Of a finished run, leave weights and configuration of the best checkpoint, or of the last where it is alone."""
    import torch

    from segnet.files import atomic_write
    from segnet.runs.resume import LAST

    for path in sorted(folder.rglob("checkpoints/*.ckpt")):  # those of its folds too
        if path.name == LAST.name and len(list(path.parent.glob("*.ckpt"))) > 1:
            path.unlink()
            continue
        content = torch.load(path, map_location="cpu", weights_only=True)
        for part in ("optimizer_states", "callbacks", "loops", "lr_schedulers"):
            content.pop(part, None)
        with atomic_write(path) as new:
            torch.save(content, new)


def check(cfg: DictConfig) -> None:
    """Refuse what would fail later."""
    for group in ("runs", "shared"):
        parts = OmegaConf.to_container(cfg)[group]  # type: ignore[call-overload, index]  # data sets may be missing
        if not isinstance(parts, dict):
            raise UserError(f"{group}={shown(parts)}: must map names to command lines, as conf/list/cpu.yaml does")
        for name, part in parts.items():
            if not isinstance(part, str):
                raise UserError(f"{group}.{name}={shown(part)}: must be a command line of train.py, that is text")
    split("extra", cfg.extra)


def split(key: str, text: str) -> list[str]:
    """Overrides as a shell splits them.

    Raises:
        UserError: they are none.
    """
    try:
        words = shlex.split(text)
        typed.check(words)
    except ValueError as error:
        raise UserError(f"{key}={text}: must be overrides of train.py, such as trainer=gpu ({error})") from error
    return words


def note(folder: Path, overrides: Sequence[str]) -> None:
    """Keep the command beside the run, whose record has what ``experiment=auto`` and ``budget_ms`` made of it."""
    file = _command_file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{shlex.join(overrides)}\n", encoding="utf-8")


def _command_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.command")


def finished(folder: Path, overrides: Sequence[str]) -> bool:
    """Whether this run is done; a folder with another run's record is refused."""
    there, file = recorded(folder), _command_file(folder)
    if there and file.is_file():
        there = shlex.split(file.read_text(encoding="utf-8"))
    own = ("output_dir=", "trust=", "verbose=")
    there, asked = ([word for word in words if not word.startswith(own)] for words in (there, overrides))
    if there and there != asked:
        raise UserError(f"{folder}: holds another run ({shlex.join(there)}); delete it, or choose another output_dir")
    return (folder / "results.json").is_file()


def train(
    folder: Path,
    overrides: Sequence[str],
    end: float,
    stop: Stop,
    trusted: bool,
    verbose: bool = False,
    log: Path | None = None,
) -> int | None:
    """Start or resume a run, until ``end``; its exit code, None if stopped. What it says goes to ``log``, if any.

    A run that is stopped repeats the interrupted epoch when it is resumed and ends with the same weights.
    """
    where = str(folder)
    given = [override("resume", where)] if recorded(folder) else [*overrides, override("output_dir", where)]
    given += ["trust=true"] * trusted + ["verbose=true"] * verbose
    here = Path(sys.argv[0])  # src/reproduce.py beside src/train.py, segnet-reproduce beside segnet-train
    program = here.with_name(here.name.replace("reproduce", "train"))
    start = [sys.executable] if program.suffix == ".py" else []
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if log is None else log.open("a", encoding="utf-8") as out:
        process = subprocess.Popen([*start, str(program), *given], stdout=out, stderr=out)
    with stop.reaching(process):
        try:
            code = process.wait(None if end == float("inf") else max(0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
            return None
    return code if stop.received is None or code == 0 else None


def results(folder: Path, names: Sequence[str]) -> str:
    """A table: one row a name, means over its finished seeds with their standard deviation."""
    from segnet.runs import comparison
    from segnet.tables import Row, markdown, spread

    rows: list[Row] = []
    for name in names:
        runs = comparison.find([str(folder / name)])
        first = runs[0].results
        rows.append(
            {
                "run": name,
                "parameters": first["parameters"],
                "epochs": first["epochs"],
                "seeds": len(runs),
                "validation IoU": spread([run.metric("val/iou") for run in runs], "seeds"),
                "test IoU": spread([run.metric("test/iou") for run in runs], "seeds"),
                "seconds": spread([run.results["seconds"] for run in runs], "seeds", ".0f"),
                "hardware": first["hardware"],
                "precision": first["precision"],
            }
        )
    return markdown(rows) + "\n"


main = command("reproduce")(run)
