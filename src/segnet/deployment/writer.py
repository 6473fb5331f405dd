"""What `predict.py` reads and writes: pictures and videos in, masks, overlays and a table out, batch by batch."""

import csv
import glob
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from segnet.data.images import EXTENSIONS, read_rgb
from segnet.deployment.predictor import Prediction, Predictor
from segnet.errors import UserError
from segnet.visualization.overlays import overlay, palette, save

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
THREADS = min(16, os.cpu_count() or 1)  # that read and write images
FRAMES = 8  # of a video, decoded ahead of the network, and as many behind it
ROOM = 2**30  # bytes of results that may wait to be written

T = TypeVar("T")
Task = tuple[int, Callable[[], T]]  # bytes that it holds, and what to call
Row = list[Any]


def find(given: str) -> list[Path]:
    """Files that a path, a folder or a glob names, sorted; pictures and videos only.

    Raises:
        UserError: nothing is there.
        UserError: two files would write the same mask.
    """
    path = Path(given)
    if path.is_dir():
        files = [p for p in path.iterdir() if p.suffix.lower() in (*EXTENSIONS, *VIDEOS)]
    elif path.is_file():
        files = [path]
    else:
        files = [p for p in map(Path, glob.glob(given, recursive=True)) if p.is_file()]  # noqa: PTH207 (may be absolute)
    if not files:
        raise UserError(f"input={given}: no picture or video there; give a file, a folder or a quoted glob")
    stems: dict[str, Path] = {}
    for file in sorted(files):
        if (other := stems.setdefault(file.stem, file)) != file:
            raise UserError(f"input={given}: {other} and {file} would both become {file.stem}.png; predict them apart")
    return sorted(files)


def write(predictor: Predictor, files: Sequence[Path], cfg: DictConfig) -> None:
    """Predict in batches, while other threads read what comes next and write what is done.

    At most `_ahead_of` images are read ahead, and as many results (together below `ROOM`, or a single one) wait to be
    written, so memory does not grow with the number of files. Rows come in the order of the files; within a batch
    videos come first. An interruption leaves whole files, and the rows of all images predicted before.

    ``milliseconds`` of an image is its share of the time that its batch took in the predictor: resizing, network,
    averaging, the way to a GPU and back, but neither reading nor writing, which go on meanwhile and take their share of
    the CPU. Of a video it is the whole time, decoding and encoding included, over the number of frames.

    Raises:
        UserError: at the end, naming the files that could not be read.
    """
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    classes = predictor.model.classes
    columns = [f"{unit}_{name}" for name in classes for unit in ("pixels", "percent")]
    header = ["file", *columns, "score", "milliseconds"]
    header += ["entropy", "variance"] if predictor.mc_samples else []
    with (
        (folder / "predictions.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        tqdm(total=len(files), desc="predict", unit="file") as bar,
        _threads(THREADS) as pool,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        tasks = _predicted(predictor, files, folder, cfg, pool, failed)
        for row in ahead(pool, tasks, _ahead_of(cfg.batch_size), ROOM, finish=True):
            writer.writerow(row + [""] * (len(header) - len(row)))  # a video has no maps
            file.flush()
            bar.update()
        bar.update(len(failed))
    print(f"written to {folder}")
    if failed:
        raise UserError(f"{len(failed)} of {len(files)} files could not be read: {'; '.join(failed[:5])}")


def _ahead_of(batch_size: int) -> int:
    """How far reading and writing may be from the network: two batches, and work for every thread."""
    return max(2 * batch_size, THREADS)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose tensor operators stay in them: all cores belong to the network, and to other threads.

    Where an error or Ctrl-C ends it, what has begun is finished and the rest dropped.
    """
    cores = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # each thread has a number of its own, but later ones get the one set last


def ahead(
    pool: Executor, tasks: Iterable[Task[T]], most: int, room: float = math.inf, finish: bool = False
) -> Iterator[T]:
    """Results of tasks in their order, while the pool works on those that follow.

    Args:
        pool: what runs them.
        tasks: bytes that one holds, and the call; drawn one by one in the caller's thread.
        most: tasks that have been handed to the pool and whose results nobody took.
        room: bytes of those; a single one may hold more.
        finish: where drawing a task or waiting ends in an error or Ctrl-C, give the results of the earlier ones first.
    """
    waiting: deque[tuple[int, Future[T]]] = deque()

    def oldest() -> T:
        result = waiting[0][1].result()  # it stays in the queue while Ctrl-C may come
        waiting.popleft()
        return result

    try:
        for size, call in tasks:
            waiting.append((size, pool.submit(call)))
            while len(waiting) > most or sum(size for size, _ in waiting) > room:
                yield oldest()
    except (Exception, KeyboardInterrupt):
        while finish and waiting:
            yield oldest()
        raise
    while waiting:
        yield oldest()


def _predicted(
    predictor: Predictor,
    files: Sequence[Path],
    folder: Path,
    cfg: DictConfig,
    pool: Executor,
    failed: list[str],
) -> Iterator[Task[Row]]:
    """Of every file that can be read what is left to do once it is predicted: write the results, give the row."""
    model = predictor.model
    table = palette(len(model.classes), model.colors)
    pictures = [path for path in files if not _is_video(path)]
    read = ahead(pool, ((0, partial(_read, path)) for path in pictures), _ahead_of(cfg.batch_size))
    for start in range(0, len(files), cfg.batch_size):
        batch = {}
        for path in files[start : start + cfg.batch_size]:
            found = _video(predictor, path, folder, table) if _is_video(path) else next(read)
            if isinstance(found, UserError):
                failed.append(str(found))
            elif isinstance(found, list):
                yield 0, partial(list, found)
            else:
                batch[path] = found
        begin = time.perf_counter()
        predictions = predictor(list(batch.values()))
        millis = (time.perf_counter() - begin) * 1e3 / max(len(batch), 1)
        for (path, picture), prediction in zip(batch.items(), predictions, strict=True):
            call = partial(_save, folder, path, picture, prediction, model.classes, table, cfg, millis)
            yield prediction.probabilities.nbytes + picture.nbytes, call


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def _read(path: Path) -> NDArray[np.uint8] | UserError:
    """The image, or what is wrong with it, to be told in its turn."""
    try:
        return read_rgb(path)
    except UserError as error:
        return error


def _save(
    folder: Path,
    path: Path,
    picture: NDArray[np.uint8],
    prediction: Prediction,
    classes: Sequence[str],
    table: NDArray[np.uint8],
    cfg: DictConfig,
    millis: float,
) -> Row:
    mask, binary = prediction.mask(), len(classes) == 1
    save(folder / f"{path.stem}.png", mask * np.uint8(255) if binary else mask)
    if cfg.overlay:
        save(folder / f"{path.stem}_overlay.png", overlay(picture, mask, table, binary))
    if cfg.probabilities:
        save(folder / f"{path.stem}_prob.png", grey(prediction.confidence()))
    row = [str(path), *areas(mask, len(classes)), f"{score(prediction):.4f}", f"{millis:.1f}"]
    if prediction.variance is not None:
        entropy = prediction.entropy()
        save(folder / f"{path.stem}_entropy.png", grey(entropy))
        save(folder / f"{path.stem}_variance.png", grey(4 * prediction.variance))
        row += [f"{entropy.mean():.5f}", f"{prediction.variance.mean():.6f}"]
    return row


def grey(values: Tensor) -> NDArray[np.uint8]:
    """0..1 (H, W) as grey levels 0..255."""
    return values.mul(255).round().clamp(0, 255).byte().numpy()


def areas(mask: NDArray[np.uint8], classes: int) -> Row:
    """Pixels and per cent of each class in turn (binary: of the defect)."""
    counts = np.bincount(mask.ravel(), minlength=max(classes, 2))[-classes:] if classes == 1 else np.bincount(
        mask.ravel(), minlength=classes
    )  # fmt: skip
    return [value for count in counts for value in (int(count), f"{100 * count / mask.size:.3f}")]


def score(prediction: Prediction) -> float:
    """Highest probability of a defect (binary), or the mean of the chosen classes' probabilities."""
    confidence = prediction.confidence()
    return float(confidence.max() if len(prediction.probabilities) == 1 else confidence.mean())


def _valid_utf8(path: Path) -> bool:
    """False for a name of other bytes, which Python holds as lone surrogates and OpenCV crashes on."""
    return not any("\ud800" <= character <= "\udfff" for character in str(path))


def _video(predictor: Predictor, path: Path, folder: Path, table: NDArray[np.uint8]) -> Row | UserError:
    """Write ``<name>_overlay.mp4`` frame by frame; the row holds mean areas over the frames.

    One thread decodes the frames in their order and another draws and encodes them in it, while the network computes.
    """
    if not _valid_utf8(path) or not _valid_utf8(folder):
        return UserError(f"{path}: OpenCV opens no video whose path is not valid UTF-8; rename it")
    reader = cv2.VideoCapture(str(path))
    if not reader.isOpened():
        return UserError(f"{path}: cannot be read as a video; replace or remove it")
    size = (int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    code = cv2.VideoWriter.fourcc(*"mp4v")
    out = cv2.VideoWriter(str(folder / f"{path.stem}_overlay.mp4"), code, reader.get(cv2.CAP_PROP_FPS) or 25.0, size)
    classes, frames, start = len(predictor.model.classes), 0, time.perf_counter()
    sums = np.zeros(classes)
    best = 0.0

    def draw(picture: NDArray[np.uint8], prediction: Prediction) -> tuple[list[float], float]:
        mask = prediction.mask()
        out.write(np.ascontiguousarray(overlay(picture, mask, table, classes == 1)[..., ::-1]))  # type: ignore[arg-type]
        return [float(a) for a in areas(mask, classes)[::2]], score(prediction)

    def predicted(decoding: Executor) -> Iterator[Task[tuple[list[float], float]]]:
        for got, frame in ahead(decoding, repeat((0, reader.read)), FRAMES):
            if not got:
                return
            picture = np.ascontiguousarray(frame[..., ::-1])
            (prediction,) = predictor([picture])  # type: ignore[list-item]
            yield prediction.probabilities.nbytes, partial(draw, picture, prediction)  # type: ignore[arg-type]

    try:
        with _threads(1) as decoding, _threads(1) as encoding:
            for pixels, highest in ahead(encoding, predicted(decoding), FRAMES, ROOM):
                sums += pixels
                best = max(best, highest)
                frames += 1
    finally:
        reader.release()
        out.release()
    if frames == 0:
        return UserError(f"{path}: holds no frame that can be decoded; replace or remove it")
    means = [v for s in sums / frames for v in (round(s), f"{100 * s / (size[0] * size[1]):.3f}")]
    return [str(path), *means, f"{best:.4f}", f"{(time.perf_counter() - start) * 1e3 / frames:.1f}"]
