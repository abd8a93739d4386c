"""Crowns: the canopy of woods, and single trees in gardens, parks and along streets."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geograft.world.canvas import Canvas, Stage
from geograft.world.materials import INDEX

Floats = NDArray[np.float32]

TILE = 1024
"""Side of the repeating canopy, metres."""


@dataclass(frozen=True)
class Canopy:
    """A repeating piece of closed canopy.

    Attributes:
        height: crown surface relative to the tallest tree, 0..1, (TILE, TILE) float32.
        tone: a random number 0..255 that each crown has for itself, uint8.
    """

    height: Floats
    tone: NDArray[np.uint8]


def make_canopy(rng: np.random.Generator, spacing: int, *, pointed: bool) -> Canopy:
    """Crowns on a jittered grid.

    Args:
        rng: where the randomness comes from.
        spacing: metres between trees; divides TILE.
        pointed: True for the cones of conifers, False for round broadleaf crowns.
    """
    cells = TILE // spacing
    offset = rng.uniform(0, 1, (2, cells, cells)).astype(np.float32)
    tall = rng.uniform(0.62, 1.0, (cells, cells)).astype(np.float32)
    tone = rng.integers(0, 256, (cells, cells), np.uint8)
    height, tones = np.zeros((TILE, TILE), np.float32), np.zeros((TILE, TILE), np.uint8)
    for shift in np.ndindex(3, 3):
        _lift(height, tones, spacing, (shift[0] - 1, shift[1] - 1), offset, tall, tone, pointed=pointed)
    return Canopy(height, tones)


def _lift(
    height: Floats,
    tones: NDArray[np.uint8],
    spacing: int,
    shift: tuple[int, int],
    offset: Floats,
    tall: Floats,
    tone: NDArray[np.uint8],
    *,
    pointed: bool,
) -> None:
    """Raise every pixel to the crown that grows in the grid cell `shift` cells away."""
    inner = (np.arange(spacing, dtype=np.float32) + 0.5) / spacing
    rolled = np.roll(offset, (-shift[0], -shift[1]), (1, 2))
    dy = shift[0] + rolled[0][:, None, :, None] - inner[None, :, None, None]
    dx = shift[1] + rolled[1][:, None, :, None] - inner[None, None, None, :]
    distance = dx * dx + dy * dy
    drop = 0.75 * np.sqrt(distance) if pointed else 0.55 * distance
    crown = np.roll(tall, (-shift[0], -shift[1]), (0, 1))[:, None, :, None] - drop
    crown = crown.reshape(height.shape)
    higher = crown > height
    np.maximum(height, crown, out=height)
    spread = np.broadcast_to(
        np.roll(tone, (-shift[0], -shift[1]), (0, 1))[:, None, :, None], (len(tall), spacing, len(tall), spacing)
    )
    tones[higher] = spread.reshape(height.shape)[higher]


def plant_wood(canvas: Canvas, mask: NDArray[np.bool_], conifer: NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Cover a region-wide mask with canopy, broadleaf or conifer as told pixel by pixel."""
    leafy = ("broadleaf light", "broadleaf", "broadleaf", "broadleaf dark", "broadleaf")
    needled = ("conifer light", "conifer dark", "conifer dark", "conifer light", "broadleaf dark")
    for part, spacing, tallest, names in ((mask & ~conifer, 8, 19.0, leafy), (mask & conifer, 4, 23.0, needled)):
        canopy = make_canopy(rng, spacing, pointed=spacing == 4)
        rows, cols = np.nonzero(part)
        at = (rows % TILE, cols % TILE)
        canvas.height[part] = tallest * canopy.height[at]
        looks = np.array([INDEX[name] for name in names], np.uint8)
        shade = np.minimum(canopy.tone[at] // 51, 4)
        canvas.material[part] = looks[shade]


def plant_trees(
    canvas: Canvas,
    x: NDArray[np.floating[Any]],
    y: NDArray[np.floating[Any]],
    rng: np.random.Generator,
    *,
    conifers: float = 0.2,
) -> None:
    """Single round trees that overhang whatever is lower; the cover below stays what it is."""
    radius = rng.uniform(1.8, 4.2, len(x)).astype(np.float32)
    tallest = radius * rng.uniform(1.9, 2.8, len(x)).astype(np.float32)
    names = np.where(
        rng.random(len(x)) < conifers,
        "conifer light",
        rng.choice(["broadleaf light", "broadleaf", "broadleaf dark"], len(x)),
    )
    look = np.array([INDEX[str(name)] for name in names], np.uint8)
    for dy, dx in np.ndindex(9, 9):
        rows, cols = np.floor(y).astype(int) + dy - 4, np.floor(x).astype(int) + dx - 4
        away = np.hypot(cols + 0.5 - x, rows + 0.5 - y).astype(np.float32)
        crown = tallest * np.sqrt(np.clip(1 - (away / (radius * 1.15)) ** 2, 0, 1))
        keep = (away < radius) & (rows >= 0) & (cols >= 0) & (rows < canvas.size) & (cols < canvas.size)
        rows, cols, crown, kind = rows[keep], cols[keep], crown[keep], look[keep]
        higher = crown > canvas.height[rows, cols]
        canvas.height[rows[higher], cols[higher]] = crown[higher]
        canvas.material[rows[higher], cols[higher]] = kind[higher]


def scatter(stage: Stage, rng: np.random.Generator, count: int, *, conifers: float = 0.2) -> None:
    """Plant single trees at random places of a stage where nothing stands within 3 m."""
    site, size = stage.site, stage.canvas.size
    u, v = rng.uniform(-site.half_u, site.half_u, count), rng.uniform(-site.half_v, site.half_v, count)
    plant_in_frame(stage, u, v, rng, conifers=conifers, size=size)


def plant_in_frame(
    stage: Stage,
    u: NDArray[np.float64],
    v: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    conifers: float = 0.2,
    size: int | None = None,
) -> None:
    """Plant trees at places of the stage's frame, where the ground is the stage's own and nothing stands near."""
    size = size or stage.canvas.size
    cos, sin = np.cos(stage.site.angle), np.sin(stage.site.angle)
    x, y = stage.site.x + u * cos - v * sin, stage.site.y + u * sin + v * cos
    ok = (x >= 4) & (y >= 4) & (x < size - 4) & (y < size - 4)
    x, y = x[ok], y[ok]
    rows, cols = stage.window
    mine = np.zeros(len(x), bool)
    r, c = np.floor(y).astype(int) - rows.start, np.floor(x).astype(int) - cols.start
    within = (r >= 0) & (c >= 0) & (r < stage.open.shape[0]) & (c < stage.open.shape[1])
    mine[within] = stage.open[r[within], c[within]]
    for dy, dx in ((0, 0), (-3, 0), (3, 0), (0, -3), (0, 3)):
        mine &= stage.canvas.height[np.floor(y).astype(int) + dy, np.floor(x).astype(int) + dx] < 1
    plant_trees(stage.canvas, x[mine], y[mine], rng, conifers=conifers)
