"""Which photo belongs to which chip: the greedy cover of GRAFT, exact on a metric grid.

Photos are visited in a pseudo-random order that depends on their ids and the seed alone. The next photo that no chip
covers becomes the centre of a new chip, and every photo inside that footprint is attached to it. A photo may lie in
several chips, yet no chip's centre lies in an earlier chip, so two chips share at most about half their ground; a
lower limit may be set. Where more photos lie in a chip than may be kept, a fair draw decides, not their order.

The cover is serial by nature: whether a photo opens a chip hangs on all that were visited before it. So it is compiled
(numba), and looks only at the cells of the grid that a chip touches.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from geograft.hashing import Hashes, mix
from geograft.pairs.grid import CELL_ROW, Floats, Grid, Ints, cell_keys

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Cover:
    """Chips of one zone, and the photos inside each.

    Attributes:
        centre: the photo that each chip is centred on, in the order of the visit, (N,).
        chip: for each (chip, photo) the chip's place in `centre`, ascending, (P,).
        photo: the photo, ascending within a chip, (P,).
    """

    centre: Ints
    chip: Ints
    photo: Ints


@dataclass(frozen=True)
class Metric:
    """Photos of one zone, in its metres, in the order of the visit.

    Attributes:
        east: easting, (N,).
        north: northing, (N,).
    """

    east: Floats
    north: Floats


def cover_zone(where: Metric, opens: Bools, covered: Bools, grid: Grid, *, max_overlap: float = 1.0) -> Cover:
    """Cover photos by chips.

    Args:
        where: the photos, in the order of the visit, (N,).
        opens: whether a chip may be centred on the photo, (N,). Others are attached to chips that cover them.
        covered: photos that chips elsewhere cover, (N,); changed in place to say which are covered now.
        grid: the chips' size and sampling.
        max_overlap: the largest share of its ground that a new chip may have in common with an earlier one.
    """
    column, row = where.east / grid.gsd, where.north / grid.gsd
    keys = cell_keys(column, row, grid.size)
    order = np.argsort(keys, kind="stable")
    cells, starts = np.unique(keys[order], return_index=True)
    starts = np.append(starts, len(keys))
    layout = (cells, starts, order, column, row, *grid.centred(where.east, where.north))
    return Cover(*_greedy(*layout, opens, covered, grid.size, max_overlap))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _greedy(  # noqa: PLR0913, PLR0917 - a compiled loop over plain arrays
    cells: Any,
    starts: Any,
    order: Any,
    column: Any,
    row: Any,
    x: Any,
    y: Any,
    opens: Any,
    covered: Any,
    size: int,
    max_overlap: float,
) -> Any:
    """Visit the photos in order; see `cover_zone`.

    All is in pixels, where a chip's edges are whole numbers: no rounding moves a photo over an edge.

    Args:
        cells: keys of the cells that hold photos, ascending, (U,).
        starts: where each cell's photos begin in `order`, (U + 1,).
        order: photos by cell, (N,).
        column: pixels east of easting 0, (N,).
        row: pixels north of northing 0, (N,).
        x: grid column of the chip centred on each photo, (N,).
        y: grid row of its top edge, (N,).
        opens: see `cover_zone`.
        covered: see `cover_zone`.
        size: pixels a side.
        max_overlap: see `cover_zone`.
    """
    limited = max_overlap < 0.5
    newest = np.full(len(cells) if limited else 0, -1, np.int64)
    older = np.empty(len(x) if limited else 0, np.int64)
    centre = np.empty(1024, np.int64)
    chip = np.empty(4096, np.int64)
    photo = np.empty(4096, np.int64)
    chips = members = 0
    for visited in range(len(x)):
        if covered[visited] or not opens[visited]:
            continue
        left, top = x[visited], y[visited]
        home = (int(np.floor(row[visited] / size)), int(np.floor(column[visited] / size)))
        if limited and _crowded(cells, newest, older, x, y, visited, home, size, max_overlap):
            continue
        first = members
        for band in range(top // size - 1, top // size + 1):
            low = np.searchsorted(cells, band * CELL_ROW + left // size)
            high = np.searchsorted(cells, band * CELL_ROW + left // size + 1, side="right")
            for place in range(starts[low], starts[high]):
                one = order[place]
                if left <= column[one] < left + size and top - size < row[one] <= top:
                    if members == len(photo):
                        chip, photo = _longer(chip), _longer(photo)
                    chip[members], photo[members] = chips, one
                    covered[one] = True
                    members += 1
        photo[first:members].sort()
        if chips == len(centre):
            centre = _longer(centre)
        centre[chips] = visited
        if limited:
            cell = np.searchsorted(cells, home[0] * CELL_ROW + home[1])
            older[visited], newest[cell] = newest[cell], visited
        chips += 1
    return centre[:chips].copy(), chip[:members].copy(), photo[:members].copy()


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _crowded(
    cells: Any, newest: Any, older: Any, x: Any, y: Any, visited: int, home: Any, size: int, max_overlap: float
) -> bool:
    """Whether a chip would share more of its ground with an earlier one than is allowed.

    Chips that share ground are centred on cells that touch: a cell is as wide as a chip.

    Args:
        cells: see `_greedy`.
        newest: the latest chip centred in each cell, -1 where there is none, (U,).
        older: for a photo that opened a chip the one before it in its cell, (N,).
        x: see `_greedy`.
        y: see `_greedy`.
        visited: the photo.
        home: row and column of its cell.
        size: pixels a side.
        max_overlap: see `cover_zone`.
    """
    for band in range(home[0] - 1, home[0] + 2):
        for key in range(band * CELL_ROW + home[1] - 1, band * CELL_ROW + home[1] + 2):
            cell = np.searchsorted(cells, key)
            if cell == len(cells) or cells[cell] != key:
                continue
            other = newest[cell]
            while other >= 0:
                across, down = size - abs(x[visited] - x[other]), size - abs(y[visited] - y[other])
                if across > 0 and down > 0 and across * down > max_overlap * size * size:
                    return True
                other = older[other]
    return False


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _longer(array: Any) -> Any:
    """An array of twice the length, with what is there."""
    out = np.empty(2 * len(array), array.dtype)
    out[: len(array)] = array
    return out


def fair_draw(cover: Cover, lots: Hashes, chip_lots: Hashes, limit: int) -> Cover:
    """At most `limit` photos a chip, each equally likely, whatever the order of the table.

    Args:
        cover: chips and their photos.
        lots: a pseudo-random number of each photo, (N,).
        chip_lots: a pseudo-random number of each chip of the cover.
        limit: photos a chip.
    """
    counts = np.bincount(cover.chip, minlength=len(cover.centre))
    full = counts[cover.chip] > limit
    keep = ~full
    rows = np.flatnonzero(full)
    mixed = mix(lots[cover.photo[rows]], chip_lots[cover.chip[rows]])
    order = rows[np.lexsort((mixed, cover.chip[rows]))]
    chips = cover.chip[order]
    rank = np.arange(len(order)) - np.searchsorted(chips, chips)
    keep[order[rank < limit]] = True
    return Cover(cover.centre, cover.chip[keep], cover.photo[keep])
