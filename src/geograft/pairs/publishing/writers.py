"""Chips written for other readers: Parquet rows, tar shards, or image files with a CSV, always the same bytes."""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from geograft.errors import BadSetting
from geograft.sensors import Sensor
from geograft.tables import atomic

FORMS = {"parquet": ".parquet", "webdataset": ".tar", "images": ""}
"""The forms of an export, with the ending of their shards."""
IMAGES = ("png", "tif", "jpg")

_GROUP = 100
_PHOTO = pa.struct([
    ("photo_id", pa.string()), ("col", pa.float32()), ("row", pa.float32()), ("accuracy_m", pa.float32()),
    ("heading_deg", pa.float32()), ("time_gap_days", pa.float32()), ("lon", pa.float64()), ("lat", pa.float64()),
    ("taken", pa.string()), ("user", pa.string()), ("licence", pa.string()), ("uri", pa.string()),
])  # fmt: skip
_FIELDS = [
    ("chip_id", pa.string()), ("split", pa.string()), ("epsg", pa.int32()), ("left", pa.float64()),
    ("top", pa.float64()), ("gsd", pa.float64()), ("size", pa.int32()), ("sensor", pa.string()),
    ("scene_id", pa.string()), ("taken", pa.string()), ("photos", pa.list_(_PHOTO)),
]  # fmt: skip


@dataclass(frozen=True)
class Chip:
    """A chip to publish.

    Attributes:
        row: by name: chip_id, split, epsg, left, top, gsd, size, sensor, scene_id, taken (ISO or None), photos (a
            list of mappings).
        pixels: native values, (C, S, S).
    """

    row: Mapping[str, Any]
    pixels: NDArray[Any]

    @property
    def key(self) -> str:
        """The chip's id as a file's name: no dots, which readers of tar shards take for the end of the name."""
        return str(self.row["chip_id"]).replace(".", "_").replace("/", "_")


# --- images -----------------------------------------------------------------------------------------------


def image_kind(sensor: Sensor, asked: str | None) -> str:
    """The kind of image that chips of a sensor are written as.

    Args:
        sensor: of the chips.
        asked: "png", "tif" or "jpg"; None for PNG where it holds all bands as they are, else GeoTIFF.

    Raises:
        BadSetting: there is no such kind, or a PNG cannot hold the bands.
    """
    fits = sensor.dtype == "uint8" and len(sensor.bands) in {1, 3}
    if asked is None:
        return "png" if fits else "tif"
    if asked not in IMAGES:
        raise BadSetting(f"Images are written as {', '.join(IMAGES)}, not {asked!r}.")
    if asked == "png" and not fits:
        bands = f"{len(sensor.bands)} bands of {sensor.dtype}"
        raise BadSetting(f"A PNG cannot hold {bands} ({sensor.name}): use tif, or jpg for a picture of it.")
    return asked


def image_bytes(chip: Chip, sensor: Sensor, kind: str) -> bytes:
    """A chip as the bytes of an image: a PNG or GeoTIFF without loss, or a JPEG of what it looks like."""
    if kind == "tif":
        return _geotiff(chip, sensor)
    buffer = io.BytesIO()
    if kind == "jpg":
        Image.fromarray(sensor.rgb(chip.pixels)).save(buffer, format="JPEG", quality=95, subsampling=0)
    else:
        bands = chip.pixels[0] if len(chip.pixels) == 1 else np.ascontiguousarray(chip.pixels.transpose(1, 2, 0))
        Image.fromarray(bands).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _geotiff(chip: Chip, sensor: Sensor) -> bytes:
    """A chip as GeoTIFF with its grid, band names, scale and offset."""
    import rasterio
    from rasterio.io import MemoryFile

    row = chip.row
    profile = {
        "driver": "GTiff", "count": len(chip.pixels), "height": chip.pixels.shape[1], "width": chip.pixels.shape[2],
        "dtype": chip.pixels.dtype.name, "crs": f"EPSG:{row['epsg']}", "nodata": sensor.nodata, "compress": "deflate",
        "photometric": "minisblack", "transform": Affine(row["gsd"], 0, row["left"], 0, -row["gsd"], row["top"]),
    }  # fmt: skip
    with rasterio.Env(GDAL_NUM_THREADS="1"), MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(chip.pixels)
            file.descriptions = sensor.bands
            file.scales, file.offsets = (sensor.scale,) * len(sensor.bands), (sensor.offset,) * len(sensor.bands)
        return bytes(memory.getbuffer())


# --- forms ------------------------------------------------------------------------------------------------


def write_chips(chips: Iterable[Chip], path: Path, sensor: Sensor, *, form: str, kind: str) -> int:
    """Write chips as one shard; gives their number.

    Args:
        chips: in order; read once.
        path: the shard: a Parquet file, a tar file, or a folder of images.
        sensor: of the chips.
        form: one of `FORMS`.
        kind: one of `IMAGES`.
    """
    writers: dict[str, Callable[[Iterable[Chip], Path, Sensor, str], int]]
    writers = {"parquet": _write_parquet, "webdataset": _write_tar, "images": _write_images}
    with atomic(path) as temporary:
        return writers[form](chips, temporary, sensor, kind)


def _write_parquet(chips: Iterable[Chip], path: Path, sensor: Sensor, kind: str) -> int:
    """Chips as Parquet rows; Hugging Face datasets decodes PNG and JPEG by itself."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([*_FIELDS[:1], ("image", image), *_FIELDS[1:]])
    schema = schema.with_metadata({"sensor": sensor.name, "bands": json.dumps(sensor.bands)})
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd", write_statistics=["chip_id", "split"]) as writer:
        for group in _groups(chips):
            rows = [
                {**chip.row, "image": {"bytes": image_bytes(chip, sensor, kind), "path": f"{chip.key}.{kind}"}}
                for chip in group
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def _write_tar(chips: Iterable[Chip], path: Path, sensor: Sensor, kind: str) -> int:
    """Chips as tar members `<key>.<kind>` and `<key>.json`, with headers that name no time, user or machine."""
    count = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for count, chip in enumerate(chips, start=1):  # noqa: B007
            text = json.dumps(dict(chip.row), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            for ending, content in ((kind, image_bytes(chip, sensor, kind)), ("json", text.encode())):
                member = tarfile.TarInfo(f"{chip.key}.{ending}")
                member.size, member.mode = len(content), 0o644
                archive.addfile(member, io.BytesIO(content))
    return count


def _write_images(chips: Iterable[Chip], path: Path, sensor: Sensor, kind: str) -> int:
    """Chips as image files of a folder, with metadata.csv (a row a chip) and photos.csv (a row a photo in a chip)."""
    path.mkdir(parents=True)
    names = [name for name, _ in _FIELDS if name != "photos"]
    of_photo = ["chip_id", *(_PHOTO.field(place).name for place in range(_PHOTO.num_fields))]
    count = 0
    with (
        (path / "metadata.csv").open("w", encoding="utf-8", newline="") as first,
        (path / "photos.csv").open("w", encoding="utf-8", newline="") as second,
    ):
        about = csv.DictWriter(first, ["file_name", *names, "photos"], lineterminator="\n")
        photos = csv.DictWriter(second, of_photo, lineterminator="\n")
        about.writeheader()
        photos.writeheader()
        for count, chip in enumerate(chips, start=1):  # noqa: B007
            file = f"{chip.key}.{kind}"
            (path / file).write_bytes(image_bytes(chip, sensor, kind))
            held = chip.row["photos"]
            about.writerow({"file_name": file, **{name: chip.row[name] for name in names}, "photos": len(held)})
            photos.writerows({"chip_id": chip.row["chip_id"], **photo} for photo in held)
    return count


def _groups(chips: Iterable[Chip]) -> Iterable[list[Chip]]:
    """Chips, some at a time."""
    group: list[Chip] = []
    for chip in chips:
        group.append(chip)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group
