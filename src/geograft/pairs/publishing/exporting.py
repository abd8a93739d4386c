"""One shard of pairs, published: its chips by split, each with what the published tables say of it and its photos."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import shapely

from geograft.pairs.card import folder_of
from geograft.pairs.cutting.shards import row_groups, shard_metadata
from geograft.pairs.encoding import decode
from geograft.pairs.publishing.folder import column, names
from geograft.pairs.publishing.writers import FORMS, Chip, write_chips
from geograft.sensors import get_sensor

_OF_CHIP = ("chip_id", "split", "epsg", "left", "top", "gsd", "size", "sensor", "scene_id", "taken")
_OF_PAIR = ("chip_id", "photo_id", "col", "row", "accuracy_m", "heading_deg", "time_gap_days")
_OF_PHOTO = ("photo_id", "taken", "user", "licence", "uri", "geometry")


@dataclass(frozen=True)
class ShardTask:
    """One shard to publish; what another process needs.

    Attributes:
        shard: of the pairs.
        out: the export, which holds the published tables already.
        number: of the shard.
        form: one of `writers.FORMS`.
        kind: one of `writers.IMAGES`.
    """

    shard: Path
    out: Path
    number: int
    form: str
    kind: str

    def path(self, split: str) -> Path:
        """Where the chips of a split go."""
        return self.out / folder_of(split) / f"{self.number:05d}{FORMS[self.form]}"


def write_split_shards(task: ShardTask) -> int:
    """Write a shard's chips, a file a split, keeping those that are there; gives the number of chips of the tables.

    Raises:
        UnreadableTable: the shard or a table is damaged.
    """
    rows = _chip_rows(task)
    by_split: dict[str, list[str]] = {}
    for chip_id, row in rows.items():
        by_split.setdefault(row["split"], []).append(chip_id)
    for split, ids in sorted(by_split.items()):
        if not task.path(split).exists():
            wanted = {chip_id: rows[chip_id] for chip_id in ids}
            sensor = get_sensor(shard_metadata(task.shard)["sensor"])
            write_chips(_chips(task, wanted), task.path(split), sensor, form=task.form, kind=task.kind)
    return len(rows)


def _chips(task: ShardTask, wanted: Mapping[str, Mapping[str, Any]]) -> Iterator[Chip]:
    """The wanted chips with their pixels, in the shard's order."""
    photos = _photos(task, list(wanted))
    about = shard_metadata(task.shard)
    for group in row_groups(task.shard, ["chip_id", "pixels"]):
        pixels = group["pixels"].combine_chunks()
        for place, chip_id in enumerate(group["chip_id"].to_pylist()):
            if chip_id in wanted:
                row = {**wanted[chip_id], "photos": photos.get(chip_id, [])}
                yield Chip(row, decode(pixels[place].as_buffer(), about))


def _chip_rows(task: ShardTask) -> dict[str, dict[str, Any]]:
    """The published chip table's rows of the shard's chips, by id."""
    ids = column(task.shard, "chip_id").to_pylist()
    table = _rows(task.out / "chips.parquet", _OF_CHIP, "chip_id", ids)
    return {row["chip_id"]: row for row in map(_plain, table.to_dict("records"))}


def _photos(task: ShardTask, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The photos of chips as published, by chip, sorted by id."""
    pairs = _rows(task.out / "pairs.parquet", _OF_PAIR, "chip_id", ids)
    photos = _rows(task.out / "photos.parquet", _OF_PHOTO, "photo_id", pairs["photo_id"].unique().tolist())
    points = shapely.from_wkb(photos["geometry"].to_numpy(object))
    photos = photos.assign(lon=shapely.get_x(points), lat=shapely.get_y(points)).drop(columns="geometry")
    joined = pairs.merge(photos, on="photo_id").sort_values(["chip_id", "photo_id"])
    held: dict[str, list[dict[str, Any]]] = {}
    for row in map(_plain, joined.to_dict("records")):
        held.setdefault(row.pop("chip_id"), []).append(row)
    return held


def _rows(path: Path, columns: Sequence[str], key: str, wanted: Sequence[str]) -> pd.DataFrame:
    """Some columns of the rows whose key is wanted; those that the table lacks are empty."""
    there = [name for name in columns if name in names(path)]
    table = pq.read_table(path, columns=there, filters=[(key, "in", list(wanted) or [""])])
    return table.to_pandas().reindex(columns=list(columns))


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row in values that JSON has; None for what is missing, times in ISO 8601."""
    return {str(name): _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    """One value."""
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and value != value):  # noqa: PLR0124
        return None
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value.item() if hasattr(value, "item") else value
