"""Shards: Parquet files of chips with their pixels and photos, written one by one, each whole or not at all.

What a shard holds depends on the plan alone (and on the teacher, where there is one), so a run that was killed and
started again writes the same bytes as one that was not, whoever writes the shard. Beside each shard lies a manifest
with its counts and the SHA-256 of its bytes. `docs/shards.md` describes the format.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.errors import GeograftError, OutputExists, UnreachableScene, UnreadableTable
from geograft.pairs.cutting.chips import Cut, PlannedChip, cut_chips
from geograft.pairs.cutting.planned import PlanFolder, SceneShelf
from geograft.pairs.encoding import decode, encode
from geograft.pairs.publishing.checksums import sha256_of
from geograft.pairs.times import days_between, microseconds, time_column
from geograft.pairs.vectors import Vectors
from geograft.tables import Manifest, atomic, manifest_path, read_manifest, write_manifest

FORMAT = "geograft-shard-1"
GROUP_ROWS = 512
GROUP_BYTES = 2**25
"""Pixel bytes of a row group: what a reader of a stream holds."""

EMBEDDING = pa.list_(pa.float16())
PHOTO_FIELDS = (
    ("photo_id", pa.string()),
    ("col", pa.float32()),
    ("row", pa.float32()),
    ("accuracy_m", pa.float32()),
    ("heading_deg", pa.float32()),
    ("time_gap_days", pa.float32()),
    ("embedding", EMBEDDING),
)
_PLAN_COLUMNS = ("chip_id", "split", "epsg", "left", "top", "gsd", "size")
_META = ("format", "shape", "dtype", "bands", "sensor", "encoding", "plan", "teacher", "rejected")


@dataclass(frozen=True)
class ShardTask:
    """One shard to write; what another process needs.

    Attributes:
        out: the folder of pairs.
        number: of the shard, and of the plan's row group.
        teacher: fingerprint of the teacher whose embeddings go in, or "".
    """

    out: Path
    number: int
    teacher: str = ""

    @property
    def path(self) -> Path:
        """The shard."""
        return self.out / "shards" / f"part-{self.number:05d}.parquet"


def write_shard(task: ShardTask) -> str:
    """Cut and write a shard with its manifest.

    Returns:
        "", or why the shard was left for another run: a scene's server does not answer now. To take another scene
        instead would give a run that is started again other chips.

    Raises:
        MissingInput, UnreadableTable: a table of the plan is absent or damaged.
        DiskFull: the disk filled up; nothing was left behind.
    """
    plan = PlanFolder(task.out)
    chips = plan.chips(task.number)
    shelf = plan.scenes(name for chip in chips for stack in chip.stacks for name in stack.scenes)
    try:
        cuts = cut_chips(chips, shelf.find, plan.max_cloud)
    except UnreachableScene as error:
        return str(error)
    meta = _metadata(plan, chips, cuts, task.teacher)
    with atomic(task.path) as temporary:
        _write_rows(temporary, _columns(task, plan, cuts, shelf), cuts, meta)
    _write_record(task, plan, Counter(cut.reason for cut in cuts))
    return ""


def _write_record(task: ShardTask, plan: PlanFolder, counts: Counter[str]) -> None:
    """Write a shard's manifest: whose it is, its counts, and what tells that it is whole."""
    about: dict[str, Any] = {"plan": plan.digest, "teacher": task.teacher}
    about |= {"bytes": task.path.stat().st_size, "sha256": sha256_of(task.path)}
    skipped = {reason: count for reason, count in sorted(counts.items()) if reason}
    found = {"done": counts[""], "skipped": skipped, "failed": {}}
    settings = {"encoding": plan.encoding, "max_cloud": plan.max_cloud}
    write_manifest(task.path, Manifest("pairs materialise", {"plan": "plan"}, settings, found, extra=about))


def _metadata(plan: PlanFolder, chips: Sequence[PlannedChip], cuts: Sequence[Cut], teacher: str) -> dict[str, str]:
    """What a shard says about itself: all that is needed to read its pixels."""
    sensor = plan.sensor
    rejected = {chip.chip_id: cut.reason for chip, cut in zip(chips, cuts, strict=True) if cut.pixels is None}
    return {
        "format": FORMAT,
        "shape": json.dumps([len(sensor.bands), plan.size, plan.size]),
        "dtype": sensor.dtype,
        "bands": json.dumps(sensor.bands),
        "sensor": sensor.name,
        "encoding": plan.encoding,
        "plan": plan.digest,
        "teacher": teacher,
        "rejected": json.dumps(rejected),
    }


def _columns(task: ShardTask, plan: PlanFolder, cuts: Sequence[Cut], shelf: SceneShelf) -> pa.Table:
    """A shard's rows without their pixels."""
    rows = [row for row, cut in enumerate(cuts) if cut.pixels is not None]
    done = [cuts[row] for row in rows]
    planned = plan.rows("chips", task.number, _PLAN_COLUMNS).take(pa.array(rows, pa.int64()))
    taken = microseconds(pa.array([shelf.rows[cut.scenes[0]]["taken"] for cut in done], pa.timestamp("us", "UTC")))
    pairs = _pairs_of(plan.rows("pairs", task.number), planned["chip_id"])
    columns = {
        **{name: planned[name] for name in planned.column_names},
        "sensor": pa.array([plan.sensor.name] * len(done), pa.string()),
        "scene_id": pa.array([cut.scenes[0] for cut in done], pa.string()),
        "scene_ids": pa.array([list(cut.scenes) for cut in done], pa.list_(pa.string())),
        "taken": time_column(taken),
        "cloud_share": pa.array([cut.cloud for cut in done], pa.float32()),
        "photos": _photo_lists(*pairs, taken, _vectors(task)),
    }
    return pa.table(columns)


def _pairs_of(pairs: pa.Table, chip_ids: Any) -> tuple[pa.Table, NDArray[np.int64], int]:
    """The pairs of some chips, the row of the chip of each, and the number of chips."""
    owner = pc.index_in(pairs["chip_id"], chip_ids.combine_chunks())
    pairs = pairs.filter(pc.is_valid(owner))
    rows = np.asarray(owner.drop_null(), np.int64)
    if (np.diff(rows) < 0).any():
        raise UnreadableTable("The plan's pairs are not in the order of its chips: make the plan again.")
    return pairs, rows, len(chip_ids)


def _photo_lists(
    pairs: pa.Table, owner: NDArray[np.int64], chips: int, taken: NDArray[np.int64], vectors: Vectors | None
) -> pa.Array:
    """Each chip's photos."""
    gap = days_between(microseconds(pairs["taken"]), taken[owner])
    ids = pairs["photo_id"].combine_chunks()
    columns = {
        **{name: pairs[name].combine_chunks() for name, _ in PHOTO_FIELDS if name in pairs.column_names},
        "time_gap_days": pa.array(gap, pa.float32(), from_pandas=True),
        "embedding": pa.nulls(len(ids), EMBEDDING) if vectors is None else vectors.column(ids),
    }
    fields = [pa.field(name, kind) for name, kind in PHOTO_FIELDS]
    photos = pa.StructArray.from_arrays([columns[field.name].cast(field.type) for field in fields], fields=fields)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=chips))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), photos)


def _vectors(task: ShardTask) -> Vectors | None:
    """The embeddings that go into a shard."""
    return Vectors.open(task.out, task.teacher) if task.teacher else None


def _write_rows(path: Path, table: pa.Table, cuts: Sequence[Cut], meta: Mapping[str, str]) -> None:
    """Write rows with their pixels, a row group at a time."""
    done = [cut.pixels for cut in cuts if cut.pixels is not None]
    step = max(1, min(GROUP_ROWS, GROUP_BYTES // max(1, done[0].nbytes))) if done else 1
    field = pa.field("pixels", pa.binary())
    schema = table.schema.insert(2, field).with_metadata(dict(meta))
    plain = [name for name in schema.names if name not in {"pixels", "photos", "scene_ids"}]
    with pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=["split", "sensor", "scene_id"], write_statistics=plain
    ) as writer:
        for start in range(0, max(1, len(done)), step):
            content = [encode(pixels, meta["encoding"]) for pixels in done[start : start + step]]
            part = table.slice(start, step).add_column(2, field, pa.array(content, pa.binary()))
            writer.write_table(part.replace_schema_metadata(schema.metadata))


def is_whole(task: ShardTask, plan: str) -> bool:
    """Whether a shard is there as it was written; its bytes are read only where it is newer than its manifest.

    Raises:
        OutputExists: the shard is of another plan, or holds embeddings of another teacher.
    """
    found = _claim(task.path)
    if not found:
        return False
    if (found["plan"], found["teacher"]) != (plan, task.teacher):
        what = "of another plan" if found["plan"] != plan else "with embeddings of another teacher, or with none"
        raise OutputExists(f"{task.path} is a shard {what}: name another folder, or remove {task.path.parent}.")
    if "sha256" not in found or not task.path.is_file() or task.path.stat().st_size != found["bytes"]:
        return False
    touched = task.path.stat().st_mtime_ns > manifest_path(task.path).stat().st_mtime_ns
    return not touched or sha256_of(task.path) == found["sha256"]


def _claim(path: Path) -> dict[str, Any]:
    """What a shard's manifest, or else the shard itself, says that it is of; empty where neither can be read."""
    for read in (lambda: dict(read_manifest(path).extra), lambda: dict(shard_metadata(path))):
        try:
            found = read()
        except GeograftError:
            continue
        if {"plan", "teacher"} <= set(found):
            return found
    return {}


# --- reading ----------------------------------------------------------------------------------------------


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a folder of pairs, in order."""
    return sorted((folder / "shards").glob("part-*.parquet"))


def shard_metadata(path: Path) -> dict[str, str]:
    """A shard's metadata: format, shape, dtype, bands, sensor, encoding, plan, teacher, rejected.

    Raises:
        UnreadableTable: the file is no whole shard.
    """
    try:
        found = pq.read_schema(path).metadata or {}
        return {key: found[key.encode()].decode() for key in _META}
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UnreadableTable(
            f"{path} is not a whole shard: remove it and run `geograft pairs materialise`."
        ) from error


def row_groups(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a shard, a row group at a time.

    Raises:
        UnreadableTable: the file is no whole shard.
    """
    shard_metadata(path)
    try:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        raise UnreadableTable(
            f"{path} is damaged ({error}): remove it and run `geograft pairs materialise`."
        ) from error


def read_pixels(path: Path, wanted: frozenset[str]) -> tuple[list[str], NDArray[Any]]:
    """Chip ids and pixels (N, C, S, S) of the wanted chips of a shard.

    Raises:
        UnreadableTable: the file is no whole shard.
    """
    meta = shard_metadata(path)
    ids: list[str] = []
    pixels: list[NDArray[Any]] = []
    for group in row_groups(path, ["chip_id", "pixels"]):
        column = group["pixels"].combine_chunks()
        for row, chip_id in enumerate(group["chip_id"].to_pylist()):
            if chip_id in wanted:
                ids.append(chip_id)
                pixels.append(decode(column[row].as_buffer(), meta))
    shape = (0, *json.loads(meta["shape"]))
    return ids, np.stack(pixels) if pixels else np.empty(shape, np.dtype(meta["dtype"]))
