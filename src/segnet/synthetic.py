"""The embedded data set: procedurally drawn photographs of cable cross-sections with defects.

A scene is drawn in units of the picture side (0..1, x to the right, y down) as flat shapes that
carry a colour and a height; one light then shades the height field. Defects are shapes like all
others, so the mask is filled from the very outlines that the picture shows.
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

KINDS: tuple[str, ...] = ("good", "bent", "missing", "cut", "poked", "swapped")

Bytes = NDArray[np.uint8]
Points = NDArray[np.float64]  # (N, 2) x, y in picture sides
Colour = tuple[float, float, float]  # RGB, 0..255

# Insulation by role: earth (striped with green), neutral, phase. WRONG occurs in no good cable.
ROLES: tuple[tuple[Colour, ...], ...] = (
    ((170, 172, 66), (152, 166, 74), (182, 170, 62)),
    ((58, 94, 152), (72, 116, 170), (48, 72, 120)),
    ((106, 72, 52), (48, 46, 47), (128, 128, 131)),
)
WRONG: tuple[Colour, ...] = ((184, 42, 42), (120, 62, 146), (226, 224, 218), (214, 112, 156))
SHEATHS: tuple[Colour, ...] = ((204, 204, 200), (222, 221, 214), (150, 151, 153), (60, 61, 64))
SHIFT = 4  # fractional bits of the coordinates handed to cv2
ROUND = np.linspace(0, 2 * np.pi, 72, endpoint=False)


@dataclass
class Scene:
    """A picture in the making: layers uint8 (S, S, 4) R, G, B, height; mask uint8 (S, S)."""

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


@dataclass
class Conductor:
    """One insulated bundle: centre (2,), outlines (72, 2), strand centres (M, 2), radii."""

    centre: Points
    radius: float
    outline: Points
    core: Points
    strands: Points
    strand: float


def _polar(centre: Points, radius: Points, angle: Points) -> Points:
    """Convert polar coordinates (N,), (N,) about centre (2,) to float (N, 2)."""
    return np.asarray(centre + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1))


def _blob(rng: Generator, centre: Points, radius: float, rough: float) -> Points:
    """Make a nearly round closed outline (72, 2); rough is the relative amplitude."""
    waves = np.arange(2, 9)[:, None]
    bumps = np.sin(waves * ROUND + rng.uniform(0, 2 * np.pi, (7, 1))) / np.sqrt(waves)
    return _polar(centre, radius * (1 + (rng.normal(0, rough, (7, 1)) * bumps).sum(0)), ROUND)


def _vary(rng: Generator, colour: Colour, amount: float, gain: float = 1) -> Colour:
    """Scale a colour by gain and a random brightness, add a slight cast, clip to 0..255."""
    gain *= rng.normal(1, amount)
    red, green, blue = (
        min(max(c * gain * k, 0.0), 255.0) for c, k in zip(colour, rng.normal(1, amount / 5, 3), strict=True)
    )
    return red, green, blue


def _pick(rng: Generator, colours: tuple[Colour, ...]) -> Colour:
    """Take one of the colours, slightly varied."""
    return _vary(rng, colours[int(rng.integers(len(colours)))], 0.07)


def _conductor(scene: Scene, rng: Generator, centre: Points, radius: float, colour: Colour, striped: bool) -> Conductor:
    """Draw the insulation and, in its dark core, hexagonally packed copper strands."""
    core_radius = radius * rng.uniform(0.55, 0.62)
    row, column = np.mgrid[-5:6, -5:6].reshape(2, -1)
    grid = np.stack([column + row / 2, row * math.sqrt(0.75)], 1) + rng.uniform(-0.3, 0.3, 2)
    grid = grid[np.argsort((grid**2).sum(1), kind="stable")[: int(rng.integers(22, 38))]]
    grid += rng.normal(0, 0.055, grid.shape)
    pitch = core_radius / (float(np.hypot(grid[:, 0], grid[:, 1]).max()) + 0.42)
    turn = rng.uniform(0, np.pi)
    spin = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    outline, core = _blob(rng, centre, radius, 0.011), _blob(rng, centre, core_radius, 0.018)
    scene.fill(outline, colour, 165)
    green, start = _vary(rng, (70, 120, 66), 0.08), int(rng.integers(72))
    for first, width in zip((start, start + 36), rng.integers(9, 18, 2), strict=True):
        if striped:
            arc = outline[np.arange(first, first + int(width)) % 72]
            scene.fill(np.concatenate([arc, centre[None]]), green, 165)
    scene.fill(core, (34, 22, 17), 70)
    strands, copper = centre + pitch * grid @ spin, _vary(rng, (196, 128, 90), 0.07)
    tilts = rng.normal(0, 0.1, grid.shape) * pitch
    for spot, tilt in zip(strands, tilts, strict=True):
        # A dull flank, the sawn face and a worn glint make one strand.
        face = _vary(rng, copper, 0.17)
        for share, gain, height in ((0.53, 0.55, 150), (0.4, 1.0, 178), (0.22, 1.17, 190)):
            ring = _polar(spot + tilt * (0.53 - share) * 4, np.array([pitch * share]), ROUND[::4])
            scene.fill(ring, _vary(rng, face, 0.06, gain), height)
    return Conductor(centre, radius, outline, core, strands, pitch / 2)


def _bent(scene: Scene, rng: Generator, plan: Conductor) -> None:
    """Let strands leave the bundle and lie across insulation and filler."""
    heading, t = rng.uniform(0, 2 * np.pi), np.linspace(0, 1, 24)[:, None]
    for _ in range(int(rng.integers(3, 6))):
        turn = heading + rng.normal(0, 0.35)
        ray = np.array([math.cos(turn), math.sin(turn)])
        side = np.array([-ray[1], ray[0]]) * rng.normal(0, 0.06, (2, 1))
        lead = plan.strands @ ray + rng.normal(0, 0.03, len(plan.strands))
        ray *= rng.uniform(0.16, 0.3)
        path = plan.strands[int(np.argmax(lead))] + 2 * t * (1 - t) * (ray / 2 + side[0])
        path += t**2 * (ray + side[1])
        copper = _vary(rng, (198, 128, 88), 0.08)
        for share, gain, height in ((2.1, 0.48, 205), (1.5, 0.82, 235), (0.7, 1.2, 255)):
            tone = _vary(rng, copper, 0.02, gain)
            scene.stroke(path, plan.strand * share, tone, height, share > 2)


def _missing(scene: Scene, rng: Generator, plan: Conductor) -> None:
    """Leave a dark cavity in place of the whole conductor or of its strands."""
    outline = plan.outline if rng.random() < 0.5 else plan.core
    deep = plan.centre + rng.normal(0, 0.006, 2)
    scene.fill(outline, _vary(rng, (38, 34, 31), 0.1), 40, True)
    for share, gain, height in ((0.88, 0.66, 15), (0.7, 0.36, 0)):
        wall = deep + (outline - plan.centre) * rng.normal(share, 0.012, (72, 1))
        scene.fill(wall, _vary(rng, (36, 33, 31), 0.1, gain), height)


def _cut(scene: Scene, rng: Generator, centre: Points, inner: float, outer: float) -> None:
    """Slit a ring between two radii: dark inside, with a torn lighter rim."""
    middle, room, t = (inner + outer) / 2, (outer - inner) / 2, np.linspace(-1, 1, 36)
    angle = rng.uniform(0, 2 * np.pi) + t * rng.uniform(0.13, 0.19) / middle
    line = middle + room * (rng.uniform(-0.3, 0.3) * t + rng.normal(0, 0.03, 36))
    gape = (1 - t**2) ** 0.6 * room * rng.uniform(0.6, 0.8)
    rim = _vary(rng, (194, 188, 178), 0.1)
    for share, colour, height in ((1.0, rim, 225), (0.72, (44, 38, 34), 60), (0.5, (12, 10, 9), 0)):
        near, far = gape * rng.uniform(0.8, 1.15, (2, 36)) * share
        edges = [_polar(centre, line + far, angle), _polar(centre, line - near, angle)[::-1]]
        scene.fill(np.concatenate(edges), colour, height, share == 1)


def _poked(scene: Scene, rng: Generator, rings: list[tuple[Points, float, float]]) -> None:
    """Punch one or two holes with raised rims into rings given as centre, inner, outer."""
    for k in rng.permutation(len(rings))[: 1 if rng.random() < 0.25 else 2]:
        centre, inner, outer = rings[int(k)]
        spot = _polar(centre, np.array([(inner + outer) / 2]), rng.uniform(0, 2 * np.pi, 1))[0]
        radius = (outer - inner) * rng.uniform(0.58, 0.7)
        scene.fill(_blob(rng, spot, radius, 0.05), _vary(rng, (206, 200, 190), 0.1), 230, True)
        scene.fill(_blob(rng, spot, radius * 0.74, 0.06), (52, 46, 42), 90)
        scene.fill(_blob(rng, spot, radius * 0.56, 0.08), (12, 11, 10), 0)


def _damage(
    scene: Scene,
    rng: Generator,
    kind: str,
    plans: list[Conductor],
    target: int,
    sheath: tuple[Points, float, float],
) -> None:
    """Draw the defect of a kind over the finished cable; sheath is centre, inner, outer."""
    rings = [(plan.centre, plan.radius * 0.58, plan.radius) for plan in plans]
    if kind == "bent":
        _bent(scene, rng, plans[target])
    elif kind == "missing":
        _missing(scene, rng, plans[target])
    elif kind == "cut":
        _cut(scene, rng, *(sheath if rng.random() < 0.6 else rings[target]))
    elif kind == "poked":
        _poked(scene, rng, [*rings, sheath])
    elif kind == "swapped":
        # The insulation is already drawn in the wrong colour; the defect is its ring alone.
        scene.mark(plans[target].outline, 255)
        scene.mark(plans[target].core, 0)


def _table(rng: Generator, size: int, centre: Points, radius: float, sheath: Colour) -> Bytes:
    """Draw the blurred table and the cable's body behind its face: RGB uint8 (size, size, 3)."""
    small = max(8, size // 4)  # out of focus, so a quarter of the size is enough
    base = _vary(rng, (rng.uniform(44, 104),) * 3, 0.2)
    rough = cv2.resize(rng.normal(0, 0.13, (5, 5)), (small, small), interpolation=cv2.INTER_CUBIC)
    rough = 1 + rough + rng.normal(0, 0.06, (small, 1 if rng.random() < 0.4 else small))
    layers = np.clip(rough[..., None] * np.array([*base, 0]), 0, 255).astype(np.uint8)
    scene, lean = Scene(layers, np.zeros((small, small), np.uint8)), rng.uniform(0, 2 * np.pi, 1)
    away = _polar(np.zeros(2), rng.uniform(0.015, 0.045, 1), lean)[0]
    for step, gain in ((1.35, 0.25), (1.0, 0.42), (0.5, 0.55)):
        body = _blob(rng, centre + away * step, radius * (0.95 + 0.05 * step), 0.003)
        scene.fill(body, _vary(rng, sheath, 0.02, gain), 0)
    soft = cv2.GaussianBlur(scene.layers, (0, 0), max(0.6, small * 0.011))
    return np.asarray(cv2.resize(soft, (size, size)), np.uint8)[..., :3]


def _dust(scene: Scene, rng: Generator) -> None:
    """Scatter distractors: specks and thin fibres that are no defects."""
    for _ in range(int(rng.integers(3, 12))):
        tone = _vary(rng, (178, 174, 166) if rng.random() < 0.6 else (50, 46, 42), 0.15)
        spot = rng.uniform(0.08, 0.92, 2)
        scene.fill(_blob(rng, spot, rng.uniform(0.001, 0.0045), 0.2), tone, 185)
        if rng.random() < 0.15:
            bends = np.cumsum(rng.normal(0, 0.35, 10)) + rng.uniform(0, 2 * np.pi)
            steps = _polar(np.zeros(2), np.array([rng.uniform(0.003, 0.009)]), bends)
            scene.stroke(spot + np.cumsum(steps, 0), 0.002, tone, 185)


def _noise(rng: Generator, rows: int, columns: int) -> NDArray[np.float32]:
    """Draw uniform noise in -1..1, float32 (rows, columns); much cheaper than normal draws."""
    raw = np.frombuffer(rng.bytes(rows * columns), np.uint8).reshape(rows, columns)
    return np.asarray(raw * np.float32(2 / 255) - np.float32(1), np.float32)


def _shade(rng: Generator, height: NDArray[np.float32], lx: float, ly: float) -> cv2.typing.MatLike:
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
    stains = cv2.resize(_noise(rng, 14, 14), (small, small), interpolation=cv2.INTER_CUBIC)
    fall *= 1 + (low > 0.2) * 0.09 * stains
    crumbs = cv2.GaussianBlur(_noise(rng, small, small), (0, 0), max(0.5, small * 0.008))
    fall *= 1 + np.where((low > 0.2) & (low < 0.4), 0.9, 0.12) * crumbs
    return cv2.resize(np.asarray(fall, np.float32), (size, size))


def _photograph(rng: Generator, layers: Bytes) -> Bytes:
    """Light the height field of layers (S, S, 4), add lens and sensor: RGB uint8 (S, S, 3)."""
    size, turn = len(layers), rng.uniform(0, 2 * np.pi)
    height = layers[..., 3] * np.float32(1 / 255)
    face = (height > 0.4).astype(np.float32)
    # Saw marks: fine noise smeared along one direction, only on the cut face.
    grain = cv2.resize(_noise(rng, size, max(2, size // 10)), (size, size))
    marks = face * (grain if rng.random() < 0.5 else grain.T)
    soft = cv2.GaussianBlur(height + np.float32(0.008) * marks, (0, 0), max(0.5, size * 0.0024))
    lx, ly = math.cos(turn), math.sin(turn)
    slope = cv2.Scharr(soft, cv2.CV_32F, 1, 0, scale=lx * size * 0.0004)
    slope = slope + cv2.Scharr(soft, cv2.CV_32F, 0, 1, scale=ly * size * 0.0004)
    slope = slope / np.sqrt(1 + slope * slope)
    gloss = np.clip(-slope - np.float32(0.35), 0, 1) * np.float32(rng.uniform(60, 130)) * face
    shade = _shade(rng, height, lx, ly) * (1 - np.float32(0.5) * slope)
    texture = np.float32(0.05) * marks + np.float32(0.09) * face * _noise(rng, size, size)
    shade = shade * (1 + texture)
    tint = rng.normal(1, 0.035, 3).astype(np.float32)
    # Grain is added before the lens blur: sensors smear theirs over neighbours when demosaicing.
    power = np.float32(rng.uniform(8, 22))
    channels = [layers[..., c] * (shade * tint[c]) + gloss + power * _noise(rng, size, size) for c in range(3)]
    picture = cv2.GaussianBlur(cv2.merge(channels), (0, 0), size * rng.uniform(0.0009, 0.0018))
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def _check(kind: str, seed: int, size: int) -> None:
    """Raise ValueError for arguments that render cannot draw."""
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown: use one of {', '.join(KINDS)}")
    if seed < 0:
        raise ValueError(f"seed={seed} is negative: use an integer of 0 or more")
    if size < 32:
        raise ValueError(f"size={size} is below 32 pixels: use 32 or more, such as 480")


def render(kind: str, seed: int, size: int = 480) -> tuple[Bytes, Bytes]:
    """Draw a picture uint8 (size, size, 3) RGB and its mask uint8 (size, size), 255 on the defect.

    The cable and camera depend on the seed alone, so all kinds of one seed differ in the defect.
    """
    _check(kind, seed, size)
    cable, camera, *each = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(5))
    defect = np.random.default_rng([seed, crc32(kind.encode())])
    centre, outer = cable.normal(0.5, 0.012, 2), cable.uniform(0.39, 0.44)
    inner, sheath = outer * cable.uniform(0.79, 0.84), _pick(cable, SHEATHS)
    scene = Scene(np.zeros((size, size, 4), np.uint8), np.zeros((size, size), np.uint8))
    scene.layers[..., :3] = _table(cable, size, centre, outer, sheath)
    scene.fill(_blob(cable, centre, outer, 0.003), sheath, 190)
    scene.fill(_blob(cable, centre, inner, 0.009), _vary(cable, (84, 78, 71), 0.15), 75)
    turn, hand, target = cable.uniform(0, 2 * np.pi), cable.choice([-1, 1]), defect.integers(3)
    plans = []
    for role, rng in enumerate(each):
        radius = inner * rng.uniform(0.432, 0.455)
        angle = np.array([turn + hand * role * 2.0944 + rng.normal(0, 0.025)])
        spot = _polar(centre, np.array([inner - radius * 1.02]), angle)[0]
        colour, wrong = _pick(rng, ROLES[role]), kind == "swapped" and role == target
        colour = _pick(defect, WRONG) if wrong else colour
        plans.append(_conductor(scene, rng, spot, radius, colour, role == 0 and not wrong))
    _damage(scene, defect, kind, plans, int(target), (centre, inner, outer))
    _dust(scene, camera)
    return _photograph(camera, scene.layers), scene.mask


def write(root: Path | str, images: int = 240, size: int = 480, seed: int = 0) -> None:
    """Write root/images/<kind>_<NNN>.png (RGB) and root/masks/<kind>_<NNN>.png (0 or 255).

    The kinds take turns; each picture depends on (seed, kind, number, size) alone. The folder
    appears complete or not at all: it is made beside root and renamed at the end.
    """
    root = Path(root)
    _check(KINDS[0], seed, size)
    if images < 1:
        raise ValueError(f"images={images} is below 1: ask for 1 or more, such as 240")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"root={root} is taken, not an empty folder: remove it or name another")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
        build = Path(scratch) / "data"
        for part in ("images", "masks"):
            (build / part).mkdir(parents=True)
        for k in tqdm(range(images), desc=f"drawing {root.name}", unit="picture"):
            kind, number = KINDS[k % len(KINDS)], k // len(KINDS)
            key = np.random.SeedSequence([seed, crc32(kind.encode()), number])
            picture, mask = render(kind, int(key.generate_state(1)[0]), size)
            pair = {"images": cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), "masks": mask}
            for part, pixels in pair.items():
                path = str(build / part / f"{kind}_{number:03d}.png")
                if not cv2.imwrite(path, pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
                    raise OSError(f"could not write {path}")
        if root.exists():
            root.rmdir()  # empty, as checked above; Windows does not rename onto a folder
        build.rename(root)
