"""The files of a plan: what `materialise` reads, a row group a shard."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.geoparquet import geo_metadata, square_column
from geograft.pairs.grid import Grid, Ints
from geograft.pairs.planning.draft import Draft
from geograft.pairs.planning.intake import Photos
from geograft.pairs.planning.split import SPLITS
from geograft.pairs.times import time_column
from geograft.tables import atomic, write_table

STACKS = pa.list_(pa.struct([("gap_days", pa.float32()), ("scenes", pa.list_(pa.string()))]))

CHIPS = pa.schema(
    [
        ("chip_id", pa.string()),
        ("epsg", pa.int32()),
        ("left", pa.float64()),
        ("top", pa.float64()),
        ("gsd", pa.float64()),
        ("size", pa.int32()),
        ("split", pa.string()),
        ("photos", pa.int32()),
        ("stacks", STACKS),
        ("geometry", pa.binary()),
    ]
)
PAIRS = pa.schema(
    [
        ("chip_id", pa.string()),
        ("photo_id", pa.string()),
        ("col", pa.float32()),
        ("row", pa.float32()),
        ("accuracy_m", pa.float32()),
        ("heading_deg", pa.float32()),
        ("taken", pa.timestamp("us", "UTC")),
    ]
)


_AT_ONCE = 250_000
"""Rows that are made at once."""


def shard_starts(draft: Draft, chips: int) -> Ints:
    """The first chip of each shard, and the number of chips at the end; the bins of a place stay together."""
    x, y, epsg = (draft.chips[name].to_numpy() for name in ("x", "y", "epsg"))
    fresh = np.ones(len(x) + 1, np.bool_)
    fresh[1:-1] = (np.diff(x) != 0) | (np.diff(y) != 0) | (np.diff(epsg) != 0)
    places = np.flatnonzero(fresh)
    starts = [0]
    while starts[-1] < len(x):
        last = places[np.searchsorted(places, starts[-1] + chips, side="right") - 1]
        starts.append(int(last) if last > starts[-1] else int(places[places > starts[-1]][0]))
    return np.array(starts, np.int64)


def write_chips(path: Path, draft: Draft, names: pa.Array, grid: Grid, starts: Ints, scenes: Sequence[str]) -> None:
    """Write the chips, a row group a shard.

    Args:
        path: the file.
        draft: the chips, in place order.
        names: their ids.
        grid: their size and sampling.
        starts: see `shard_starts`.
        scenes: scene_id by number.
    """
    flat = draft.outline.reshape(-1, 2)
    schema = CHIPS.with_metadata(geo_metadata("Polygon", (*flat.min(axis=0), *flat.max(axis=0))))
    counts = np.bincount(draft.pairs["chip"], minlength=len(draft.chips)).astype(np.int32)
    stacks = stack_column(draft, scenes)

    def table(rows: slice) -> pa.Table:
        given = (column[rows] for column in (names, pa.array(counts), stacks))
        return _chip_table(draft, rows, grid, tuple(given)).cast(schema)

    with atomic(path) as temporary, _writer(temporary, schema, ["epsg", "gsd", "size", "split"]) as writer:
        _write_groups(writer, starts, table)


def _chip_table(draft: Draft, rows: slice, grid: Grid, given: tuple[pa.Array, pa.Array, pa.Array]) -> pa.Table:
    """Some chips; ids, number of photos and stacks are given."""
    chips = draft.chips.iloc[rows]
    left, top = grid.corner(chips["x"].to_numpy(np.int64), chips["y"].to_numpy(np.int64))
    names, photos, stacks = given
    columns = {
        "chip_id": names,
        "epsg": pa.array(chips["epsg"].to_numpy(), pa.int32()),
        "left": pa.array(left),
        "top": pa.array(top),
        "gsd": pa.array(np.full(len(left), grid.gsd)),
        "size": pa.array(np.full(len(left), grid.size, np.int32)),
        "split": pa.array(np.asarray(SPLITS, object)[chips["split"].to_numpy()], pa.string()),
        "photos": photos,
        "stacks": stacks.cast(STACKS),
        "geometry": square_column(draft.outline[rows]),
    }
    return pa.table(columns, schema=CHIPS)


def stack_column(draft: Draft, scenes: Sequence[str]) -> pa.Array:
    """The chips' stacks as lists of structs; scene_ids by number, as millions of chips name more text than fits."""
    stacks = draft.stacks
    sizes = np.ones(len(stacks.chip), np.int64)
    for row, more in stacks.more.items():
        sizes[row] += len(more)
    ends = np.cumsum(sizes)
    flat = np.empty(int(sizes.sum()), np.int32)
    flat[ends - sizes] = stacks.lead
    for row, more in stacks.more.items():
        flat[ends[row] - len(more) : ends[row]] = more
    names = pa.DictionaryArray.from_arrays(pa.array(flat), pa.array(scenes, pa.string()))
    lists = pa.ListArray.from_arrays(pa.array(_offsets(ends)), names)
    gaps = pa.array(stacks.gap_days, pa.float32(), from_pandas=True)
    structs = pa.StructArray.from_arrays([gaps, lists], names=["gap_days", "scenes"])
    per_chip = np.searchsorted(stacks.chip, np.arange(len(draft.chips)), side="right")
    return pa.ListArray.from_arrays(pa.array(_offsets(per_chip)), structs)


def _offsets(ends: Ints) -> NDArray[np.int32]:
    """Where lists begin, and the end of the last."""
    return np.concatenate([[0], ends]).astype(np.int32)


def write_pairs(path: Path, draft: Draft, names: pa.Array, photos: Photos, starts: Ints) -> None:
    """Write the pairs, a row group a shard, in the chips' order."""
    bounds = np.searchsorted(draft.pairs["chip"].to_numpy(), starts)

    def table(rows: slice) -> pa.Table:
        return _pair_table(draft.pairs.iloc[rows], names, photos)

    with atomic(path) as temporary, _writer(temporary, PAIRS, ["chip_id", "accuracy_m"]) as writer:
        _write_groups(writer, bounds, table)


def _write_groups(writer: pq.ParquetWriter, starts: Ints, table: Callable[[slice], pa.Table]) -> None:
    """Write a row group for each span between starts, from tables of many spans at once.

    Args:
        writer: of the file.
        starts: the first row of each group, and the number of rows at the end.
        table: gives some rows.
    """
    first = 0
    while first < len(starts) - 1:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _AT_ONCE, side="right")) - 1)
        rows = table(slice(int(starts[first]), int(starts[last])))
        for start, stop in pairwise((starts[first : last + 1] - starts[first]).tolist()):
            writer.write_table(rows.slice(start, stop - start), row_group_size=1 << 30)
        first = last


def _pair_table(pairs: Any, ids: pa.Array, photos: Photos) -> pa.Table:
    """Some pairs with ids, offsets, and what their photos state."""
    photo = pairs["photo"].to_numpy()
    columns = {
        "chip_id": ids.take(pa.array(pairs["chip"].to_numpy())),
        "photo_id": photos.ids.take(pa.array(photo)).cast(pa.string()),
        "col": pa.array(pairs["col"].to_numpy()),
        "row": pa.array(pairs["row"].to_numpy()),
        "accuracy_m": pa.array(photos.accuracy[photo], from_pandas=True),
        "heading_deg": pa.array(photos.heading[photo], from_pandas=True),
        "taken": time_column(photos.taken[photo]),
    }
    return pa.table(columns, schema=PAIRS)


def _writer(path: Path, schema: pa.Schema, repeated: list[str]) -> pq.ParquetWriter:
    """A writer of zstd Parquet.

    Args:
        path: the file.
        schema: its columns.
        repeated: those whose values occur again and again, which a dictionary shortens.
    """
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated)


def write_scenes(path: Path, table: gpd.GeoDataFrame, draft: Draft) -> int:
    """Write the scenes that stacks name; gives their number."""
    used = {*np.unique(draft.stacks.lead).tolist(), *(one for more in draft.stacks.more.values() for one in more)}
    write_table(table.iloc[sorted(used)], path)
    return len(used)
