"""``budget_ms``: the widest network that answers in time, found by measuring; nothing is trained.

All widths are scaled by one factor, as in Howard et al., "MobileNets", 2017, section 3.3. How long a network takes does
not depend on its weights, so networks with random weights are exported and timed, one image after another.
"""

import statistics
import time
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from segnet.deployment import exported_model
from segnet.deployment.exported_model import ExportedModel
from segnet.deployment.form import Form
from segnet.deployment.formats import FORMATS
from segnet.errors import UserError
from segnet.files import ending_on_sigterm
from segnet.training.module import SegmentationModule

PARTS = range(4, 33)  # the factors are these over the last one, 32
WARM_UP, RUNS, SECONDS = 3, 15, 0.5  # images before the clock starts; at least so many, for at least so long, with it


@dataclass(frozen=True)
class Latency:
    """Milliseconds from image to probabilities, of one image at a time.

    Attributes:
        median: of the runs.
        low: the lower quartile.
        high: the upper quartile.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.1f} ms (quartiles {self.low:.1f} to {self.high:.1f})"


def scaled(widths: Sequence[int], part: int) -> list[int]:
    """Each width times ``part`` over the last of `PARTS`, at least 1."""
    return [max(1, round(width * part / PARTS[-1])) for width in widths]


def widest(widths: Sequence[int], budget: float, measured: Callable[[list[int]], Latency]) -> tuple[list[int], Latency]:
    """The widest network within the budget, and how long it takes, by bisection: five measurements of 29 networks.

    Args:
        widths: of the network that is scaled, which is the widest that is tried.
        budget: milliseconds.
        measured: of a network of these widths.

    Raises:
        UserError: the narrowest takes longer.
    """
    found: dict[int, Latency] = {}

    def median(part: int) -> float:
        found[part] = measured(scaled(widths, part))
        return found[part].median

    count = bisect(PARTS, budget, key=median)
    if count == 0:
        least = PARTS[0]
        given = ",".join(map(str, scaled(widths, least)))
        raise UserError(
            f"budget_ms={budget:g}: model.net.widths=[{given}], the narrowest that is tried, takes {found[least]}; "
            f"allow more, or set a smaller data.image_size"
        )
    return scaled(widths, PARTS[count - 1]), found[PARTS[count - 1]]


def measure(module: SegmentationModule, runtime: str) -> Latency:
    """How long a network takes for an image of its own size, in float32, with as many threads as torch has.

    Args:
        module: the network, on the CPU.
        runtime: ``pytorch``, or a format of `segnet.deployment.formats`, exported for this size and one image.

    Raises:
        UserError: the runtime is not installed.
    """
    image = torch.randint(0, 256, (1, 3, *module.image_size), dtype=torch.uint8)
    # One thread's own time, which other programs do not lengthen; of several threads, or another process, wall time.
    alone = torch.get_num_threads() == 1 and runtime != "onnx"
    timed = partial(_timed, time.process_time if alone else time.perf_counter)
    if runtime == "pytorch":
        return timed(lambda: module.eval().probabilities(module(image)))
    kind = FORMATS[runtime]
    about = {"classes": module.classes, "colors": None, "image_size": list(module.image_size)}
    with ending_on_sigterm(), TemporaryDirectory() as folder:
        path = Path(folder) / f"model{kind.suffix}"
        try:
            exported_model.write(module.eval(), path, about, Form(module.image_size, 1))
            return timed(partial(ExportedModel(path, trusted=True), image))
        except ModuleNotFoundError as error:
            raise UserError(f"runtime={runtime}: {error}; pip install 'segnet-lightning[{kind.extra}]'") from error


@torch.no_grad()
def _timed(clock: Callable[[], float], run: Callable[[], object]) -> Latency:
    for _ in range(WARM_UP):
        run()
    found: list[float] = []
    while len(found) < RUNS or sum(found) < 1000 * SECONDS:
        start = clock()
        run()
        found.append(1000 * (clock() - start))
    low, median, high = statistics.quantiles(found, n=4)
    return Latency(median, low, high)
