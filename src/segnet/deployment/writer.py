"""What `predict.py` reads and writes: images and videos in, masks, overlays and a table out, batch by batch."""

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
from segnet.deployment.measures import areas, grey
from segnet.deployment.pipeline import READ_AHEAD, ROOM, THREADS, Task, ahead, threads
from segnet.deployment.prediction import Prediction
from segnet.deployment.predictor import Predictor
from segnet.deployment.results import Result, Results, file_names, of_image
from segnet.deployment.video import is_video, predict_video
from segnet.errors import UserError, printable
from segnet.visualization.overlays import overlay, palette, save

DRAWN = 5  # times an image's bytes: it, its overlay, mask, their encoding
TOGETHER = 2**26  # pixels of a batch; larger images are predicted one by one


def write(predictor: Predictor, files: Sequence[Path], cfg: DictConfig) -> int:
    """Predict in batches, while other threads read what comes next and write what is done.

    At most `_ahead_of` images are read ahead, and as many results (together below `ROOM`, or a single one) wait to be
    written, so memory does not grow with the number of files. Rows come in the order of the files; within a batch
    videos come first. An interruption leaves whole files, and in them all images predicted before.

    ``milliseconds`` of an image is its share of the time that its batch took in the predictor: resizing, network,
    averaging, the way to a GPU and back, but neither reading nor writing, which happen meanwhile on the same CPU. Of a
    video it is the whole time, decoding and encoding included, over the number of frames.

    Returns:
        How many files are defective.

    Raises:
        UserError: at once, where two files would become the same; at the end, naming those that could not be read.
    """
    folder = Path(cfg.output_dir)
    check_outputs(files, maps(predictor, cfg))
    folder.mkdir(parents=True, exist_ok=True)
    failed: dict[Path, str] = {}
    with (
        Results(folder, titles(predictor), predictor.model.classes) as results,
        tqdm(total=len(files), desc="predict", unit="file", disable=None) as bar,
        threads(THREADS) as pool,
    ):
        tasks = predicted(predictor, files, folder, cfg, pool, failed)
        for result in ahead(pool, tasks, _ahead_of(cfg.batch_size), ROOM, finish=True):
            results.add(result)
            bar.update()
        bar.update(len(failed))
    left = f"{len(failed)} that could not be read" if failed else "none"
    print(f"{len(files) - len(failed)} of {len(files)} files used; left out: {left}")
    print("\n".join(results.told()))
    print(f"written to {folder}")
    if failed:
        for told in failed.values() if len(failed) > 5 else ():
            print(printable(told), file=sys.stderr)
        raise UserError(f"{len(failed)} of {len(files)} files could not be read: {'; '.join([*failed.values()][:5])}")
    return results.counts["defective"]


def maps(predictor: Predictor, cfg: DictConfig) -> list[str]:
    """What is written beside each mask, such as ``overlay`` for ``<name>_overlay.png``."""
    return (
        ["overlay"] * cfg.overlay + ["prob"] * cfg.probabilities + ["entropy", "variance"] * bool(predictor.mc_samples)
    )


def titles(predictor: Predictor) -> list[str]:
    """Of predictions.csv, up to the verdict."""
    columns = [f"{unit}_{name}" for name in predictor.model.classes for unit in ("pixels", "percent")]
    return ["file", *columns, "score", "milliseconds", *["entropy", "variance"] * bool(predictor.mc_samples)]


def _ahead_of(batch_size: int) -> int:
    """How far reading and writing may be from the network: two batches, and work for every thread."""
    return max(2 * batch_size, THREADS)


def predicted(
    predictor: Predictor,
    files: Sequence[Path],
    folder: Path,
    cfg: DictConfig,
    pool: Executor,
    failed: dict[Path, str],
    first: int = 1,
) -> Iterator[Task[Result]]:
    """Of every file that can be read what is left to do once it is predicted: write the masks, say what is there.

    What cannot be read goes into ``failed`` with the reason; ``first`` is the number of the first image.
    """
    model = predictor.model
    table = palette(len(model.classes), model.colors)
    images = [path for path in files if not is_video(path)]
    names = file_names(files)
    numbers = {path: number for number, path in enumerate(images, first)}
    bits = getattr(model, "bits", None)
    read = ahead(
        pool, ((_bytes(path), partial(_read, path, bits)) for path in images), _ahead_of(cfg.batch_size), READ_AHEAD
    )

    def results(batch: dict[Path, NDArray[np.uint8]]) -> Iterator[Task[Result]]:
        begin = time.perf_counter()
        predictions = predictor(list(batch.values()))
        millis = (time.perf_counter() - begin) * 1e3 / len(batch)
        for path, prediction in zip(list(batch), predictions, strict=True):
            image = batch.pop(path)
            entry = numbers[path], names[path]
            call = partial(_save, folder, path, image, prediction, model.classes, table, cfg, millis, entry)
            yield prediction.probabilities.nbytes + DRAWN * image.nbytes, call

    for start in range(0, len(files), cfg.batch_size):
        batch: dict[Path, NDArray[np.uint8]] = {}
        for path in files[start : start + cfg.batch_size]:
            if batch and sum(image.nbytes for image in batch.values()) + _pixels(path) * 3 > TOGETHER * 3:
                yield from results(batch)
            found = predict_video(predictor, path, folder, table) if is_video(path) else next(read)
            if isinstance(found, UserError):
                failed[path] = str(found)
            elif isinstance(found, Result):
                yield 0, partial(Result, **vars(found))
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
    entry: tuple[int, str],
) -> Result:
    (mask, score), binary = prediction.decided(), len(classes) == 1
    save(folder / f"{path.stem}.png", mask * np.uint8(255) if binary else mask)
    if cfg.overlay:
        save(folder / f"{path.stem}_overlay.png", overlay(image, mask, table, binary))
    if cfg.probabilities:
        save(folder / f"{path.stem}_prob.png", grey(prediction.confidence()))
    row = [str(path), *areas(mask, len(classes)), f"{score:.4f}", f"{millis:.1f}"]
    if prediction.variance is not None:
        entropy = prediction.entropy()
        save(folder / f"{path.stem}_entropy.png", grey(entropy))
        save(folder / f"{path.stem}_variance.png", grey(4 * prediction.variance))
        row += [f"{entropy.mean():.5f}", f"{prediction.variance.mean():.6f}"]
    return of_image(row, mask, prediction.probabilities.numpy(), classes, *entry, cfg.segmentation)
