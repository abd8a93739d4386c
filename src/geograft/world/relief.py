"""Hills, lakes, rivers and beaches."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, label
from shapely import LineString

from geograft.world.canvas import Canvas
from geograft.world.classes import BY_NAME
from geograft.world.lines import Points, Strip, route, smooth_line, strip
from geograft.world.materials import INDEX
from geograft.world.noise import CELL, fractal, nodes, upsample

Floats = NDArray[np.float32]

LAKE, RIVER, BEACH, HARBOUR = (BY_NAME[name].id for name in ("lake", "river", "beach", "harbour"))
STEP = 4
"""Coarse nodes a cell of the routing grid, which is therefore 16 m wide."""


@dataclass(frozen=True)
class Relief:
    """The bare land on the coarse grid.

    Attributes:
        elevation: metres, water surfaces flat.
        shore: distance to the lake shore in metres, negative in the lake.
        level: the lake's elevation in metres.
    """

    elevation: Floats
    shore: Floats
    level: float

    def routing_cost(self) -> Floats:
        """Standardised height above the water on the routing grid."""
        above = self.elevation[::STEP, ::STEP] - self.level
        return np.asarray(above / (above.std() + 1e-6), np.float32)

    def near_shore(self) -> NDArray[np.bool_]:
        """The land within 170 m of the lake, along which rivers do not run, on the routing grid."""
        shore = self.shore[::STEP, ::STEP]
        return (shore > -20) & (shore < 170)


def make_relief(rng: np.random.Generator, size: int) -> Relief:
    """Hills around one or a few lakes; half of the regions lie at a broad water along one side."""
    count = nodes(size)
    hills = fractal(rng, count, 260, 6, 0.45)
    share = rng.uniform(0.085, 0.125)
    if rng.random() < 0.5:
        hills += _tilt(rng, count)
    lake = _lake_mask(hills, share)
    shore = _signed_distance(lake)
    level = float(rng.uniform(60, 320))
    roughness = 11.0 + 8.0 * rng.random()
    dry = (hills - np.quantile(hills, share)) * roughness
    bank = np.clip(shore / 90.0, 0, 1)
    elevation = level + np.where(lake, 0.0, np.maximum(dry, 0.6) * bank + 0.012 * shore.clip(0, 120))
    return Relief(elevation.astype(np.float32), shore, level)


def _tilt(rng: np.random.Generator, count: int) -> Floats:
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-1, 1, count, dtype=np.float32)
    slope = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    return np.asarray(1.7 * np.minimum(slope + 0.35, 0.0) * 2.0, np.float32)


def _lake_mask(hills: Floats, share: float) -> NDArray[np.bool_]:
    """The lowest land, without puddles."""
    low = hills < np.quantile(hills, share)
    parts, _ = label(low)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    keep = areas >= min(areas.max(), 30_000 / CELL**2)
    return np.asarray(keep[parts])


def _signed_distance(lake: NDArray[np.bool_]) -> Floats:
    """Distance from the shore in metres, with a soft zero so that the shore is smooth at 1 m."""
    outside, inside = distance_transform_edt(~lake), distance_transform_edt(lake)
    return np.asarray((outside - inside) * CELL, np.float32)


def paint_water(canvas: Canvas, relief: Relief, rng: np.random.Generator) -> None:
    """Lakes with shallow margins, and beaches along about a third of their shores."""
    count = nodes(canvas.size)
    shore = upsample(_soften(relief.shore), canvas.size)
    where = fractal(rng, count, 70, 2)
    sandy = where > np.quantile(where[np.abs(relief.shore) < 30], 0.52)
    width = upsample(np.where(sandy, 42.0 + 12 * fractal(rng, count, 24, 2), 0.0).astype(np.float32), canvas.size)
    lake = shore < 0
    canvas.fill(lake, LAKE, "deep water")
    canvas.material[lake & (shore > -0.35 * width - 4)] = INDEX["shallow water"]
    beach = (shore >= 0) & (shore < np.clip(width, 0, 64)) & (width > 12)
    canvas.fill(beach, BEACH, "sand")
    canvas.material[beach & (shore < 4)] = INDEX["wet sand"]


def _soften(shore: Floats) -> Floats:
    return np.asarray(gaussian_filter(shore, 2.0), np.float32)


def paint_rivers(canvas: Canvas, relief: Relief, rng: np.random.Generator) -> list[Points]:
    """Meandering rivers in the valleys, 15 to 40 m wide, from edge to edge or into the lake."""
    lines = []
    for number in range(max(1, round(canvas.size / 1500))):
        line = _river_line(canvas, relief, rng, upright=number % 2 == 0)
        half = float(rng.uniform(9.5, 17.0))
        _dig(canvas, strip(line, half + 70, canvas.size), half, rng)
        canvas.name(RIVER, LineString(line).buffer(half), 0.0)
        lines.append(line)
    return lines


def _river_line(canvas: Canvas, relief: Relief, rng: np.random.Generator, *, upright: bool) -> Points:
    cost = 1.6 * relief.routing_cost()
    cost = cost + 1.5 * np.abs(fractal(rng, cost.shape[0], 9, 2)) + 5.0 * relief.near_shore()
    harbour = binary_dilation(canvas.cover[:: CELL * STEP, :: CELL * STEP] == HARBOUR, iterations=4)
    cost[: len(harbour), : len(harbour)] += 20.0 * harbour
    cost = (cost.T if upright else cost).astype(np.float32)
    lane = np.full(cost.shape[1], rng.uniform(0.2, 0.8) * len(cost), np.float32)
    rows = route(cost, lane, pull=0.5, climb=0.0)
    return smooth_line(rows, CELL * STEP, 34.0, upright=upright)


def _dig(canvas: Canvas, near: Strip, half: float, rng: np.random.Generator) -> None:
    """Let the ground fall to the water, and paint the water."""
    wobble = np.sin(near.along / 90 + rng.uniform(0, 6)) + 0.6 * np.sin(near.along / 37 + rng.uniform(0, 6))
    half_here = (half * (1 + 0.16 * wobble)).astype(np.float32)
    fall = np.clip(1 - (near.across - half_here) / 60, 0, 1)
    at = (near.rows, near.cols)
    canvas.ground[at] -= fall * fall * (3 - 2 * fall) * 3.0
    wet = near.within(half_here)
    keep = ~np.isin(canvas.cover[wet.rows, wet.cols], (LAKE, HARBOUR))
    rows, cols = wet.rows[keep], wet.cols[keep]
    canvas.cover[rows, cols] = RIVER
    canvas.material[rows, cols] = INDEX["river water"]
    canvas.free[rows, cols] = False


def level_water(canvas: Canvas, level: float) -> None:
    """Put lakes at one elevation and keep the land beside them from falling below it."""
    lake = canvas.cover == LAKE
    np.maximum(canvas.ground, level + 0.2, out=canvas.ground)
    canvas.ground[lake] = level
