"""Chips read from scenes into Parquet files, a shard at a time, so that a killed run loses one shard at most.

A shard that is whole is never written again. What a shard holds depends on the plan alone, so a run that was
killed and started again writes the same bytes as one that was not.
"""

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.errors import UnreadableTable
from geograft.pairs.candidates import SceneSet
from geograft.pairs.grid import geobox
from geograft.raster import Scene, cloud_share, read
from geograft.sensors import Sensor
from geograft.tables import atomic, track

logger = logging.getLogger(__name__)

READERS = 4
"""Threads that read chips; GDAL decodes without holding Python's lock."""


@dataclass(frozen=True)
class Cut:
    """A chip's pixels, or why it has none.

    Attributes:
        chip_id: the chip.
        scene_id: the scene that it was cut of, or "".
        pixels: native values (C, S, S), or None.
        reason: why no scene served: "cloudy", "nodata" or "unreadable-scene"; "" where one did.
    """

    chip_id: str
    scene_id: str = ""
    pixels: NDArray[Any] | None = None
    reason: str = ""


def write_shards(
    plan: pd.DataFrame, scenes: SceneSet, folder: Path, *, shard_chips: int, max_cloud: float
) -> pd.DataFrame:
    """Cut every planned chip, keeping the shards that are there already.

    Args:
        plan: chip_id, epsg, left, top, gsd, size, candidates (scene ids to try, best first).
        scenes: the scenes that candidates name.
        folder: where `part-00000.parquet` ... go.
        shard_chips: chips a shard.
        max_cloud: largest share of a footprint under clouds.

    Returns:
        chip_id, scene_id, reason of every planned chip; the reason is "" where it was cut.

    Raises:
        DiskFull: the disk filled up; whole shards stay, to go on from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    plan = in_reading_order(plan)
    parts = [plan.iloc[start : start + shard_chips] for start in range(0, len(plan), shard_chips)]
    paths = [folder / f"part-{number:05d}.parquet" for number in range(len(parts))]
    missing = [(path, part) for path, part in zip(paths, parts, strict=True) if not path.exists()]
    if len(missing) < len(parts):
        logger.info("%d of %d shards are there already", len(parts) - len(missing), len(parts))
    total = sum(len(part) for _, part in missing)
    cuts = track(_cut_all([part for _, part in missing], scenes, max_cloud), "Cutting chips", total)
    for path, part in missing:
        _write(path, [next(cuts) for _ in range(len(part))], scenes.sensor)
    next(cuts, None)
    return pd.concat([_outcome(path) for path in paths], ignore_index=True)


def in_reading_order(plan: pd.DataFrame) -> pd.DataFrame:
    """Chips ordered so that neighbours in a scene are read one after another."""
    first = plan["candidates"].str[0]
    tile = 8 * plan["gsd"] * plan["size"]
    keys = {"_scene": first, "_row": -(plan["top"] // tile), "_column": plan["left"] // tile}
    ordered = plan.assign(**keys).sort_values([*keys, "chip_id"])
    return ordered.drop(columns=[*keys]).reset_index(drop=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left half written."""
    for path in folder.glob(".*.part.*"):
        path.unlink(missing_ok=True)


def _cut_all(parts: list[pd.DataFrame], scenes: SceneSet, max_cloud: float) -> Iterator[Cut]:
    """The cuts of all chips, in order, a shard read ahead of nobody."""
    with ThreadPoolExecutor(READERS) as pool:
        for part in parts:
            yield from pool.map(lambda chip: cut(chip, scenes, max_cloud), part.itertuples(index=False))


def cut(chip: Any, scenes: SceneSet, max_cloud: float) -> Cut:
    """Cut a chip of the first of its candidate scenes that is whole and clear there.

    Args:
        chip: a row of the plan.
        scenes: finds scenes by id.
        max_cloud: largest share of the footprint under clouds.
    """
    from geograft.errors import GeograftError

    reason = ""
    for scene_id in chip.candidates:
        try:
            pixels, reason = _look(scenes.by_id[scene_id], geobox(chip), max_cloud)
        except GeograftError as error:
            logger.warning("Chip %s: %s", chip.chip_id, error)
            reason = "unreadable-scene"
            continue
        if pixels is not None:
            return Cut(chip.chip_id, scene_id, pixels)
    return Cut(chip.chip_id, reason=reason)


def _look(scene: Scene, box: Any, max_cloud: float) -> tuple[NDArray[Any] | None, str]:
    """The pixels of a box, or None and the reason."""
    if cloud_share(scene, box) > max_cloud:
        return None, "cloudy"
    raster = read(scene, box)
    return (raster.pixels, "") if raster.valid.all() else (None, "nodata")


def _write(path: Path, cuts: list[Cut], sensor: Sensor) -> None:
    """Write one shard: a row a chip that was cut, and the others' reasons in the metadata."""
    done = [item for item in cuts if item.pixels is not None]
    size = done[0].pixels.shape[-1] if done and done[0].pixels is not None else 0
    meta = {
        "shape": json.dumps([len(sensor.bands), size, size]),
        "dtype": sensor.dtype,
        "sensor": sensor.name,
        "rejected": json.dumps({item.chip_id: item.reason for item in cuts if item.pixels is None}),
    }
    pixels = [np.ascontiguousarray(item.pixels, sensor.dtype).tobytes() for item in done]
    columns = [
        pa.array([item.chip_id for item in done], pa.string()),
        pa.array(pixels, pa.large_binary()),
        pa.array([item.scene_id for item in done], pa.string()),
    ]
    table = pa.table(columns, names=["chip_id", "pixels", "scene_id"]).replace_schema_metadata(meta)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=512, use_dictionary=["scene_id"])


def _outcome(path: Path) -> pd.DataFrame:
    """chip_id, scene_id and reason of a shard's chips."""
    meta = shard_metadata(path)
    cut_ = pq.read_table(path, columns=["chip_id", "scene_id"]).to_pandas().assign(reason="")
    rejected = json.loads(meta["rejected"])
    failed = pd.DataFrame({"chip_id": list(rejected), "scene_id": "", "reason": list(rejected.values())})
    return pd.concat([cut_, failed.astype(cut_.dtypes.to_dict())], ignore_index=True)


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a folder of pairs, in order."""
    return sorted((folder / "shards").glob("part-*.parquet"))


def shard_metadata(path: Path) -> dict[str, str]:
    """A shard's metadata: shape, dtype, sensor, rejected.

    Raises:
        UnreadableTable: the file is no whole shard.
    """
    try:
        found = pq.read_schema(path).metadata or {}
        return {key: found[key.encode()].decode() for key in ("shape", "dtype", "sensor", "rejected")}
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UnreadableTable(f"{path} is not a whole shard: remove it and run again.") from error


def count_chips(path: Path) -> int:
    """The number of chips in a shard.

    Raises:
        UnreadableTable: the file is no whole shard.
    """
    shard_metadata(path)
    return int(pq.read_metadata(path).num_rows)


def read_pixels(path: Path, wanted: frozenset[str]) -> tuple[list[str], NDArray[Any]]:
    """Chip ids and pixels (N, C, S, S) of the wanted chips of a shard.

    Raises:
        UnreadableTable: the file is no whole shard.
    """
    meta = shard_metadata(path)
    try:
        table = pq.read_table(path, columns=["chip_id", "pixels"])
    except (pa.ArrowException, OSError) as error:
        raise UnreadableTable(f"{path} is damaged ({error}): remove it and make the pairs again.") from error
    ids = table["chip_id"].to_pylist()
    keep = [row for row, chip_id in enumerate(ids) if chip_id in wanted]
    shape = tuple(json.loads(meta["shape"]))
    column = table["pixels"]
    pixels = np.empty((len(keep), *shape), np.dtype(meta["dtype"]))
    for place, row in enumerate(keep):
        pixels[place] = np.frombuffer(column[row].as_buffer(), meta["dtype"]).reshape(shape)
    return [ids[row] for row in keep], pixels
