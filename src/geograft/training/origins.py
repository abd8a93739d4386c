"""Where the data of a training are from: what a model's card says of places, times and licences."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geograft.pairs.dataset import PairSet


def data_facts(sets: Sequence[PairSet]) -> dict[str, Any]:
    """Facts of the pairs that a model learnt from, as `Origin.training` keeps them.

    Args:
        sets: pair sets; the licences are those of all photos in their folders.

    Returns:
        `bounds` (west, south, east, north in degrees, over the chips' centres), `photo_licences` (licence to number of
        photos, "" where none is stated) and `period` (first and last day of the photos), the latter two where the
        folders' photo tables hold them.
    """
    tables = [table for folder in _folders(sets) if (table := folder / "photos.parquet").is_file()]
    days = sorted(day for table in tables for day in _days(table))
    facts: dict[str, Any] = {"bounds": _bounds(sets)}
    if licences := sum((_licences(table) for table in tables), Counter[str]()):
        facts["photo_licences"] = dict(licences.most_common())
    if days:
        facts["period"] = [days[0], days[-1]]
    return facts


def _folders(sets: Sequence[PairSet]) -> list[Path]:
    """The folders of pair sets, each once."""
    return list(dict.fromkeys(pairs.chip_table.parent for pairs in sets))


def _bounds(sets: Sequence[PairSet]) -> list[float]:
    """West, south, east and north of the chips' centres, degrees; of all longitudes where they surround the earth."""
    x, y, z = np.concatenate([pairs.centres for pairs in sets]).T
    lon, lat = np.degrees(np.arctan2(y, x)), np.degrees(np.arcsin(np.clip(z, -1, 1)))
    return [round(float(value), 4) for value in (lon.min(), lat.min(), lon.max(), lat.max())]


def _licences(table: Path) -> Counter[str]:
    """How many photos of a table are under each licence."""
    if "licence" not in pq.read_schema(table).names:
        return Counter()
    found = pq.read_table(table, columns=["licence"])["licence"].value_counts().to_pylist()
    return Counter({str(one["values"] or ""): int(one["counts"]) for one in found})


def _days(table: Path) -> list[str]:
    """The first and the last day of a table's photos; none where no time is known."""
    if "taken" not in pq.read_schema(table).names:
        return []
    extremes = pc.min_max(pq.read_table(table, columns=["taken"])["taken"]).as_py()
    return [value.date().isoformat() for value in extremes.values() if value is not None]
