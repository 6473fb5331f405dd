"""Work beside the network: other threads read what comes next and write what is done, in order and within bounds."""

import math
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Timer
from typing import TypeVar

import torch

THREADS = min(16, os.cpu_count() or 1)  # that read and write images
READ_AHEAD = 2**29  # bytes that images read ahead may take while they are decoded, or a single one
ROOM = 2**30  # bytes of results that may wait to be written

T = TypeVar("T")
Task = tuple[int, Callable[[], T]]  # bytes that it holds, and what to call


@contextmanager
def until_interrupted(seconds: float | None = None) -> Iterator[Event]:
    """An event that Ctrl-C or SIGTERM sets, or the time when it is over, so that what has begun is finished.

    A second signal does what it did before. To be entered by the main thread.
    """
    end = Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupted(number: int, frame: object) -> None:
        end.set()
        signal.signal(number, before[signal.Signals(number)])

    timer = None if seconds is None else Timer(seconds, end.set)
    try:
        for number in before:
            signal.signal(number, interrupted)
        if timer is not None:
            timer.daemon = True
            timer.start()
        yield end
    finally:
        if timer is not None:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
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
