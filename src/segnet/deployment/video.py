"""Videos, predicted frame by frame."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segnet.data.decoding import MAX_PIXELS, check_regular
from segnet.decisions import predicted_objects
from segnet.decisions.operating_point import VERDICTS
from segnet.deployment.measures import areas
from segnet.deployment.pipeline import ROOM, Task, ahead, threads
from segnet.deployment.prediction import Prediction
from segnet.deployment.predictor import Predictor
from segnet.deployment.results import Result
from segnet.errors import UserError
from segnet.visualization.overlays import overlay

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
# How these files begin: at a byte, with one of these. OpenCV goes by the content; a playlist would open other files.
BEGIN = ((4, (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")), (8, (b"AVI ",)), (0, (b"\x1a\x45\xdf\xa3",)))
FRAMES = 8  # decoded ahead of the network, and as many behind it


def is_video(path: Path) -> bool:
    """Whether the suffix is a video's."""
    return path.suffix.lower() in VIDEOS


def _valid_utf8(path: Path) -> bool:
    """False for a name of other bytes, which Python holds as lone surrogates and OpenCV crashes on."""
    return not any("\ud800" <= character <= "\udfff" for character in str(path))


def open_video(path: Path) -> cv2.VideoCapture:
    """A video file to read from.

    Raises:
        UserError: it is no regular file, no video, or its frames have too many pixels.
    """
    if not _valid_utf8(path):
        raise UserError(f"{path}: OpenCV cannot open a video whose path is not valid UTF-8; rename it")
    try:
        check_regular(path)
        with path.open("rb") as file:
            start_of_file = file.read(12)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    known = any(start_of_file[at:].startswith(words) for at, words in BEGIN)
    reader = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG) if known else None
    if reader is None or not reader.isOpened():
        raise UserError(f"{path}: cannot be read as a video; replace or remove it")
    size = _size(reader)
    if size[0] * size[1] > MAX_PIXELS:
        raise UserError(f"{path}: frames of {size[0]}×{size[1]}, more than the limit of {MAX_PIXELS:,} pixels")
    return reader


def _size(reader: cv2.VideoCapture) -> tuple[int, int]:
    """Width and height of the frames."""
    return int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))


def frame_rate(reader: cv2.VideoCapture) -> float:
    """Frames a second, 25 where the file says none that can be: some containers give their clock's rate instead."""
    rate = reader.get(cv2.CAP_PROP_FPS)
    return rate if math.isfinite(rate) and 1 <= rate <= 1000 else 25.0


def predict_video(predictor: Predictor, path: Path, folder: Path, table: NDArray[np.uint8]) -> Result | UserError:
    """Write ``<name>_overlay.mp4`` frame by frame; the row holds mean areas over the frames.

    The video is defective if a frame is; its score is the highest of a frame, its objects are the most in one.

    One thread decodes the frames in their order and another draws and encodes them in it, while the network computes.
    """
    try:
        reader = open_video(path)
        if not _valid_utf8(folder):
            raise UserError(f"{folder}: OpenCV cannot write a video to a path that is not valid UTF-8; rename it")
    except UserError as error:
        return error
    size = _size(reader)
    code = cv2.VideoWriter.fourcc(*"mp4v")
    out = cv2.VideoWriter(str(folder / f"{path.stem}_overlay.mp4"), code, frame_rate(reader), size)
    if not out.isOpened():
        reader.release()
        return UserError(f"{path}: OpenCV cannot write its overlay, {size[0]}×{size[1]}; convert the video to MP4")
    classes, frames, start = len(predictor.model.classes), 0, time.perf_counter()
    sums = np.zeros(classes)
    best, most = 0.0, 0

    def draw(image: NDArray[np.uint8], prediction: Prediction) -> tuple[list[float], float, int]:
        mask, score = prediction.decided()
        out.write(np.ascontiguousarray(overlay(image, mask, table, classes == 1)[..., ::-1]))  # type: ignore[arg-type]
        return (
            [float(a) for a in areas(mask, classes)[::2]],
            score,
            len(predicted_objects(mask, prediction.probabilities.numpy())),
        )

    def predicted(decoding: Executor) -> Iterator[Task[tuple[list[float], float, int]]]:
        for got, frame in ahead(decoding, repeat((0, reader.read)), FRAMES):
            if not got:
                return
            image = np.ascontiguousarray(frame[..., ::-1])
            (prediction,) = predictor([image])  # type: ignore[list-item]
            yield prediction.probabilities.nbytes, partial(draw, image, prediction)  # type: ignore[arg-type]

    try:
        with threads(1) as decoding, threads(1) as encoding:
            for pixels, highest, count in ahead(encoding, predicted(decoding), FRAMES, ROOM):
                sums += pixels
                best, most = max(best, highest), max(most, count)
                frames += 1
    finally:
        reader.release()
        out.release()
    if frames == 0:
        return UserError(f"{path}: has no frame that can be decoded; replace or remove it")
    means = [v for s in sums / frames for v in (round(s), f"{100 * s / (size[0] * size[1]):.3f}")]
    row = [str(path), *means, f"{best:.4f}", f"{(time.perf_counter() - start) * 1e3 / frames:.1f}"]
    return Result(row, VERDICTS[most > 0], most)
