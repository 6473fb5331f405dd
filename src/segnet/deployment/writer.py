"""What `predict.py` reads and writes: images and videos in, masks, overlays and a table out, batch by batch."""

import csv
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from segnet import environment
from segnet.data.decoding import header
from segnet.data.images import read_rgb
from segnet.deployment.inputs import check_outputs
from segnet.deployment.inputs import find as find
from segnet.deployment.measures import Row, areas, grey, score
from segnet.deployment.pipeline import READ_AHEAD as READ_AHEAD
from segnet.deployment.pipeline import ROOM, Task, ahead, threads
from segnet.deployment.pipeline import THREADS as THREADS
from segnet.deployment.predictor import Prediction, Predictor
from segnet.deployment.video import is_video, predict_video
from segnet.errors import UserError, printable
from segnet.files import cells
from segnet.visualization.overlays import overlay, palette, save

DRAWN = 5  # times an image's bytes: it, its overlay, mask, their encoding
TOGETHER = 2**26  # pixels of a batch; larger images are predicted one by one


def write(predictor: Predictor, files: Sequence[Path], cfg: DictConfig) -> None:
    """Predict in batches, while other threads read what comes next and write what is done.

    At most `_ahead_of` images are read ahead, and as many results (together below `ROOM`, or a single one) wait to be
    written, so memory does not grow with the number of files. Rows come in the order of the files; within a batch
    videos come first. An interruption leaves whole files, and the rows of all images predicted before.

    ``milliseconds`` of an image is its share of the time that its batch took in the predictor: resizing, network,
    averaging, the way to a GPU and back, but neither reading nor writing, which happen meanwhile on the same CPU. Of a
    video it is the whole time, decoding and encoding included, over the number of frames.

    Raises:
        UserError: at once, where two files would become the same; at the end, naming those that could not be read.
    """
    folder = Path(cfg.output_dir)
    maps = (
        ["overlay"] * cfg.overlay + ["prob"] * cfg.probabilities + ["entropy", "variance"] * bool(predictor.mc_samples)
    )
    check_outputs(files, maps)
    folder.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    classes = predictor.model.classes
    columns = [f"{unit}_{name}" for name in classes for unit in ("pixels", "percent")]
    titles = ["file", *columns, "score", "milliseconds"]
    titles += ["entropy", "variance"] if predictor.mc_samples else []
    with (
        (folder / "predictions.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        tqdm(total=len(files), desc="predict", unit="file", disable=None) as bar,
        threads(THREADS) as pool,
    ):
        writer = csv.writer(file)
        writer.writerow(cells(titles))
        tasks = _predicted(predictor, files, folder, cfg, pool, failed)
        for row in ahead(pool, tasks, _ahead_of(cfg.batch_size), ROOM, finish=True):
            writer.writerow(cells(row + [""] * (len(titles) - len(row))))  # a video has no maps
            file.flush()
            bar.update()
        bar.update(len(failed))
    left = f"{len(failed)} that could not be read" if failed else "none"
    print(f"{len(files) - len(failed)} of {len(files)} files used; left out: {left}")
    print(f"written to {folder}")
    if failed:
        for told in failed if len(failed) > 5 else ():
            print(printable(told), file=sys.stderr)
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
    bits = getattr(model, "bits", None)
    read = ahead(
        pool, ((_bytes(path), partial(_read, path, bits)) for path in images), _ahead_of(cfg.batch_size), READ_AHEAD
    )

    def results(batch: dict[Path, NDArray[np.uint8]]) -> Iterator[Task[Row]]:
        begin = time.perf_counter()
        predictions = predictor(list(batch.values()))
        millis = (time.perf_counter() - begin) * 1e3 / len(batch)
        for path, prediction in zip(list(batch), predictions, strict=True):
            image = batch.pop(path)
            call = partial(_save, folder, path, image, prediction, model.classes, table, cfg, millis)
            yield prediction.probabilities.nbytes + DRAWN * image.nbytes, call

    for start in range(0, len(files), cfg.batch_size):
        batch: dict[Path, NDArray[np.uint8]] = {}
        for path in files[start : start + cfg.batch_size]:
            if batch and sum(image.nbytes for image in batch.values()) + _pixels(path) * 3 > TOGETHER * 3:
                yield from results(batch)
            found = predict_video(predictor, path, folder, table) if is_video(path) else next(read)
            if isinstance(found, UserError):
                failed.append(str(found))
            elif isinstance(found, list):
                yield 0, partial(list, found)
            else:
                batch[path] = found
            del found  # else it would stay while the next is read
        if batch:
            yield from results(batch)


def _pixels(path: Path) -> int:
    """Pixels that an image's header promises; 0 of a video and of what cannot be read."""
    if is_video(path):
        return 0
    try:
        height, width, _ = header(path)
    except UserError:
        return 0
    return height * width


def _bytes(path: Path) -> int:
    """What decoding takes at its peak: Pillow has four bytes a pixel, the array three.

    Blocks as large as those of large images go back to the kernel when they are freed; kept, they would pile up.
    """
    size = 7 * _pixels(path)
    if size > READ_AHEAD:
        environment.keep_freed_memory(keep=False)
    return size


def _read(path: Path, bits: int | None) -> NDArray[np.uint8] | UserError:
    """The image, or the error that is reported when its turn comes."""
    try:
        return read_rgb(path) if bits is None else read_rgb(path, bits=bits)
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
