"""The tables of finished pairs, streamed shard by shard: chips, pairs and the photos in them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.errors import UnreadableTable
from geograft.hashing import Hashes, hash_ids
from geograft.pairs.cutting.planned import PlanFolder
from geograft.pairs.cutting.shards import PHOTO_FIELDS, row_groups, shard_metadata
from geograft.tables import atomic

PHOTO_ROWS = 2**17
"""Rows of the photo table that are held at once."""

MERGE = 2**22
"""Hashes of photos that are gathered before those of a shard and of the next are put together."""

PAIR_FIELDS = tuple((name, kind) for name, kind in PHOTO_FIELDS if name != "embedding")
CHIP_FIELDS = (
    "chip_id", "epsg", "left", "top", "gsd", "size", "scene_id", "scene_uri", "scene_ids", "sensor", "taken",
    "cloud_share", "split", "photos", "geometry",
)  # fmt: skip
_PLAN_FIELDS = ("chip_id", "epsg", "left", "top", "gsd", "size", "split", "photos", "geometry")
_CUT_FIELDS = ("scene_id", "scene_ids", "sensor", "taken", "cloud_share")


@dataclass
class Made:
    """What came of cutting, counted while the tables are written.

    Attributes:
        chips: chips that were cut.
        pairs: pairs of them.
        photos: photos in them, each once.
        unreadable: of these, photos without an embedding.
        splits: chips a split.
        dropped: planned chips without pixels, by reason.
        lost: photos of dropped chips that are in no other, by reason.
        scenes: scenes that chips were cut of.
    """

    chips: int = 0
    pairs: int = 0
    photos: int = 0
    unreadable: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    scenes: set[str] = field(default_factory=set)


def write_tables(plan: PlanFolder, shards: Sequence[Path], embeddings: Path | None = None) -> Made:
    """Write chips.parquet, pairs.parquet and photos.parquet.

    Memory holds one shard's rows without pixels, and 8 bytes a pair.

    Args:
        plan: the folder of pairs, with its plan.
        shards: one a row group of the plan.
        embeddings: the table of the teacher's embeddings, where there is one: photos that it lacks are counted.

    Raises:
        UnreadableTable: a shard or a table of the plan is damaged.
        DiskFull: the disk filled up; nothing was left behind.
    """
    made = Made()
    uris = _scene_uris(plan)
    used: list[Hashes] = []
    pending = 0
    lost: dict[str, list[Hashes]] = {}
    with _table_writer(plan.out / "chips.parquet") as chips, _table_writer(plan.out / "pairs.parquet") as pairs:
        for number, path in enumerate(shards):
            shard = _without_pixels(path)
            chips(_chip_rows(plan, number, shard, uris))
            pairs(found := _pair_rows(shard))
            _count(made, shard, len(found))
            used.append(_keys(found))
            pending += len(used[-1])
            if pending > MERGE:
                used, pending = [_distinct(used)], 0
            _lose(plan, number, path, made, lost)
    kept = _distinct(used)
    made.lost = _count_lost(kept, lost)
    made.photos = _write_photos(plan, kept)
    made.unreadable = 0 if embeddings is None else len(kept) - _count_in(kept, embeddings)
    return made


@contextmanager
def _table_writer(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    """Give a function that appends rows to a table, which gets its name when the block ends."""
    with atomic(path) as temporary, ExitStack() as stack:
        writer: pq.ParquetWriter | None = None

        def write(rows: pa.Table) -> None:
            nonlocal writer
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(temporary, rows.schema, compression="zstd"))
            if len(rows):
                writer.write_table(rows)

        yield write


# --- rows -------------------------------------------------------------------------------------------------


def _scene_uris(plan: PlanFolder) -> pa.Table:
    """Ids and addresses of the plan's scenes."""
    return plan.file("scenes").read(columns=["scene_id", "uri"])


def _without_pixels(path: Path) -> pa.Table:
    """A shard's rows but for its pixels and embeddings."""
    photo = [f"photos.list.element.{name}" for name, _ in PAIR_FIELDS]
    return pa.concat_tables(list(row_groups(path, ["chip_id", "split", *_CUT_FIELDS, *photo])))


def _chip_rows(plan: PlanFolder, number: int, shard: pa.Table, uris: pa.Table) -> pa.Table:
    """The chip table's rows of a shard."""
    planned = plan.rows("chips", number, _PLAN_FIELDS)
    planned = planned.filter(pc.is_in(planned["chip_id"], shard["chip_id"].combine_chunks()))
    if planned["chip_id"].to_pylist() != shard["chip_id"].to_pylist():
        raise UnreadableTable(f"Shard {number} is not that of the plan: remove it and materialise again.")
    at = pc.index_in(shard["scene_id"], uris["scene_id"].combine_chunks())
    columns = {name: planned[name] for name in _PLAN_FIELDS}
    columns |= {name: shard[name] for name in _CUT_FIELDS} | {"scene_uri": uris["uri"].take(at)}
    return pa.table({name: columns[name] for name in CHIP_FIELDS}).replace_schema_metadata(_geo(planned.schema))


def _geo(schema: pa.Schema) -> dict[bytes, bytes]:
    """A plan's GeoParquet metadata without its bounds, which are those of more rows."""
    geo = json.loads((schema.metadata or {})[b"geo"])
    for column in geo["columns"].values():
        column.pop("bbox", None)
    return {b"geo": json.dumps(geo).encode()}


def _pair_rows(shard: pa.Table) -> pa.Table:
    """The pair table's rows of a shard."""
    photos = shard["photos"].combine_chunks()
    counts = np.asarray(pc.list_value_length(photos), np.int64)
    owner = pa.array(np.repeat(np.arange(len(shard)), counts))
    flat = photos.flatten()
    columns = {name: flat.field(name) for name, _ in PAIR_FIELDS}
    return pa.table({"chip_id": shard["chip_id"].take(owner), **columns})


# --- counts -----------------------------------------------------------------------------------------------


def _count(made: Made, shard: pa.Table, pairs: int) -> None:
    """Count a shard's rows."""
    made.chips += len(shard)
    made.pairs += pairs
    made.splits.update(shard["split"].to_pylist())
    made.scenes.update(pc.unique(pc.list_flatten(shard["scene_ids"])).to_pylist())


def _lose(plan: PlanFolder, number: int, path: Path, made: Made, lost: dict[str, list[Hashes]]) -> None:
    """Count a shard's dropped chips, and note their photos by reason."""
    rejected: dict[str, str] = json.loads(shard_metadata(path)["rejected"])
    if not rejected:
        return
    made.dropped.update(rejected.values())
    pairs = plan.rows("pairs", number, ["chip_id", "photo_id"])
    for reason in set(rejected.values()):
        chips = pa.array([chip for chip, why in rejected.items() if why == reason])
        lost.setdefault(reason, []).append(_keys(pairs.filter(pc.is_in(pairs["chip_id"], chips))))


def _count_lost(kept: Hashes, lost: dict[str, list[Hashes]]) -> Counter[str]:
    """Photos that are in no chip any more, each under the alphabetically first of its reasons."""
    counts: Counter[str] = Counter()
    for reason in sorted(lost):
        found = np.setdiff1d(_distinct(lost[reason]), kept, assume_unique=True)
        counts[reason] += len(found)
        kept = np.union1d(kept, found)
    return counts


def _keys(pairs: pa.Table) -> Hashes:
    """Hashes of the photos of pairs, each once."""
    return np.unique(hash_ids(pairs["photo_id"], "photo"))


def _distinct(parts: list[Hashes]) -> Hashes:
    """Hashes of several lists, each once, ascending."""
    if not parts:
        return np.empty(0, np.uint64)
    merged = np.concatenate(parts)
    merged.sort()  # in place, where np.unique would hold several copies
    return merged[np.concatenate([[True], merged[1:] != merged[:-1]])] if len(merged) else merged


def _count_in(kept: Hashes, table: Path) -> int:
    """How many photos of a table are among those kept."""
    with pq.ParquetFile(table) as file:
        batches = file.iter_batches(columns=["photo_id"])
        return sum(int(_among(hash_ids(batch["photo_id"], "photo"), kept).sum()) for batch in batches)


def _among(keys: Hashes, kept: Hashes) -> NDArray[np.bool_]:
    """Which hashes are among those kept, which ascend."""
    if not len(kept):
        return np.zeros(len(keys), np.bool_)
    return np.asarray(kept[np.minimum(np.searchsorted(kept, keys), len(kept) - 1)] == keys)


def _write_photos(plan: PlanFolder, kept: Hashes) -> int:
    """Write the plan's photos that are in a chip; gives their number."""
    file = plan.file("photos")
    meta = _geo(file.schema_arrow)
    count = 0
    with _table_writer(plan.out / "photos.parquet") as photos:
        for batch in file.iter_batches(PHOTO_ROWS):
            rows = pa.Table.from_batches([batch])
            rows = rows.filter(pa.array(_among(hash_ids(rows["photo_id"], "photo"), kept)))
            photos(rows.replace_schema_metadata(meta))
            count += len(rows)
    return count
