"""The open land between everything else: woods, meadows, and fields laid out in parcels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from geograft.world.canvas import Canvas, coarse_free
from geograft.world.classes import BY_NAME
from geograft.world.materials import INDEX
from geograft.world.noise import CELL, fractal, nodes
from geograft.world.trees import plant_trees, plant_wood

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

FOREST, GRASS, WHEAT, RAPE, VINE, ROAD = (
    BY_NAME[n].id for n in ("forest", "grassland", "wheat field", "rapeseed field", "vineyard", "road")
)
OPEN_WORKS = tuple(
    BY_NAME[n].id
    for n in ("solar farm", "greenhouses", "wind turbines", "airport runway", "houses", "apartment blocks")
)
"""Classes that woods keep away from."""
MARGIN = 1.6
"""Width of the grassy margin of a parcel, metres."""
LANE = 2.2
"""Half width of the lanes between groups of parcels, metres."""


@dataclass(frozen=True)
class Zone:
    """Parcels of one direction and size: seed point, angle, parcel sides in metres, first parcel number."""

    x: float
    y: float
    angle: float
    side_u: float
    side_v: float
    first: int


CROPS = (WHEAT, RAPE, VINE, GRASS)
TONES: dict[int, tuple[str, ...]] = {
    WHEAT: ("golden wheat", "pale wheat", "ripening wheat", "golden wheat"),
    RAPE: ("rapeseed", "rapeseed", "thin rapeseed"),
    VINE: ("vine",),
    GRASS: ("lush grass", "dry grass", "lush grass"),
}
ACROSS = 48
"""Parcels that a zone may have along each axis; zones are far smaller than this many."""


def paint_open_land(canvas: Canvas, rng: np.random.Generator) -> None:
    """Fill all land that is still free."""
    count = nodes(canvas.size)
    free = coarse_free(canvas)
    woods, meadows = fractal(rng, count, 110, 6, 0.55), fractal(rng, count, 90, 6, 0.55)
    part = (slice(0, free.shape[0]), slice(0, free.shape[1]))
    woods[part] -= 1.8 * np.exp(-((_away_from_works(canvas) / 70) ** 2))
    forest_line = np.quantile(woods[part][free], 0.665) if free.any() else 0.0
    field = free & (woods[part] < forest_line)
    meadow_line = np.quantile(meadows[part][field], 0.85) if field.any() else 0.0
    forest = (canvas.raise_to(woods) >= forest_line) & canvas.free
    meadow = (canvas.raise_to(meadows) >= meadow_line) & canvas.free & ~forest
    _paint_fields(canvas, ~forest & ~meadow, rng)
    _paint_meadow(canvas, meadow & canvas.free, rng)
    _paint_forest(canvas, forest & canvas.free, rng)


def _away_from_works(canvas: Canvas) -> Floats:
    """Metres to the nearest thing that stands on open land, at every CELL metres."""
    works = np.isin(canvas.cover[::CELL, ::CELL], OPEN_WORKS)
    if not works.any():
        return np.full(works.shape, 1e4, np.float32)
    return np.asarray(distance_transform_edt(~works) * CELL, np.float32)


def _paint_meadow(canvas: Canvas, mask: Mask, rng: np.random.Generator) -> None:
    dry = canvas.raise_to(fractal(rng, nodes(canvas.size), 12, 3)) > 0.5
    canvas.fill(mask, GRASS, "lush grass")
    canvas.material[mask & dry] = INDEX["dry grass"]
    rows, cols = np.nonzero(mask[:: CELL * 2, :: CELL * 2])
    pick = rng.random(len(rows)) < 0.035
    plant_trees(canvas, cols[pick] * 8.0 + 4.3, rows[pick] * 8.0 + 4.3, rng)


def _paint_forest(canvas: Canvas, mask: Mask, rng: np.random.Generator) -> None:
    canvas.fill(mask, FOREST, "broadleaf")
    conifer = canvas.raise_to(fractal(rng, nodes(canvas.size), 70, 4)) > 0.15
    plant_wood(canvas, mask, conifer, rng)


def _zones(rng: np.random.Generator, size: int) -> list[Zone]:
    count = max(3, round(size**2 / 4.2e5))
    side = int(np.ceil(np.sqrt(count)))
    zones = []
    for number in range(side * side):
        x = (number % side + rng.uniform(0.1, 0.9)) * size / side
        y = (number // side + rng.uniform(0.1, 0.9)) * size / side
        sides = np.sort(rng.uniform(75, 185, 2))[::-1]
        zones.append(Zone(x, y, rng.uniform(0, np.pi), sides[0], max(62.0, sides[1] * 0.8), number * ACROSS**2))
    return zones


def _paint_fields(canvas: Canvas, where: Mask, rng: np.random.Generator) -> None:
    """Voronoi zones with lanes between them, each a rotated grid of parcels."""
    zones = _zones(rng, canvas.size)
    crop, tone = _plant(rng, len(zones))
    reach = 1.5 * canvas.size / np.sqrt(len(zones))
    step = 256
    for top in range(0, canvas.size, step):
        for left in range(0, canvas.size, step):
            window = (slice(top, min(top + step, canvas.size)), slice(left, min(left + step, canvas.size)))
            near = [z for z in zones if max(abs(z.x - left - step / 2), abs(z.y - top - step / 2)) < reach + step / 2]
            _paint_window(canvas, where, window, near, crop, tone)


def _plant(rng: np.random.Generator, zones: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Crop and tone of every parcel; a zone grows vines mostly, or hardly any."""
    shares = np.array(
        [(0.08, 0.07, 0.75, 0.10) if rng.random() < 0.27 else (0.53, 0.33, 0.02, 0.12) for _ in range(zones)]
    )
    draw = rng.random((zones, ACROSS**2, 1))
    crop = (draw > np.cumsum(shares, 1)[:, None, :-1]).sum(2).astype(np.uint8)
    return np.array(CROPS, np.uint8)[crop].ravel(), rng.integers(0, 12, zones * ACROSS**2, np.uint8)


def _paint_window(
    canvas: Canvas,
    where: Mask,
    window: tuple[slice, slice],
    zones: list[Zone],
    crop: NDArray[np.uint8],
    tone: NDArray[np.uint8],
) -> None:
    todo = where[window] & canvas.free[window]
    if not todo.any():
        return
    rows, cols = window
    y = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5)[:, None]
    x = (np.arange(cols.start, cols.stop, dtype=np.float32) + 0.5)[None, :]
    away = np.stack([np.hypot(x - zone.x, y - zone.y) for zone in zones])
    if len(zones) > 1:
        nearest = np.partition(away, 1, axis=0)[:2]
        lane = todo & (nearest[1] - nearest[0] < 2 * LANE)
        _put(canvas, window, lane, np.uint8(ROAD), np.uint8(INDEX["gravel"]))
        todo &= ~lane
    owner = away.argmin(0)
    for number in np.flatnonzero(np.bincount(owner[todo])):
        _paint_zone(canvas, window, todo & (owner == number), zones[int(number)], x, y, crop, tone)


def _put(
    canvas: Canvas,
    window: tuple[slice, slice],
    mask: Mask,
    cover: np.uint8 | NDArray[np.uint8],
    material: np.uint8 | NDArray[np.uint8],
) -> None:
    canvas.cover[window][mask] = cover
    canvas.material[window][mask] = material
    canvas.free[window][mask] = False


def _paint_zone(
    canvas: Canvas,
    window: tuple[slice, slice],
    mask: Mask,
    zone: Zone,
    x: Floats,
    y: Floats,
    crop: NDArray[np.uint8],
    tone: NDArray[np.uint8],
) -> None:
    cos, sin = np.float32(np.cos(zone.angle)), np.float32(np.sin(zone.angle))
    u = ((x - zone.x) * cos + (y - zone.y) * sin)[mask]
    v = ((y - zone.y) * cos - (x - zone.x) * sin)[mask]
    row = np.floor(v / zone.side_v)
    u = u + zone.side_u * ((row * 0.618) % 1)
    column = np.floor(u / zone.side_u)
    parcel = zone.first + (row + ACROSS // 2).astype(np.int64) * ACROSS + (column + ACROSS // 2).astype(np.int64)
    kind, shade = crop[parcel], tone[parcel]
    in_u, in_v = u - column * zone.side_u, v - row * zone.side_v
    material, height = _looks(kind, shade, in_u, in_v)
    edge = np.minimum(np.minimum(in_u, zone.side_u - in_u), np.minimum(in_v, zone.side_v - in_v)) < MARGIN
    material[edge] = INDEX["lush grass"]
    height[edge] = 0.2
    _put(canvas, window, mask, kind, material)
    canvas.height[window][mask] = height


def _looks(kind: NDArray[np.uint8], shade: NDArray[np.uint8], u: Floats, v: Floats) -> tuple[NDArray[np.uint8], Floats]:
    """Material and height of fields, with tramlines in cereals and rows of vines."""
    material, height = np.zeros(len(kind), np.uint8), np.zeros(len(kind), np.float32)
    for crop, names in TONES.items():
        looks = np.array([INDEX[name] for name in names], np.uint8)
        mine = kind == crop
        material[mine] = looks[shade[mine] % len(names)]
    height[kind == WHEAT], height[kind == RAPE], height[kind == GRASS] = 0.8, 1.2, 0.2
    across = np.where(shade < 6, u, v)
    tramline = np.isin(kind, (WHEAT, RAPE)) & ((across % 21 < 0.9) | (np.abs(across % 21 - 3) < 0.5))
    material[tramline], height[tramline] = INDEX["bare soil"], 0.0
    vines = kind == VINE
    between = vines & (across % 3.2 > 1.5)
    material[between] = np.where(shade[between] % 3 == 0, INDEX["lush grass"], INDEX["vine soil"])
    height[vines & ~between] = 1.7
    return material, height
