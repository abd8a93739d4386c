"""The split of a draft: chips assigned, and whatever would leak sieved out."""

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geograft.pairs.grid import Floats, Grid, Ints
from geograft.pairs.planning.draft import Draft, Sieve
from geograft.pairs.planning.ground import CHUNK, Ground, mirrored
from geograft.pairs.planning.intake import Photos
from geograft.pairs.planning.split import (
    Codes,
    SplitSettings,
    by_block,
    by_name,
    foremost,
    near_other_split,
    shared_minutes,
)
from geograft.pairs.planning.stacks import Stacks
from geograft.pairs.settings import Tally

_SAME_GROUND = 0.5
"""Scenes that share this part of the smaller one show the same ground."""


def divide(
    draft: Draft, photos: Photos, scenes: gpd.GeoDataFrame, grid: Grid, settings: SplitSettings, tally: Tally
) -> Draft:
    """Assign every chip to train, validation or test (the column `split`, by number), and drop what would leak.

    Args:
        draft: the chips.
        photos: who took them, when, and at which place.
        scenes: the scene table.
        grid: the chips' size and sampling.
        settings: how.
        tally: gains the counts of what was dropped: `mixed-places`, `split-scene`, `split-buffer`,
            `user-minute-across-splits`.
    """
    if settings.by is None:
        return _with_split(draft, np.zeros(len(draft.chips), np.int8))
    if settings.by == "blocks":
        sieve = Sieve(_with_split(draft, by_block(*draft.centre, settings)), tally)
    else:
        sieve = (_by_place if settings.by == "place" else _by_scene)(draft, photos, scenes, settings, tally)
    draft, split = sieve.draft, np.where(sieve.chips, _splits(sieve.draft), -1)
    sieve.keep_chips(
        ~near_other_split(metric_table(draft, grid), draft.outline, split, settings.buffer_m), "split-buffer"
    )
    pairs = np.flatnonzero(sieve.pairs)
    photo, chip = (draft.pairs[name].to_numpy()[pairs] for name in ("photo", "chip"))
    apart = np.ones(len(sieve.pairs), np.bool_)
    apart[pairs] = ~shared_minutes(photos.user[photo], photos.taken[photo], split[chip])
    sieve.keep_pairs(apart, "user-minute-across-splits")
    return sieve.result()


def metric_table(draft: Draft, grid: Grid) -> pd.DataFrame:
    """The chips' epsg, left, top, gsd and size."""
    left, top = grid.corner(draft.chips["x"].to_numpy(np.int64), draft.chips["y"].to_numpy(np.int64))
    table = {"epsg": draft.chips["epsg"].to_numpy(), "left": left, "top": top, "gsd": grid.gsd, "size": grid.size}
    return pd.DataFrame(table)


def _with_split(draft: Draft, split: Codes) -> Draft:
    """A draft whose chips have a split."""
    return Draft(draft.chips.assign(split=split), draft.outline, draft.pairs, draft.stacks, draft.photos)


def _splits(draft: Draft) -> Codes:
    """The split of each chip."""
    return np.asarray(draft.chips["split"], np.int8)


def _by_place(draft: Draft, photos: Photos, _: gpd.GeoDataFrame, settings: SplitSettings, tally: Tally) -> Sieve:
    """Chips by the place of their photos; those of other splits are left out of a chip that mixes places."""
    chip = draft.pairs["chip"].to_numpy()
    split = by_name(photos.place[draft.pairs["photo"].to_numpy()], photos.places, settings)
    of_chip = foremost(chip, split, len(draft.chips))
    sieve = Sieve(_with_split(draft, of_chip), tally)
    sieve.keep_pairs(of_chip[chip] == split, "mixed-places")
    return sieve


def _by_scene(draft: Draft, _: Photos, scenes: gpd.GeoDataFrame, settings: SplitSettings, tally: Tally) -> Sieve:
    """Chips by the scene nearest to them; no scene serves chips of two splits."""
    group, names = scene_groups(Ground.of(scenes)), scenes["scene_id"].to_numpy(object)
    stacks = draft.stacks
    best = np.flatnonzero(np.diff(stacks.chip, prepend=-1))
    split = by_name(group[stacks.lead[best]], names[np.unique(group, return_index=True)[1]].tolist(), settings)
    of_group = np.full(group.max() + 1, -1, np.int8)
    of_group[group[stacks.lead[best]]] = split
    kept = _of_one_split(stacks, of_group[group], split)
    draft = Draft(draft.chips, draft.outline, draft.pairs, kept, draft.photos)
    sieve = Sieve(_with_split(draft, split), tally)
    served = np.zeros(len(split), np.bool_)
    served[kept.chip] = True
    sieve.keep_chips(served, "split-scene")
    return sieve


def _of_one_split(stacks: Stacks, of_scene: Codes, split: Codes) -> Stacks:
    """The stacks whose scenes all belong to their chip's split."""
    wanted = split[stacks.chip]
    keep = of_scene[stacks.lead] == wanted
    for row, scenes in stacks.more.items():
        keep[row] &= bool((of_scene[list(scenes)] == wanted[row]).all())
    rows = np.flatnonzero(keep)
    more = {place: stacks.more[row] for place, row in enumerate(rows.tolist()) if row in stacks.more}
    return Stacks(stacks.chip[rows], stacks.gap_days[rows], stacks.lead[rows], more)


def scene_groups(ground: Ground) -> Ints:
    """A number for each scene, the same for scenes that show the same ground at several dates, (S,)."""
    distinct = ground.shapes[np.unique(ground.outline, return_index=True)[1]]
    shapes, rows = mirrored(distinct)
    left, right = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    wanted = _SAME_GROUND * np.minimum(shapely.area(shapes[left]), shapely.area(shapes[right]))
    likely = (left < right) & (_common_bounds(shapes[left], shapes[right]) > wanted)
    left, right, wanted = left[likely], right[likely], wanted[likely]
    common = [
        _common(shapes[left[at : at + CHUNK]], shapes[right[at : at + CHUNK]]) for at in range(0, len(left), CHUNK)
    ]
    both = np.concatenate([*common, np.empty(0)]) > wanted
    edges = (np.ones(both.sum()), (rows[left[both]], rows[right[both]]))
    graph = coo_array(edges, shape=(len(distinct), len(distinct)))
    return np.asarray(connected_components(graph, directed=False)[1][ground.outline], np.int64)


def _common(shapes: NDArray[np.object_], others: NDArray[np.object_]) -> Floats:
    """The area that each two shapes have in common, (N,)."""
    return np.asarray(shapely.area(shapely.intersection(shapes, others)))


def _common_bounds(shapes: NDArray[np.object_], others: NDArray[np.object_]) -> Floats:
    """The area that their bounds have in common: as much or more, and found at once, (N,)."""
    (west, south, east, north), (left, bottom, right, top) = shapely.bounds(shapes).T, shapely.bounds(others).T
    return np.asarray(
        (np.minimum(east, right) - np.maximum(west, left)) * (np.minimum(north, top) - np.maximum(south, bottom))
    )
