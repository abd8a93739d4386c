"""Tables of any format, batch by batch, as Arrow tables of the columns that are needed."""

import glob
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geograft.errors import BadSetting, EmptyTable, MissingInput, UnreadableTable
from geograft.sources.reading.columns import GEOMETRY
from geograft.sources.reading.delimited import Layout, open_delimited
from geograft.sources.reading.lines import CHUNK, COMPRESSED
from geograft.sources.reading.points import Geometry, known_crs, parquet_geometry
from geograft.sources.reading.records import open_document, open_lines

ROWS = 100_000
"""Rows of a batch."""

_DEGREES = (GEOMETRY["lon"], GEOMETRY["lat"])

FORMATS: dict[str, str] = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".tab": "delimited",
    ".txt": "delimited",
    ".parquet": "parquet",
    ".geoparquet": "parquet",
    ".pq": "parquet",
    ".geojson": "vector",
    ".gpkg": "vector",
    ".fgb": "vector",
    ".shp": "vector",
    ".geojsonl": "lines",
    ".geojsons": "lines",
    ".geojsonseq": "lines",
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "document",
}
"""Suffix to format; text formats may be compressed (`.csv.gz`)."""


@dataclass(frozen=True)
class Batch:
    """Some rows of a table.

    Attributes:
        table: the rows, in order.
        broken: rows left out because they could not be read (`broken-row`).
    """

    table: pa.Table
    broken: int = 0


@dataclass(frozen=True)
class OpenTable:
    """A table whose columns are known and whose rows are not read yet.

    Attributes:
        path: the file.
        names: its columns; of JSON, those of the first records.
        read: gives the batches, of the columns that are asked for (at least).
        batches: about how many there are, or None.
        loose: its records leave out what they do not have, so that columns come and go.
    """

    path: Path
    names: tuple[str, ...]
    read: Callable[[Collection[str]], Iterator[Batch]]
    batches: int | None = None
    loose: bool = False


def format_of(path: Path) -> str | None:
    """The format that a file's suffix says, or None."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if len(suffixes) == 2 and suffixes[1] in COMPRESSED:
        found = FORMATS.get(suffixes[0])
        return found if found in {"delimited", "lines", "document"} else None
    return FORMATS.get(suffixes[-1]) if suffixes else None


def find_tables(source: str | Path, *, leave_out: Collection[Path] = ()) -> list[Path]:
    """The tables that a path, a folder (not searched through) or a pattern such as `exports/*.csv` names, sorted.

    Args:
        source: what the user named.
        leave_out: files that are no input, such as the output of an earlier run.

    Raises:
        MissingInput: there is none.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [each for each in sorted(path.iterdir()) if format_of(each) is not None]
    else:
        found = [Path(name) for name in sorted(glob.glob(str(source)))]  # noqa: PTH207 - absolute patterns
    out = {each.absolute() for each in leave_out}
    found = [each for each in found if each.is_file() and each.absolute() not in out and not _is_ours(each)]
    if not found:
        raise MissingInput(f"There is no folder, table or pattern of tables {source}: check the path.")
    return found


def _is_ours(path: Path) -> bool:
    """Whether a file is a manifest or was left by a killed run."""
    return path.name.startswith(".") or path.name.endswith("manifest.json")


def open_table(path: Path, layout: Layout) -> OpenTable:
    """Open a table of any format.

    Raises:
        BadSetting: its format is not known.
        EmptyTable: it is an empty file.
        UnreadableTable: it is damaged or in another encoding.
        BadCoordinates: its points have no coordinate reference system.
    """
    kind = layout.format or format_of(path)
    if kind is None or kind not in _OPENERS:
        known = ", ".join(FORMATS)
        raise BadSetting(f"{path}: tables end in {known} (text also with {', '.join(sorted(COMPRESSED))}).")
    return _OPENERS[kind](path, layout)


# --- formats ----------------------------------------------------------------------------------------------


def _delimited(path: Path, layout: Layout) -> OpenTable:
    """A CSV or TSV."""
    table = open_delimited(path, layout)
    if not table.names:
        raise EmptyTable(f"{path} is empty: export the table again.")

    def read(wanted: Collection[str]) -> Iterator[Batch]:
        return (Batch(*batch) for batch in table.batches(wanted))

    return OpenTable(path, table.names, read, _text_batches(path))


def _lines(path: Path, layout: Layout) -> OpenTable:
    """JSON lines, GeoJSON text sequences."""
    names = open_lines(path, layout.encoding).names()
    return OpenTable(
        path,
        names,
        lambda _: (Batch(*batch) for batch in open_lines(path, layout.encoding).batches()),
        _text_batches(path),
        loose=True,
    )


def _document(path: Path, layout: Layout) -> OpenTable:
    """A JSON document, read whole."""
    table = open_document(path, layout.encoding, layout.records)
    return OpenTable(path, tuple(table.column_names), lambda _: iter([Batch(table)]), 1, loose=True)


def _text_batches(path: Path) -> int | None:
    """About how many batches a text file gives, where its size tells."""
    return None if path.suffix.lower() in COMPRESSED else math.ceil(path.stat().st_size / CHUNK) or 1


def _parquet(path: Path, layout: Layout) -> OpenTable:  # noqa: ARG001 - one signature for all formats
    """A Parquet or GeoParquet file."""
    with _named(path):
        file = pq.ParquetFile(path, pre_buffer=False)
    geometry = parquet_geometry(file.schema_arrow, path)
    names = tuple(_flat(file.schema_arrow.empty_table()).column_names)
    if geometry is not None:
        names = (*(name for name in names if name != geometry.column), *_DEGREES)

    def read(wanted: Collection[str]) -> Iterator[Batch]:
        needed = [name for name in names if name in wanted and name not in _DEGREES]
        columns = needed + ([geometry.column] if geometry else [])
        with _named(path):
            for batch in file.iter_batches(batch_size=ROWS, columns=columns, use_threads=False):
                yield Batch(_placed(_flat(pa.Table.from_batches([batch])), geometry))

    return OpenTable(path, names, read, math.ceil(file.metadata.num_rows / ROWS) or 1)


def _vector(path: Path, layout: Layout) -> OpenTable:  # noqa: ARG001 - one signature for all formats
    """A file of GDAL's vector formats: GeoJSON, GeoPackage, FlatGeobuf, Shapefile."""
    import pyogrio

    with _named(path, _gdal_errors()):
        about = pyogrio.read_info(path)
    if about["geometry_type"] is None:
        raise UnreadableTable(f"{path} has no geometry; write it as CSV or Parquet.")
    crs = known_crs(about["crs"], path)
    names = (*map(str, about["fields"]), *_DEGREES)

    def read(wanted: Collection[str]) -> Iterator[Batch]:
        columns = [name for name in names if name in wanted and name not in _DEGREES]
        options = {"columns": columns, "batch_size": ROWS, "use_pyarrow": True, "datetime_as_string": True}
        with _named(path, _gdal_errors()), pyogrio.open_arrow(path, **options) as (meta, reader):
            geometry = Geometry(meta["geometry_name"] or "wkb_geometry", crs)
            for batch in reader:
                yield Batch(_placed(pa.Table.from_batches([batch]), geometry))

    return OpenTable(path, names, read, math.ceil(max(about["features"], 0) / ROWS) or None)


_OPENERS: dict[str, Callable[[Path, Layout], OpenTable]] = {
    "delimited": _delimited,
    "lines": _lines,
    "document": _document,
    "parquet": _parquet,
    "vector": _vector,
}


# --- shared -----------------------------------------------------------------------------------------------


def _placed(table: pa.Table, geometry: Geometry | None) -> pa.Table:
    """A table with its geometry as two columns."""
    return table if geometry is None else geometry.degrees(table)


def _flat(table: pa.Table) -> pa.Table:
    """A table whose structs are columns with dots in their names; points of GeoArrow stay."""
    nested = [
        field.name for field in table.schema if pa.types.is_struct(field.type) and {"x", "y"} - _parts(field.type)
    ]
    while nested:
        columns: dict[str, Any] = {}
        for name in table.column_names:
            if name not in nested:
                columns[name] = table[name]
                continue
            whole = table.select([name]).flatten()
            columns |= {part: whole[part] for part in whole.column_names}
        table = pa.table(columns)
        nested = [field.name for field in table.schema if pa.types.is_struct(field.type)]
    return table


def _parts(kind: Any) -> set[str]:
    """The names of a struct's parts."""
    return {kind.field(index).name for index in range(kind.num_fields)}


def _gdal_errors() -> tuple[type[Exception], ...]:
    """What GDAL's reader raises."""
    from pyogrio.errors import DataLayerError, DataSourceError

    return (DataSourceError, DataLayerError)


@contextmanager
def _named(path: Path, kinds: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Errors of damaged files by their name."""
    try:
        yield
    except PermissionError as error:
        raise MissingInput(f"{path} may not be read: change its permissions.") from error
    except (pa.ArrowException, OSError, *kinds) as error:
        raise UnreadableTable(f"{path} is cut short or damaged ({error}): get or write it again.") from error
