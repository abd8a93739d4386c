"""Photos by UTM zone: who covers whom across a zone's edge, and in which order zones may be covered.

A zone's chips take photos from beyond its edge too. So zones that touch are covered one after another, and the later
one is told what the earlier one covered; zones that do not touch are covered at once, by as many workers as there are.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from geograft.pairs.grid import Floats, Ints, groups
from geograft.raster.grids import utm_epsgs

ZONES = 60
_NORTH, _SOUTH = 32600, 32700


def phases(zones: Sequence[int]) -> list[list[int]]:
    """Zones in groups whose members do not touch; groups are covered one after another, north before south."""
    kinds: dict[tuple[bool, bool], list[int]] = {}
    for zone in sorted(zones):
        kinds.setdefault((zone % 2 == 0, zone > _SOUTH), []).append(zone)
    return [kinds[kind] for kind in sorted(kinds)]


def touching(zone: int) -> list[int]:
    """The zones that share an edge or a corner with a zone, itself left out."""
    base, number = zone // 100 * 100, zone % 100
    numbers = [(number + step - 1) % ZONES + 1 for step in (-1, 0, 1)]
    both = [hemisphere + one for hemisphere in (_NORTH, _SOUTH) for one in numbers]
    return [other for other in both if other != base + number]


def by_zone(lon: Floats, lat: Floats, margin: float) -> Iterator[tuple[int, Ints, NDArray[np.bool_]]]:
    """Each zone that holds points, with the points in it and within about a margin of it.

    Args:
        lon: degrees east, (N,).
        lat: degrees north, (N,).
        margin: metres.

    Yields:
        EPSG code; the rows, ascending; whether each lies in the zone itself.
    """
    own = utm_epsgs(lon, lat).astype(np.int32)
    rows, zones = _strangers(lon, lat, own, margin)
    wanted = np.unique(own)
    order, borders = np.argsort(own, kind="stable"), dict(groups(zones))
    starts = np.searchsorted(own[order], [wanted, wanted + 1]).T
    for zone, (start, stop) in zip(wanted.tolist(), starts.tolist(), strict=True):
        inside = order[start:stop]
        near = np.concatenate([inside, rows[borders[zone]]]) if zone in borders else inside
        near = np.sort(near)
        yield zone, near, own[near] == zone


def _strangers(lon: Floats, lat: Floats, own: NDArray[np.int32], margin: float) -> tuple[Ints, NDArray[np.int32]]:
    """(row, zone) of points that lie near a zone which is not their own."""
    height = margin / 110_000
    width = height / np.maximum(np.cos(np.radians(lat)), 0.05)
    west = lon + 180 - 6 * (own % 100 - 1)
    steps = {-1: west < width, 1: west > 6 - width, 0: np.ones(len(lon), np.bool_)}
    across = np.abs(lat) < height
    rows, zones = [], []
    for step, near in steps.items():
        for flip in (False, True):
            if step == 0 and not flip:
                continue
            found = np.flatnonzero(near & across if flip else near)
            rows.append(found)
            zones.append(_beside(own[found], step, flip=flip))
    return np.concatenate(rows), np.concatenate(zones)


def _beside(zones: NDArray[np.int32], step: int, *, flip: bool) -> NDArray[np.int32]:
    """The zones so many steps east, on the other side of the equator where flipped."""
    base, number = zones // 100 * 100, zones % 100
    other = np.where(base == _NORTH, _SOUTH, _NORTH) if flip else base
    return (other + (number + step - 1) % ZONES + 1).astype(np.int32)
