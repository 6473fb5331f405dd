"""Signals that a process passes on to those that it has started."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_parent: int | None = None  # of a process of joblib's


class Stop:
    """Passes SIGTERM and SIGUSR1 on to the processes that train, which stop cleanly; further ones stop at once.

    Ctrl-C they get from the terminal themselves.

    Attributes:
        received: the signal that has come, None before.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.running: set[subprocess.Popen[bytes]] = set()

    @classmethod
    @contextmanager
    def on_signals(cls) -> "Iterator[Stop]":
        """Take the signals over inside the block, which the main thread enters."""
        stop = cls()
        before = {number: signal.signal(number, stop._note) for number in (signal.SIGTERM, signal.SIGUSR1)}
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.received = number
        for process in tuple(self.running):
            process.send_signal(number)

    @contextmanager
    def reaching(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Inside the block, the process gets what has come or comes."""
        self.running.add(process)
        if self.received is not None:  # between the decision to begin it and here
            process.send_signal(self.received)
        try:
            yield
        finally:
            self.running.discard(process)


def stop_with_parent() -> None:
    """In a process that another has started, such as joblib's: get SIGUSR1 when that one ends, however it ends.

    A training stops cleanly then, instead of going on alone, also where it has had SIGTERM as well. Linux only.
    """
    global _parent
    if multiprocessing.current_process().name != "MainProcess" and sys.platform == "linux":
        _parent = _parent or os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)


def leave(code: int) -> NoReturn:
    """End the process; one that has lost its parent at once, or it would wait for further jobs, and do them."""
    if _parent not in (None, os.getppid()):
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
