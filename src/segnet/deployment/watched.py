"""A folder that is watched: each image or video that appears in it is predicted once, when it is whole."""

import os
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from segnet.data.decoding import EXTENSIONS
from segnet.data.listing import is_hidden, split_off
from segnet.deployment import writer
from segnet.deployment.inputs import Outputs
from segnet.deployment.pipeline import ROOM, THREADS, ahead, threads, until_interrupted
from segnet.deployment.predictor import Predictor
from segnet.deployment.results import Results
from segnet.deployment.video import VIDEOS
from segnet.errors import UserError, printable

POLL = 0.2  # seconds between two looks, and at least ten times as long as one takes
SETTLED = 0.5  # seconds without a change after which a file counts as whole


@dataclass
class _State:
    signature: tuple[int, int] | None  # size and time of the last change; None: it cannot be asked
    since: float
    given: bool = False


class WatchedFolder:
    """Files of a folder as they become whole.

    A file is given once its size and time have not changed for `SETTLED` seconds, and never again, even if it is
    replaced; only one that could not be read is given again when it has changed. Sub-folders are not looked into.

    Args:
        root: the folder.

    Attributes:
        failed: files that could not be read, with the reason; whoever reads them writes it here.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.failed: dict[Path, str] = {}
        self._states: dict[str, _State] = {}

    def ready(self) -> list[Path]:
        """Files that have become whole since the last call, in the order of their names.

        Raises:
            OSError: the folder is gone.
        """
        now, found = time.monotonic(), []
        names = sorted(filter(_wanted, os.listdir(self.root)))  # noqa: PTH208 (called often)
        for name in names:
            state, path = self._states.get(name), self.root / name
            if state is not None and state.given and path not in self.failed:
                continue
            try:
                status = path.stat()
            except OSError:  # just gone, or a link to nothing yet
                self._states[name] = _State(None, now)
                continue
            signature = status.st_size, status.st_mtime_ns
            if state is None or state.signature != signature:
                self._states[name] = _State(signature, now)
            elif (
                not state.given and now - state.since >= SETTLED and (signature[0] or not stat.S_ISREG(status.st_mode))
            ):
                state.given = True
                self.failed.pop(path, None)
                found.append(path)
        there = set(names)
        for name in [name for name, state in self._states.items() if not state.given and name not in there]:
            del self._states[name]  # gone before it was whole
        return found

    def put_back(self, files: Sequence[Path]) -> None:
        """Files that were given, and not used."""
        for file in files:
            self._states[file.name].given = False

    @property
    def waiting(self) -> list[str]:
        """Names of files that are there and were not given, or put back."""
        return [name for name, state in self._states.items() if not state.given and self.root / name not in self.failed]


def _wanted(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in (*EXTENSIONS, *VIDEOS) and not is_hidden(name)  # noqa: PTH122


def predict_watched(predictor: Predictor, cfg: DictConfig) -> int:
    """Predict what is in the folder ``input`` and what appears in it, until Ctrl-C or SIGTERM, or for `live.seconds`.

    Returns:
        How many files are defective.

    Raises:
        UserError: at the end, naming files that could not be read.
        OSError: the folder is gone; then everything before is written.
    """
    watched, folder = WatchedFolder(Path(str(cfg.input))), Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"watching {watched.root}, results go to {folder}; Ctrl-C ends", flush=True)
    outputs = Outputs(writer.maps(predictor, cfg))
    some, first = max(2 * cfg.batch_size, THREADS), 1  # files between two looks at ``end``
    with (
        until_interrupted(cfg.live.seconds) as end,
        Results(folder, writer.titles(predictor), predictor.model.classes) as results,
        tqdm(desc="watch", unit="file", disable=None) as bar,
        threads(THREADS) as pool,
    ):
        try:
            while not end.is_set():
                begin = time.monotonic()
                ready = watched.ready()
                took = time.monotonic() - begin
                for start in range(0, len(ready), some):
                    if end.is_set():
                        watched.put_back(ready[start:])
                        break
                    given = ready[start : start + some]
                    files = [file for file in given if _claimed(outputs, file, watched)]
                    tasks = (
                        writer.predicted(predictor, files, folder, cfg, pool, watched.failed, first) if files else ()
                    )
                    for result in ahead(pool, tasks, some, ROOM, finish=True):
                        results.add(result)
                        bar.update()
                    first += len(files)
                    for file in given:
                        if file in watched.failed:
                            tqdm.write(printable(f"left out: {watched.failed[file]}"), file=sys.stderr)
                end.wait(max(POLL, 10 * took))
        finally:
            print("\n".join([*_told(watched, results), f"written to {folder}"]), flush=True)
    if watched.failed:
        reasons = "; ".join([*watched.failed.values()][:5])
        total = len(watched.failed) + sum(results.counts.values())
        raise UserError(f"{len(watched.failed)} of {total} files could not be read: {reasons}")
    return results.counts["defective"]


def _claimed(outputs: Outputs, file: Path, watched: WatchedFolder) -> bool:
    try:
        outputs.claim(file)
    except UserError as error:
        watched.failed[file] = str(error)
    return file not in watched.failed


def _told(watched: WatchedFolder, results: Results) -> list[str]:
    left = []
    if watched.failed:
        left.append(f"{len(watched.failed)} that could not be read")
    if watched.waiting:
        left.append(f"{len(watched.waiting)} that were not whole or not predicted yet ({watched.waiting[0]})")
    if watched.root.is_dir():
        _, others = split_off(watched.root.iterdir(), watched.root, (*EXTENSIONS, *VIDEOS))
        left += others
    used = sum(results.counts.values())
    return [printable(f"{used} files used; left out: {', '.join(left) or 'none'}"), *results.told()]
