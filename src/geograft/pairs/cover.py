"""Which photo belongs to which chip: the greedy cover of GRAFT, exact on a metric grid.

Photos are visited in a pseudo-random order that depends on their ids and the seed alone. The next photo that
no chip covers becomes the centre of a new chip, and every photo inside that footprint is attached to it. A
photo may lie in several chips, yet no chip's centre lies in an earlier chip, which bounds how far two chips
overlap. Where more photos lie in a chip than may be kept, a fair draw decides, not their order.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geograft.pairs.grid import Floats, Grid, Ints, Places, hash_ids, mix, project

Bools = NDArray[np.bool_]


class Lookup:
    """Points in square cells, so that the points of a box are found without looking at all.

    Args:
        east: easting in metres, (N,).
        north: northing in metres, (N,).
        cell: side of a cell in metres; boxes asked for must not be larger.
    """

    _ROW = np.int64(1 << 32)

    def __init__(self, east: Floats, north: Floats, cell: float) -> None:
        self._cell = cell
        keys = self._keys(np.floor(east / cell), np.floor(north / cell))
        self._rows = np.argsort(keys, kind="stable")
        self._sorted = keys[self._rows]
        self._east, self._north = east[self._rows], north[self._rows]

    def _keys(self, column: Floats, row: Floats) -> Ints:
        return np.asarray(row, np.int64) * self._ROW + np.asarray(column, np.int64)

    def inside(self, left: float, top: float) -> Ints:
        """Rows of the points in a box of one cell's size: left <= east < right, bottom < north <= top."""
        right, bottom = left + self._cell, top - self._cell
        rows = np.arange(bottom // self._cell, top // self._cell + 1)
        starts = self._keys(np.full_like(rows, left // self._cell), rows)
        stops = self._keys(np.full_like(rows, right // self._cell + 1), rows)
        spans = np.searchsorted(self._sorted, [starts, stops]).T.tolist()
        found = [self._span(slice(*span), (left, right, bottom, top)) for span in spans]
        return np.concatenate(found)

    def _span(self, span: slice, box: tuple[float, float, float, float]) -> Ints:
        left, right, bottom, top = box
        east, north = self._east[span], self._north[span]
        within = (east >= left) & (east < right) & (north > bottom) & (north <= top)
        return np.asarray(self._rows[span][within])


@dataclass(frozen=True)
class Cover:
    """Chips, and the photos inside each.

    Attributes:
        chips: chip_id, epsg, left, top, gsd, size; sorted by chip_id.
        pairs: chip_id, photo (row of the photo table), col, row (float32 pixel offsets of the photo from the
            chip's top left corner, in [0, size)); sorted by chip_id, then photo.
    """

    chips: pd.DataFrame
    pairs: pd.DataFrame


def greedy_cover(places: Places, order: NDArray[np.uint64], eligible: Bools, grid: Grid) -> Cover:
    """Cover photos by chips.

    Args:
        places: where the photos are, (N,).
        order: photos are visited from the smallest; equal values go by row, (N,).
        eligible: whether a chip centred on the photo lies on a scene, (N,). A photo that is not eligible
            opens no chip; it is attached to those that cover it.
        grid: the chips' size and sampling.

    Returns:
        The cover. Zones are visited in ascending order; a chip takes photos from beyond its zone's edge too.
    """
    covered = np.zeros(len(places.lon), dtype=np.bool_)
    parts = [_cover_zone(zone, places, order, eligible, covered, grid) for zone in np.unique(places.epsg).tolist()]
    found = pd.concat(parts, ignore_index=True)
    return _tables(found, grid)


def _cover_zone(
    zone: int, places: Places, order: NDArray[np.uint64], eligible: Bools, covered: Bools, grid: Grid
) -> pd.DataFrame:
    """The pairs (epsg, x, y, photo, east, north) of one zone's chips; marks the photos that they cover."""
    near = places.near(zone, 2 * grid.extent)
    east, north = project(places.lon[near], places.lat[near], zone)
    x, y = grid.centred(east, north)
    lookup = Lookup(east, north, grid.extent)
    centres = eligible[near] & (places.epsg[near] == zone)
    visit = np.argsort(order[near], kind="stable")
    done = bytearray(covered[near].tobytes())
    chips, members = _greedy(visit[centres[visit]], np.stack([x, y], 1).astype(np.float64) * grid.gsd, lookup, done)
    covered[near] = np.frombuffer(done, np.bool_)
    sizes = [len(rows) for rows in members]
    chip = np.repeat(np.array(chips, np.int64), sizes)
    photo = np.concatenate([*members, np.empty(0, np.int64)]).astype(np.int64)
    columns = {"epsg": zone, "x": x[chip], "y": y[chip], "photo": near[photo]}
    return pd.DataFrame({**columns, "east": east[photo], "north": north[photo]})


def _greedy(visit: Ints, boxes: Floats, lookup: Lookup, done: bytearray) -> tuple[list[int], list[Ints]]:
    """The visited points that open a chip, and each chip's members.

    Args:
        visit: rows in the order of the visit.
        boxes: left and top of the chip centred on each row, (N, 2).
        lookup: finds the points of a box.
        done: one byte a row, 1 where covered; changed in place.
    """
    chips: list[int] = []
    members: list[Ints] = []
    for row in visit.tolist():
        if done[row]:
            continue
        inside = lookup.inside(*boxes[row].tolist())
        for member in inside.tolist():
            done[member] = 1
        done[row] = 1
        chips.append(row)
        members.append(inside)
    return chips, members


def _tables(found: pd.DataFrame, grid: Grid) -> Cover:
    """The chip and pair tables of what was found in all zones."""
    key = ["epsg", "x", "y"]
    chips = found[key].drop_duplicates(ignore_index=True)
    chips["chip_id"] = grid.names(*(chips[name].to_numpy(np.int64) for name in key))
    pairs = found.merge(chips, on=key)
    col = pairs["east"] / grid.gsd - pairs["x"]
    row = pairs["y"] - pairs["north"] / grid.gsd
    pairs = pairs.assign(col=_offsets(col, grid), row=_offsets(row, grid))
    pairs = pairs.drop_duplicates(["chip_id", "photo"])[["chip_id", "photo", "col", "row"]]
    chips = chips.assign(left=chips["x"] * grid.gsd, top=chips["y"] * grid.gsd, gsd=grid.gsd, size=grid.size)
    chips = chips[["chip_id", "epsg", "left", "top", "gsd", "size"]]
    return Cover(
        chips.sort_values("chip_id", ignore_index=True),
        pairs.sort_values(["chip_id", "photo"], ignore_index=True),
    )


def _offsets(values: pd.Series, grid: Grid) -> NDArray[np.float32]:
    """Pixel offsets as float32 that stay inside the chip when rounded."""
    last = np.nextafter(np.float32(grid.size), np.float32(0))
    return np.asarray(np.clip(values.to_numpy(np.float32), np.float32(0), last), np.float32)


def fair_draw(pairs: pd.DataFrame, photo_ids: Ints | NDArray[np.object_], limit: int, seed: int) -> pd.DataFrame:
    """At most `limit` photos a chip, each equally likely, whatever the order of the table.

    Args:
        pairs: chip_id, photo, ...
        photo_ids: the id of each row that `photo` names.
        limit: photos a chip.
        seed: mixed with chip and photo ids.

    Returns:
        The pairs that were drawn, in the order given.
    """
    chips, chip = np.unique(pairs["chip_id"].to_numpy(object), return_inverse=True)
    photo = pairs["photo"].to_numpy(np.int64)
    salt = f"draw {seed}"
    lots = mix(hash_ids(photo_ids, salt)[photo], hash_ids(chips, salt)[chip])
    order = np.lexsort((photo, lots, chip))
    _, starts = np.unique(chip[order], return_index=True)
    rank = np.arange(len(order)) - starts[chip[order]]
    return pairs.iloc[np.sort(order[rank < limit])].reset_index(drop=True)
