"""Rivers, roads and railways: routes over a cost surface, and the strip of pixels along them."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Floats = NDArray[np.float32]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Strip:
    """Pixels near a line, each once.

    Attributes:
        rows: pixel rows.
        cols: pixel columns.
        across: distance from the line in metres, float32.
        along: distance from the line's start in metres, float32.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    across: Floats
    along: Floats

    def within(self, half_width: float | Floats) -> "Strip":
        """The part that lies within a distance of the line."""
        keep = self.across <= half_width
        return Strip(self.rows[keep], self.cols[keep], self.across[keep], self.along[keep])


def route(cost: Floats, lane: Floats, *, pull: float = 1.0, climb: float = 0.4) -> NDArray[np.int64]:
    """The cheapest way from the left to the right edge, one row a column (dynamic programming).

    Args:
        cost: cost of each cell, (H, W).
        lane: the row to stay near, (W,).
        pull: cost of being a quarter of the grid's height off the lane.
        climb: cost of changing the row by one.
    """
    height, width = cost.shape
    rows = np.arange(height, dtype=np.float32)[:, None]
    cost = cost + pull * ((rows - lane[None, :]) / (height / 4)) ** 2
    best, came = cost[:, 0], np.zeros((height, width), np.int64)
    for column in range(1, width):
        wall = np.pad(best, 1, constant_values=np.inf)
        options = np.stack([wall[1:-1], wall[:-2] + climb, wall[2:] + climb])
        came[:, column] = np.array([0, -1, 1])[options.argmin(0)]
        best = options.min(0) + cost[:, column]
    return _walk_back(came, int(best.argmin()))


def _walk_back(came: NDArray[np.int64], row: int) -> NDArray[np.int64]:
    path = np.zeros(came.shape[1], np.int64)
    for column in range(came.shape[1] - 1, -1, -1):
        path[column] = row
        row = int(np.clip(row + came[row, column], 0, came.shape[0] - 1))
    return path


def smooth_line(rows: NDArray[np.int64], cell: float, smoothing: float, *, upright: bool) -> Points:
    """A route as a smooth line of points (x, y) about every 12 m.

    Args:
        rows: one row a column, as `route` returns.
        cell: metres a cell.
        smoothing: standard deviation of the smoothing, metres.
        upright: True if the route was found on the transposed grid, so that it runs from north to south.
    """
    across = gaussian_filter1d((rows + 0.5) * cell, smoothing / cell, mode="nearest")
    along = (np.arange(len(rows)) + 0.5) * cell
    along[0], along[-1] = -8.0, len(rows) * cell + 8.0
    points = np.stack([across, along] if upright else [along, across], 1)
    return resample(points, 12.0)


def resample(points: Points, spacing: float) -> Points:
    """Points at equal distances along a line."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    reached = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0, reached[-1], max(2, int(reached[-1] / spacing) + 1))
    return np.stack([np.interp(at, reached, points[:, k]) for k in (0, 1)], 1)


def bearings(points: Points) -> NDArray[np.float64]:
    """Direction of a line at each of its points, radians from east towards south."""
    step = np.gradient(points, axis=0)
    return np.asarray(np.arctan2(step[:, 1], step[:, 0]))


def strip(points: Points, half_width: float, size: int) -> Strip:
    """All pixels within `half_width` metres of a line, each with its distance across and along."""
    across = np.full((size, size), np.inf, np.float32)
    along = np.empty((size, size), np.float32)
    reached = 0.0
    for start, end in pairwise(points):
        _near_segment(start, end, half_width, reached, (across, along))
        reached += float(np.hypot(*(end - start)))
    rows, cols = np.nonzero(across <= half_width)
    return Strip(rows, cols, across[rows, cols], along[rows, cols])


def _near_segment(start: Points, end: Points, half_width: float, reached: float, fields: tuple[Floats, Floats]) -> None:
    """Enter distances across and along where this segment is the nearest so far."""
    size = len(fields[0])
    low = np.clip(np.floor(np.minimum(start, end) - half_width), 0, size).astype(int)
    high = np.clip(np.ceil(np.maximum(start, end) + half_width), 0, size).astype(int)
    x = np.arange(low[0], high[0], dtype=np.float32)[None, :] + np.float32(0.5 - start[0])
    y = np.arange(low[1], high[1], dtype=np.float32)[:, None] + np.float32(0.5 - start[1])
    length = max(1e-6, float(np.hypot(*(end - start))))
    dx, dy = ((end - start) / length).astype(np.float32)
    on = np.clip(x * dx + y * dy, 0, np.float32(length))
    away = np.hypot(x - on * dx, y - on * dy)
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    nearer = away < fields[0][window]
    fields[0][window][nearer] = away[nearer]
    fields[1][window][nearer] = on[nearer] + np.float32(reached)
