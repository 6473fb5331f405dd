"""Time: how many pixels a training may show, and how many epochs, validations and test images fit into minutes."""

import math
from dataclasses import dataclass

from segnet.networks.window import starts
from segnet.recipe.fingerprint import Fingerprint

# What is trained on where no time is given: about twelve minutes of two cores with AVX-512 BF16, or of a GPU's one.
PIXELS = {"cpu": 1.0e9, "gpu": 8.0e9}
AREA, FOR = 128 * 128, 96e6  # see `segnet.recipe.rules.input_size`
MOST = 400  # times an image is shown
SMALLEST = 64  # side of an input, of which five poolings leave two pixels
SAFETY = 0.94  # of the time that is left for training
REPORT, START = 7.0, 4.0  # seconds: of figures and card at the end; of the second set-up before the first step
EPOCH, PANELS = 0.3, 1.0  # seconds: of an epoch beside its steps; of a validation beside its images


@dataclass(frozen=True)
class Speed:
    """Measured on this machine, in seconds.

    Attributes:
        pixel: of a training step, for each pixel of its inputs.
        step: of a training step, whatever its inputs: the optimizer.
        forward: of a validation, for each pixel.
    """

    pixel: float
    step: float
    forward: float


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
        epochs: of the run.
        every: epochs from one validation to the next.
        validations: in all.
        steps: of an epoch that does not show every image; None: all.
        validated: batches of a validation that does not take every image; None: all.
        tested: the same of the test.
        stop: seconds after which training stops whatever it has reached; None: never.
        seconds: that training and validations should take; None: not measured.
        reason: for people.
        own_size: whether the test may compare at the images' own size too.
    """

    epochs: int
    every: int
    validations: int
    steps: int | None
    validated: int | None
    tested: int | None
    stop: int | None
    seconds: float | None
    reason: str
    own_size: bool = True


@dataclass(frozen=True)
class Task:
    """What an epoch and a validation are.

    Attributes:
        size: (height, width) of a validation image.
        shown: (height, width) of a training input, and of the window where there is one.
        windows: whether validation slides that window over the image.
        batch: inputs of a step.
        views: inputs of an epoch.
        most: epochs at most.
    """

    size: tuple[int, int]
    shown: tuple[int, int]
    windows: bool
    batch: int
    views: int
    most: int

    @property
    def seen(self) -> int:
        """Pixels that the network sees of a validation image."""
        if not self.windows:
            return self.size[0] * self.size[1]
        rows, columns = (len(starts(side, own)) for side, own in zip(self.size, self.shown, strict=True))
        return rows * columns * self.shown[0] * self.shown[1]


@dataclass(frozen=True)
class Budget:
    """The time that a recipe may take.

    Args:
        gpu: whether a GPU trains.
        seconds: that are left for all that follows; None: no bound.
        speed: of this machine; needed where there is a bound.
        cores: that decode images.
    """

    gpu: bool = False
    seconds: float | None = None
    speed: Speed | None = None
    cores: int = 1

    @property
    def pixels(self) -> float:
        """That training may show."""
        if self.seconds is None or self.speed is None:
            return PIXELS["gpu" if self.gpu else "cpu"]
        typical = 8 * 192 * 192  # of a step
        return max(0.75 * self.seconds, 1.0) / (self.speed.pixel + self.speed.step / typical)

    def area(self) -> int:
        """Pixels of an input, for `pixels` in all."""
        return max(SMALLEST * SMALLEST, int(AREA * math.sqrt(self.pixels / FOR)))

    def length(self, data: Fingerprint, task: Task, epochs: int | None = None) -> Length:
        """Epochs and validations.

        Args:
            data: the data set.
            task: what an epoch and a validation are.
            epochs: that the user has named; None: as many as fit.
        """
        if self.seconds is None or self.speed is None:
            views = self.pixels / (task.shown[0] * task.shown[1])
            wanted, every = _rhythm(epochs or max(1, min(task.most, round(views / task.views))), 10, epochs is not None)
            reason = f"{wanted * task.views} inputs, about {self.pixels / 1e6:.0f} million pixels"
            if epochs is None and views > task.most * task.views:
                reason = f"{MOST} times all {data.images['train']} images; more would repeat them"
            return Length(wanted, every, wanted // every, None, None, None, None, None, reason)
        return self._fitted(data, task, epochs, self.seconds, self.speed)

    def _fitted(self, data: Fingerprint, task: Task, epochs: int | None, seconds: float, speed: Speed) -> Length:
        """As many epochs as fit, of a part of the images where all of them take too long."""
        image = task.seen * speed.forward
        own = image + data.decode  # once more, at the images' own size, of validation too
        cache = sum(data.images.values()) * data.decode / self.cores
        left = seconds - START - REPORT - cache
        val = data.images["val"] * image
        test = data.images["test"] * (image + own) + data.images["val"] * own
        validated = tested = None
        at_once = 1 if task.windows else task.batch
        if val + test > 0.3 * left:  # at most that share of the time
            test = data.images["test"] * image
            if val > 0.15 * left:
                validated = max(1, int(0.15 * left / image / at_once))
                val = validated * at_once * image
            if test > 0.15 * left:
                tested = max(1, int(0.15 * left / image / at_once))
                test = tested * at_once * image
        own_size = val + test <= 0.3 * left and tested is None and validated is None
        val += PANELS
        left -= test
        step = task.batch * task.shown[0] * task.shown[1] * speed.pixel + speed.step
        count = max(1, min(10, int(0.125 * left / val)))
        usable = max(left * SAFETY - count * val, step)
        steps = math.ceil(task.views / task.batch)
        part = None
        if usable < 4 * (steps * step + EPOCH) and steps > 8:  # too few rounds to see how it goes
            part = max(1, int((usable / min(4, count) - EPOCH) / step))
            part = part if part < steps else None
        whole = (part or steps) * step + EPOCH
        fits = max(1, int(usable / whole))
        wanted, every = _rhythm(epochs or min(task.most, fits), count, epochs is not None)
        validations = f"{wanted // every} validation{'s' if wanted > every else ''} of {val:.1f} s"
        reason = f"{wanted} epochs of {whole:.1f} s and {validations} fit the time"
        if fits > task.most and epochs is None:
            reason = f"{MOST} times all {data.images['train']} images; more would repeat them: time is left"
        stop = max(1, int(seconds - START - REPORT - cache - test - val))
        needs = wanted * whole + (wanted // every) * val
        return Length(wanted, every, wanted // every, part, validated, tested, stop, needs, reason, own_size)


def _rhythm(epochs: int, count: int, given: bool) -> tuple[int, int]:
    """Epochs, and how many of them lie between at most ``count`` validations, the last of which is at the end.

    Where the number of epochs is not given, it may become up to a twentieth smaller.
    """
    if given:
        divisors = [d for d in range(1, epochs + 1) if epochs % d == 0]
        every = next(d for d in divisors if epochs // d <= count)
        if every == epochs and count > 1:  # such as a prime number: more of them, and not only the last
            every = ([1, *divisors])[-2]
        return epochs, every
    validations = next(v for v in range(min(count, epochs), 0, -1) if epochs % v <= 0.05 * epochs)
    return epochs - epochs % validations, epochs // validations
