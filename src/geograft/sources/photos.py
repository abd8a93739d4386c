"""The photo table: geotagged photos of folders and of any tables, one row each, unusable ones counted by reason.

Rows stream through in batches: mapped, checked, filled from EXIF, filtered and written, so that memory does not grow
with the table.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from geograft.errors import EmptyTable, MissingInput
from geograft.sources.filters import Filter, FilterSettings
from geograft.sources.presets import load_preset
from geograft.sources.reading.local import FOLDER_BATCH, list_photos, local_photos, position_reasons, with_exif
from geograft.sources.reading.mapping import Mapper
from geograft.sources.reading.photo_table import COLUMNS, PhotoWriter, copy_without, scratch
from geograft.sources.reading.readers import find_tables
from geograft.sources.reading.table_photos import TablePhotos
from geograft.tables import Manifest, atomic, check_output, track, write_manifest

__all__ = ["COLUMNS", "PhotoSettings", "PhotoSummary", "read_photos"]

logger = logging.getLogger(__name__)

_FAILED = frozenset({"unreadable-file"})
"""Reasons that another run may not have."""

_NOTES = {
    "needs-heif": "HEIC and HEIF photos are read with pip install 'geograft[heif]'",
    "broken-row": "broken rows have more or fewer cells than the header, a NUL byte, or more than a megabyte",
}


@dataclass(frozen=True)
class PhotoSettings:
    """How photos are read.

    Attributes:
        preset: what the tables of a site mean: a name (see `presets.names`) or the path of a YAML file.
        columns: field (a key of `columns.SYNONYMS`) to the table's column, or to several that are tried in order
            in each row; an empty name means it has none. They go before the preset's.
        place: the column that groups photos for splitting, such as a walk; short for `columns["place"]`.
        times: `day-first`, `month-first` or a form of `strptime`, where the preset does not say and the table
            leaves it open.
        encoding: of text tables; UTF-8 where None.
        source: the name of the source in the table; what a table says itself, the preset's name, or the folder's or
            file's (of a `photos.csv`: its folder's) where None.
        read_exif: open every local file of a table: fill what the table lacks from its EXIF, and skip missing,
            unreadable, truncated and doubled ones.
        verify: decode every image whole, which finds damage inside too.
        filters: which photos are left out.
    """

    preset: str | None = None
    columns: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    place: str | None = None
    times: str | None = None
    encoding: str | None = None
    source: str | None = None
    read_exif: bool = True
    verify: bool = False
    filters: FilterSettings = field(default_factory=FilterSettings)


@dataclass(frozen=True)
class PhotoSummary:
    """What came of reading photos.

    Attributes:
        out: the photo table.
        photos: rows written.
        skipped: reason to count.
        failed: reason to count, of photos that could not be read although they are there.
        note: what to do about some reasons.
    """

    out: Path
    photos: int
    skipped: dict[str, int]
    failed: dict[str, int] = field(default_factory=dict)
    note: str | None = None


def read_photos(source: str | Path, out: str | Path, *, settings: PhotoSettings | None = None) -> PhotoSummary:
    """Read the geotagged photos of a folder (by EXIF) or of tables into a photo table.

    Photos come in the table's order, or sorted by path. One that cannot be used is skipped and counted by reason:
    `no-gps`, `broken-exif`, `unreadable-image`, `truncated-image`, `needs-heif`, `missing-file`, `out-of-range`,
    `swapped-lat-lon`, `null-island`, `broken-row`, those of the preset, and those of `filters.Filter`.

    Args:
        source: a folder of photos, searched through; or a table (CSV, TSV, Parquet, GeoParquet, GeoJSON, JSON,
            JSON lines, GeoPackage, an earlier photo table), a folder of tables, or a pattern such as
            `exports/*.csv`.
        out: the GeoParquet to write; its manifest lies beside it.
        settings: see `PhotoSettings`.

    Raises:
        MissingInput: there is no such source.
        MissingColumns: a table lacks a needed column.
        UnreadableTable: a table's encoding or structure cannot be read.
        BadCoordinates: most of a table's latitudes and longitudes are swapped, or its points have no coordinate
            reference system.
        BadSetting: there is no such preset, or a setting means nothing.
        EmptyTable: no photo is left.
        DiskFull: the disk filled up; nothing was left behind.
    """
    settings, out = settings or PhotoSettings(), Path(out)
    check_output(out, (".parquet",), inputs=[source])
    counts: Counter[str] = Counter()
    notes: set[str] = set()
    photos = _photos(source, out, settings, counts, notes)
    done = _write(photos, out, Filter(settings.filters), counts, source)
    notes |= {_NOTES[reason] for reason in counts if counts[reason] and reason in _NOTES}
    return _summary(source, out, settings, done, counts, sorted(notes))


def _summary(
    source: str | Path, out: Path, settings: PhotoSettings, done: int, counts: Mapping[str, int], notes: list[str]
) -> PhotoSummary:
    """What came of a run; its manifest is written."""
    skipped = {reason: counts[reason] for reason in sorted(counts) if counts[reason] and reason not in _FAILED}
    failed = {reason: counts[reason] for reason in sorted(_FAILED) if counts[reason]}
    whole = {"done": done, "skipped": skipped, "failed": failed}
    extra = {"notes": notes} if notes else {}
    write_manifest(out, Manifest("photos", {"source": Path(source).absolute()}, settings, whole, extra=extra))
    if skipped:
        logger.info("Photos skipped: %s", _sentence(skipped))
    return PhotoSummary(out, done, skipped, failed, "; ".join(notes) or None)


def _sentence(counts: Mapping[str, int]) -> str:
    """Reasons and counts as a person reads them."""
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()) if count) or "it holds none"


# --- photos out -------------------------------------------------------------------------------------------


def _write(photos: Iterable[pd.DataFrame], out: Path, judge: Filter, counts: Counter[str], source: str | Path) -> int:
    """Write the photos that may be used; count the others by reason. Gives the number written.

    Caps are known when all photos are: then the table is copied without those beyond them.
    """
    with atomic(out) as final, scratch(final) as first:
        with PhotoWriter(first) as writer:
            for batch in photos:
                writer.append(_kept(batch, judge, counts))
        done = writer.rows
        counts.update(judge.cap_counts())
        if not done:
            raise EmptyTable(f"No photo of {source} can be used ({_sentence(counts)}).")
        beyond = judge.capped()
        if not len(beyond):
            first.replace(final)
            return done
        return copy_without(first, final, beyond)


def _kept(photos: pd.DataFrame, judge: Filter, counts: Counter[str]) -> pd.DataFrame:
    """The photos of a batch that may be used; the others are counted by reason."""
    counts.update(photos["reason"][photos["reason"] != ""].tolist())
    sound = photos[photos["reason"] == ""]
    if sound.empty:
        return sound
    reasons = judge.reasons(sound)
    counts.update(reasons[reasons != ""].tolist())
    return sound[reasons == ""]


# --- photos in --------------------------------------------------------------------------------------------


def _photos(
    source: str | Path, out: Path, settings: PhotoSettings, counts: Counter[str], notes: set[str]
) -> Iterator[pd.DataFrame]:
    """All photos of a source in batches, those that cannot be used with a reason."""
    folder = Path(source).absolute()
    paths = list_photos(folder) if folder.is_dir() and settings.preset is None else []
    if paths:
        name = settings.source or folder.name
        for some in _grouped(track(paths, "Reading photos"), FOLDER_BATCH):
            yield _finished(local_photos(some, folder), name, settings, opened=True)
        return
    preset = load_preset(settings.preset)
    name = settings.source or preset.name or _source_name(source)
    overrides = dict(settings.columns) | ({"place": settings.place} if settings.place else {})
    tables = TablePhotos(
        _tables(source, out),
        Mapper(preset, overrides),
        encoding=settings.encoding,
        order=settings.times,
        opened=settings.read_exif,
    )
    for photos in track(tables.batches(), "Reading batches of photos", tables.check()):
        yield _finished(photos, name, settings, opened=settings.read_exif)
    counts["broken-row"] += tables.broken
    notes |= tables.notes


def _tables(source: str | Path, out: Path) -> list[Path]:
    """The tables of a source.

    Raises:
        MissingInput: there is none.
        EmptyTable: it is a folder without photos and tables.
    """
    try:
        return find_tables(source, leave_out=[out])
    except MissingInput:
        if Path(source).is_dir():
            raise EmptyTable(f"No photo of {source} can be used (it holds none, and no table).") from None
        raise


def _source_name(source: str | Path) -> str:
    """A source's name where none is given: the folder's or file's, and the folder's of a `photos.csv`."""
    path = Path(source).absolute()
    stem = path.name.split(".")[0]
    if not path.exists() or (path.is_file() and stem == "photos"):
        return path.parent.name
    return stem if path.is_file() else path.name


def _grouped(items: Iterable[Path], size: int) -> Iterator[list[Path]]:
    """Items in lists of a size."""
    rest = iter(items)
    while some := list(itertools.islice(rest, size)):
        yield some


def _finished(photos: pd.DataFrame, name: str, settings: PhotoSettings, *, opened: bool) -> pd.DataFrame:
    """Photos with what their files say (where they are opened), why they cannot be used, and their source."""
    found = with_exif(photos, verify=settings.verify) if opened else photos.copy()
    positions = position_reasons(found["lon"], found["lat"])
    found["reason"] = np.where(found["reason"] == "", positions, found["reason"])
    found["source"] = name if settings.source else found["source"].fillna(name)
    return found
