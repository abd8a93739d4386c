"""What stands on the blocks of a settlement: houses with gardens, apartment blocks, warehouses."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geograft.world.canvas import Stage
from geograft.world.classes import BY_NAME
from geograft.world.materials import INDEX
from geograft.world.trees import plant_in_frame, scatter

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

HOUSES, APARTMENTS, WAREHOUSES = (BY_NAME[n].id for n in ("houses", "apartment blocks", "warehouses"))
ROOFS = ("red tile roof", "brown tile roof", "slate roof")


def _whole(mask: Mask, stage: Stage) -> Mask:
    """The part of the mask that is open, or nothing of it if less than two thirds are."""
    part = mask & stage.open
    return part if part.sum() > 0.66 * mask.sum() else np.zeros_like(mask)


def _sound(plot: NDArray[np.int64], building: Mask, stage: Stage) -> Mask:
    """Pixels of buildings that nothing cuts into, for many buildings at once."""
    broken = np.bincount(plot[building & ~stage.open], minlength=int(plot.max()) + 1) > 0
    return np.asarray(building & ~broken[plot])


def paint_houses(stage: Stage, rng: np.random.Generator) -> None:
    """Two rows of plots back to back: a pitched roof, drive, lawn, hedges and trees on each."""
    site = stage.site
    stage.cover(stage.open, HOUSES, "lush grass")
    width = float(rng.uniform(15.5, 21.5))
    count = max(1, round(2 * site.half_u / width))
    width = 2 * site.half_u / count
    column = np.clip(((stage.u + site.half_u) / width).astype(np.int64), 0, count - 1)
    plot = column * 2 + (stage.v > 0)
    draw = _Plots(rng, 2 * count)
    u = stage.u + site.half_u - (column + 0.5) * width - draw.shift[plot]
    v = np.abs(stage.v) - site.half_v * 0.56 - draw.setback[plot]
    _paint_gardens(stage, u + draw.shift[plot], width, draw, plot)
    _paint_roofs(stage, u, v, draw, plot)
    scatter(stage, rng, int(site.half_u * site.half_v / 110))


class _Plots:
    """Random choices for each plot of a block; most roofs of a block are alike."""

    def __init__(self, rng: np.random.Generator, count: int) -> None:
        main = rng.choice(3, p=[0.5, 0.25, 0.25])
        roof = np.where(rng.random(count) < 0.65, main, rng.integers(0, 3, count))
        self.roof = np.array([INDEX[ROOFS[k]] for k in roof], np.uint8)
        self.lawn = np.array(
            [INDEX[n] for n in rng.choice(["lush grass", "mown grass", "dry grass"], count, p=[0.35, 0.4, 0.25])],
            np.uint8,
        )
        self.half_u = rng.uniform(4.8, 6.8, count).astype(np.float32)
        self.half_v = rng.uniform(4.6, 6.2, count).astype(np.float32)
        self.shift = rng.uniform(-2, 2, count).astype(np.float32)
        self.setback = rng.uniform(-3, 3, count).astype(np.float32)
        self.eaves = rng.choice([3.2, 5.6, 6.2], count).astype(np.float32)
        self.across = rng.random(count) < 0.3
        self.pool = rng.random(count) < 0.05
        self.empty = rng.random(count) < 0.05


def _paint_gardens(stage: Stage, u: Floats, width: float, draw: _Plots, plot: NDArray[np.int64]) -> None:
    """Lawns, hedges between plots, drives to the street, a few pools."""
    site = stage.site
    stage.paint(stage.open, draw.lawn[plot], 0.0)
    back = np.abs(stage.v)
    hedge = (np.abs(np.abs(u) - width / 2) < 0.8) & (back < site.half_v - 7)
    stage.paint(hedge | (back < 0.9), "hedge", 1.6)
    drive = (np.abs(u - width * 0.3) < 1.6) & (back > site.half_v - 13)
    stage.paint(drive, "paving", 0.0)
    pool = draw.pool[plot] & (np.abs(u) < 2.2) & (np.abs(back - 8) < 4)
    stage.paint(pool, "shallow water", 0.0)


def _paint_roofs(stage: Stage, u: Floats, v: Floats, draw: _Plots, plot: NDArray[np.int64]) -> None:
    """Pitched roofs; the ridge runs along the street or across it."""
    half_u, half_v = draw.half_u[plot], draw.half_v[plot]
    house = (np.abs(u) < half_u) & (np.abs(v) < half_v) & ~draw.empty[plot]
    slope = np.where(draw.across[plot], 1 - np.abs(u) / half_u, 1 - np.abs(v) / half_v)
    height = draw.eaves[plot] + 3.2 * slope
    stage.paint(_sound(plot, house, stage), draw.roof[plot], height.astype(np.float32))


def paint_apartments(stage: Stage, rng: np.random.Generator) -> None:
    """Slabs, point towers or a perimeter block, 12 to 40 m tall, between lawns and paths."""
    stage.cover(stage.open, APARTMENTS, str(rng.choice(["mown grass", "lush grass"])))
    stage.paint((np.abs(stage.u % 34 - 17) < 1) | (np.abs(stage.v) < 1.2), "paving")
    form = rng.choice(3, p=[0.45, 0.3, 0.25])
    (_paint_slabs, _paint_towers, _paint_perimeter)[form](stage, rng)
    scatter(stage, rng, int(stage.site.half_u * stage.site.half_v / 150), conifers=0.1)


def _raise_flat(stage: Stage, mask: Mask, height: float, roof: str, rim: Mask) -> None:
    """A flat roof with a parapet, if nothing cuts into the building."""
    mask = _whole(mask, stage)
    stage.paint(mask, roof, height)
    stage.paint(mask & rim, "concrete", height + 0.8)


def _paint_slabs(stage: Stage, rng: np.random.Generator) -> None:
    site, floors = stage.site, float(rng.integers(4, 11))
    count = max(1, int(2 * site.half_u / 38))
    for k in range(count):
        u = (k + 0.5) * 2 * site.half_u / count - site.half_u
        half_u, half_v = 6.5, site.half_v - 9 - float(rng.uniform(0, 8))
        slab = stage.box(u, 0, half_u, half_v)
        rim = ~stage.box(u, 0, half_u - 1, half_v - 1) | stage.box(u, float(rng.uniform(-20, 20)), 2, 3)
        _raise_flat(stage, slab, 3.0 * floors, str(rng.choice(["gravel roof", "gravel roof", "old asphalt"])), rim)


def _paint_towers(stage: Stage, rng: np.random.Generator) -> None:
    site = stage.site
    for u in (-site.half_u * 0.55, site.half_u * 0.55):
        for v in (-site.half_v * 0.45, site.half_v * 0.45):
            half, height = float(rng.uniform(9, 12)), 3.0 * float(rng.integers(8, 14))
            top = stage.box(u, v, 3, 3) | ~stage.box(u, v, half - 1, half - 1)
            _raise_flat(stage, stage.box(u, v, half, half), height, str(rng.choice(["gravel roof", "slate roof"])), top)


def _paint_perimeter(stage: Stage, rng: np.random.Generator) -> None:
    """A closed ring of buildings around a court."""
    site, height = stage.site, 3.1 * float(rng.integers(4, 8))
    roof = str(rng.choice(["red tile roof", "slate roof", "gravel roof"]))
    edge = np.maximum(np.abs(stage.u) - (site.half_u - 5), np.abs(stage.v) - (site.half_v - 5))
    ring = (edge <= 0) & (edge > -13) & stage.open
    gap = np.abs(stage.u - float(rng.uniform(-0.3, 0.3)) * site.half_u) < 3
    pitch = 2.6 * (1 - np.abs(edge + 6.5) / 6.5) if roof != "gravel roof" else np.zeros_like(edge)
    stage.paint(ring & ~gap, roof, (height + pitch).astype(np.float32))


def paint_warehouses(stage: Stage, rng: np.random.Generator) -> None:
    """One to three big halls with light flat roofs on paved ground, loading docks and trailers."""
    site = stage.site
    stage.cover(stage.open, WAREHOUSES, str(rng.choice(["concrete", "old asphalt", "old asphalt", "asphalt"])))
    count = int(rng.choice([1, 2, 2, 3]))
    for k in range(count):
        half_u = site.half_u / count - 6
        u = (2 * k + 1) * site.half_u / count - site.half_u
        _paint_hall(stage, rng, u, half_u)
    stage.paint(site.half_v - np.abs(stage.v) < 3, "lush grass")
    row = np.linspace(-site.half_u + 8, site.half_u - 8, max(2, int(site.half_u / 9)))
    plant_in_frame(stage, row, np.full(len(row), -site.half_v + 3.0), rng)


def _paint_hall(stage: Stage, rng: np.random.Generator, u: float, half_u: float) -> None:
    half_v = stage.site.half_v * float(rng.uniform(0.6, 0.72))
    height, roof = float(rng.uniform(7, 14)), str(rng.choice(["white roof", "white roof", "metal roof", "gravel roof"]))
    v = float(rng.choice([-1, 1])) * (stage.site.half_v - half_v - 7)
    hall = _whole(stage.box(u, v, half_u, half_v), stage)
    stage.paint(hall, roof, height)
    du, dv = stage.u - u, stage.v - v
    lights = hall & (np.abs(du % 12 - 6) < 0.9) & (np.abs(dv) < half_v - 5)
    stage.paint(lights, "glass", height)
    stage.paint(hall & ~stage.box(u, v, half_u - 1, half_v - 1), "concrete", height + 0.7)
    free_side = dv if v < 0 else -dv
    docks = (free_side > half_v) & (free_side < half_v + 12) & (np.abs(du) < half_u - 3) & (du % 5 < 2.6)
    busy = np.floor(du / 5 + 50).astype(int) % 10
    trailers = docks & (rng.random(10) < 0.45)[busy]
    stage.paint(trailers & hall.any(), "white roof", 3.6)
