"""Which scenes lie under the photos of a zone, asked by the coarse cell.

Most cells lie amid scenes: each scene that touches the cell, with all the chips that could be centred in it, holds them
whole. What is true of such a cell is true of its chips. Only the chips of cells at a scene's edge are asked one by one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geograft.pairs.grid import CELL_ROW, Floats, Grid, Ints, cell_keys, metric_corners, to_degrees
from geograft.pairs.planning.ground import CHUNK, Ground, bend

Bools = NDArray[np.bool_]

COARSE = 8
"""Chips along a coarse cell's side."""

INSET_PX = 0.05
"""Chips are this much smaller when they are held against footprints, whose edges are drawn in degrees."""

SEAM_PX = 0.1
"""Cracks of twice this between scenes are closed, see `ground.joined`."""

_HALF = CELL_ROW // 2


@dataclass(frozen=True)
class Survey:
    """What scenes lie under the photos of a zone.

    Attributes:
        ground: the scenes.
        zone: EPSG code.
        grid: the chips' size and sampling.
        cell: the coarse cell of each photo, (N,).
        plain: whether each scene that touches a cell holds all its chips, (C,).
        starts: where each cell's scenes begin in `scenes`, (C + 1,).
        scenes: rows of the ground.
    """

    ground: Ground
    zone: int
    grid: Grid
    cell: Ints
    plain: Bools
    starts: Ints
    scenes: Ints

    @classmethod
    def of(cls, ground: Ground, zone: int, grid: Grid, where: Any) -> "Survey":
        """Survey the cells that photos lie in.

        Args:
            ground: the scenes.
            zone: EPSG code.
            grid: the chips' size and sampling.
            where: the photos' east and north, metres, (N,).
        """
        around, cell = _cells(where.east, where.north, COARSE * grid.extent, grid)
        plain, starts, scenes = _by_cell(ground, to_degrees(zone, around))
        return cls(ground, zone, grid, cell, plain, starts, scenes)

    def opens(self, where: Any) -> Bools:
        """Whether a chip centred on each photo lies wholly on one scene or on several together, (N,)."""
        found = (np.diff(self.starts) > 0)[self.cell]
        rows = np.flatnonzero(found & ~self.plain[self.cell])
        around, cell = _cells(where.east[rows], where.north[rows], self.grid.extent, self.grid)
        found[rows] = self.ground.holds(to_degrees(self.zone, around), self.seam)[cell]
        rows = rows[~found[rows]]
        x, y = self.grid.centred(where.east[rows], where.north[rows])
        found[rows] = self.ground.holds(self.outline(x, y, -INSET_PX * self.grid.gsd), self.seam)
        return found

    @property
    def seam(self) -> float:
        """Half the width in metres of the cracks between scenes that are closed."""
        return SEAM_PX * self.grid.gsd

    def outline(self, x: Ints, y: Ints, margin: float = 0.0) -> Floats:
        """The corners of chips in degrees, (n, 4, 2), each side moved outwards by a margin in metres."""
        return to_degrees(self.zone, metric_corners(*self.grid.corner(x, y), self.grid.extent, margin))

    def met(self, centre: Ints, x: Ints, y: Ints) -> tuple[Ints, Ints, Bools]:
        """Every (chip, scene) that touch, and whether the scene holds the chip whole; sorted by both.

        Args:
            centre: the photo that each chip is centred on, (n,).
            x: its grid column, (n,).
            y: its grid row, (n,).
        """
        cell = self.cell[centre]
        plain = np.flatnonzero(self.plain[cell])
        counts = np.diff(self.starts)[cell[plain]]
        first = self.starts[cell[plain]]
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
        rest = np.flatnonzero(~self.plain[cell])
        chip, scene, whole = self._asked(x[rest], y[rest])
        chips, scenes = np.append(np.repeat(plain, counts), rest[chip]), np.append(self.scenes[place], scene)
        wholes = np.append(np.ones(len(place), np.bool_), whole)
        order = np.lexsort((scenes, chips))
        return chips[order], scenes[order], wholes[order]

    def _asked(self, x: Ints, y: Ints) -> tuple[Ints, Ints, Bools]:
        """As `met`, chip by chip."""
        corners = self.outline(x, y, -INSET_PX * self.grid.gsd)
        touched, held = self.ground.met(corners, "intersects"), self.ground.met(corners, "covered_by")
        keys = [chip * len(self.ground.shapes) + scene for chip, scene in (touched, held)]
        return *touched, np.isin(keys[0], keys[1], assume_unique=True)


def _cells(east: Floats, north: Floats, side: float, grid: Grid) -> tuple[Floats, Ints]:
    """The cells that points lie in, widened by all chips that could be centred there, and the cell of each point.

    They are widened a little more, for their sides are straight in degrees but bend on the grid.

    Returns:
        Corners in metres, (C, 4, 2), and numbers of cells, (N,).
    """
    keys, cell = np.unique(cell_keys(east, north, side), return_inverse=True)
    row, column = np.floor_divide(keys + _HALF, CELL_ROW), (keys + _HALF) % CELL_ROW - _HALF
    left, top = np.asarray(side * column), np.asarray(side * (row + 1.0))
    margin = grid.extent / 2 + grid.gsd + bend(side + grid.extent)
    return metric_corners(left, top, side, margin), cell.astype(np.int64)


def _by_cell(ground: Ground, around: Floats) -> tuple[Bools, Ints, Ints]:
    """Which cells are plain, and the scenes of each cell."""
    cells, scenes, held = [], [], np.zeros(len(around), np.int64)
    for start in range(0, len(around), CHUNK):
        cell, scene = ground.met(around[start : start + CHUNK], "intersects")
        whole, _ = ground.met(around[start : start + CHUNK], "covered_by")
        cells.append(cell + start)
        scenes.append(scene)
        held += np.bincount(whole + start, minlength=len(around))
    cell = np.concatenate(cells) if cells else np.empty(0, np.int64)
    counts = np.bincount(cell, minlength=len(around))
    starts = np.append(0, np.cumsum(counts))
    return held == counts, starts, np.concatenate(scenes) if scenes else np.empty(0, np.int64)
