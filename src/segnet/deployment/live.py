"""A camera or a stream, predicted frame by frame as fast as the network can, always the newest frame.

The folder holds as much after a year as after a day: the newest overlay, the newest defective frames, and a table that
begins anew when it is full.
"""

import csv
import math
import time
from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from segnet.data.listing import amount
from segnet.decisions import predicted_objects
from segnet.decisions.operating_point import VERDICTS, verdict
from segnet.deployment.measures import Row, areas
from segnet.deployment.pipeline import threads, until_interrupted
from segnet.deployment.prediction import Prediction
from segnet.deployment.predictor import Predictor
from segnet.deployment.sources import Camera, Frame, Newest
from segnet.errors import UserError
from segnet.files import cells
from segnet.visualization.overlays import overlay, palette, save

LATEST = "latest.jpg"
DEFECTIVE = "defective"  # the folder of frames that are kept
RATED = 20  # frames over which their rate is taken
FONT, WIDEST = cv2.FONT_HERSHEY_SIMPLEX, "defective  000 objects  00.0 fps"  # so the size of letters rarely changes
COLOURS = {"good": (20, 120, 40), "defective": (190, 20, 40)}


def predict_live(predictor: Predictor, cfg: DictConfig) -> int:
    """Predict frames of ``input`` until the source is over, `live.seconds` have passed, or Ctrl-C or SIGTERM comes.

    A thread reads, this one runs the network, and another one draws and writes; each waits for the next one, and what
    the first has read in the meantime is dropped, except for the newest frame. All frames are counted.

    Returns:
        How many frames are defective.

    Raises:
        UserError: the source cannot be opened, or is lost; then everything before is written.
    """
    if cfg.probabilities:
        raise UserError("probabilities=true: is for files; of a camera only masks and overlays are kept; leave it out")
    camera = Camera(str(cfg.input), cfg.live.tries)
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{camera.name}: the newest overlay is {folder / LATEST}; Ctrl-C ends", flush=True)
    with (
        until_interrupted(cfg.live.seconds) as end,
        Record(predictor, folder, cfg) as record,
        tqdm(desc="live", unit="frame", disable=None) as bar,
    ):
        frames = Newest(camera.frames(end), end)
        try:
            _follow(predictor, frames, record, bar)
        finally:
            print("\n".join(record.told(frames)), flush=True)
            print(f"written to {folder}", flush=True)
    return record.counts["defective"]


def _follow(predictor: Predictor, frames: Newest, record: "Record", bar: Any) -> None:
    with threads(1) as pool:
        before: Future[None] | None = None
        try:
            for frame in frames:
                begin = time.perf_counter()
                (prediction,) = predictor([frame.image])
                millis = (time.perf_counter() - begin) * 1e3
                if before is not None:
                    before.result()  # one result waits to be written at most, and an error ends it
                before = pool.submit(record.add, frame, prediction, millis)
                bar.set_postfix_str(f"{record.rate():.1f} per second, {frames.dropped} dropped", refresh=False)
                bar.update()
        finally:
            if before is not None:
                before.result()


@dataclass
class Record:
    """What is written of the frames: the newest overlay, the newest defective frames, a row for each.

    Args:
        predictor: for its classes and colours.
        folder: of all of it.
        cfg: its ``overlay`` and ``live``.

    Attributes:
        counts: frames by verdict.
    """

    predictor: Predictor
    folder: Path
    cfg: DictConfig
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))

    def __enter__(self) -> Self:
        model = self.predictor.model
        self._binary = len(model.classes) == 1
        self._table = palette(len(model.classes), model.colors)
        self._times: deque[float] = deque(maxlen=RATED)
        self._kept: deque[list[Path]] = deque()
        self._begin = time.monotonic()
        self._stack = ExitStack()
        self._new_table()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _new_table(self) -> None:
        """Begin a table; the one before stays as predictions_before.csv."""
        self._stack.close()
        path = self.folder / "predictions.csv"
        if self.counts["good"] + self.counts["defective"]:
            path.replace(path.with_name("predictions_before.csv"))
        self._out: IO[str] = self._stack.enter_context(path.open("w", newline="", encoding="utf-8"))
        columns = [f"{unit}_{name}" for name in self.predictor.model.classes for unit in ("pixels", "percent")]
        self._rows = 0
        self._write(["time", "frame", *columns, "score", "milliseconds", "delay", "verdict", "objects"])

    def _write(self, row: Row) -> None:
        csv.writer(self._out).writerow(cells(row))
        self._out.flush()

    def rate(self) -> float:
        """Frames per second, over the last `RATED`."""
        times = list(self._times)
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0

    def add(self, frame: Frame, prediction: Prediction, millis: float) -> None:
        """Write what is said of a frame; ``millis`` is the time of the prediction.

        ``delay`` in the table is the time from its reading until its verdict is there, in milliseconds.
        """
        mask, score = prediction.decided()
        decided, count = verdict(mask), len(predicted_objects(mask, prediction.probabilities.numpy()))
        self._times.append(time.monotonic())
        delay = f"{(time.time() - frame.time.timestamp()) * 1e3:.0f}"
        row = [
            frame.time.isoformat(timespec="milliseconds"),
            frame.number,
            *areas(mask, len(self.predictor.model.classes)),
        ]
        if self._rows == self.cfg.live.rows:
            self._new_table()
        self._rows += 1
        self.counts[decided] += 1
        self._write([*row, f"{score:.4f}", f"{millis:.1f}", delay, decided, count])
        drawn = overlay(frame.image, mask, self._table, self._binary) if self.cfg.overlay else frame.image
        save(
            self.folder / LATEST,
            banner(drawn, f"{decided}  {amount(count, 'object')}  {self.rate():.1f} fps", COLOURS[decided]),
        )
        if decided == "defective" and self.cfg.live.keep:
            self._keep(frame, mask, drawn)

    def _keep(self, frame: Frame, mask: NDArray[np.uint8], drawn: NDArray[np.uint8]) -> None:
        name = self.folder / DEFECTIVE / f"{frame.number:09d}"
        name.parent.mkdir(exist_ok=True)
        files = {
            name.with_name(f"{name.name}_frame.png"): frame.image,
            name.with_suffix(".png"): mask * np.uint8(255) if self._binary else mask,
        }
        if self.cfg.overlay:
            files[name.with_name(f"{name.name}_overlay.png")] = drawn
        for path, image in files.items():
            save(path, image)
        self._kept.append(list(files))
        while len(self._kept) > self.cfg.live.keep:
            for path in self._kept.popleft():
                path.unlink(missing_ok=True)

    def told(self, frames: Newest) -> list[str]:
        """Lines for people."""
        done = sum(self.counts.values())
        seconds = time.monotonic() - self._begin
        lines = [
            f"{frames.read} frames read, {done} predicted ({done / seconds:.1f} per second), {frames.read - done} "
            f"dropped as a newer one had come, or it was ended"
        ]
        lines.append(f"{self.counts['good']} frames good, {self.counts['defective']} defective")
        if self.counts["defective"] > len(self._kept):
            lines.append(f"the newest {len(self._kept)} of the defective are in {DEFECTIVE}/ (live.keep)")
        return lines


def banner(image: NDArray[np.uint8], text: str, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A copy of an image (H, W, 3) with a line of ASCII below it in white on ``colour``, as wide as the image."""
    width, scale, length = image.shape[1], 2.0, math.inf
    while length > 0.95 * width and scale > 0.1:  # sizes do not grow evenly with the scale
        scale *= 0.9
        thick = max(1, round(1.5 * scale))
        (length, height), base = cv2.getTextSize(max(text, WIDEST, key=len), FONT, scale, thick)
    strip = np.empty((2 * (height + base), width, 3), np.uint8)
    strip[:] = colour
    at = (round(0.025 * width), base // 2 + round(1.5 * height))
    cv2.putText(strip, text, at, FONT, scale, (255, 255, 255), thick, cv2.LINE_AA)
    return np.concatenate([image, strip])
