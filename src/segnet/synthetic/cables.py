"""The embedded data set: procedurally drawn photographs of cable cross-sections with defects.

A scene is drawn in units of the image side (0..1, x to the right, y down) as flat shapes that
carry a colour and a height; one light then shades the height field. Defects are shapes like all
others, so the mask is filled from the very outlines that the image shows.
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from segnet.errors import UserError
from segnet.files import ending_on_sigterm
from segnet.settings import Positive, Seed, Side
from segnet.synthetic.scene import ROUND, Bytes, Colour, Points, Scene, blob, photograph, pick, polar, table, vary

KINDS: tuple[str, ...] = ("good", "bent", "missing", "cut", "poked", "swapped")


# Insulation by role: earth (striped with green), neutral, phase. WRONG occurs in no good cable.
ROLES: tuple[tuple[Colour, ...], ...] = (
    ((170, 172, 66), (152, 166, 74), (182, 170, 62)),
    ((58, 94, 152), (72, 116, 170), (48, 72, 120)),
    ((106, 72, 52), (48, 46, 47), (128, 128, 131)),
)
WRONG: tuple[Colour, ...] = ((184, 42, 42), (120, 62, 146), (226, 224, 218), (214, 112, 156))
SHEATHS: tuple[Colour, ...] = ((204, 204, 200), (222, 221, 214), (150, 151, 153), (60, 61, 64))


@dataclass
class Conductor:
    """One insulated bundle: centre (2,), outlines (72, 2), strand centres (M, 2), radii."""

    centre: Points
    radius: float
    outline: Points
    core: Points
    strands: Points
    strand: float


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
    outline, core = blob(rng, centre, radius, 0.011), blob(rng, centre, core_radius, 0.018)
    scene.fill(outline, colour, 165)
    green, start = vary(rng, (70, 120, 66), 0.08), int(rng.integers(72))
    for first, width in zip((start, start + 36), rng.integers(9, 18, 2), strict=True):
        if striped:
            arc = outline[np.arange(first, first + int(width)) % 72]
            scene.fill(np.concatenate([arc, centre[None]]), green, 165)
    scene.fill(core, (34, 22, 17), 70)
    strands, copper = centre + pitch * grid @ spin, vary(rng, (196, 128, 90), 0.07)
    tilts = rng.normal(0, 0.1, grid.shape) * pitch
    for spot, tilt in zip(strands, tilts, strict=True):
        # A dull flank, the sawn face and a worn glint make one strand.
        face = vary(rng, copper, 0.17)
        for share, gain, height in ((0.53, 0.55, 150), (0.4, 1.0, 178), (0.22, 1.17, 190)):
            ring = polar(spot + tilt * (0.53 - share) * 4, np.array([pitch * share]), ROUND[::4])
            scene.fill(ring, vary(rng, face, 0.06, gain), height)
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
        copper = vary(rng, (198, 128, 88), 0.08)
        for share, gain, height in ((2.1, 0.48, 205), (1.5, 0.82, 235), (0.7, 1.2, 255)):
            tone = vary(rng, copper, 0.02, gain)
            scene.stroke(path, plan.strand * share, tone, height, share > 2)


def _missing(scene: Scene, rng: Generator, plan: Conductor) -> None:
    """Leave a dark cavity in place of the whole conductor or of its strands."""
    outline = plan.outline if rng.random() < 0.5 else plan.core
    deep = plan.centre + rng.normal(0, 0.006, 2)
    scene.fill(outline, vary(rng, (38, 34, 31), 0.1), 40, True)
    for share, gain, height in ((0.88, 0.66, 15), (0.7, 0.36, 0)):
        wall = deep + (outline - plan.centre) * rng.normal(share, 0.012, (72, 1))
        scene.fill(wall, vary(rng, (36, 33, 31), 0.1, gain), height)


def _cut(scene: Scene, rng: Generator, centre: Points, inner: float, outer: float) -> None:
    """Slit a ring between two radii: dark inside, with a torn lighter rim."""
    middle, room, t = (inner + outer) / 2, (outer - inner) / 2, np.linspace(-1, 1, 36)
    angle = rng.uniform(0, 2 * np.pi) + t * rng.uniform(0.13, 0.19) / middle
    line = middle + room * (rng.uniform(-0.3, 0.3) * t + rng.normal(0, 0.03, 36))
    gape = (1 - t**2) ** 0.6 * room * rng.uniform(0.6, 0.8)
    rim = vary(rng, (194, 188, 178), 0.1)
    for share, colour, height in ((1.0, rim, 225), (0.72, (44, 38, 34), 60), (0.5, (12, 10, 9), 0)):
        near, far = gape * rng.uniform(0.8, 1.15, (2, 36)) * share
        edges = [polar(centre, line + far, angle), polar(centre, line - near, angle)[::-1]]
        scene.fill(np.concatenate(edges), colour, height, share == 1)


def _poked(scene: Scene, rng: Generator, rings: list[tuple[Points, float, float]]) -> None:
    """Punch one or two holes with raised rims into rings given as centre, inner, outer."""
    for k in rng.permutation(len(rings))[: 1 if rng.random() < 0.25 else 2]:
        centre, inner, outer = rings[int(k)]
        spot = polar(centre, np.array([(inner + outer) / 2]), rng.uniform(0, 2 * np.pi, 1))[0]
        radius = (outer - inner) * rng.uniform(0.58, 0.7)
        scene.fill(blob(rng, spot, radius, 0.05), vary(rng, (206, 200, 190), 0.1), 230, True)
        scene.fill(blob(rng, spot, radius * 0.74, 0.06), (52, 46, 42), 90)
        scene.fill(blob(rng, spot, radius * 0.56, 0.08), (12, 11, 10), 0)


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


def _dust(scene: Scene, rng: Generator) -> None:
    """Scatter distractors: specks and thin fibres that are no defects."""
    for _ in range(int(rng.integers(3, 12))):
        tone = vary(rng, (178, 174, 166) if rng.random() < 0.6 else (50, 46, 42), 0.15)
        spot = rng.uniform(0.08, 0.92, 2)
        scene.fill(blob(rng, spot, rng.uniform(0.001, 0.0045), 0.2), tone, 185)
        if rng.random() < 0.15:
            bends = np.cumsum(rng.normal(0, 0.35, 10)) + rng.uniform(0, 2 * np.pi)
            steps = polar(np.zeros(2), np.array([rng.uniform(0.003, 0.009)]), bends)
            scene.stroke(spot + np.cumsum(steps, 0), 0.002, tone, 185)


def _check(kind: str, seed: int, size: int) -> None:
    """Raise UserError for arguments that render cannot draw."""
    if kind not in KINDS:
        raise UserError(f"kind={kind!r} is unknown: use one of {', '.join(KINDS)}")
    if seed < 0:
        raise UserError(f"seed={seed} is negative: use an integer of 0 or more")
    if size < 32:
        raise UserError(f"size={size} is below 32 pixels: use 32 or more, such as 480")


def render(kind: str, seed: int, size: int = 480) -> tuple[Bytes, Bytes]:
    """Draw an image uint8 (size, size, 3) RGB and its mask uint8 (size, size), 255 on the defect.

    The cable and camera depend on the seed alone, so all kinds of one seed differ in the defect.
    """
    _check(kind, seed, size)
    cable, camera, *each = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(5))
    defect = np.random.default_rng([seed, crc32(kind.encode())])
    centre, outer = cable.normal(0.5, 0.012, 2), cable.uniform(0.39, 0.44)
    inner, sheath = outer * cable.uniform(0.79, 0.84), pick(cable, SHEATHS)
    scene = Scene(np.zeros((size, size, 4), np.uint8), np.zeros((size, size), np.uint8))
    scene.layers[..., :3] = table(cable, size, centre, outer, sheath)
    scene.fill(blob(cable, centre, outer, 0.003), sheath, 190)
    scene.fill(blob(cable, centre, inner, 0.009), vary(cable, (84, 78, 71), 0.15), 75)
    turn, hand, target = cable.uniform(0, 2 * np.pi), cable.choice([-1, 1]), defect.integers(3)
    plans = []
    for role, rng in enumerate(each):
        radius = inner * rng.uniform(0.432, 0.455)
        angle = np.array([turn + hand * role * 2.0944 + rng.normal(0, 0.025)])
        spot = polar(centre, np.array([inner - radius * 1.02]), angle)[0]
        colour, wrong = pick(rng, ROLES[role]), kind == "swapped" and role == target
        colour = pick(defect, WRONG) if wrong else colour
        plans.append(_conductor(scene, rng, spot, radius, colour, role == 0 and not wrong))
    _damage(scene, defect, kind, plans, int(target), (centre, inner, outer))
    _dust(scene, camera)
    return photograph(camera, scene.layers), scene.mask


def write(root: Path | str, images: Positive = 240, size: Side = 480, seed: Seed = 0) -> None:
    """Write root/images/<kind>_<NNN>.png (RGB) and root/masks/<kind>_<NNN>.png (0 or 255).

    The kinds take turns; each image depends on (seed, kind, number, size) alone. The folder
    appears complete or not at all: it is made beside root and renamed at the end. Of processes that
    draw the same images there at once the first one's stay.
    """
    root = Path(root)
    _check(KINDS[0], seed, size)
    if images < 1:
        raise UserError(f"images={images} is below 1: ask for 1 or more, such as 240")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"root={root} exists and is not an empty folder: remove it or choose another")
    root.parent.mkdir(parents=True, exist_ok=True)
    with ending_on_sigterm(), tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
        build = Path(scratch) / "data"
        for part in ("images", "masks"):
            (build / part).mkdir(parents=True)
        for k in tqdm(range(images), desc=f"drawing {root.name}", unit="image", disable=None):
            kind, number = KINDS[k % len(KINDS)], k // len(KINDS)
            key = np.random.SeedSequence([seed, crc32(kind.encode()), number])
            image, mask = render(kind, int(key.generate_state(1)[0]), size)
            pair = {"images": cv2.cvtColor(image, cv2.COLOR_RGB2BGR), "masks": mask}
            for part, pixels in pair.items():
                _, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
                (build / part / f"{kind}_{number:03d}.png").write_bytes(encoded.tobytes())
        try:
            if root.exists():
                root.rmdir()  # empty, as checked above; Windows does not rename onto a folder
            build.rename(root)
        except OSError:
            if not _same(build, root):  # else another process drew the same images meanwhile
                raise


def _same(one: Path, other: Path) -> bool:
    files = [{path.relative_to(root): path.read_bytes() for path in root.rglob("*.png")} for root in (one, other)]
    return files[0] == files[1]
