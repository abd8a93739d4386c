"""What comes and goes with the date: boats, planes and cars, stamped onto copies of a land's rasters."""

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon

from geograft.world.canvas import Frame, Site
from geograft.world.classes import BY_NAME
from geograft.world.grounds import BAY, bay_rows
from geograft.world.materials import INDEX
from geograft.world.terrain import Land
from geograft.world.works import jetties

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

LAKE, ROAD, PARKING, RUNWAY, HARBOUR = (
    BY_NAME[n].id for n in ("lake", "road", "parking lot", "airport runway", "harbour")
)
PAINTS = tuple(
    INDEX[name] for name in ("silver car", "silver car", "dark car", "dark car", "red car", "blue car", "white hull")
)
TARMAC = ("asphalt", "old asphalt", "white paint", "concrete")


@dataclass
class _Scene:
    """Copies of a land's rasters to stamp on, and the day's randomness."""

    land: Land
    material: NDArray[np.uint8]
    height: NDArray[np.float32]
    rng: np.random.Generator

    def stamp(self, frame: Frame, mask: Mask, look: int | NDArray[np.uint8], height: float) -> None:
        self.material[frame.window][mask] = look[mask] if isinstance(look, np.ndarray) else look
        self.height[frame.window][mask] = height

    def on(self, frame: Frame, class_id: int, names: tuple[str, ...]) -> Mask:
        """Pixels of a class that are made of one of some materials."""
        numbers = [INDEX[name] for name in names]
        made = np.isin(self.land.material[frame.window], numbers)
        return np.asarray((self.land.cover[frame.window] == class_id) & made)


def with_movables(land: Land, taken: datetime) -> Land:
    """The land with the boats, planes and cars of a date; class, ground and objects stay the same.

    The same land and date (to the hour) give the same things. Fewer boats are out in winter.
    """
    stamp = taken.toordinal() * 24 + taken.hour
    rng = np.random.default_rng([land.seed, land.size, stamp])
    scene = _Scene(land, land.material.copy(), land.height.copy(), rng)
    summer = 0.5 - 0.5 * np.cos(2 * np.pi * (taken.timetuple().tm_yday + 10) / 365.25)
    for class_id, act in ((PARKING, _park_cars), (HARBOUR, _moor_boats)):
        for outline in land.objects.geometry[land.objects.class_id == class_id]:
            site = site_of(outline, land)
            if site is not None:
                act(scene, site, float(summer))
    _sail_boats(scene, float(summer))
    _drive_cars(scene)
    _park_planes(scene)
    return replace(land, material=scene.material, height=scene.height)


def site_of(outline: Polygon, land: Land) -> Site | None:
    """The site whose outline this is, or None if the region's edge cut it."""
    corners = np.asarray(outline.exterior.coords) if isinstance(outline, Polygon) else np.zeros((0, 2))
    if len(corners) != 5:
        return None
    points = np.stack([corners[:4, 0] - land.left, land.top - corners[:4, 1]], 1)
    if points.min() < -1 or points.max() > land.size + 1:
        return None
    along, down = points[1] - points[0], points[3] - points[0]
    if abs(float(along @ down)) > 1e-3 * float(np.hypot(*along) * np.hypot(*down)):
        return None
    x, y = points.mean(0)
    return Site(float(x), float(y), float(np.arctan2(along[1], along[0])), np.hypot(*along) / 2, np.hypot(*down) / 2)


def _park_cars(scene: _Scene, site: Site, _: float) -> None:
    """Cars on some of the bays."""
    frame, rng = Frame(site, scene.land.size), scene.rng
    bay = np.clip(((frame.u + site.half_u) / BAY).astype(int), 0, 255)
    within = (frame.u + site.half_u) % BAY
    clear = scene.on(frame, PARKING, TARMAC) & (scene.land.height[frame.window] < 0.5)
    full = rng.uniform(0.3, 0.9)
    for v in bay_rows(site.half_v):
        taken, paint = rng.random(256) < full, rng.choice(PAINTS, 256).astype(np.uint8)
        car = (np.abs(frame.v - v) < 2.2) & (within > 1) & taken[bay] & (np.abs(frame.u) < site.half_u - 4)
        scene.stamp(frame, car & clear, paint[bay], 1.5)


def _moor_boats(scene: _Scene, site: Site, summer: float) -> None:
    """Hulls on both sides of the jetties."""
    frame, rng = Frame(site, scene.land.size), scene.rng
    water = scene.on(frame, HARBOUR, ("shallow water",))
    berth = np.clip(((frame.v + site.half_v) / 6).astype(int), 0, 255)
    abeam = (frame.v + site.half_v) % 6 - 3
    full = 0.4 + 0.35 * summer
    for u in jetties(site.half_u):
        for side in (-1, 1):
            out = (frame.u - u) * side - 1.8
            length = rng.uniform(5.5, 10, 256).astype(np.float32)[berth]
            hull = (out > 0) & (out < length) & (np.abs(abeam) < 1.5 * np.sqrt(np.clip(1 - (out / length) ** 3, 0, 1)))
            taken = (rng.random(256) < full)[berth]
            scene.stamp(frame, hull & taken & water, INDEX["white hull"], 1.6)
            deck = hull & (np.abs(abeam) < 0.6) & (out > 2) & (out < length - 2)
            look = rng.choice([INDEX["wood"], INDEX["blue car"], INDEX["white hull"]], 256).astype(np.uint8)
            scene.stamp(frame, deck & taken & water, look[berth], 2.2)


def _pixels(scene: _Scene, mask: Mask, count: int) -> Points:
    """Random places (x, y) of a region-wide mask."""
    rows, cols = np.nonzero(mask)
    if not len(rows):
        return np.zeros((0, 2))
    pick = scene.rng.integers(0, len(rows), count)
    return np.stack([cols[pick] + 0.5, rows[pick] + 0.5], 1)


def _sail_boats(scene: _Scene, summer: float) -> None:
    """Boats out on the lake."""
    lake = scene.land.cover[::8, ::8] == LAKE
    count = int(lake.sum() * 64e-6 * (4 + 14 * summer))
    for x, y in _pixels(scene, lake, count) * 8:
        half = float(scene.rng.uniform(3.5, 8))
        frame = Frame(Site(float(x), float(y), float(scene.rng.uniform(0, 6.28)), half, half), scene.land.size)
        hull = np.abs(frame.v) < 0.3 * half * np.sqrt(np.clip(1 - (frame.u / half) ** 2, 0, 1))
        on_lake = scene.land.cover[frame.window] == LAKE
        scene.stamp(frame, hull & on_lake, INDEX["white hull"], 2.0)


def _drive_cars(scene: _Scene) -> None:
    """Cars on roads, each in its right-hand lane."""
    land = scene.land
    road = (land.cover[::3, ::3] == ROAD) & np.isin(land.material[::3, ::3], (INDEX["asphalt"], INDEX["white paint"]))
    places = _pixels(scene, road, int(road.sum() * 9 / 900)) * 3
    angles = _road_direction(land, places) + np.pi * scene.rng.integers(0, 2, len(places))
    for (x, y), angle in zip(places, angles, strict=True):
        site = Site(float(x), float(y), float(angle), 6.0, 6.0)
        frame = Frame(site, land.size)
        clear = scene.on(frame, ROAD, TARMAC)
        long = 4.5 if scene.rng.random() < 0.1 else 2.3
        car = (np.abs(frame.u) < long) & (np.abs(frame.v) < 1.05)
        if (car & clear).sum() > 0.8 * car.sum():
            scene.stamp(frame, car & clear, int(scene.rng.choice(PAINTS)), 1.5 if long < 4 else 3.4)


def _road_direction(land: Land, places: Points) -> NDArray[np.float64]:
    """The direction in which road goes on furthest, radians, for each place."""
    turns = np.arange(12) * np.pi / 12
    steps = np.arange(-14, 15, 2)
    x = places[:, 0, None, None] + np.cos(turns)[:, None] * steps
    y = places[:, 1, None, None] + np.sin(turns)[:, None] * steps
    cols, rows = np.clip(x, 0, land.size - 1).astype(int), np.clip(y, 0, land.size - 1).astype(int)
    return np.asarray(turns[(land.cover[rows, cols] == ROAD).sum(2).argmax(1)])


def _park_planes(scene: _Scene) -> None:
    """Planes on aprons, and now and then one on a taxiway or runway."""
    land = scene.land
    paved = land.cover[::6, ::6] == RUNWAY
    apron = paved & (land.material[::6, ::6] == INDEX["concrete"])
    for x, y in np.concatenate([_pixels(scene, apron, 60), _pixels(scene, paved, 3)]) * 6:
        half = float(scene.rng.uniform(7, 17))
        frame = Frame(Site(float(x), float(y), float(scene.rng.uniform(0, 6.28)), half, half), land.size)
        plane = _plane(frame, half)
        busy = np.isin(scene.material[frame.window], (INDEX["white hull"],)) | (land.cover[frame.window] != RUNWAY)
        if not (plane & busy).any():
            scene.stamp(frame, plane, INDEX["white hull"], 4.0)


def _plane(frame: Frame, half: float) -> Mask:
    """A plane seen from above: body, swept wings, tail."""
    u, v = frame.u / half, np.abs(frame.v) / half
    body = (np.abs(u) < 0.97) & (v < 0.115)
    wings = (np.abs(u + 0.45 * v - 0.12) < 0.19 - 0.11 * v) & (v < 0.95)
    tail = (np.abs(u + 0.85 + 0.3 * v) < 0.08) & (v < 0.36)
    return np.asarray(body | wings | tail)
