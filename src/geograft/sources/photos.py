"""The photo table: geotagged photos of a folder or of a CSV, one row each, unusable ones counted by reason."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from geograft.errors import BadCoordinates, EmptyTable, MissingInput
from geograft.sources import columns
from geograft.sources.exif import PhotoExif, position_problem, read_exif
from geograft.tables import Manifest, check_output, track, write_manifest, write_table

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
"""The photo files that a folder is searched for."""

COLUMNS = (
    "photo_id",
    "accuracy_m",
    "heading_deg",
    "fov_deg",
    "taken",
    "user",
    "licence",
    "uri",
    "width",
    "height",
    "source",
    "tags",
    "place",
)
"""The columns of a photo table beside its geometry (Point, EPSG:4326)."""

_EXIF_FIELDS = ("accuracy_m", "heading_deg", "fov_deg", "taken", "user", "licence", "width", "height")


@dataclass(frozen=True)
class PhotoSettings:
    """How photos are read.

    Attributes:
        columns: field (a key of `columns.SYNONYMS`) to the CSV's column; an empty name means it has none.
        place: the CSV's column that groups photos for splitting, such as a walk; short for `columns["place"]`.
        encoding: of the CSV; UTF-8 where None.
        source: the name of the source in the table; the folder's or file's (of a `photos.csv`: its folder's)
            where None.
        read_exif: open every local file of a CSV: fill what the CSV lacks from its EXIF, and skip missing,
            unreadable, truncated and doubled ones.
        verify: decode every image whole, which finds damage inside too.
        licences: keep only these licences (as the source writes them); all where None.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    place: str | None = None
    encoding: str | None = None
    source: str | None = None
    read_exif: bool = True
    verify: bool = False
    licences: tuple[str, ...] | None = None


@dataclass(frozen=True)
class PhotoSummary:
    """What came of reading photos.

    Attributes:
        out: the photo table.
        photos: rows written.
        skipped: reason to count.
    """

    out: Path
    photos: int
    skipped: dict[str, int]


def read_photos(source: str | Path, out: str | Path, *, settings: PhotoSettings | None = None) -> PhotoSummary:
    """Read the geotagged photos of a folder (by EXIF) or a CSV into a photo table.

    Photos come in the CSV's order, or sorted by path. One that cannot be used is skipped and counted by reason:
    `no-gps`, `broken-exif`, `unreadable-image`, `truncated-image`, `missing-file`, `out-of-range`,
    `swapped-lat-lon`, `null-island`, `duplicate-id`, `duplicate-content`, `licence`.

    Args:
        source: a folder of photos, searched through, or a CSV file.
        out: the GeoParquet to write; its manifest lies beside it.
        settings: see `PhotoSettings`.

    Raises:
        MissingInput: there is no such source.
        MissingColumns: the CSV lacks a needed column.
        UnreadableTable: the CSV's encoding or structure cannot be read.
        BadCoordinates: most of the CSV's latitudes and longitudes are swapped.
        EmptyTable: no photo is left.
        DiskFull: the disk filled up; nothing was left behind.
    """
    settings = settings or PhotoSettings()
    source, out = Path(source).absolute(), Path(out)
    check_output(out, (".parquet",))
    rows = _folder_rows(source, settings) if source.is_dir() else _csv_rows(source, settings)
    kept, skipped = _usable(rows, settings)
    if not kept:
        raise EmptyTable(f"No photo of {source} can be used ({_sentence(skipped)}).")
    write_table(_to_table(kept, settings.source or _source_name(source)), out)
    counts = {"done": len(kept), "skipped": skipped, "failed": {}}
    write_manifest(out, Manifest("photos", {"source": source}, settings, counts))
    if skipped:
        logger.info("Photos skipped: %s", _sentence(skipped))
    return PhotoSummary(out, len(kept), skipped)


def _source_name(source: Path) -> str:
    """A source's name where none is given: the folder's or file's, and the folder's of a `photos.csv`."""
    return source.parent.name if source.is_file() and source.stem == "photos" else source.stem


def _sentence(skipped: Mapping[str, int]) -> str:
    """Reasons and counts as a person reads them."""
    return ", ".join(f"{reason} {count}" for reason, count in skipped.items()) or "it holds none"


# --- rows in ----------------------------------------------------------------------------------------------


def _folder_rows(folder: Path, settings: PhotoSettings) -> list[dict[str, Any]]:
    """One row for each photo file of a folder, by its EXIF."""
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    rows = []
    for path in track(paths, "Reading photos"):
        found = read_exif(path, verify=settings.verify)
        place = path.parent.relative_to(folder).as_posix()
        row: dict[str, Any] = {
            "photo_id": _path_id(path, folder),
            "uri": str(path),
            "place": None if place == "." else place,
        }
        row |= {"lon": found.lon, "lat": found.lat, "digest": found.digest, "reason": found.reason}
        rows.append(row | {name: getattr(found, name) for name in _EXIF_FIELDS})
    return rows


def _csv_rows(path: Path, settings: PhotoSettings) -> list[dict[str, Any]]:
    """One row for each line of a CSV, filled from EXIF where the CSV is silent."""
    if not path.is_file():
        raise MissingInput(f"There is no folder or CSV file {path}: check the path.")
    overrides = dict(settings.columns) | ({"place": settings.place} if settings.place else {})
    table = columns.rename(columns.read_csv(path, settings.encoding), overrides, path)
    for name in ("lat", "lon", "accuracy_m", "heading_deg", "fov_deg", "width", "height"):
        table[name] = columns.numbers(table[name])
    table["taken"] = columns.times(table["taken"])
    _refuse_swapped(table, path)
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return [_csv_row(record, path.parent, settings) for record in track(records, "Reading photos")]


def _csv_row(record: dict[str, Any], folder: Path, settings: PhotoSettings) -> dict[str, Any]:
    """A CSV record with its file's path, what EXIF adds, and the reason why it cannot be used, if any."""
    name = record.pop("file")
    if name is None:
        return record | {"uri": None, "digest": None, "reason": "missing-file"}
    remote = "://" in name
    uri = name if remote else str((folder / name).absolute())
    record["photo_id"] = record["photo_id"] or _path_id(folder / name, folder)
    if remote or not settings.read_exif:
        return record | {"uri": uri, "digest": None, "reason": _position_reason(record, None)}
    found = read_exif(uri, verify=settings.verify)
    for field_ in _EXIF_FIELDS:
        if record[field_] is None:
            record[field_] = getattr(found, field_)
    if record["lat"] is None and record["lon"] is None:
        record |= {"lat": found.lat, "lon": found.lon}
    reason = found.image_problem or _position_reason(record, found)
    return record | {"uri": uri, "digest": found.digest, "reason": reason}


def _position_reason(record: Mapping[str, Any], found: PhotoExif | None) -> str | None:
    """Why a record's position is none."""
    if record["lon"] is None or record["lat"] is None:
        return (found.position_problem if found else None) or "no-gps"
    return position_problem(record["lon"], record["lat"])


def _refuse_swapped(table: pd.DataFrame, path: Path) -> None:
    """Raise where most rows make sense only with latitude and longitude exchanged."""
    placed = table[["lon", "lat"]].dropna()
    swapped = sum(position_problem(*place) == "swapped-lat-lon" for place in placed.itertuples(index=False))
    if swapped > len(placed) / 2:
        raise BadCoordinates(
            f"{path}: {swapped} of {len(placed)} latitudes are beyond 90 degrees; latitude and longitude look "
            "swapped. Write `columns: {lat: <column>, lon: <column>}` into a YAML file and pass it with --config."
        )


def _path_id(path: Path, folder: Path) -> str:
    """A photo's id where the source gives none: its path from the source's folder on, without the suffix."""
    below = path.relative_to(folder.parent) if path.is_relative_to(folder) else path
    return below.with_suffix("").as_posix()


# --- rows out ---------------------------------------------------------------------------------------------


def _usable(rows: list[dict[str, Any]], settings: PhotoSettings) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The rows to keep, and the count of each reason; of doubled rows the first usable one stays."""
    kept: list[dict[str, Any]] = []
    skipped: Counter[str] = Counter()
    ids: set[str] = set()
    digests: set[str] = set()
    for row in rows:
        reason = row["reason"] or _doubled(row, ids, digests) or _refused(row, settings.licences)
        if reason:
            skipped[reason] += 1
            continue
        kept.append(row)
        ids.add(row["photo_id"])
        digests.add(row["digest"])
    return kept, dict(sorted(skipped.items()))


def _doubled(row: Mapping[str, Any], ids: set[str], digests: set[str]) -> str | None:
    """Whether an earlier row has the same id, or a file of the same bytes."""
    if row["photo_id"] in ids:
        return "duplicate-id"
    return "duplicate-content" if row["digest"] is not None and row["digest"] in digests else None


def _refused(row: Mapping[str, Any], licences: tuple[str, ...] | None) -> str | None:
    """Whether a licence is not among the allowed ones."""
    return "licence" if licences is not None and row["licence"] not in licences else None


def _to_table(rows: list[dict[str, Any]], source: str) -> gpd.GeoDataFrame:
    """A photo table with its columns' types."""
    frame = pd.DataFrame(rows)
    frame["source"] = source
    frame = frame.reindex(columns=[*COLUMNS, "lon", "lat"])
    for name in ("accuracy_m", "heading_deg", "fov_deg"):
        frame[name] = frame[name].astype("float32")
    for name in ("width", "height"):
        frame[name] = frame[name].astype("float64").astype("Int32")
    for name in ("photo_id", "user", "licence", "uri", "source", "tags", "place"):
        frame[name] = frame[name].astype("string")
    frame["taken"] = pd.to_datetime(frame["taken"], utc=True).astype("datetime64[us, UTC]")
    points = gpd.points_from_xy(frame["lon"].astype(float), frame["lat"].astype(float), crs="EPSG:4326")
    return gpd.GeoDataFrame(frame[list(COLUMNS)], geometry=points)
