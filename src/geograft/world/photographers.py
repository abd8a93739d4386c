"""Where people take photos: spots, directions, times and users as on a photo site.

Subjects are drawn by class, so that a rare sight is photographed more often than its area asks for; popular spots
gather crowds; some users walk and photograph as they go. The photographer stands in or beside the subject and
turns to where most of it is seen: along a road, towards a facade, out over a lake.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from geograft.errors import BadSetting
from geograft.world.camera import Poses, Scenery
from geograft.world.classes import BY_NAME, CLASSES
from geograft.world.landmarks import ROTOR
from geograft.world.materials import INDEX

if TYPE_CHECKING:
    from geograft.world.daylight import Flags, Floats, Ints, Times
    from geograft.world.paint import Bytes
    from geograft.world.terrain import Land

_TALL_CLASSES = ("houses", "apartment blocks", "warehouses", "wind turbines", "greenhouses")
_TALL = np.zeros(256, bool)
_TALL[[BY_NAME[name].id for name in _TALL_CLASSES]] = True
_NARROW = np.zeros(256, bool)
_NARROW[[BY_NAME[name].id for name in ("road", "railway", "river", "beach")]] = True
_FOREST = BY_NAME["forest"].id
_TURBINES = BY_NAME["wind turbines"].id
_BLOCKS = BY_NAME["apartment blocks"].id
_WATER = [BY_NAME["lake"].id, BY_NAME["river"].id]
_HARBOUR = BY_NAME["harbour"].id
_IS_DECK = np.zeros(256, bool)
_IS_DECK[[INDEX["wood"], INDEX["concrete"]]] = True
_LOW = 1.2  # m: people stand on what is lower
_NEAR = np.array([0.9, 1.8, 3.2], np.float32)
_AHEAD = np.array([5.0, 8.0, 13.0, 21.0, 34.0, 55.0], np.float32)
_FACADE = np.array([6.0, 9.0, 13.0, 18.0, 25.0, 34.0], np.float32)
_FAN = np.radians([-20.0, 0.0, 20.0]).astype(np.float32)
_HEADINGS = 12
_LOOKS_AROUND = 0.25  # of the photographers turn to something else than what they stand in or came for
_PASSES_BY = 0.6  # try to stand beside their subject rather than in it, and zoom in over what lies between
_MONTHS = np.array([3, 3, 5, 9, 12, 14, 15, 14, 10, 7, 4, 4], float)
_FIRST_YEAR, _YEARS = 2021, 3


@dataclass(frozen=True)
class Shots:
    """Photos as they were taken, N of them, in order of time.

    Attributes:
        poses: the camera's poses.
        subject: class id that the photographer meant, (N,) uint8.
        taken: local time, (N,) datetime64[s].
        user: number of the user, (N,).
        walk: number of the walk that the photo belongs to, -1 for none, (N,).
    """

    poses: Poses
    subject: Bytes
    taken: Times
    user: Ints
    walk: Ints

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.subject)


def choose_poses(land: Land | Scenery, count: int, seed: int) -> Shots:
    """Draw the photos that people take of a land.

    Args:
        land: the land, or its `Scenery`.
        count: the number of photos N.
        seed: the same seed gives the same photos.

    Raises:
        BadSetting: the count is negative.
    """
    if count < 0:
        raise BadSetting(f"A region cannot have {count} photos: ask for none or more.")
    scenery = land if isinstance(land, Scenery) else Scenery.of(land)
    rng = np.random.default_rng([seed, 0xF0705])
    walked = round(0.2 * count)
    x, y, subject = _sights(scenery, count - walked, rng)
    user, walk = _users(count - walked, rng), np.full(count - walked, -1)
    taken = _times(count - walked, rng)
    wx, wy, number, when = _walks(scenery, walked, rng)
    on_foot = scenery.cover[scenery.cells(wx, wy)]
    x, y, subject = np.r_[x, wx], np.r_[y, wy], np.r_[subject, on_foot]
    user, walk, taken = np.r_[user, 100_000 + number], np.r_[walk, number], np.r_[taken, when]
    order = np.argsort(taken, kind="stable")
    x, y, subject, taken = x[order], y[order], subject[order], taken[order]
    x, y, beside = _step_aside(scenery, x, y, subject, rng)
    poses = _poses(scenery, (x, y), subject, taken, beside, rng)
    return Shots(poses, subject, taken, user[order], walk[order])


# --- spots ------------------------------------------------------------------------------------------------


def _sights(scenery: Scenery, count: int, rng: np.random.Generator) -> tuple[Floats, Floats, Ints]:
    """Spots in or beside subjects: columns, rows and the subjects' class ids."""
    areas = np.bincount(scenery.cover, minlength=256)
    present = [c.id for c in CLASSES if areas[c.id] >= 12]
    weights = _weights(areas[present])
    numbers = rng.multinomial(count, weights)
    parts = [_spots(scenery, c, int(n), rng) for c, n in zip(present, numbers, strict=True)]
    subject = np.repeat(np.array(present, np.uint8), numbers)
    x, y = (np.concatenate([part[k] for part in parts] or [np.empty(0)]) for k in (0, 1))
    return x.astype(np.float32), y.astype(np.float32), subject


def _weights(areas: Ints) -> Floats:
    """How often each class is photographed: by the root of its area, blended with all alike."""
    root = np.sqrt(areas)
    blended: Floats = 0.4 * root / root.sum() + 0.6 / len(areas)
    return blended


def _spots(scenery: Scenery, subject: int, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The best of several candidate spots for each photo of one class."""
    tries = 2
    x, y = _candidates(scenery, subject, count * tries, rng)
    score, _ = _best_heading(scenery, x, y, np.full(len(x), subject), rng)
    if subject == _TURBINES:
        score = -np.abs(_to_tower(scenery, x, y)[0] - 34)
    score += rng.uniform(0, 0.12, len(x))
    best = score.reshape(count, tries).argmax(1) + np.arange(count) * tries if count else np.empty(0, int)
    return x[best], y[best]


def _candidates(scenery: Scenery, subject: int, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Places in or beside one class where a person can stand, half of them around popular spots."""
    cells = np.flatnonzero(scenery.cover == subject)
    anchor = cells[rng.integers(len(cells), size=count)]
    popular = cells[rng.integers(len(cells), size=max(3, count // 160))]
    rank = np.minimum(rng.zipf(1.5, count) - 1, len(popular) - 1)
    crowd = rng.random(count) < 0.4
    anchor = np.where(crowd, popular[rank], anchor)
    spread = np.where(crowd, 18.0, 8.0 if _TALL[subject] else 0.5)
    row, column = np.divmod(anchor, scenery.size)
    x, y = column + rng.random(count), row + rng.random(count)
    for attempt in range(10):
        bad = np.flatnonzero(~_stands(scenery, x, y, subject))
        size = spread[bad] * (1.0 if attempt < 5 else 0.4)
        x[bad] = column[bad] + 0.5 + rng.normal(0, 1, len(bad)) * size
        y[bad] = row[bad] + 0.5 + rng.normal(0, 1, len(bad)) * size
    edge = scenery.size - 1.01
    return np.clip(x, 0, edge).astype(np.float32), np.clip(y, 0, edge).astype(np.float32)


def _stands(scenery: Scenery, x: Floats, y: Floats, subject: int) -> Flags:
    """Whether a person can stand at each place and photograph the subject there, (N,) bool."""
    inside = (x >= 0) & (y >= 0) & (x < scenery.size) & (y < scenery.size)
    cells = scenery.cells(x, y)
    cover = scenery.cover[cells]
    free = (scenery.height[cells] < _LOW) | (cover == _FOREST) | _IS_DECK[scenery.material[cells]]
    dry = ~np.isin(cover, _WATER)
    if subject == _HARBOUR:
        free &= _IS_DECK[scenery.material[cells]] | (np.floor(x * 7 + y * 3) % 4 == 0)
    right = dry & (cover != _FOREST) if _TALL[subject] else cover == subject
    result: Flags = inside & free & right
    return result


def _step_aside(
    scenery: Scenery, x: Floats, y: Floats, subject: Ints, rng: np.random.Generator
) -> tuple[Floats, Floats, Flags]:
    """Move those who pass by a few metres out of their subject, where there is room; says whom, (N,) bool."""
    wants = rng.random(len(x)) < np.where(_NARROW[subject], 0.4, 1.0) * _PASSES_BY
    moved = np.zeros(len(x), bool)
    x, y = x.copy(), y.copy()
    for _ in range(6):
        angle, reach = rng.uniform(0, 2 * np.pi, len(x)), rng.uniform(3, 14, len(x))
        reach = np.where(subject == _TURBINES, 3 * reach, reach)
        nx, ny = (x + np.sin(angle) * reach).astype(np.float32), (y - np.cos(angle) * reach).astype(np.float32)
        cover = scenery.cover[scenery.cells(nx, ny)]
        outside = (cover != subject) & (~_NARROW[cover] | (rng.random(len(x)) < 0.25))
        go = wants & ~moved & outside & _walkable(scenery, nx, ny)
        x, y, moved = np.where(go, nx, x), np.where(go, ny, y), moved | go
    return x, y, moved


# --- directions -------------------------------------------------------------------------------------------


def _best_heading(
    scenery: Scenery, x: Floats, y: Floats, subject: Ints, rng: np.random.Generator, *, loose: Floats | float = 0.25
) -> tuple[Floats, Floats]:
    """How well the subject fills the view in the best of some headings, and that heading in radians.

    `loose` is how much chance weighs against the subject, one value or (N, 1).
    """
    headings = rng.uniform(0, 2 * np.pi, (len(x), 1)) + np.arange(_HEADINGS) * (2 * np.pi / _HEADINGS)
    score = np.zeros(headings.shape, np.float32)
    for turn in _FAN:
        score += _worth(scenery, x[:, None], y[:, None], headings + turn, subject[:, None])
    score += loose * rng.random(score.shape)
    best = score.argmax(1)
    rows = np.arange(len(x))
    return score[rows, best], headings[rows, best].astype(np.float32)


def _to_tower(scenery: Scenery, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Distance to the nearest tower of a wind turbine in metres, and its bearing in radians."""
    towers = scenery.marks.place[scenery.marks.kind == ROTOR]
    if not len(towers):
        return np.zeros(len(x)), np.zeros(len(x))
    distance, nearest = cKDTree(towers).query(np.stack([x, y], 1))
    return distance, np.arctan2(towers[nearest, 0] - x, y - towers[nearest, 1])


def _worth(scenery: Scenery, x: Floats, y: Floats, heading: Floats, subject: Ints) -> Floats:
    """The share of the subject along one ray, less what stands in the way."""
    worth = np.zeros(heading.shape, np.float32)
    sine, cosine = np.sin(heading), np.cos(heading)
    tall = _TALL[subject]
    for distance in _NEAR:
        cells = scenery.cells(x + sine * distance, y - cosine * distance)
        blocked = (scenery.height[cells] > _LOW) & (subject != _FOREST)
        worth += 0.12 * (scenery.cover[cells] == subject) - 2.0 * blocked
    for near, far in zip(_AHEAD, _FACADE, strict=True):
        distance = np.where(tall, far, near)
        cells = scenery.cells(x + sine * distance, y - cosine * distance)
        own = scenery.cover[cells] == subject
        worth += np.where(tall, own & (scenery.height[cells] > _LOW), own) * 0.15
    return worth


def _poses(
    scenery: Scenery, place: tuple[Floats, Floats], subject: Ints, taken: Times, beside: Flags,
    rng: np.random.Generator,
) -> Poses:  # fmt: skip
    """Cameras turned to the subject and tilted so that the place underfoot fills the lower half.

    Those who stand beside their subject zoom in on it; some look around instead.
    """
    count = len(subject)
    around = (rng.random(count) < _LOOKS_AROUND) & ~beside & (subject != _TURBINES)
    _, heading = _best_heading(scenery, *place, subject, rng, loose=np.where(around, 4.0, 0.25)[:, None])
    pitch = np.where(around, rng.uniform(-7, 2, count), rng.uniform(-14, -3, count))
    heading = np.where(subject == _TURBINES, _to_tower(scenery, *place)[1] + rng.normal(0, 0.16, count), heading)
    view = rng.uniform(55, 75, count)
    view, pitch = np.where(beside, rng.uniform(24, 45, count), view), np.where(beside, rng.uniform(-6, 0, count), pitch)
    view = np.where(subject == _TURBINES, rng.uniform(68, 80, count), view)
    for class_id, low, high in ((0, -5, 2), (_BLOCKS, 2, 9), (_TURBINES, 18, 30)):
        chosen = subject == class_id if class_id else _TALL[subject]
        pitch = np.where(chosen & (~beside | (subject == _TURBINES)), rng.uniform(low, high, count), pitch)
    minutes = (taken - taken.astype("datetime64[D]")).astype("timedelta64[m]").astype(float)
    day = (taken.astype("datetime64[D]") - taken.astype("datetime64[Y]")).astype(int)
    haze = np.clip(np.exp(rng.normal(np.log(0.5), 0.7, count)), 0.1, 6)
    return Poses.of(
        x=place[0], y=place[1], heading_deg=np.degrees(heading) % 360, pitch_deg=pitch, fov_deg=view,
        eye_m=rng.normal(1.65, 0.08, count), hour=minutes / 60, haze=haze, season=day,
    )  # fmt: skip


# --- users, walks and times -------------------------------------------------------------------------------


def _users(count: int, rng: np.random.Generator) -> Ints:
    """Users, few of whom take most of the photos."""
    result: Ints = np.minimum(rng.zipf(1.35, count), max(2, count // 6))
    return result


def _times(count: int, rng: np.random.Generator) -> Times:
    """Local times within three years: more in summer, most around midday."""
    year = _FIRST_YEAR + rng.integers(_YEARS, size=count)
    month = rng.choice(12, count, p=_MONTHS / _MONTHS.sum())
    first = (year - 1970).astype("datetime64[Y]").astype("datetime64[M]") + month
    day = first.astype("datetime64[D]") + rng.integers(28, size=count)
    seconds = np.clip(rng.normal(13.2, 3.0, count), 6.5, 19.5) * 3600
    return day.astype("datetime64[s]") + seconds.astype(np.int64)


def _walks(scenery: Scenery, count: int, rng: np.random.Generator) -> tuple[Floats, Floats, Ints, Times]:
    """Walks of some twenty photos, a few dozen metres apart, over land where one can walk.

    Returns:
        Columns and rows, number of the walk, and time of each photo.
    """
    walks = max(1, round(count / 20))
    steps = -(-count // walks) if count else 0
    x = np.empty((walks, steps), np.float32)
    y = np.empty((walks, steps), np.float32)
    here: Floats = rng.uniform(0.05, 0.95, (2, walks)) * scenery.size
    heading: Floats = rng.uniform(0, 2 * np.pi, walks)
    for step in range(steps):
        x[:, step], y[:, step] = here
        here, heading = _stroll(scenery, here, heading, rng)
    number = np.repeat(np.arange(walks), steps)
    pace = np.cumsum(rng.integers(40, 400, (walks, steps)), axis=1)
    when = _times(walks, rng)[:, None] + pace
    fits = np.flatnonzero(_walkable(scenery, x.ravel(), y.ravel()))
    kept = np.resize(fits, count) if len(fits) else np.arange(count)
    return x.ravel()[kept], y.ravel()[kept], number[kept], when.ravel()[kept]


def _stroll(scenery: Scenery, here: Floats, heading: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The next stop of each walk, and the direction taken: the most open of some."""
    turns = heading[:, None] + rng.normal(0, 0.7, (len(heading), 6))
    stride = rng.uniform(18, 55, (len(heading), 6))
    x, y = here[0][:, None] + np.sin(turns) * stride, here[1][:, None] - np.cos(turns) * stride
    choice = _walkable(scenery, x, y).argmax(1)
    rows = np.arange(len(heading))
    stop = np.clip(np.stack([x[rows, choice], y[rows, choice]]), 1, scenery.size - 2)
    return stop, np.where(_walkable(scenery, x, y).any(1), turns[rows, choice], heading + np.pi / 2)


def _walkable(scenery: Scenery, x: Floats, y: Floats) -> Flags:
    """Whether one can walk at each place: on land, not through walls."""
    cells = scenery.cells(x, y)
    cover = scenery.cover[cells]
    inside = (x >= 1) & (y >= 1) & (x < scenery.size - 1) & (y < scenery.size - 1)
    free = (scenery.height[cells] < _LOW) | (cover == _FOREST)
    result: Flags = inside & free & ~np.isin(cover, _WATER)
    return result
