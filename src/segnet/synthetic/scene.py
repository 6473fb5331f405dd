"""Drawing and photographing a scene: flat shapes with a colour and a height, one light, a lens, a sensor.

Coordinates are in image sides (0..1, x to the right, y down).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Points = NDArray[np.float64]  # (N, 2) x, y in image sides
Colour = tuple[float, float, float]  # RGB, 0..255

SHIFT = 4  # fractional bits of the coordinates handed to cv2
ROUND = np.linspace(0, 2 * np.pi, 72, endpoint=False)


@dataclass
class Scene:
    """An image in the making: layers uint8 (S, S, 4) R, G, B, height; mask uint8 (S, S)."""

    layers: Bytes
    mask: Bytes

    def fill(self, outline: Points, colour: Colour, height: float, mark: bool = False) -> None:
        """Fill a closed outline; mark writes it to the mask too."""
        points = [np.rint(outline * (len(self.mask) << SHIFT)).astype(np.int32)]
        cv2.fillPoly(self.layers, points, (*colour, height), cv2.LINE_AA, SHIFT)
        if mark:
            self.mark(outline, 255)

    def mark(self, outline: Points, value: int) -> None:
        """Fill a closed outline in the mask alone, hard-edged."""
        points = [np.rint(outline * (len(self.mask) << SHIFT)).astype(np.int32)]
        cv2.fillPoly(self.mask, points, (value,), cv2.LINE_8, SHIFT)

    def stroke(self, path: Points, width: float, colour: Colour, height: float, mark: bool = False) -> None:
        """Draw an open path of the given width with round joints; mark as in fill."""
        points = [np.rint(path * (len(self.mask) << SHIFT)).astype(np.int32)]
        pixels = max(1, round(width * len(self.mask)))
        cv2.polylines(self.layers, points, False, (*colour, height), pixels, cv2.LINE_AA, SHIFT)
        if mark:
            cv2.polylines(self.mask, points, False, (255,), pixels, cv2.LINE_8, SHIFT)


def polar(centre: Points, radius: Points, angle: Points) -> Points:
    """Convert polar coordinates (N,), (N,) about centre (2,) to float (N, 2)."""
    return np.asarray(centre + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1))


def blob(rng: Generator, centre: Points, radius: float, rough: float) -> Points:
    """Make a nearly round closed outline (72, 2); rough is the relative amplitude."""
    waves = np.arange(2, 9)[:, None]
    bumps = np.sin(waves * ROUND + rng.uniform(0, 2 * np.pi, (7, 1))) / np.sqrt(waves)
    return polar(centre, radius * (1 + (rng.normal(0, rough, (7, 1)) * bumps).sum(0)), ROUND)


def vary(rng: Generator, colour: Colour, amount: float, gain: float = 1) -> Colour:
    """Scale a colour by gain and a random brightness, add a slight cast, clip to 0..255."""
    gain *= rng.normal(1, amount)
    red, green, blue = (
        min(max(c * gain * k, 0.0), 255.0) for c, k in zip(colour, rng.normal(1, amount / 5, 3), strict=True)
    )
    return red, green, blue


def pick(rng: Generator, colours: tuple[Colour, ...]) -> Colour:
    """Take one of the colours, slightly varied."""
    return vary(rng, colours[int(rng.integers(len(colours)))], 0.07)


def table(rng: Generator, size: int, centre: Points, radius: float, sheath: Colour) -> Bytes:
    """Draw the blurred table and the cable's body behind its face: RGB uint8 (size, size, 3)."""
    small = max(8, size // 4)  # out of focus, so a quarter of the size is enough
    base = vary(rng, (rng.uniform(44, 104),) * 3, 0.2)
    rough = cv2.resize(rng.normal(0, 0.13, (5, 5)), (small, small), interpolation=cv2.INTER_CUBIC)
    rough = 1 + rough + rng.normal(0, 0.06, (small, 1 if rng.random() < 0.4 else small))
    layers = np.clip(rough[..., None] * np.array([*base, 0]), 0, 255).astype(np.uint8)
    scene, lean = Scene(layers, np.zeros((small, small), np.uint8)), rng.uniform(0, 2 * np.pi, 1)
    away = polar(np.zeros(2), rng.uniform(0.015, 0.045, 1), lean)[0]
    for step, gain in ((1.35, 0.25), (1.0, 0.42), (0.5, 0.55)):
        body = blob(rng, centre + away * step, radius * (0.95 + 0.05 * step), 0.003)
        scene.fill(body, vary(rng, sheath, 0.02, gain), 0)
    soft = cv2.GaussianBlur(scene.layers, (0, 0), max(0.6, small * 0.011))
    return np.asarray(cv2.resize(soft, (size, size)), np.uint8)[..., :3]


def noise(rng: Generator, rows: int, columns: int) -> NDArray[np.float32]:
    """Draw uniform noise in -1..1, float32 (rows, columns); much cheaper than normal draws."""
    raw = np.frombuffer(rng.bytes(rows * columns), np.uint8).reshape(rows, columns)
    return np.asarray(raw * np.float32(2 / 255) - np.float32(1), np.float32)


def shade(rng: Generator, height: NDArray[np.float32], lx: float, ly: float) -> cv2.typing.MatLike:
    """Compute the slow light, float32 like height (S, S): falloff, occlusion, shadow, stains."""
    size = len(height)
    small = max(8, size // 4)  # none of it has detail, so a quarter of the size is enough
    low = cv2.resize(height, (small, small), interpolation=cv2.INTER_AREA)
    veil = cv2.GaussianBlur(low, (0, 0), small * 0.022)
    move = np.array([[1, 0, lx * small * 0.016], [0, 1, ly * small * 0.016]])
    cast = cv2.warpAffine(cv2.GaussianBlur(low, (0, 0), small * 0.008), move, (small, small))
    y, x = np.mgrid[:small, :small] / small - 0.5
    fall = rng.uniform(0.9, 1.12) - rng.uniform(0.1, 0.45) * (lx * x + ly * y)
    fall -= rng.uniform(0.3, 0.8) * (x * x + y * y)
    fall *= (1 - 0.75 * np.clip(veil - low, 0, 1)) * (1 - 0.7 * np.clip(cast - low, 0, 0.8))
    # Handling stains on the plastic, and the crumbly filler at its own low height.
    stains = cv2.resize(noise(rng, 14, 14), (small, small), interpolation=cv2.INTER_CUBIC)
    fall *= 1 + (low > 0.2) * 0.09 * stains
    crumbs = cv2.GaussianBlur(noise(rng, small, small), (0, 0), max(0.5, small * 0.008))
    fall *= 1 + np.where((low > 0.2) & (low < 0.4), 0.9, 0.12) * crumbs
    return cv2.resize(np.asarray(fall, np.float32), (size, size))


def photograph(rng: Generator, layers: Bytes) -> Bytes:
    """Light the height field of layers (S, S, 4), add lens and sensor: RGB uint8 (S, S, 3)."""
    size, turn = len(layers), rng.uniform(0, 2 * np.pi)
    height = layers[..., 3] * np.float32(1 / 255)
    face = (height > 0.4).astype(np.float32)
    # Saw marks: fine noise smeared along one direction, only on the cut face.
    grain = cv2.resize(noise(rng, size, max(2, size // 10)), (size, size))
    marks = face * (grain if rng.random() < 0.5 else grain.T)
    soft = cv2.GaussianBlur(height + np.float32(0.008) * marks, (0, 0), max(0.5, size * 0.0024))
    lx, ly = math.cos(turn), math.sin(turn)
    slope = cv2.Scharr(soft, cv2.CV_32F, 1, 0, scale=lx * size * 0.0004)
    slope = slope + cv2.Scharr(soft, cv2.CV_32F, 0, 1, scale=ly * size * 0.0004)
    slope = slope / np.sqrt(1 + slope * slope)
    gloss = np.clip(-slope - np.float32(0.35), 0, 1) * np.float32(rng.uniform(60, 130)) * face
    light = shade(rng, height, lx, ly) * (1 - np.float32(0.5) * slope)
    texture = np.float32(0.05) * marks + np.float32(0.09) * face * noise(rng, size, size)
    light = light * (1 + texture)
    tint = rng.normal(1, 0.035, 3).astype(np.float32)
    # Grain is added before the lens blur: sensors smear theirs over neighbours when demosaicing.
    power = np.float32(rng.uniform(8, 22))
    channels = [layers[..., c] * (light * tint[c]) + gloss + power * noise(rng, size, size) for c in range(3)]
    image = cv2.GaussianBlur(cv2.merge(channels), (0, 0), size * rng.uniform(0.0009, 0.0018))
    return np.asarray(np.clip(image, 0, 255), np.uint8)
