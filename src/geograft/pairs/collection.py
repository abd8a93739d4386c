"""Pairs as a STAC collection: what is there, where, in which bands, in which files; and its items as one table."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from geograft.pairs.publishing.checksums import multihash, stated_sha256
from geograft.pairs.publishing.facts import NO_LICENCE, Facts, facts_of
from geograft.pairs.publishing.folder import PairFolder, column, open_folder
from geograft.pairs.publishing.items import write_items
from geograft.sensors import Sensor
from geograft.tables import atomic

STAC_VERSION = "1.1.0"
EXTENSIONS = (
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/table/v1.2.0/schema.json",
)
PARQUET = "application/vnd.apache.parquet"

_COMMON = frozenset({"coastal", "blue", "green", "red", "yellow", "pan", "cirrus"})
_COMMON_AS = {"nir": "nir", "nir08": "nir08", "swir": "swir16", "swir16": "swir16", "swir22": "swir22",
              "rededge1": "rededge071", "rededge2": "rededge075", "rededge3": "rededge078"}  # fmt: skip
_SPDX = {"cc0": "CC0-1.0", "cc0 1.0": "CC0-1.0", "public-domain": "other"}


def write_collection(folder: str | Path, *, title: str | None = None, licence: str | None = None) -> Path:
    """Write collection.json, and items.parquet with an item a chip, into a folder of pairs.

    The collection follows STAC 1.1 with the eo, raster, projection, file and table extensions; hrefs are relative,
    so that the folder can be moved. The same pairs give the same bytes.

    Args:
        folder: finished pairs, or a plan of pairs.
        title: of the collection; the folder's name where None.
        licence: an SPDX id for all of it; the photos' own where None and there is one, else "other".

    Returns:
        The path of collection.json.

    Raises:
        MissingInput: the folder holds no pairs.
        MissingColumns, UnreadableTable, EmptyTable: a table is damaged or empty.
    """
    tables = open_folder(folder)
    title = title or tables.root.absolute().name
    items = write_items(tables, slug(title))
    content = collection(tables, facts_of(tables), title=title, licence=licence, extra={"items": items})
    return save_collection(content, tables.tables / "collection.json")


def save_collection(content: dict[str, Any], path: Path) -> Path:
    """Write a collection as JSON."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def collection(
    tables: PairFolder, facts: Facts, *, title: str, licence: str | None = None, extra: dict[str, Path] | None = None
) -> dict[str, Any]:
    """A STAC collection of a folder of pairs as JSON values.

    Args:
        tables: the folder; hrefs are relative to its tables.
        facts: counted.
        title: for people.
        licence: SPDX id; see `write_collection`.
        extra: further files by asset name, listed before the shards.
    """
    files = {name: getattr(tables, name) for name in ("chips", "pairs", "photos")} | (extra or {})
    files |= {path.stem: path for path in tables.shards}
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": slug(title),
        "title": title,
        "description": "Chips of overhead imagery with the geotagged photos taken inside them.",
        "keywords": ["remote sensing", "ground photos", "GRAFT"],
        "license": licence or spdx(facts),
        "extent": _extent(facts),
        "summaries": _summaries(tables, facts),
        "item_assets": {"pixels": {"type": PARQUET, "roles": ["data"], "bands": _bands(facts)}},
        "assets": {name: _asset(path, tables.tables, name) for name, path in files.items()},
        "links": [
            {"rel": "cite-as", "href": "https://doi.org/10.48550/arXiv.2312.06960", "title": "GRAFT"},
        ],
    }  # fmt: skip


def slug(title: str) -> str:
    """A title as an id: letters, digits, dots, hyphens and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-") or "pairs"


def spdx(facts: Facts) -> str:
    """The one licence of the photos as SPDX id, "other" where there are several or one without id."""
    if len(facts.licences) != 1 or NO_LICENCE in facts.licences:
        return "other"
    name = next(iter(facts.licences))
    if name in _SPDX:
        return _SPDX[name]
    return name.upper().replace(" ", "-") if re.fullmatch(r"cc-by[a-z-]* \d\.\d", name) else "other"


def _extent(facts: Facts) -> dict[str, Any]:
    """Bounds in space (west beyond east where they cross the antimeridian) and time."""
    west, south, east, north = (float(value) for value in facts.chips.bounds)
    west, east = ((value + 180) % 360 - 180 if abs(value) > 180 else value for value in (west, east))
    dates = facts.scene_dates or facts.photo_dates
    interval = [f"{dates[0]}T00:00:00Z", f"{dates[1]}T23:59:59Z"] if dates else [None, None]
    return {
        "spatial": {"bbox": [[round(value, 6) for value in (west, max(south, -90.0), east, min(north, 90.0))]]},
        "temporal": {"interval": [interval]},
    }


def _summaries(tables: PairFolder, facts: Facts) -> dict[str, Any]:
    """What the chips have in common."""
    epsg = sorted(pc.unique(column(tables.chips, "epsg")).to_pylist())
    return {
        "gsd": sorted(float(value) for value in pc.unique(column(tables.chips, "gsd")).to_pylist()),
        "bands": _bands(facts),
        "proj:code": [f"EPSG:{code}" for code in epsg],
        "geograft:sensor": sorted(facts.sensors),
        "geograft:split": list(facts.splits),
        "geograft:photos": {"minimum": int(facts.chips.photos.min()), "maximum": int(facts.chips.photos.max())},
    }


def _bands(facts: Facts) -> list[dict[str, Any]]:
    """The bands of the chips' sensors, in pixel order."""
    sensors = [sensor for sensor in facts.sensors.values() if sensor is not None]
    return [_band(sensor, place) for sensor in sensors for place in range(len(sensor.bands))]


def _band(sensor: Sensor, place: int) -> dict[str, Any]:
    """One band with its scale and statistics."""
    name = sensor.bands[place]
    common = name if name in _COMMON else _COMMON_AS.get(name)
    band = {
        "name": name,
        "data_type": sensor.dtype,
        "gsd": sensor.gsd,
        "raster:scale": sensor.scale,
        "raster:offset": sensor.offset,
        "statistics": {"mean": sensor.mean[place], "stddev": sensor.std[place]},
    }
    if common:
        band["eo:common_name"] = common
    if sensor.nodata is not None:
        band["nodata"] = sensor.nodata
    return band


def _asset(path: Path, base: Path, name: str) -> dict[str, Any]:
    """A file with its size and checksum, and of Parquet its columns and rows."""
    asset: dict[str, Any] = {
        "href": f"./{path.relative_to(base).as_posix()}",
        "type": _TYPES[path.suffix],
        "title": _TITLES.get(name, "Pixels of chips with their photos"),
        "roles": ["stac-items"] if name == "items" else ["metadata"] if name in _TITLES else ["data"],
        "file:size": path.stat().st_size,
        "file:checksum": multihash(stated_sha256(path)),
    }
    return asset | _table(path) if path.suffix == ".parquet" else asset


def _table(path: Path) -> dict[str, Any]:
    """A Parquet file's fields of the table extension."""
    file = pq.ParquetFile(path)
    columns = [{"name": field.name, "type": str(field.type)} for field in file.schema_arrow]
    found: dict[str, Any] = {"table:row_count": file.metadata.num_rows, "table:columns": columns}
    return found | ({"table:primary_geometry": "geometry"} if "geometry" in file.schema_arrow.names else {})


_TYPES = {".parquet": PARQUET, ".tar": "application/x-tar", ".csv": "text/csv"}
_TITLES = {
    "chips": "Chips: footprints, scenes, splits",
    "pairs": "Photos in chips: positions and time gaps",
    "photos": "Photos: where they are, by whom, under which licence",
    "items": "STAC items of the chips, as GeoParquet",
}
