"""Single samples on their way into batches: random transforms, order, stacking.

A batch is ``{"image": uint8 (N, 3, H, W) RGB channels-last, "mask": uint8 (N, H, W), "index": int64 (N,)}``;
the mask holds class indices and `IGNORE_INDEX`.
"""

import os
import signal
import threading
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from segnet.data import cache
from segnet.data.transforms import Transforms
from segnet.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would look for updates online

Batch = dict[str, torch.Tensor]


def seed_of(seed: int, epoch: int, index: int, draw: int) -> int:
    """Seed of the random transforms of one sample, in 0..2³²−1."""
    return zlib.crc32(f"{seed} {epoch} {index} {draw}".encode())


class Samples(Dataset[Batch]):
    """Images and masks by ``(epoch, index, draw)``; random transforms depend on these and the seed only.

    So a rerun draws the same, each epoch and each further draw of an image anew, and the number of workers changes
    nothing.
    """

    def __init__(
        self,
        load: Callable[[int], cache.Arrays],
        indices: Sequence[int],
        augment: Sequence[Any] = (),
        seed: int = 0,
    ) -> None:
        self.load = load
        self.indices = indices
        self.seed = seed
        self.augment = Transforms(augment) if augment else None

    def __len__(self) -> int:
        return len(self.indices)

    def pair(self, epoch: int, i: int, draw: int) -> cache.Arrays:
        """What is transformed: image uint8 (H, W, 3) and mask uint8 (H, W)."""
        return self.load(self.indices[i])

    def __getitem__(self, key: tuple[int, ...] | int) -> Batch:
        epoch, i, draw, *kind = key if isinstance(key, tuple) else (0, key, 0)
        image, mask = self.pair(epoch, i, draw, *kind)
        if self.augment is not None:
            image, mask = self.augment(image, mask, seed_of(self.seed, epoch, i, draw))
        # A copy: the memory map is read-only, and a tensor over it would not be.
        return {
            "image": torch.from_numpy(np.array(image)),
            "mask": torch.from_numpy(np.array(mask)),
            "index": torch.tensor(i),
        }


class Ranked(Sampler[tuple[int, ...]], ABC):
    """Yields ``(epoch, image, draw)``, and what else an order says; ranks share out an epoch without overlap.

    Args:
        seed: of the order.
        rank: of this process.
        world: how many processes there are.
        epoch: tells the epoch of a run whenever an order is drawn; None: it is what `set_epoch` last said.
    """

    def __init__(self, seed: int, rank: int, world: int, epoch: Callable[[], int] | None) -> None:
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch, self._epoch_of_run = 0, epoch

    def set_epoch(self, epoch: int) -> None:
        """Say the epoch, where no run tells it."""
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int:
        """Draws of this process in an epoch."""

    @abstractmethod
    def order(self, rng: np.random.Generator) -> Iterable[tuple[int, ...]]:
        """The image of every draw of an epoch, in all processes together, and what else is to be said of it."""

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        epoch = self.epoch if self._epoch_of_run is None else self._epoch_of_run()
        drawn: Counter[int] = Counter()
        keys: list[tuple[int, ...]] = []
        for image, *more in self.order(np.random.default_rng((self.seed, epoch))):
            keys.append((epoch, image, drawn[image], *more))
            drawn[image] += 1
        return iter((keys[self.rank :: self.world] or keys[:1])[: len(self)])  # of fewer images than ranks the first


class EpochSampler(Ranked):
    """Draws every image of a split once in an epoch, or the rare ones more often.

    Args:
        length: images of the split, and of an epoch.
        seed: as of `Ranked`, and so are ``rank``, ``world`` and ``epoch``.
        shuffle: draw a new order in every epoch.
        positive: (length,) bool, which images are the rare ones; None draws every image once.
        share: of rare ones in an epoch. Within a kind, no image is drawn twice more often than another.

    Raises:
        UserError: all are rare, or none.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world: int = 1,
        positive: NDArray[np.bool_] | None = None,
        share: float = 0.5,
        epoch: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(seed, rank, world, epoch)
        self.length, self.shuffle, self.positive, self.share = length, shuffle, positive, share
        if positive is not None and (positive.all() or not positive.any()):
            raise UserError(
                f"data.positive_share={share}: {positive.sum()} of {length} training images show the class (of "
                f"several, any but the first), so there is nothing to balance; set it to null"
            )

    def __len__(self) -> int:
        if self.shuffle:  # training: equal shares, because ranks step together
            return max(1, self.length // self.world) if self.length else 0
        return len(range(self.rank, self.length, self.world))

    def order(self, rng: np.random.Generator) -> Iterator[tuple[int]]:
        """The image of every draw."""
        order = np.arange(self.length)
        if self.shuffle:
            order = order if self.positive is None else self._balanced(rng)
            rng.shuffle(order)
        return ((image,) for image in order.tolist())

    def _balanced(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """(length,) images in no order: every kind in turns, a new permutation of it for each turn."""
        assert self.positive is not None
        rare = min(max(1, round(self.share * self.length)), self.length - 1)  # of two images, one of each kind
        parts = [(np.flatnonzero(self.positive), rare), (np.flatnonzero(~self.positive), self.length - rare)]
        turns = [[rng.permutation(kind) for _ in range(-(-count // len(kind)))] for kind, count in parts]
        return np.concatenate([np.concatenate(turn)[:count] for turn, (_, count) in zip(turns, parts, strict=True)])


def epoch_of(trainer: "Trainer") -> int:
    """The epoch that a run is in or about to begin: ``current_epoch`` is one behind when it is being resumed."""
    return int(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]


class Loader(DataLoader[Batch]):
    """Draws its order, and starts its workers, when the first batch is asked for.

    Lightning makes the iterator of the first epoch early, a resumed run's before it knows which epoch that is.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        yield from super().__iter__()


def collate(items: Sequence[Batch]) -> Batch:
    """Stack samples; images become (N, 3, H, W) in channels-last memory without moving a byte."""
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    if get_worker_info() is not None:
        # The queue to the main process would do it in a thread, whose errors are lost: the loader would wait for ever.
        for tensor in batch.values():
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    batch["image"] = batch["image"].permute(0, 3, 1, 2)
    return batch


def processes(count: int) -> dict[str, Any]:
    """Arguments of a loader with so many processes: they are kept between epochs, and `shield` themselves."""
    # They inherit the data set by the fork; it could not be sent to them.
    context = "fork" if count else None
    keep = {"persistent_workers": count > 0, "worker_init_fn": shield}
    return {"num_workers": count, "multiprocessing_context": context, **keep}


def shield(worker: int) -> None:
    """Leave the end of a loader's process to the main process: signals that a whole group is sent do nothing here.

    Slurm, ``timeout`` and Ctrl-C signal every process of a run. The main process finishes its step and ends the others.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_on_request, daemon=True).start()


def _end_on_request() -> None:
    """Wait for a SIGTERM of the main process, with which torch and Python end a loader's process."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
