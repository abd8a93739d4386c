"""Open ground in and around settlements: car parks, pitches, parks."""

import numpy as np
from numpy.typing import NDArray

from geograft.world.canvas import Stage
from geograft.world.classes import BY_NAME
from geograft.world.trees import plant_in_frame, scatter

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

PARKING, PITCH, GRASS = (BY_NAME[n].id for n in ("parking lot", "sports pitch", "grassland"))

AISLE = 17.0
"""Metres from one driving aisle of a car park to the next: two rows of 5 m bays and 7 m to drive."""
BAY = 3.0
"""Width of a bay in metres: two to park on and one painted."""


def bay_rows(half_v: float) -> NDArray[np.float64]:
    """Where the rows of bays of a car park lie in its frame: the v of their middles."""
    aisles = np.arange(-half_v + AISLE / 2, half_v - AISLE / 2 + 0.1, AISLE)
    return np.concatenate([aisles - 6.0, aisles + 6.0])


def paint_parking(stage: Stage, rng: np.random.Generator) -> None:
    """Asphalt with rows of bays between white lines, a few trees in islands."""
    site = stage.site
    stage.cover(stage.open, PARKING, str(rng.choice(["asphalt", "old asphalt"])))
    for v in bay_rows(site.half_v):
        bays = stage.box(0, float(v), site.half_u - 4, 2.5)
        stage.paint(bays & ((stage.u + site.half_u) % BAY < 1), "white paint")
    backs = np.arange(-site.half_v, site.half_v + 0.1, AISLE)
    for v in backs:
        if rng.random() < 0.5:
            u = np.arange(-site.half_u + 6, site.half_u - 5, 12.0)
            plant_in_frame(stage, u, np.full(len(u), v), rng, conifers=0.0)


def paint_pitch(stage: Stage, rng: np.random.Generator) -> None:
    """A football pitch if the ground is large enough, else smaller courts."""
    site = stage.site
    stage.cover(stage.open, PITCH, "lush grass")
    if site.half_u > 86 and site.half_v > 46:
        _paint_track(stage)
    elif site.half_u > 50 and site.half_v > 35 and rng.random() < 0.62:
        _paint_football(stage, rng, 52.0, min(34.0, site.half_v - 4))
    else:
        _paint_courts(stage, rng)
    scatter(stage, rng, 10)


def _lines(stage: Stage, u: float, v: float, half_u: float, half_v: float) -> Mask:
    """The outline of a rectangle, one metre wide."""
    return stage.box(u, v, half_u, half_v) & ~stage.box(u, v, half_u - 1.05, half_v - 1.05)


def _paint_football(stage: Stage, rng: np.random.Generator, half_u: float, half_v: float) -> None:
    field = stage.box(0, 0, half_u, half_v)
    stage.paint(field, "mown grass")
    if rng.random() < 0.7:
        stage.paint(field & (stage.u % 13 < 6.5), "mown stripe")
    marks = _lines(stage, 0, 0, half_u - 1, half_v - 1) | (stage.box(0, 0, 0.55, half_v - 1))
    marks |= stage.disc(0, 0, 9.6) & ~stage.disc(0, 0, 8.5)
    for end in (-1, 1):
        marks |= _lines(stage, end * (half_u - 9.5), 0, 8.5, 20) | _lines(stage, end * (half_u - 4), 0, 3, 9)
    stage.paint(marks, "white paint")
    goals = (np.abs(np.abs(stage.u) - half_u) < 0.7) & (np.abs(stage.v) < 3.6)
    stage.paint(goals, "white paint", 2.4)


def _paint_track(stage: Stage) -> None:
    """A running track of 400 m around a football pitch."""
    beyond = np.maximum(np.abs(stage.u) - 42.2, 0)
    radius = np.hypot(beyond, stage.v)
    stage.paint(radius < 46, "red track")
    stage.paint((radius < 46) & (radius > 36.5) & (np.abs((radius - 36.5) % 2.4) < 0.5), "white paint")
    stage.paint(radius < 36.5, "mown grass")
    field = stage.box(0, 0, 50, 32)
    stage.paint(field & (stage.u % 12 < 6), "mown stripe")
    marks = _lines(stage, 0, 0, 50, 32) | stage.box(0, 0, 0.55, 32) | (stage.disc(0, 0, 9.6) & ~stage.disc(0, 0, 8.5))
    for end in (-1, 1):
        marks |= _lines(stage, end * 42, 0, 8, 19)
    stage.paint(marks, "white paint")
    stands = stage.box(0, -stage.site.half_v + 3, 40, 3)
    stage.paint(stands, "metal roof", 6.0)


def _paint_courts(stage: Stage, rng: np.random.Generator) -> None:
    """Rows of tennis or ball courts on clay, synthetic turf or blue hard court."""
    site, surface = stage.site, str(rng.choice(["red track", "blue court", "mown stripe"]))
    step_u, step_v = (20.0, 40.0) if rng.random() < 0.6 else (34.0, 48.0)
    columns, rows = max(1, int((2 * site.half_u - 6) / step_u)), max(1, int((2 * site.half_v - 4) / step_v))
    for k in range(columns * rows):
        u = (k % columns - (columns - 1) / 2) * step_u
        v = (k // columns - (rows - 1) / 2) * step_v
        half_u, half_v = step_u / 2 - 1.5, min(step_v / 2 - 1.5, site.half_v - 2)
        stage.paint(stage.box(u, v, half_u, half_v), surface, 0.0)
        inner = (half_u - 2.6, half_v - 5.5)
        marks = _lines(stage, u, v, *inner) | stage.box(u, v, inner[0], 0.55)
        stage.paint(marks, "white paint", 0.0)


def paint_park(stage: Stage, rng: np.random.Generator) -> None:
    """Lawn with winding paths and scattered trees."""
    stage.cover(stage.open, GRASS, "lush grass")
    path = np.abs(stage.v - 0.4 * stage.site.half_v * np.sin(stage.u / 19)) < 1.3
    stage.paint(path | (np.abs(stage.u - 9 * np.sin(stage.v / 15)) < 1.2), "gravel")
    scatter(stage, rng, int(stage.site.half_u * stage.site.half_v / 60))
