"""What `predict.py` reads and writes: pictures and videos in, masks, overlays and a table out, batch by batch."""

import csv
import glob
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from segnet.data.images import EXTENSIONS, read_rgb
from segnet.deployment.predictor import Prediction, Predictor
from segnet.errors import UserError
from segnet.visualization.overlays import overlay, palette, save

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")


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
    """Predict in batches and write each result at once, so that memory does not grow with the number of files.

    Raises:
        UserError: at the end, naming the files that could not be read.
    """
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    model = predictor.model
    table = palette(len(model.classes), model.colors)
    failed: list[str] = []
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        columns = [f"{unit}_{name}" for name in model.classes for unit in ("pixels", "percent")]
        header = ["file", *columns, "score", "milliseconds"]
        header += ["entropy", "variance"] if predictor.mc_samples else []
        writer.writerow(header)
        with tqdm(total=len(files), desc="predict", unit="file") as bar:
            for start in range(0, len(files), cfg.batch_size):
                part = files[start : start + cfg.batch_size]
                for row in _batch(predictor, part, folder, table, cfg, failed):
                    writer.writerow(row + [""] * (len(header) - len(row)))  # a video has no maps
                file.flush()
                bar.update(len(part))
    print(f"written to {folder}")
    if failed:
        raise UserError(f"{len(failed)} of {len(files)} files could not be read: {'; '.join(failed[:5])}")


def _batch(
    predictor: Predictor,
    files: Sequence[Path],
    folder: Path,
    table: NDArray[np.uint8],
    cfg: DictConfig,
    failed: list[str],
) -> list[list[Any]]:
    rows = []
    pictures = {}
    for path in files:
        try:
            if path.suffix.lower() in VIDEOS:
                rows.append(_video(predictor, path, folder, table))
            else:
                pictures[path] = read_rgb(path)
        except ValueError as error:
            failed.append(str(error))
    start = time.perf_counter()
    found = predictor(list(pictures.values()))
    millis = (time.perf_counter() - start) * 1e3 / max(len(pictures), 1)
    for (path, picture), prediction in zip(pictures.items(), found, strict=True):
        mask, binary = prediction.mask(), len(predictor.model.classes) == 1
        save(folder / f"{path.stem}.png", mask * np.uint8(255) if binary else mask)
        if cfg.overlay:
            save(folder / f"{path.stem}_overlay.png", overlay(picture, mask, table, binary))
        if cfg.probabilities:
            save(folder / f"{path.stem}_prob.png", grey(prediction.confidence()))
        row = [str(path), *areas(mask, len(predictor.model.classes)), f"{score(prediction):.4f}", f"{millis:.1f}"]
        if prediction.variance is not None:
            entropy = prediction.entropy()
            save(folder / f"{path.stem}_entropy.png", grey(entropy))
            save(folder / f"{path.stem}_variance.png", grey(4 * prediction.variance))
            row += [f"{entropy.mean():.5f}", f"{prediction.variance.mean():.6f}"]
        rows.append(row)
    return rows


def grey(values: Tensor) -> NDArray[np.uint8]:
    """0..1 (H, W) as grey levels 0..255."""
    return values.mul(255).round().clamp(0, 255).byte().numpy()


def areas(mask: NDArray[np.uint8], classes: int) -> list[Any]:
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


def _video(predictor: Predictor, path: Path, folder: Path, table: NDArray[np.uint8]) -> list[Any]:
    """Write ``<name>_overlay.mp4`` frame by frame; the row holds mean areas over the frames."""
    if not _valid_utf8(path) or not _valid_utf8(folder):
        raise UserError(f"{path}: OpenCV opens no video whose path is not valid UTF-8; rename it")
    reader = cv2.VideoCapture(str(path))
    if not reader.isOpened():
        raise UserError(f"{path}: cannot be read as a video; replace or remove it")
    size = (int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    code = cv2.VideoWriter.fourcc(*"mp4v")
    out = cv2.VideoWriter(str(folder / f"{path.stem}_overlay.mp4"), code, reader.get(cv2.CAP_PROP_FPS) or 25.0, size)
    classes, frames, start = len(predictor.model.classes), 0, time.perf_counter()
    sums = np.zeros(classes)
    best = 0.0
    while True:
        got, frame = reader.read()
        if not got:
            break
        picture = np.ascontiguousarray(frame[..., ::-1])
        (prediction,) = predictor([picture])  # type: ignore[list-item]
        mask = prediction.mask()
        sums += [float(a) for a in areas(mask, classes)[::2]]
        best = max(best, score(prediction))
        out.write(np.ascontiguousarray(overlay(picture, mask, table, classes == 1)[..., ::-1]))  # type: ignore[arg-type]
        frames += 1
    reader.release()
    out.release()
    if frames == 0:
        raise UserError(f"{path}: holds no frame that can be decoded; replace or remove it")
    means = [v for s in sums / frames for v in (round(s), f"{100 * s / (size[0] * size[1]):.3f}")]
    return [str(path), *means, f"{best:.4f}", f"{(time.perf_counter() - start) * 1e3 / frames:.1f}"]
