"""Thin things that a height field cannot hold: rotors of wind turbines, masts of boats, flags and goals.

They are lines in the picture, drawn pixel by pixel over what the rays found, nearer things hiding farther ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from geograft.world.classes import BY_NAME
from geograft.world.materials import INDEX

if TYPE_CHECKING:
    from geograft.world.daylight import Floats, Ints
    from geograft.world.paint import Picture
    from geograft.world.terrain import Land

_TURBINES, _HARBOUR, _GOLF, _PITCH = (
    BY_NAME[name].id for name in ("wind turbines", "harbour", "golf course", "sports pitch")
)
_TOWER = 15.0  # m from which a cell of the class is a tower
ROTOR, MAST, FLAG, GOAL = 0, 1, 2, 3
_SIGHT = np.array([900.0, 160.0, 90.0, 110.0])  # m, by kind
_STROKES = 80  # points along a line


@dataclass(frozen=True)
class Landmarks:
    """Thin things of a land, n of them.

    Attributes:
        place: columns and rows, (n, 2).
        foot: elevation of the foot, m.
        reach: height of the hub, mast or pole above the foot, m.
        kind: 0 rotor, 1 mast, 2 flag, 3 goal.
        turn: angle of a rotor's first blade, radians.
    """

    place: Floats
    foot: Floats
    reach: Floats
    kind: Ints
    turn: Floats

    def __len__(self) -> int:
        """The number of things."""
        return len(self.kind)


def find_landmarks(land: Land) -> Landmarks:
    """The rotors, masts, flags and goals of a land; boats that come later bring their masts (call it again)."""
    parts = [_rotors(land), _masts(land), _flags(land), _goals(land)]
    place = np.concatenate([part for part, _ in parts]).astype(np.float32).reshape(-1, 2)
    reach = np.concatenate([height for _, height in parts]).astype(np.float32)
    kind = np.repeat([ROTOR, MAST, FLAG, GOAL], [len(part) for part, _ in parts])
    columns, rows = place.astype(np.int64).T
    turn = (columns * 31 + rows * 17) % 100 / 100 * 2 * np.pi / 3
    return Landmarks(place, land.ground[rows, columns], reach, kind, turn.astype(np.float32))


def _rotors(land: Land) -> tuple[Floats, Floats]:
    """Middle and height of each tower."""
    tall = (land.cover == _TURBINES) & (land.height > _TOWER)
    rows, columns = np.nonzero(tall)
    if not len(rows):
        return np.empty((0, 2)), np.empty(0)
    tree = cKDTree(np.stack([columns, rows], 1))
    group = np.arange(len(rows))
    for first, second in sorted(tree.query_pairs(12.0)):
        group[second] = min(group[second], group[first])
    names = np.unique(group)
    x, y, z = (ndimage.mean(v, group, names) for v in (columns + 0.5, rows + 0.5, land.height[tall]))
    return np.stack([x, y], 1), np.asarray(z)


def _picked(land: Land, class_id: int, names: tuple[str, ...], one_in: int) -> tuple[Ints, Ints]:
    """Every so many cells of a class and some materials, by a hash of the cell: columns and rows."""
    rows, columns = np.nonzero((land.cover == class_id) & np.isin(land.material, [INDEX[n] for n in names]))
    hashed = (columns * 73_856_093) ^ (rows * 19_349_663)
    chosen = (hashed >> 3) % one_in == 0
    return columns[chosen], rows[chosen]


def _masts(land: Land) -> tuple[Floats, Floats]:
    """About one mast on each boat of a harbour."""
    columns, rows = _picked(land, _HARBOUR, ("white hull",), 14)
    return np.stack([columns + 0.5, rows + 0.5], 1), 6.5 + 3.5 * ((columns + rows) % 5) / 5


def _flags(land: Land) -> tuple[Floats, Floats]:
    """Flags over the shortest grass of golf courses."""
    columns, rows = _picked(land, _GOLF, ("mown stripe", "mown grass"), 260)
    return np.stack([columns + 0.5, rows + 0.5], 1), np.full(len(columns), 2.3)


def _goals(land: Land) -> tuple[Floats, Floats]:
    """Goals on the lines of sports pitches."""
    columns, rows = _picked(land, _PITCH, ("white paint",), 80)
    return np.stack([columns + 0.5, rows + 0.5], 1), np.full(len(columns), 2.5)


# --- drawing ----------------------------------------------------------------------------------------------


def draw_landmarks(marks: Landmarks, tree: cKDTree, picture: Picture) -> None:
    """Draw what is in sight into a batch of photos, in place.

    Args:
        marks: the land's thin things.
        tree: of their places.
        picture: what the photos see; class, material, depth and side are changed where a line covers it.
    """
    size = picture.size
    eyes = np.arange(picture.count) * size
    x, y = picture.eye_x[eyes], picture.eye_y[eyes]
    found = tree.query_ball_point(np.stack([x, y], 1), float(_SIGHT.max()))
    owner = np.repeat(np.arange(len(found)), [len(f) for f in found])
    mark = np.array([m for f in found for m in f], np.int64)
    if not len(mark):
        return
    east, south = marks.place[mark, 0] - x[owner], marks.place[mark, 1] - y[owner]
    frame = _Frame.of(picture)
    depth, column, scale = frame.project(owner, east, south)
    seen = (depth > 2) & (np.hypot(east, south) < _SIGHT[marks.kind[mark]]) & (np.abs(column / size - 0.5) < 1.2)
    owner, mark, depth, column, scale = (a[seen] for a in (owner, mark, depth, column, scale))
    row = frame.row(owner, (marks.foot[mark] - picture.eye[owner * size]) / depth)
    for kind, draw in ((ROTOR, _draw_rotor), (MAST, _draw_mast), (FLAG, _draw_flag), (GOAL, _draw_goal)):
        own = np.flatnonzero(marks.kind[mark] == kind)
        order = own[np.argsort(-depth[own], kind="stable")]
        if len(order):
            thing = mark[order]
            pen = _Pen(picture, owner[order], column[order], row[order], scale[order], depth[order])
            draw(pen, marks.reach[thing], marks.turn[thing])


@dataclass(frozen=True)
class _Frame:
    """How a batch projects: of each photo, forward and right, the slope of a pixel and of the lower edge."""

    forward: Floats
    right: Floats
    pixel: Floats
    low: Floats
    size: int

    @staticmethod
    def of(picture: Picture) -> _Frame:
        """Recovered from the columns' directions."""
        size = picture.size
        dx, dy = picture.dx.reshape(-1, size), picture.dy.reshape(-1, size)
        forward = np.stack([dx.mean(1), dy.mean(1)], 1)
        right = np.stack([dx[:, -1] - dx[:, 0], dy[:, -1] - dy[:, 0]], 1)
        right /= np.linalg.norm(right, axis=1, keepdims=True)
        low, pixel = picture.slopes[0, ::size], picture.slopes[1, ::size] - picture.slopes[0, ::size]
        return _Frame(forward, right, pixel, low, size)

    def project(self, owner: Ints, east: Floats, south: Floats) -> tuple[Floats, Floats, Floats]:
        """Depth, column and pixels a metre of places relative to the eye."""
        depth = east * self.forward[owner, 0] + south * self.forward[owner, 1]
        across = east * self.right[owner, 0] + south * self.right[owner, 1]
        scale = 1 / (self.pixel[owner] * np.where(depth > 0.1, depth, 0.1))
        return depth, self.size / 2 + across * scale, scale

    def row(self, owner: Ints, slope: Floats) -> Floats:
        """The row, from the bottom, at which a slope is seen."""
        rows: Floats = (slope - self.low[owner]) / self.pixel[owner]
        return rows


@dataclass(frozen=True)
class _Pen:
    """Draws lines relative to the feet of things, in metres, for m things at once."""

    picture: Picture
    owner: Ints
    column: Floats
    row: Floats
    scale: Floats
    depth: Floats

    def line(self, start: Floats, end: Floats, width: float, look: tuple[int, str]) -> None:
        """A line of a width in metres between offsets (m, 2) from the foot, in a class and material."""
        share = np.linspace(0, 1, _STROKES)[None, :, None]
        points = (start[:, None] * (1 - share) + end[:, None] * share) * self.scale[:, None, None]
        along = end - start
        normal = np.stack([-along[:, 1], along[:, 0]], 1) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-6)
        half = np.clip(width * self.scale / 2 - 0.5, 0, 12)
        for step in np.linspace(-1, 1, 2 * int(np.ceil(half.max())) + 1):
            self._dots(points + (normal * (half * step)[:, None])[:, None], look)

    def _dots(self, points: Floats, look: tuple[int, str]) -> None:
        """Colour the pixels at points (m, k, 2) where nothing nearer is seen."""
        size, picture = self.picture.size, self.picture
        column = np.floor(self.column[:, None] + points[..., 0]).astype(np.int64)
        row = np.floor(self.row[:, None] + points[..., 1]).astype(np.int64)
        depth = np.broadcast_to(self.depth[:, None], row.shape)
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        at = (row[inside], (column + self.owner[:, None] * size)[inside])
        free = picture.sky[at] | (picture.depth[at] > depth[inside])
        at, depth = (at[0][free], at[1][free]), depth[inside][free]
        picture.cover[at], picture.material[at] = look[0], INDEX[look[1]]
        picture.depth[at], picture.side[at], picture.sky[at] = depth, True, False
        picture.above[at] = 3.0


def _draw_rotor(pen: _Pen, reach: Floats, turn: Floats) -> None:
    """Tower and three blades, facing the camera."""
    hub = np.stack([np.zeros_like(reach), reach], 1)
    pen.line(np.zeros_like(hub), hub, 2.6, (_TURBINES, "turbine white"))
    for blade in range(3):
        angle = turn + blade * 2 * np.pi / 3
        tip = hub + 0.55 * reach[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
        pen.line(hub, tip, 1.9, (_TURBINES, "turbine white"))


def _draw_mast(pen: _Pen, reach: Floats, _: Floats) -> None:
    """A mast with a boom."""
    top = np.stack([np.zeros_like(reach), reach], 1)
    pen.line(np.zeros_like(top), top, 0.14, (_HARBOUR, "concrete"))
    boom = top * 0.22
    pen.line(boom, boom + np.array([2.0, 0.15]), 0.25, (_HARBOUR, "white hull"))


def _draw_flag(pen: _Pen, reach: Floats, _: Floats) -> None:
    """A pole with a red flag."""
    top = np.stack([np.zeros_like(reach), reach], 1)
    pen.line(np.zeros_like(top), top, 0.05, (_GOLF, "white paint"))
    pen.line(top - np.array([0, 0.2]), top - np.array([-0.55, 0.3]), 0.4, (_GOLF, "red track"))


def _draw_goal(pen: _Pen, reach: Floats, _: Floats) -> None:
    """Two posts and a bar, with a net."""
    up = np.stack([np.zeros_like(reach), reach], 1)
    half = np.array([3.2, 0.0])
    for height in (0.25, 0.5, 0.75):
        pen.line(height * up - half, height * up + half, 0.04, (_PITCH, "silver car"))
    for side in (-half, half):
        pen.line(up * 0 + side, up + side, 0.16, (_PITCH, "white paint"))
    pen.line(up - half, up + half, 0.16, (_PITCH, "white paint"))
