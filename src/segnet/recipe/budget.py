"""Time: how many pixels a training may show, and how many epochs, validations and test images fit into minutes."""

import math
from dataclasses import dataclass

from segnet.recipe.fingerprint import Fingerprint

# What is trained on where no time is given: about twelve minutes of two cores with AVX-512 BF16, or of a GPU's one.
PIXELS = {"cpu": 1.0e9, "gpu": 8.0e9}
AREA, FOR = 128 * 128, 96e6  # see `segnet.recipe.rules.input_size`
MOST = 400  # epochs
SMALLEST = 64  # side of an input, of which five poolings leave two pixels
SAFETY = 0.94  # of the time that is left for training
REPORT, START = 7.0, 4.0  # seconds: of figures and card at the end; of the second set-up before the first step


@dataclass(frozen=True)
class Speed:
    """Measured on this machine, in seconds.

    Attributes:
        pixel: of a training step, for each pixel of its inputs.
        step: of a training step, whatever its inputs: the optimizer.
        forward: of a validation, for each pixel.
        epoch: of each epoch beside its steps.
    """

    pixel: float
    step: float
    forward: float
    epoch: float = 0.3


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

    def length(
        self, data: Fingerprint, size: tuple[int, int], shown: tuple[int, int], batch: int, epochs: int | None = None
    ) -> Length:
        """Epochs and validations.

        Args:
            data: the data set.
            size: (height, width) of validation.
            shown: (height, width) of training.
            batch: images of a step.
            epochs: that the user has named; None: as many as fit.
        """
        train = data.images["train"]
        steps = math.ceil(train / batch)
        if self.seconds is None or self.speed is None:
            views = self.pixels / (shown[0] * shown[1])
            wanted = epochs or max(1, min(MOST, round(views / train)))
            wanted, every = _rhythm(wanted, 10, epochs is not None)
            reason = f"{wanted * train} views of {train} images, about {self.pixels / 1e6:.0f} million pixels"
            if epochs is None and views > MOST * train:
                reason = f"{MOST} rounds of {train} images; more would repeat them"
            return Length(wanted, every, wanted // every, None, None, None, None, None, reason)
        return self._fitted(data, size, shown, batch, steps, epochs)

    def _fitted(
        self,
        data: Fingerprint,
        size: tuple[int, int],
        shown: tuple[int, int],
        batch: int,
        steps: int,
        epochs: int | None,
    ) -> Length:
        assert self.seconds is not None
        assert self.speed is not None
        speed = self.speed
        image = size[0] * size[1] * speed.forward
        cache = sum(data.images.values()) * data.decode / self.cores
        own = data.area * speed.forward * min(1.0, size[0] * size[1] / data.area) + data.decode
        left = self.seconds - START - REPORT - cache
        val, test = data.images["val"] * image, data.images["test"] * (image + own)
        validated = tested = None
        if val + test > 0.3 * left:  # of the time at most
            val, test = min(val, 0.15 * left), data.images["test"] * image
            if val < data.images["val"] * image:
                validated = max(1, int(val / image / batch))
            if test > 0.15 * left:
                test, tested = 0.15 * left, max(1, int(0.15 * left / image / batch))
        val += 1.0  # panels for the dashboard
        left -= test
        step = batch * shown[0] * shown[1] * speed.pixel + speed.step
        count = max(1, min(10, int(0.125 * left / val)))
        usable = max(left * SAFETY - count * val, step)
        whole = steps * step + speed.epoch
        part = None
        if usable < 4 * whole and steps > 8:  # too few rounds for a validation now and then
            rounds = 4 if count >= 4 else count
            part = max(1, int((usable / rounds - speed.epoch) / step))
            if part >= steps:
                part = None
            else:
                whole = part * step + speed.epoch
        wanted, every = _rhythm(epochs or max(1, min(MOST, int(usable / whole))), count, epochs is not None)
        seconds = wanted * whole + (wanted // every) * val
        stop = max(1, int(self.seconds - START - REPORT - cache - test - val))
        reason = f"{wanted} epochs of {whole:.1f} s and {wanted // every} validations of {val:.1f} s fit the time"
        if usable > MOST * whole and epochs is None:
            reason = f"{MOST} rounds of {data.images['train']} images; more would repeat them: the time is not used up"
        return Length(wanted, every, wanted // every, part, validated, tested, stop, seconds, reason)


def _rhythm(epochs: int, count: int, given: bool) -> tuple[int, int]:
    """Epochs, and how many of them lie between at most ``count`` validations, the last of which is at the end.

    Where the number of epochs is not given, it is rounded down.
    """
    if given:
        every = next(d for d in range(1, epochs + 1) if epochs % d == 0 and epochs // d <= count)
        return epochs, every
    every = math.ceil(epochs / count)
    return epochs // every * every, every
