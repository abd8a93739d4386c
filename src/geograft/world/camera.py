"""The view from the ground: perspective photos by marching rays over the height field.

Each column of a picture is one vertical plane through the eye. Samples are taken along it at depths that grow
with the distance, each sample's surface is projected to a slope, and the running maximum of the slopes says which
sample a picture row sees first ("voxel space"). A second look at the exact place of each pixel then gives its
class, material and height, so that kerbs, crop rows and jetties stay sharp. `paint` turns that into colours.

Everything is float32 and vectorised over a batch of photos with the depth axis first, so that the inner loops run
over contiguous columns.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from geograft.errors import BadSetting
from geograft.world.classes import BY_NAME
from geograft.world.daylight import Light
from geograft.world.landmarks import Landmarks, draw_landmarks, find_landmarks
from geograft.world.paint import Brush, Picture

if TYPE_CHECKING:
    from geograft.world.daylight import Flags, Floats, Ints
    from geograft.world.paint import Bytes
    from geograft.world.terrain import Land

SMALLEST = 64
"""The smallest picture, px."""

_NEAREST, _FARTHEST, _SHORTEST_STEP, _GROWTH = 0.8, 650.0, 0.45, 0.066
_BATCH = 16  # photos at once: their arrays stay in the cache

FOREST = BY_NAME["forest"].id
_FIRST_BRANCH = 3.2  # m above the ground, below which one sees between trunks


@dataclass(frozen=True)
class Poses:
    """Where and how photos are taken; every field is an array of one value a photo.

    Attributes:
        x: pixels (= metres) east of the land's left edge, float.
        y: pixels (= metres) south of its top edge, float.
        heading_deg: direction of view, clockwise from north.
        pitch_deg: above (positive) or below the horizon; the horizon is shifted, verticals stay vertical.
        fov_deg: horizontal and vertical field of view.
        eye_m: height of the eye above what the photographer stands on.
        hour: local time of day, 0 to 24.
        haze: extinction per kilometre; 0.2 is a clear day, 3 is mist.
        season: day of the year, 0 to 365.
    """

    x: Floats
    y: Floats
    heading_deg: Floats
    pitch_deg: Floats
    fov_deg: Floats
    eye_m: Floats
    hour: Floats
    haze: Floats
    season: Floats

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.x)

    def __getitem__(self, index: Ints | slice) -> Poses:
        """Some of the poses, by an index array, a mask or a slice."""
        return Poses(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @staticmethod
    def of(**values: object) -> Poses:
        """Poses of scalars and arrays, broadcast to one length; what is not given has a usual value.

        Args:
            values: any of the fields; `x` and `y` are needed.
        """
        usual: dict[str, object] = {
            "heading_deg": 0.0, "pitch_deg": -6.0, "fov_deg": 65.0, "eye_m": 1.65, "hour": 13.0, "haze": 0.4,
            "season": 180.0,
        }  # fmt: skip
        names = [field.name for field in fields(Poses)]
        arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray({**usual, **values}[n])) for n in names))
        return Poses(**{n: np.array(a, np.float32) for n, a in zip(names, arrays, strict=True)})


@dataclass(frozen=True)
class Photos:
    """Rendered photos.

    Attributes:
        rgb: (N, S, S, 3) uint8.
        seen: share of the picture per class id, (N, 256) float32; column 0 is the sky. Rows sum to one.
    """

    rgb: Bytes
    seen: Floats


@dataclass(frozen=True)
class Scenery:
    """A land prepared for many photos: flat arrays, and the surfaces that rays meet.

    Attributes:
        land: the land itself.
        open: ground + height, (H*W,) float32.
        under: the same, but forest is only its trunks, for photos taken among them.
        cover, material, ground, height: the land's rasters, flat.
        marks: rotors, masts and flags; tree: of their places.
    """

    land: Land
    open: Floats
    under: Floats
    cover: Bytes
    material: Bytes
    ground: Floats
    height: Floats
    marks: Landmarks
    tree: cKDTree

    @staticmethod
    def of(land: Land) -> Scenery:
        """Prepare a land; some 0.3 s for 4 km."""
        surface = (land.ground + land.height).astype(np.float32).ravel()
        cover, ground, height = land.cover.ravel(), land.ground.ravel(), land.height.ravel()
        under, marks = _under(surface, cover, ground, height), find_landmarks(land)
        return Scenery(land, surface, under, cover, land.material.ravel(), ground, height, marks, cKDTree(marks.place))

    def repopulated(self, land: Land) -> Scenery:
        """The same land with other things on it (boats, cars): what is costly and stays is kept."""
        surface = (land.ground + land.height).ravel()
        marks = find_landmarks(land)
        return replace(self, land=land, open=surface, material=land.material.ravel(), height=land.height.ravel(),
                       marks=marks, tree=cKDTree(marks.place))  # fmt: skip

    @property
    def size(self) -> int:
        """Side of the land, px."""
        return int(self.land.size)

    def cells(self, x: Floats, y: Floats) -> Ints:
        """Flat indices of the cells at positions; beyond the edge the last cell goes on."""
        last = self.size - 1
        column = np.clip(x.astype(np.int32), 0, last)
        row = np.clip(y.astype(np.int32), 0, last).astype(np.int64)
        row *= self.size
        row += column
        return row


def _under(surface: Floats, cover: Bytes, ground: Floats, height: Floats) -> Floats:
    """The surface with the forest's crowns lifted off: one cell in nineteen keeps its trunk."""
    cells = np.flatnonzero((cover == FOREST) & (height > _FIRST_BRANCH - 1))
    hashed = (cells.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    bare = cells[hashed % np.uint64(19) != 0]
    result = surface.copy()
    result[bare] = ground[bare] + 0.1
    return result


def depths() -> Floats:
    """The depths at which rays look at the land, m, increasing, float32."""
    steps = [_NEAREST]
    while steps[-1] < _FARTHEST:
        steps.append(steps[-1] + max(_SHORTEST_STEP, _GROWTH * steps[-1]))
    return np.array(steps, np.float32)


def render_photos(land: Land | Scenery, poses: Poses, *, size: int = SMALLEST, seed: int = 0) -> Photos:
    """Take photos of a land.

    What a photo shows depends on the land and its pose alone; its clouds, exposure and noise on the seed and on its
    place in the list as well; nothing depends on how photos are batched.

    Args:
        land: the land, or better a `Scenery` when more than one call is made.
        poses: N poses.
        size: side of the pictures, px, at least 64.
        seed: of what differs from photo to photo: clouds, exposure, noise.

    Raises:
        BadSetting: the pictures would be too small, or a pose has an eye below the ground or no field of view.
    """
    _check(poses, size)
    scenery = land if isinstance(land, Scenery) else Scenery.of(land)
    rgb = np.empty((len(poses), size, size, 3), np.uint8)
    seen = np.empty((len(poses), 256), np.float32)
    light = Light.draw(poses, seed)
    among = _is_among_trees(scenery, poses)
    brush = Brush(scenery)
    for trees in (False, True):
        chosen = np.flatnonzero(among == trees)
        chosen = chosen[np.argsort(_tile(poses[chosen]), kind="stable")]
        for start in range(0, len(chosen), _BATCH):
            batch = chosen[start : start + _BATCH]
            picture = look(scenery, poses[batch], size=size, among_trees=trees)
            seen[batch] = picture.shares()
            rgb[batch] = brush.paint(picture, light[batch])
    return Photos(rgb, seen)


def _check(poses: Poses, size: int) -> None:
    """Raise BadSetting on pictures and poses that cannot be rendered."""
    if size < SMALLEST:
        raise BadSetting(f"Photos of {size} px are too small to show anything: ask for {SMALLEST} px or more.")
    if np.any(poses.eye_m <= 0) or np.any((poses.fov_deg < 5) | (poses.fov_deg > 120)):
        raise BadSetting("Every pose needs an eye above the ground and a field of view of 5 to 120 degrees.")


def _is_among_trees(scenery: Scenery, poses: Poses) -> Flags:
    """Whether each photographer stands in the forest, (N,) bool."""
    among: Flags = scenery.cover[scenery.cells(poses.x, poses.y)] == FOREST
    return among


def _tile(poses: Poses) -> Ints:
    """A key that sorts photos so that neighbours are rendered together and find the land in the cache."""
    return (poses.y.astype(np.int64) // 256) * 4096 + poses.x.astype(np.int64) // 256


def look(scenery: Scenery, poses: Poses, *, size: int, among_trees: bool) -> Picture:
    """What every pixel of some photos sees: class, material, place, depth and height above the ground.

    Args:
        scenery: the prepared land.
        poses: N poses, a small batch.
        size: side of the pictures S, px.
        among_trees: march over the forest's trunks rather than its crowns.

    Returns:
        Arrays of (S, N * S): rows from the bottom of the pictures up, columns photo by photo.
    """
    rays = _Rays.of(scenery, poses, size)
    surface = scenery.under if among_trees else scenery.open
    rising = _march(surface, scenery, rays)
    first = _first_seen(rising, rays, size)
    picture = _resolve(scenery, rays, rising, first, among_trees=among_trees)
    if not among_trees and len(scenery.marks):
        draw_landmarks(scenery.marks, scenery.tree, picture)
    return picture


@dataclass(frozen=True)
class _Rays:
    """The vertical planes of a batch, one a column: M = N * S."""

    x: Floats  # (M,) eye
    y: Floats
    z: Floats
    dx: Floats  # (M,) metres east per metre of depth
    dy: Floats  # (M,) metres south per metre of depth
    low: Floats  # (M,) slope of the picture's lower edge
    span: Floats  # (M,) slope between the lower and upper edge
    slopes: Floats  # (S, M) slope at each pixel's centre, from the bottom

    @staticmethod
    def of(scenery: Scenery, poses: Poses, size: int) -> _Rays:
        """The planes of some poses."""
        half = np.tan(np.radians(poses.fov_deg) / 2)
        across = half[:, None] * ((np.arange(size) + 0.5) * (2 / size) - 1)[None]
        turn = np.radians(poses.heading_deg)[:, None]
        sine, cosine = np.sin(turn), np.cos(turn)
        dx, dy = sine + cosine * across, -cosine + sine * across
        low = np.repeat(np.tan(np.radians(poses.pitch_deg)) - half, size).astype(np.float32)
        span = np.repeat(2 * half, size).astype(np.float32)
        rows = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None]
        eye = _standing(scenery, poses) + poses.eye_m
        x, y, z = (np.repeat(a, size).astype(np.float32) for a in (poses.x, poses.y, eye))
        return _Rays(x, y, z, dx.ravel().astype(np.float32), dy.ravel().astype(np.float32), low, span,
                     low + span * rows)  # fmt: skip


def _standing(scenery: Scenery, poses: Poses) -> Floats:
    """The elevation of what each photographer stands on: a bridge or jetty counts, crowns and crops do not."""
    cells = scenery.cells(poses.x, poses.y)
    deck = np.isin(scenery.cover[cells], _DECKS)
    return scenery.ground[cells] + np.where(deck, scenery.height[cells], 0)


_DECKS = [BY_NAME[name].id for name in ("road", "railway", "harbour", "parking lot", "airport runway")]


def _march(surface: Floats, scenery: Scenery, rays: _Rays) -> Floats:
    """The slope under which each sample's surface is seen, (K, M)."""
    far = depths()[:, None]
    cells = scenery.cells(rays.x + far * rays.dx, rays.y + far * rays.dy)
    slopes = surface.take(cells)
    slopes -= rays.z
    slopes *= 1 / far
    return slopes


def _first_seen(slopes: Floats, rays: _Rays, size: int) -> Ints:
    """The first sample that each pixel sees, (S, M); the number of samples K where it sees the sky."""
    columns = slopes.shape[1]
    rows = slopes.copy()
    for step in range(1, len(rows)):
        np.maximum(rows[step], rows[step - 1], out=rows[step])
    rows -= rays.low
    rows *= size / rays.span
    rows += 0.5
    np.clip(rows, 0, size + 0.5, out=rows)
    keys = rows.astype(np.int32)
    keys *= columns
    keys += np.arange(columns, dtype=np.int32)
    hidden = np.bincount(keys.ravel(), minlength=(size + 1) * columns).reshape(size + 1, columns)
    for row in range(1, size):
        hidden[row] += hidden[row - 1]
    return hidden[:size]


def _resolve(scenery: Scenery, rays: _Rays, rising: Floats, first: Ints, *, among_trees: bool) -> Picture:
    """Look again at the exact place that each pixel sees."""
    far, (count, columns) = depths(), rising.shape
    sky = first == count
    here = np.minimum(first, count - 1)
    before = np.maximum(here - 1, 0)
    at = np.arange(columns)
    here_slope, before_slope = rising.ravel().take(here * columns + at), rising.ravel().take(before * columns + at)
    here_far, before_far = far.take(here), far.take(before)
    rise = here_slope * here_far - before_slope * before_far
    side = rise > 0.45 + 0.7 * np.minimum(here_far - before_far, 2.5)
    depth = _between(rays.slopes, here_slope, before_slope, here_far, before_far)
    np.copyto(depth, here_far, where=side)
    x, y = rays.x + depth * rays.dx, rays.y + depth * rays.dy
    cells = scenery.cells(x, y)
    above = rays.z + rays.slopes * depth - scenery.ground.take(cells)
    picture = Picture(
        cover=scenery.cover.take(cells), material=scenery.material.take(cells), cells=cells, x=x, y=y, depth=depth,
        above=above, slopes=rays.slopes, side=side, sky=sky, dx=rays.dx, dy=rays.dy, eye=rays.z, eye_x=rays.x,
        eye_y=rays.y, canopy=np.zeros_like(sky), among_trees=among_trees,
    )  # fmt: skip
    picture.cover[sky] = 0
    return _with_canopy(scenery, rays, picture) if among_trees else picture


def _between(slope: Floats, here: Floats, before: Floats, here_far: Floats, before_far: Floats) -> Floats:
    """The depth where a ray meets the line between two samples: linear in the inverse depth."""
    share = (slope - before) / np.maximum(here - before, 1e-6)
    np.clip(share, 0, 1, out=share)
    inverse = 1 / before_far
    inverse += share * (1 / here_far - inverse)
    return 1 / inverse


def _with_canopy(scenery: Scenery, rays: _Rays, picture: Picture) -> Picture:
    """Hang the crowns where a ray rises through the height of the first branches inside the forest."""
    depth = (_FIRST_BRANCH - 1.6) / np.maximum(rays.slopes, 1e-3)
    x, y = rays.x + depth * rays.dx, rays.y + depth * rays.dy
    cells = scenery.cells(x, y)
    crown = (scenery.cover.take(cells) == FOREST) & (scenery.height.take(cells) > _FIRST_BRANCH)
    crown &= (rays.slopes > 0) & ((depth < picture.depth) | picture.sky)
    for name, value in (("x", x), ("y", y), ("depth", depth), ("cells", cells)):
        np.copyto(getattr(picture, name), value, where=crown)
    np.copyto(picture.above, _FIRST_BRANCH, where=crown)
    np.copyto(picture.cover, FOREST, where=crown)
    np.copyto(picture.material, scenery.material.take(cells), where=crown)
    return replace(picture, sky=picture.sky & ~crown, canopy=crown)
