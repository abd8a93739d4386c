"""Main roads, railways and the airport, which the rest of the land arranges itself around."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter1d
from shapely import LineString

from geograft.world.canvas import Canvas, Site, Stage, find_site
from geograft.world.classes import BY_NAME
from geograft.world.lines import Points, Strip, bearings, resample, route, smooth_line, strip
from geograft.world.materials import INDEX
from geograft.world.noise import CELL, fractal
from geograft.world.relief import LAKE, RIVER, STEP, Relief

Floats = NDArray[np.float32]

ROAD, RAILWAY, RUNWAY, GRASS = (BY_NAME[n].id for n in ("road", "railway", "airport runway", "grassland"))
DECK = 5.0
"""Height of bridges above the water, metres."""


@dataclass(frozen=True)
class Network:
    """Where main roads run.

    Attributes:
        lines: points (x, y) of each road.
        places: rows (x, y, angle), a point of a road every 12 m with the road's direction.
    """

    lines: list[Points]
    places: NDArray[np.float64]


def _path(
    canvas: Canvas, relief: Relief, rng: np.random.Generator, ends: tuple[float, float], *, upright: bool
) -> Points:
    """A line across the region between two heights of opposite edges (0..1), avoiding what is taken."""
    taken = ~canvas.free[:: CELL * STEP, :: CELL * STEP]
    water = np.isin(canvas.cover[:: CELL * STEP, :: CELL * STEP], (LAKE, RIVER))
    cost = 1.2 * np.abs(fractal(rng, len(taken), 26, 2)) + 7.0 * water
    cost += 30.0 * binary_dilation(taken & ~water, iterations=2) + 4.0 * (
        relief.shore[::STEP, ::STEP][: len(taken), : len(taken)] < 12
    )
    cost = (cost.T if upright else cost).astype(np.float32)
    lane = np.linspace(ends[0], ends[1], cost.shape[1]).astype(np.float32) * len(cost)
    return smooth_line(route(cost, lane, pull=5.0), CELL * STEP, 48.0, upright=upright)


def paint_roads(canvas: Canvas, relief: Relief, rng: np.random.Generator) -> Network:
    """Main roads, 8 to 10 m wide, in both directions; they cross water on bridges."""
    count = max(1, round(canvas.size / 1250))
    lines = []
    for upright in (False, True):
        for number in range(count):
            ends = (number + 0.5 + rng.uniform(-0.3, 0.3, 2)) / count
            lines.append(_path(canvas, relief, rng, (ends[0], ends[1]), upright=upright))
    for line in lines:
        half = float(rng.uniform(4.2, 5.2))
        _paint_road(canvas, strip(line, half + 0.5, canvas.size), half)
        canvas.name(ROAD, LineString(line).buffer(half), 0.0)
    points = np.concatenate(lines)
    return Network(lines, np.column_stack([points, np.concatenate([bearings(line) for line in lines])]))


def _paint_road(canvas: Canvas, near: Strip, half: float) -> None:
    near = near.within(half)
    at = (near.rows, near.cols)
    wet = np.isin(canvas.cover[at], (LAKE, RIVER)) | (canvas.height[at] == DECK)
    material = np.full(len(near.rows), INDEX["asphalt"], np.uint8)
    material[(near.across < 0.55) & (near.along % 12 < 4)] = INDEX["white paint"]
    material[wet & (near.across > half - 1.2)] = INDEX["concrete"]
    _lay(canvas, near, ROAD, material, wet)


def _lay(canvas: Canvas, near: Strip, class_id: int, material: NDArray[np.uint8], wet: NDArray[np.bool_]) -> None:
    at = (near.rows, near.cols)
    canvas.cover[at] = class_id
    canvas.material[at] = material
    canvas.height[at] = np.where(wet, DECK, 0.0)
    canvas.free[at] = False


def paint_railways(canvas: Canvas, relief: Relief, rng: np.random.Generator) -> None:
    """Double tracks with gentle bends: ballast, rails, and bridges over water."""
    for number in range(max(1, round(canvas.size / 1800))):
        ends = (float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.1, 0.9)))
        line = _rail_line(canvas, relief, rng, ends, upright=number % 2 == 1)
        near = strip(line, 6.0, canvas.size)
        at = (near.rows, near.cols)
        wet = np.isin(canvas.cover[at], (LAKE, RIVER)) | (canvas.height[at] == DECK)
        material = np.full(len(near.rows), INDEX["ballast"], np.uint8)
        material[np.abs(near.across - 2.6) > 2.9] = INDEX["gravel"]
        rails = (np.abs(near.across - 1.6) < 0.5) | (np.abs(near.across - 3.8) < 0.5)
        material[rails] = INDEX["rail"]
        _lay(canvas, near, RAILWAY, material, wet)
        canvas.name(RAILWAY, LineString(line).buffer(6.0), 0.0)


def _rail_line(
    canvas: Canvas, relief: Relief, rng: np.random.Generator, ends: tuple[float, float], *, upright: bool
) -> Points:
    line = _path(canvas, relief, rng, ends, upright=upright)
    soft = np.stack([gaussian_filter1d(line[:, k], 9, mode="nearest") for k in (0, 1)], 1)
    return resample(np.concatenate([line[:1], soft[6:-6], line[-1:]]), 12.0)


def paint_airports(canvas: Canvas, rng: np.random.Generator) -> None:
    """Airfields with one runway each on rather level ground."""
    wanted = round(canvas.size**2 / 6.5e6) if canvas.size >= 1200 else 0
    for _ in range(max(1, wanted) if canvas.size >= 1200 else 0):
        length = float(rng.uniform(0.5, 0.6)) * min(canvas.size, 1700)
        half = (max(length, 700.0 if canvas.size >= 1600 else 500.0) / 2, 72.0)
        site = find_site(canvas, rng, half, tries=600)
        if site is not None:
            _paint_airport(canvas, site, rng)


def _paint_airport(canvas: Canvas, site: Site, rng: np.random.Generator) -> None:
    stage = canvas.stage(site)
    _flatten(stage)
    half = float(rng.uniform(14, 22))
    runway = site.part(0, -site.half_v + half + 10, site.half_u - 8, half)
    stage.cover(stage.open, GRASS, "mown grass")
    strip_v = -site.half_v + half + 10
    stage.cover(
        stage.box(0, strip_v, site.half_u - 8, half), RUNWAY, str(rng.choice(["runway asphalt", "old asphalt"]))
    )
    _paint_marks(stage, strip_v, site.half_u - 8, half)
    _paint_apron(stage, strip_v + half, rng)
    canvas.name(RUNWAY, runway.polygon(), 0.0)


def _flatten(stage: Stage) -> None:
    """One plane through the site, blended into the land over 40 m."""
    site, ground = stage.site, stage.canvas.ground[stage.window]
    wide = stage.canvas.stage(Site(site.x, site.y, site.angle, site.half_u + 40, site.half_v + 40))
    level = float(ground[stage.open].mean())
    beyond = np.maximum(np.abs(wide.u) - site.half_u, np.abs(wide.v) - site.half_v)
    blend = np.clip(1 - beyond / 40, 0, 1) * wide.open
    window = stage.canvas.ground[wide.window]
    window += (blend * (level - window)).astype(np.float32)


def _paint_marks(stage: Stage, v: float, half_u: float, half_v: float) -> None:
    """Centre line, thresholds, edges and touchdown marks."""
    u, across = np.abs(stage.u), np.abs(stage.v - v)
    on = stage.box(0, v, half_u - 4, half_v - 2)
    centre = (across < 0.9) & (stage.u % 50 < 30) & (u < half_u - 60)
    keys = (u > half_u - 34) & (u < half_u - 6) & (across % 4 < 2)
    edges = (across > half_v - 3.2) & (across < half_v - 2)
    touch = (u > half_u - 120) & (u < half_u - 90) & (np.abs(across - half_v * 0.45) < 2)
    stage.paint(on & (centre | keys | edges | touch), "white paint")


def _paint_apron(stage: Stage, v: float, rng: np.random.Generator) -> None:
    """A taxiway beside the runway and an apron with hangars."""
    half_u = stage.site.half_u
    lane = v + 22
    apron_u = float(rng.uniform(-0.4, 0.4)) * half_u
    taxi = stage.box(0, lane, half_u - 30, 6)
    links = (np.abs(np.abs(stage.u) - (half_u - 36)) < 6) & (stage.v > v - 1) & (stage.v < lane)
    apron = stage.box(apron_u, lane + 22, 75, 22)
    stage.cover(taxi | links, RUNWAY, "runway asphalt")
    stage.cover(apron, RUNWAY, "concrete")
    stage.paint(apron & ((stage.u % 12 < 0.8) | ((stage.v - v) % 12 < 0.8)), "old asphalt")
    stage.paint(taxi & (np.abs(stage.v - lane) < 0.6), "white paint")
    for k in (-1, 1):
        hangar = stage.box(apron_u + 110 * k, lane + 22, 22, 16)
        arch = np.sqrt(np.clip(1 - ((stage.v - lane - 22) / 17) ** 2, 0, 1))
        stage.cover(hangar, BY_NAME["warehouses"].id, "metal roof")
        stage.paint(hangar, "metal roof", (6 + 5 * arch).astype(np.float32))
