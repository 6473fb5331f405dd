"""Cameras and streams: frames that come whether or not they are wanted, of which the newest one counts."""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segnet.data.decoding import MAX_PIXELS
from segnet.deployment.video import frame_rate, open_video
from segnet.errors import UserError, printable

CAMERA = "camera:"
# Options of FFmpeg by the scheme of an address: what it may open beside it (a stream could name other addresses), and
# of HTTP one format only, images one after another, as cameras send them. A playlist is not opened.
_RTSP = "rtsp_flags;prefer_tcp|protocol_whitelist;rtsp,rtp,tcp,udp,tls,srtp,http,https"
_HTTP = "input_format;mpjpeg|protocol_whitelist;http,https,tcp,tls"
SCHEMES = {"rtsp": _RTSP, "rtsps": _RTSP, "http": _HTTP, "https": _HTTP}
OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"  # OpenCV's; those of the user's come behind ours
SECONDS = 10.0  # to open a source, and to wait for a frame
STEADY = 10.0  # seconds after which a connection counts as good, so that its loss is a new one
LONGEST = 30.0  # seconds between two tries


def is_live(given: str) -> bool:
    """Whether an input is ``camera:…`` or the address of a stream."""
    return given.startswith(CAMERA) or given.partition("://")[0].lower() in SCHEMES


def without_password(given: str) -> str:
    """An address as it may be printed and kept."""
    given = re.sub(r"(?<=://)(?:[^/?#]*@|[^/?#@:]*:\S*@)", "***@", given)  # may hold an @, or wrongly a /
    return re.sub(r"(?i)((?:password|passwd|pass|pwd)=)[^&\s]*", r"\1***", given)


class Camera:
    """A source of frames.

    Args:
        given: ``camera:0`` for /dev/video0, ``camera:<video>`` for a video file that is played at its own speed in
            place of a camera, or an address: ``rtsp://``, ``rtsps://``, or MJPEG by ``http://`` and ``https://``.
        tries: to connect again to an address that was lost.

    Attributes:
        name: for people, without a password.

    Raises:
        UserError: it cannot be opened.
    """

    def __init__(self, given: str, tries: int = 0) -> None:
        self.name = f"input={printable(without_password(given))}"
        self._given, self._place = given, given.removeprefix(CAMERA)
        self._address = not given.startswith(CAMERA)
        self._tries = tries if self._address else 0
        self._file = not self._address and not self._place.isdecimal()
        if not self._place or (self._file and not Path(self._place).exists()):
            raise UserError(f"{self.name}: no such camera; give camera:<number>, such as camera:0 for /dev/video0")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong is said in one line
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        self._reader = self._opened()
        if not self._reader.isOpened():
            raise UserError(f"{self.name}: {self._reason()}")

    def _opened(self) -> cv2.VideoCapture:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(1e3 * SECONDS)]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(1e3 * SECONDS)]
        if self._file:
            return open_video(Path(self._place))
        if not self._address:
            return cv2.VideoCapture(int(self._place), cv2.CAP_V4L2)
        with _options(SCHEMES[self._given.partition("://")[0].lower()]):
            return cv2.VideoCapture(self._given, cv2.CAP_FFMPEG, limits)

    def _reason(self) -> str:
        if self._address:
            return f"no stream there, or none within {SECONDS:.0f} s; check the address, user and password"
        device = Path(f"/dev/video{int(self._place)}")
        if not device.exists():
            there = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*")))
            return f"there is no {device}; {f'choose one of {there}' if there else 'connect a camera'}"
        return f"{device} cannot be opened; close other programs that use it, and check that you may read it (ls -l)"

    def frames(self, end: Event) -> Iterator[NDArray[np.uint8]]:
        """BGR (H, W, 3) frames as they come, until ``end`` is set or a video is over. To be called once.

        Raises:
            UserError: the source gives no more frames, or too large ones.
        """
        failed = count = 0
        reader = self._reader
        while True:
            begin, before = time.monotonic(), count
            try:
                for frame in self._read(reader, end):
                    count += 1
                    yield frame
            finally:
                reader.release()
            if end.is_set() or (self._file and count):
                return
            if count > before and time.monotonic() - begin > STEADY:
                failed = 0
            if failed == self._tries:
                again = f", and {failed} tries to connect again failed" if failed else ""
                raise UserError(f"{self.name}: gives no more frames after {count}{again}; is it still connected?")
            wait = min(2.0**failed, LONGEST)
            failed += 1
            told = f"{self.name}: connection lost after {count} frames; try {failed} of {self._tries} in {wait:.0f} s"
            tqdm.write(told, file=sys.stderr)
            if end.wait(wait):
                return
            reader = self._opened()

    def _read(self, reader: cv2.VideoCapture, end: Event) -> Iterator[NDArray[np.uint8]]:
        start, period, read = time.monotonic(), 1 / frame_rate(reader), 0
        while not end.is_set():
            got, frame = reader.read()
            if not got:
                return
            if frame.shape[0] * frame.shape[1] > MAX_PIXELS:
                raise UserError(
                    f"{self.name}: frames of {frame.shape[1]}×{frame.shape[0]}, more than the limit of "
                    f"{MAX_PIXELS:,} pixels; set the camera to a smaller size"
                )
            if self._file:
                end.wait(max(0.0, start + read * period - time.monotonic()))
            read += 1
            yield frame  # type: ignore[misc]


@contextmanager
def _options(text: str) -> Iterator[None]:
    """FFmpeg's options for what is opened in the block."""
    before = os.environ.get(OPTIONS)
    os.environ[OPTIONS] = f"{text}|{before}" if before else text
    try:
        yield
    finally:
        os.environ.pop(OPTIONS)
        if before is not None:
            os.environ[OPTIONS] = before


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        number: among all that were read, from 1.
        time: when it was read, in UTC.
        image: uint8 RGB (H, W, 3).
    """

    number: int
    time: datetime
    image: NDArray[np.uint8]


class Newest:
    """The newest frame of a camera whenever one is wanted; a thread reads on meanwhile, and drops those in between.

    One frame waits at most, so memory does not grow however slow the reader of this is. The frame that waits when a
    video is over is still given.

    Args:
        frames: BGR, such as `Camera.frames`; they are drawn by the thread.
        end: ends it; frames that wait then are dropped.

    Attributes:
        read: frames so far.
        dropped: those that nobody got, as a newer one came. The others were given: ``read - dropped``.
    """

    def __init__(self, frames: Iterator[NDArray[np.uint8]], end: Event) -> None:
        self._frames, self._end = frames, end
        self.read = self.dropped = 0
        self._waiting: tuple[int, datetime, Any] | None = None
        self._error: BaseException | None = None
        self._over = False
        self._changed = Condition()
        self._thread = Thread(target=self._draw, daemon=True)

    def _draw(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    self.dropped += self._waiting is not None
                    self.read += 1
                    self._waiting = self.read, datetime.now(UTC), frame
                    self._changed.notify()
        except BaseException as error:  # raised where the frames are taken
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify()

    def __iter__(self) -> Iterator[Frame]:
        self._thread.start()
        try:
            while (taken := self._take()) is not None:
                number, at, frame = taken
                yield Frame(number, at, np.ascontiguousarray(frame[..., ::-1]))
        finally:
            self._end.set()
            self._thread.join(SECONDS + 1)  # a stream that is silent lets go of it then
            self.dropped += self._waiting is not None
            self._waiting = None
        if self._error is not None:
            raise self._error

    def _take(self) -> tuple[int, datetime, Any] | None:
        with self._changed:
            while self._waiting is None and not self._over and not self._end.is_set():
                self._changed.wait(0.1)  # a signal sets ``end``, and must not wait for this lock
            if self._end.is_set():
                return None
            taken, self._waiting = self._waiting, None
            return taken
