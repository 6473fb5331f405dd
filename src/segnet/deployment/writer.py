"""What `predict.py` reads and writes: images and videos in, masks, overlays and a table out, batch by batch."""

import csv
import glob
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from segnet.data.images import EXTENSIONS, read_rgb
from segnet.deployment.measures import Row, areas, grey, score
from segnet.deployment.pipeline import ROOM, Task, ahead, threads
from segnet.deployment.predictor import Prediction, Predictor
from segnet.deployment.video import VIDEOS, is_video, predict_video
from segnet.errors import UserError
from segnet.visualization.overlays import overlay, palette, save

THREADS = min(16, os.cpu_count() or 1)  # that read and write images


def find(given: str) -> list[Path]:
    """Files that a path, a folder or a glob names, sorted; images and videos only.

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
        raise UserError(f"input={given}: no image or video there; give a file, a folder or a quoted glob")
    stems: dict[str, Path] = {}
    for file in sorted(files):
        if (other := stems.setdefault(file.stem, file)) != file:
            raise UserError(
                f"input={given}: {other} and {file} would both become {file.stem}.png; predict them separately"
            )
    return sorted(files)


def write(predictor: Predictor, files: Sequence[Path], cfg: DictConfig) -> None:
    """Predict in batches, while other threads read what comes next and write what is done.

    At most `_ahead_of` images are read ahead, and as many results (together below `ROOM`, or a single one) wait to be
    written, so memory does not grow with the number of files. Rows come in the order of the files; within a batch
    videos come first. An interruption leaves whole files, and the rows of all images predicted before.

    ``milliseconds`` of an image is its share of the time that its batch took in the predictor: resizing, network,
    averaging, the way to a GPU and back, but neither reading nor writing, which happen meanwhile on the same CPU. Of a
    video it is the whole time, decoding and encoding included, over the number of frames.

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
        threads(THREADS) as pool,
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
    images = [path for path in files if not is_video(path)]
    read = ahead(pool, ((0, partial(_read, path)) for path in images), _ahead_of(cfg.batch_size))
    for start in range(0, len(files), cfg.batch_size):
        batch = {}
        for path in files[start : start + cfg.batch_size]:
            found = predict_video(predictor, path, folder, table) if is_video(path) else next(read)
            if isinstance(found, UserError):
                failed.append(str(found))
            elif isinstance(found, list):
                yield 0, partial(list, found)
            else:
                batch[path] = found
        begin = time.perf_counter()
        predictions = predictor(list(batch.values()))
        millis = (time.perf_counter() - begin) * 1e3 / max(len(batch), 1)
        for (path, image), prediction in zip(batch.items(), predictions, strict=True):
            call = partial(_save, folder, path, image, prediction, model.classes, table, cfg, millis)
            yield prediction.probabilities.nbytes + image.nbytes, call


def _read(path: Path) -> NDArray[np.uint8] | UserError:
    """The image, or the error that is reported when its turn comes."""
    try:
        return read_rgb(path)
    except UserError as error:
        return error


def _save(
    folder: Path,
    path: Path,
    image: NDArray[np.uint8],
    prediction: Prediction,
    classes: Sequence[str],
    table: NDArray[np.uint8],
    cfg: DictConfig,
    millis: float,
) -> Row:
    mask, binary = prediction.mask(), len(classes) == 1
    save(folder / f"{path.stem}.png", mask * np.uint8(255) if binary else mask)
    if cfg.overlay:
        save(folder / f"{path.stem}_overlay.png", overlay(image, mask, table, binary))
    if cfg.probabilities:
        save(folder / f"{path.stem}_prob.png", grey(prediction.confidence()))
    row = [str(path), *areas(mask, len(classes)), f"{score(prediction):.4f}", f"{millis:.1f}"]
    if prediction.variance is not None:
        entropy = prediction.entropy()
        save(folder / f"{path.stem}_entropy.png", grey(entropy))
        save(folder / f"{path.stem}_variance.png", grey(4 * prediction.variance))
        row += [f"{entropy.mean():.5f}", f"{prediction.variance.mean():.6f}"]
    return row
