"""Large single things of the countryside: solar farms, greenhouses, wind turbines, quarries, golf, harbours."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from geograft.world.canvas import Canvas, Site, Stage, find_site
from geograft.world.classes import BY_NAME
from geograft.world.grounds import paint_parking, paint_pitch
from geograft.world.materials import INDEX
from geograft.world.noise import CELL
from geograft.world.relief import BEACH, LAKE, Relief
from geograft.world.traffic import Network
from geograft.world.trees import plant_in_frame, scatter

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Painter = Callable[[Stage, np.random.Generator], None]

SOLAR, GLASS, TURBINE, QUARRY, GOLF, HARBOUR, PARKING, PITCH, GRASS = (
    BY_NAME[n].id
    for n in (
        "solar farm",
        "greenhouses",
        "wind turbines",
        "quarry",
        "golf course",
        "harbour",
        "parking lot",
        "sports pitch",
        "grassland",
    )
)
JETTY_STEP = 33.0
"""Metres from one jetty of a harbour to the next."""


def paint_works(canvas: Canvas, network: Network, rng: np.random.Generator) -> None:
    """Place everything that needs room; the largest first."""
    square_km = canvas.size**2 / 1e6
    tasks: list[tuple[int, float, tuple[float, float], tuple[float, float], Painter]] = [
        (GOLF, 0.27, (150, 205), (115, 150), paint_golf),
        (QUARRY, 0.3, (115, 185), (95, 145), paint_quarry),
        (PITCH, 0.34, (94, 98), (50, 53), paint_pitch),
        (SOLAR, 1.15, (75, 150), (50, 95), paint_solar),
        (GLASS, 1.15, (50, 95), (36, 62), paint_greenhouses),
        (PARKING, 0.7, (36, 62), (25, 42), paint_parking),
        (PITCH, 0.5, (56, 58), (38, 40), paint_pitch),
    ]
    for class_id, density, half_u, half_v, painter in tasks:
        for _ in range(max(1, round(density * square_km))):
            half = (float(rng.uniform(*half_u)), float(rng.uniform(*half_v)))
            _place(canvas, network, rng, half, class_id, painter)
    paint_turbines(canvas, rng)


def _place(
    canvas: Canvas,
    network: Network,
    rng: np.random.Generator,
    half: tuple[float, float],
    class_id: int,
    painter: Painter,
) -> None:
    site = find_site(canvas, rng, half, places=network.places)
    if site is None and class_id != PITCH:
        half = (half[0] * 0.66, half[1] * 0.66)
        site = find_site(canvas, rng, half, places=network.places)
    if site is None:
        return
    painter(canvas.stage(site), rng)
    heights = {GLASS: 5.5, SOLAR: 2.2}
    canvas.name(class_id, site.polygon(), heights.get(class_id, 0.0))


def paint_solar(stage: Stage, rng: np.random.Generator) -> None:
    """Rows of tilted panels that face south, service lanes, a hut."""
    site = stage.site
    stage.cover(stage.open, SOLAR, str(rng.choice(["dry grass", "lush grass", "gravel"], p=[0.5, 0.35, 0.15])))
    cos, sin = np.cos(site.angle), np.sin(site.angle)
    south = stage.u * sin + stage.v * cos
    east = stage.u * cos - stage.v * sin
    period, depth = float(rng.uniform(6.5, 9.0)), float(rng.uniform(3.6, 5.0))
    row = south % period
    lane = (np.abs(east % 64 - 32) < 2) | (np.abs(south % (period * 14) - 2) < 3)
    inner = stage.box(0, 0, site.half_u - 5, site.half_v - 5)
    panels = inner & (row < depth) & ~lane
    stage.paint(panels, "solar panel", (2.4 - 1.6 * row / depth).astype(np.float32))
    stage.paint(stage.box(site.half_u - 8, site.half_v - 8, 3, 2), "concrete", 3.0)


def paint_greenhouses(stage: Stage, rng: np.random.Generator) -> None:
    """Blocks of glass spans with ridges, paths between them, a water basin."""
    site = stage.site
    stage.cover(stage.open, GLASS, str(rng.choice(["gravel", "concrete", "bare soil"])))
    span, columns = float(rng.uniform(7, 10)), max(1, round(site.half_u / 30))
    width = 2 * site.half_u / columns
    inside = (np.abs((stage.u + site.half_u) % width - width / 2) < width / 2 - 3) & (np.abs(stage.v) < site.half_v - 3)
    house = inside & (np.abs(np.abs(stage.v) - 2.5) > 2.5)
    fall = np.abs(stage.u % span - span / 2) / (span / 2)
    shaded = (np.floor((stage.u + site.half_u) / width) + 2 * (stage.v > 0)).astype(int) % 5
    look = np.where((rng.random(5) < 0.4)[shaded], INDEX["shaded glass"], INDEX["glass"]).astype(np.uint8)
    stage.paint(house, look, (5.6 - 1.6 * fall).astype(np.float32))
    stage.paint(house & (fall > 0.86), "concrete")
    stage.paint(stage.box(site.half_u - 14, site.half_v - 11, 11, 8), "concrete", 0.5)
    stage.paint(stage.box(site.half_u - 14, site.half_v - 11, 9, 6), "deep water", 0.0)


def _blob(stage: Stage, rng: np.random.Generator, rough: float = 0.14) -> Floats:
    """Relative radius of an organic patch that just fits the site: below 1 inside."""
    angle = np.arctan2(stage.v / stage.site.half_v, stage.u / stage.site.half_u)
    wave = sum(rng.uniform(-1, 1) / k * np.cos(k * angle + rng.uniform(0, 6)) for k in (2, 3, 4, 5, 7))
    radius = 1 - rough * (1 + np.clip(wave, -1, 1))
    return np.asarray(np.hypot(stage.u / stage.site.half_u, stage.v / stage.site.half_v) / radius, np.float32)


def paint_quarry(stage: Stage, rng: np.random.Generator) -> None:
    """A pit with benches of bare rock, a haul road down, a pond or plant at the bottom."""
    blob = _blob(stage, rng, 0.2)
    inside = (blob < 1) & stage.open
    benches, drop = int(rng.integers(4, 7)), float(rng.uniform(5, 9))
    depth = np.ceil((1 - blob) * benches * 1.5).clip(0, benches)
    rough = np.kron(stage.random(rng)[::6, ::6], np.ones((6, 6), np.float32))[: blob.shape[0], : blob.shape[1]]
    look = np.where(rough + 0.12 * depth > 0.95, INDEX["ochre rock"], INDEX["grey rock"]).astype(np.uint8)
    stage.cover(inside, QUARRY, "grey rock")
    if rng.random() < 0.5:
        look = np.where(look == INDEX["grey rock"], INDEX["ochre rock"], INDEX["grey rock"]).astype(np.uint8)
    stage.paint(inside, look)
    ground = stage.canvas.ground[stage.window]
    ground -= np.where(inside, drop * depth + 0.8 * rough, 0).astype(np.float32)
    road = np.abs((np.arctan2(stage.v, stage.u) + 4.5 * blob) % (2 * np.pi) - np.pi) * blob * stage.site.half_u < 6
    stage.paint(inside & road, "gravel")
    stage.paint(inside & (blob < rng.uniform(0.08, 0.24)), "shallow water")
    _paint_heaps(stage, inside, rng)


def _paint_heaps(stage: Stage, inside: Mask, rng: np.random.Generator) -> None:
    """Cones of gravel and a crusher."""
    for _ in range(int(rng.integers(3, 8))):
        u, v = rng.uniform(-0.5, 0.5, 2) * (stage.site.half_u, stage.site.half_v)
        radius = float(rng.uniform(6, 13))
        away = np.hypot(stage.u - u, stage.v - v)
        heap = inside & (away < radius)
        stage.paint(heap, str(rng.choice(["gravel", "sand", "ochre rock"])), (0.7 * (radius - away)).astype(np.float32))
    u, v = rng.uniform(-0.4, 0.4, 2) * (stage.site.half_u, stage.site.half_v)
    stage.paint(inside & stage.box(u, v, 9, 5), "metal roof", 11.0)


def paint_golf(stage: Stage, rng: np.random.Generator) -> None:
    """Fairways that lead to greens between bunkers, in rough with trees and a pond."""
    inside = (_blob(stage, rng, 0.1) < 1) & stage.open
    stage.cover(inside, GOLF, "lush grass")
    stage.open = inside
    dry = np.kron(stage.random(rng)[::20, ::20], np.ones((20, 20), np.float32))[: inside.shape[0], : inside.shape[1]]
    stage.paint(gaussian_filter(dry, 6) > 0.56, "dry grass")
    site = stage.site
    lanes = max(2, int(2 * site.half_v / 62))
    for lane in range(lanes):
        v = (lane + 0.5) * 2 * site.half_v / lanes - site.half_v
        _paint_hole(stage, v, 1 if lane % 2 else -1, rng)
    u, v = rng.uniform(-0.5, 0.5, 2) * (site.half_u, site.half_v)
    stage.paint(np.hypot((stage.u - u) / 22, (stage.v - v) / 12) < 1, "shallow water")
    edge = np.linspace(-site.half_u, site.half_u, int(site.half_u / 4))
    for lane in range(lanes + 1):
        v = lane * 2 * site.half_v / lanes - site.half_v
        plant_in_frame(stage, edge, v + rng.normal(0, 4, len(edge)), rng, conifers=0.35)
    scatter(stage, rng, 12)


def _paint_hole(stage: Stage, v: float, way: int, rng: np.random.Generator) -> None:
    """One fairway with its tee, green and bunkers."""
    site = stage.site
    half = site.half_u * float(rng.uniform(0.62, 0.78))
    bend, phase = float(rng.uniform(5, 13)), float(rng.uniform(0, 6))
    middle = v + bend * np.sin(stage.u / 55 + phase)
    width = 13 + 4 * np.sin(stage.u / 31 + phase)
    fairway = (np.abs(stage.v - middle) < width) & (np.abs(stage.u) < half)
    stage.paint(fairway, "mown grass")
    stage.paint(fairway & (stage.u % 12 < 6), "mown stripe")
    green_u = way * (half + 8)
    green_v = v + bend * np.sin(green_u / 55 + phase)
    for _ in range(int(rng.integers(2, 5))):
        turn, away = rng.uniform(0, 2 * np.pi), rng.uniform(16, 24)
        du, dv = stage.u - green_u - away * np.cos(turn), stage.v - green_v - away * np.sin(turn)
        stage.paint(np.hypot(du / rng.uniform(4, 9), dv / rng.uniform(3, 5.5)) < 1, "sand")
    stage.paint(np.hypot((stage.u - green_u) / 13, (stage.v - green_v) / 10) < 1, "mown stripe")
    stage.paint(stage.box(-way * (half + 10), v + bend * np.sin(-way * (half + 10) / 55 + phase), 5, 4), "mown stripe")


def paint_turbines(canvas: Canvas, rng: np.random.Generator) -> None:
    """Wind farms: lines of three to six turbines on open land."""
    wanted = max(1, round(2.6 * canvas.size**2 / 1e6))
    built = 0
    for _ in range(400):
        if built >= wanted:
            return
        x, y = rng.uniform(60, canvas.size - 60, 2)
        angle, gap, height = rng.uniform(0, np.pi), rng.uniform(130, 210), float(rng.uniform(62, 90))
        for k in range(int(rng.integers(3, 7))):
            site = Site(x + k * gap * np.cos(angle), y + k * gap * np.sin(angle), rng.uniform(0, np.pi), 27.0, 27.0)
            if built < wanted and canvas.free_share(site) == 1.0:
                _paint_turbine(canvas, site, height, rng)
                built += 1


def _paint_turbine(canvas: Canvas, site: Site, height: float, rng: np.random.Generator) -> None:
    """Pad and track of gravel, a thin tower; the rotor shows as three white blades seen from above."""
    stage = canvas.stage(site)
    disc = stage.disc(0, 0, 26)
    stage.cover(disc, TURBINE, str(rng.choice(["dry grass", "lush grass"])))
    stage.open = stage.open & disc
    stage.paint(stage.box(0, 5, 9, 13) | stage.disc(0, 0, 8.5), "gravel")
    stage.paint((np.abs(stage.v) < 0.75) & (np.abs(stage.u) < 24), "turbine white")
    stage.paint(stage.disc(0, 0, 2.1), "turbine white", height)
    stage.paint(stage.box(0, 1.5, 1.6, 4.5), "turbine white", height)
    x, y = site.at(0, 0)
    outline = Site(x, y, 0, 26, 26).polygon().centroid.buffer(26)
    canvas.name(TURBINE, outline, height)


def paint_harbours(canvas: Canvas, relief: Relief, rng: np.random.Generator) -> list[Site]:
    """Marinas on lake shores: a quay on land, jetties over a basin, a mole around it."""
    wanted = max(1, round(canvas.size**2 / 3.2e6))
    built: list[Site] = []
    slope_y, slope_x = np.gradient(gaussian_filter(relief.shore, 12))
    rows, cols = np.nonzero(np.abs(relief.shore) < 1.5 * CELL)
    scale = 1.0 if canvas.size >= 1200 else 0.6
    for pick in rng.permutation(len(rows))[:600]:
        row, col = rows[pick], cols[pick]
        angle = float(np.arctan2(-slope_y[row, col], -slope_x[row, col]) - np.pi / 2)
        half = (float(rng.uniform(75, 115)) * scale, float(rng.uniform(58, 80)) * scale)
        site = Site(col * CELL, row * CELL, angle, 0, 0).part(0, half[1] - 30 * scale, *half)
        if _fits_shore(canvas, site) and all(np.hypot(site.x - o.x, site.y - o.y) > 420 for o in built):
            _paint_harbour(canvas, site, relief.level, scale, rng)
            built.append(site)
        if len(built) == wanted:
            break
    return built


def _fits_shore(canvas: Canvas, site: Site) -> bool:
    """The far two thirds in the lake, the near edge on land, all inside the region."""
    stage = canvas.stage(site, over=(LAKE, BEACH))
    whole = 4 * site.half_u * site.half_v
    if stage.open.sum() < 0.97 * whole:
        return False
    lake = canvas.cover[stage.window] == LAKE
    far = stage.open & (stage.v > -site.half_v * 0.2)
    near = stage.open & (stage.v < -site.half_v * 0.8)
    return bool(lake[far].mean() > 0.86 and lake[near].mean() < 0.3)


def _paint_harbour(canvas: Canvas, site: Site, level: float, scale: float, rng: np.random.Generator) -> None:
    stage = canvas.stage(site, over=(LAKE, BEACH))
    quay = -site.half_v + 26 * scale
    stage.cover(stage.open, HARBOUR, "shallow water")
    canvas.ground[stage.window][stage.open] = level
    land = stage.v < quay
    stage.paint(land, "concrete", 1.4)
    stage.paint(land & (np.abs(stage.v - quay + 14 * scale) < 2.5), "asphalt", 1.4)
    for u in np.arange(-site.half_u + 20, site.half_u - 12, 44.0):
        shed = stage.box(float(u), quay - 20 * scale, float(rng.uniform(6, 13)), 4)
        stage.paint(shed, str(rng.choice(["red tile roof", "metal roof", "white roof"])), float(rng.uniform(5, 8)))
    for u in jetties(site.half_u):
        stage.paint(stage.box(u, (quay + site.half_v - 16) / 2, 1.4, (site.half_v - 16 - quay) / 2), "wood", 0.9)
    mole = ~stage.box(0, -20, site.half_u - 5, site.half_v + 15) & (stage.v > quay)
    gap = np.abs(stage.u - 0.55 * site.half_u) < 14
    stage.paint(mole & ~gap, "grey rock", 2.2)
    canvas.name(HARBOUR, site.polygon(), 1.4)


def jetties(half_u: float) -> list[float]:
    """Where the jetties of a harbour lie: u in its frame."""
    return [float(u) for u in np.arange(-half_u + 18, half_u - 14, JETTY_STEP)]
