"""Chips one after another, straight from the shards: no more than a row group is in memory."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geograft.errors import BadSetting, MissingInput
from geograft.pairs.cutting.shards import row_groups, shard_metadata, shard_paths
from geograft.pairs.encoding import decode
from geograft.raster import chip_geobox
from geograft.sensors import Sensor, get_sensor


@dataclass(frozen=True)
class Chip:
    """A chip with its photos.

    Attributes:
        chip_id: its name.
        split: "train", "validation" or "test".
        pixels: native values of the sensor, (C, S, S).
        geobox: where it lies.
        sensor: what the bands mean.
        scene_ids: the scenes that its pixels come of.
        taken: when the first of these was taken (UTC), or None.
        cloud_share: share of the footprint under clouds, 0 to 1.
        photos: of each photo_id, col, row, accuracy_m, heading_deg, time_gap_days, embedding; None where unknown.
    """

    chip_id: str
    split: str
    pixels: NDArray[Any]
    geobox: GeoBox
    sensor: Sensor
    scene_ids: tuple[str, ...]
    taken: datetime | None
    cloud_share: float
    photos: tuple[Mapping[str, Any], ...]

    @property
    def embeddings(self) -> NDArray[np.float16]:
        """The teacher's embeddings of the photos that have one, (p, D); (0, 0) where none has."""
        found = [photo["embedding"] for photo in self.photos if photo["embedding"] is not None]
        return np.array(found, np.float16) if found else np.empty((0, 0), np.float16)


def iter_chips(folder: str | Path, split: str | None = None, *, part: tuple[int, int] = (0, 1)) -> Iterator[Chip]:
    """The chips of a folder of pairs in the order of the shards, which is by place.

    Args:
        folder: what `materialise` wrote.
        split: "train", "validation" or "test"; all where None.
        part: (k, n): the k-th of n readers, each of which takes every n-th shard.

    Raises:
        MissingInput: the folder holds no shards.
        BadSetting: there is no such part.
        UnreadableTable: a shard is damaged.
    """
    number, count = part
    if not 0 <= number < count:
        raise BadSetting(f"Of {count} readers there is none of the number {number}: count from 0.")
    paths = shard_paths(Path(folder))
    if not paths:
        raise MissingInput(f"{folder} holds no shards: make them with `geograft pairs materialise`.")
    for path in paths[number::count]:
        yield from _shard_chips(path, split)


def _shard_chips(path: Path, split: str | None) -> Iterator[Chip]:
    """The chips of a shard that belong to a split."""
    about = shard_metadata(path)
    sensor = get_sensor(about["sensor"])
    for group in row_groups(path):
        content = group["pixels"].combine_chunks()
        for number, row in enumerate(group.drop_columns(["pixels"]).to_pylist()):
            if split in {None, row["split"]}:
                yield _chip(row, decode(content[number].as_buffer(), about), sensor)


def _chip(row: Mapping[str, Any], pixels: NDArray[Any], sensor: Sensor) -> Chip:
    """The chip of a shard's row."""
    return Chip(
        chip_id=row["chip_id"],
        split=row["split"],
        pixels=pixels,
        geobox=chip_geobox(row["epsg"], row["left"], row["top"], gsd=row["gsd"], size=row["size"]),
        sensor=sensor,
        scene_ids=tuple(row["scene_ids"]),
        taken=row["taken"],
        cloud_share=row["cloud_share"],
        photos=tuple(row["photos"]),
    )


def torchgeo_sample(chip: Chip) -> dict[str, Any]:
    """A chip as the sample of a TorchGeo (0.8) raster data set, of which TorchGeo itself is not needed.

    Returns:
        image: float32 tensor (C, S, S) of native values; crs: `pyproj.CRS`; transform: float64 tensor (9,), the
        affine matrix by rows; bounds: float64 tensor (9,), start, stop and step of x, y and time (seconds since
        1970, NaN where unknown).
    """
    import torch
    from pyproj import CRS

    box = chip.geobox.boundingbox
    gsd = chip.geobox.resolution.x
    when = chip.taken.timestamp() if chip.taken else math.nan
    bounds = [box.left, box.right, gsd, box.bottom, box.top, gsd, when, when, 1.0]
    return {
        "image": torch.from_numpy(chip.pixels.astype(np.float32)),
        "crs": CRS.from_epsg(chip.geobox.crs.epsg),
        "bounds": torch.tensor(bounds, dtype=torch.float64),
        "transform": torch.tensor(tuple(chip.geobox.affine), dtype=torch.float64),
    }
