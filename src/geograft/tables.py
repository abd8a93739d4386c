"""Tables in, tables out: atomic files, GeoParquet, manifests, and progress that people can see.

Every stage reads a table and writes a table beside a manifest, so each can be resumed after a kill, inspected
in DuckDB or QGIS, and joined to the others by id.
"""

import dataclasses
import errno
import importlib.metadata
import json
import logging
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from geograft.errors import (
    BadSetting,
    DiskFull,
    GeograftError,
    MissingColumns,
    MissingInput,
    UnreadableTable,
    UnwritableOutput,
    path_problem,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_TEXT = ("no space left on device", "disk quota exceeded")
_SPARE = 2**16
"""Bytes; a disk with less is full, whatever the library that failed to write to it says."""
_VERSIONED = ("geograft", "numpy", "pandas", "pyarrow", "geopandas", "rasterio", "torch", "transformers")


# --- files that are whole or absent -----------------------------------------------------------------------


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, renamed to it when the block ends without an error.

    The temporary name starts with a dot and keeps the suffix, since many writers choose their format by it.
    The folder is made. What is written may be a file or a folder; a folder
    replaces an empty or absent one only.

    Yields:
        The path to write to.

    Raises:
        DiskFull: the block failed because the disk or the quota is full; nothing stays behind.
        UnwritableOutput: the place cannot be written: no permission, a folder, or below a file.
    """
    final = Path(path)
    temporary = final.with_name(f".{final.stem}.{secrets.token_hex(4)}.part{final.suffix}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(final)
    except BaseException as error:
        named = isinstance(error, GeograftError) or not isinstance(error, Exception)
        full = is_disk_full(error) or (not named and _has_no_space(final.parent))
        _remove(temporary)
        if full:
            raise DiskFull(f"No space left while writing {final}: free some space and run again.") from error
        if isinstance(error, OSError) and (problem := path_problem(error)):
            raise UnwritableOutput(f"Cannot write {final}: {problem}.") from error
        raise


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that the disk or the quota is full.

    Libraries that write through their own C or Rust code lose the errno and keep the sentence, so both count.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(text in str(error).lower() for text in _FULL_TEXT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _has_no_space(folder: Path) -> bool:
    """Whether the disk of a folder is full: some libraries say something else of it."""
    try:
        return shutil.disk_usage(folder).free < _SPARE
    except OSError:
        return False


def remove_leftovers(folder: str | Path) -> None:
    """Remove what a killed run left half written, in a folder and below it."""
    for path in Path(folder).rglob(".*.part*"):
        _remove(path)


def check_output(path: str | Path, suffixes: Sequence[str], *, inputs: Sequence[str | Path] = ()) -> None:
    """Refuse an output that could not be written, or would replace an input, before hours of work go into it.

    Args:
        path: the file to be written.
        suffixes: the endings that its name may have, such as `.parquet`.
        inputs: what is read and must stay.

    Raises:
        BadSetting: the name has another ending.
        UnwritableOutput: it is a folder, one of the inputs, or lies where nothing can be written.
    """
    path = Path(path)
    if path.is_dir():
        raise UnwritableOutput(f"Cannot write {path}: it is a folder; name a file that ends in {_any_of(suffixes)}.")
    if path.suffix.lower() not in suffixes:
        raise BadSetting(f"Cannot write {path}: the name must end in {_any_of(suffixes)}.")
    if path.exists() and any(Path(each).exists() and path.samefile(each) for each in inputs):
        raise UnwritableOutput(f"Cannot write {path}: it is the input; name another file.")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UnwritableOutput(f"Cannot write {path}: {above} is a file; name a folder there.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UnwritableOutput(f"Cannot write {path}: no permission to write to {above}; choose another place.")


def _any_of(words: Sequence[str]) -> str:
    """Words as a choice."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _remove(path: Path) -> None:
    """Remove a file or folder if it exists, with the side files that GDAL may have left."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    for leftover in (path, path.with_name(path.name + ".aux.xml"), path.with_name(path.name + ".ovr.tmp")):
        with suppress(OSError):
            leftover.unlink(missing_ok=True)


# --- tables -----------------------------------------------------------------------------------------------


def write_table(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table as zstd Parquet, a GeoDataFrame as GeoParquet, whole or not at all.

    The row index is dropped: ids are columns.

    Returns:
        The path written.

    Raises:
        DiskFull: the disk filled up; nothing was left behind.
    """
    with atomic(path) as temporary:
        table.to_parquet(temporary, compression="zstd", index=False)
    return Path(path)


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a Parquet table; a GeoDataFrame where a geometry column is read.

    Args:
        path: the Parquet file.
        columns: the columns that are needed; all where None.

    Raises:
        MissingInput: there is no such file.
        UnreadableTable: the file is truncated or not Parquet.
        MissingColumns: a needed column is absent; the sentence names the ones that are there.
    """
    path = Path(path)
    schema = read_schema(path)
    wanted = list(columns) if columns is not None else list(schema.names)
    if missing := [name for name in wanted if name not in schema.names]:
        raise MissingColumns(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(schema.names)}. "
            "Write it again with the stage that makes this table."
        )
    try:
        if _geometry_columns(schema) & set(wanted):
            return gpd.read_parquet(path, columns=wanted)
        return pd.read_parquet(path, columns=wanted)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableTable(f"{path} is damaged ({error}): write it again.") from error


def read_schema(path: str | Path) -> Any:
    """The Arrow schema of a Parquet file, by its footer.

    Raises:
        MissingInput: there is no such file.
        UnreadableTable: the file is truncated or not Parquet.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInput(f"There is no file {path}: check the path, or run the stage that writes it.")
    try:
        return pq.read_schema(path)
    except PermissionError as error:
        raise MissingInput(f"{path} may not be read: change its permissions.") from error
    except (pa.ArrowException, OSError) as error:
        raise UnreadableTable(f"{path} is not a whole Parquet file ({error}): write it again.") from error


def _geometry_columns(schema: Any) -> set[str]:
    """The geometry columns that a schema's GeoParquet metadata names."""
    geo = (schema.metadata or {}).get(b"geo")
    return set(json.loads(geo)["columns"]) if geo else set()


# --- manifests --------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that decide what a stage writes, where installed."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def new_counts() -> dict[str, Any]:
    """Counts of a stage that has done nothing yet."""
    return {"done": 0, "skipped": {}, "failed": {}}


@dataclasses.dataclass
class Manifest:
    """What a stage read, how it was set, and what came of every row.

    Attributes:
        stage: the stage's name, as the command is called.
        inputs: name to path (or to a list of paths).
        settings: the stage's settings; a dataclass is written by its fields.
        counts: `{"done": n, "skipped": {reason: n}, "failed": {reason: n}}`.
        versions: of Python and the libraries.
        extra: anything else worth keeping, by name.
    """

    stage: str
    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: Any = dataclasses.field(default_factory=dict)
    counts: Mapping[str, Any] = dataclasses.field(default_factory=new_counts)
    versions: Mapping[str, str] = dataclasses.field(default_factory=versions)
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def manifest_path(output: str | Path) -> Path:
    """Where the manifest of an output lies.

    A folder (no suffix, or existing) holds `manifest.json`; a table `photos.parquet` has
    `photos.manifest.json` beside it, so that two tables of one folder keep both; a `.json`
    path is taken as it is.
    """
    output = Path(output)
    if output.suffix == ".json":
        return output
    if output.is_dir() or not output.suffix:
        return output / "manifest.json"
    return output.with_name(f"{output.stem}.manifest.json")


def write_manifest(output: str | Path, manifest: Manifest) -> Path:
    """Write the manifest of an output, a folder or a table (see `manifest_path`).

    No date is written, so the same inputs give the same bytes.

    Returns:
        The path of the JSON file.
    """
    path = manifest_path(output)
    text = json.dumps(dataclasses.asdict(manifest), indent=2, default=_plain, ensure_ascii=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def read_manifest(output: str | Path) -> Manifest:
    """The manifest of an output (see `manifest_path`).

    Raises:
        MissingInput: the output has no manifest.
        UnreadableTable: the file is not a manifest.
    """
    path = manifest_path(output)
    if not path.is_file():
        raise MissingInput(f"There is no manifest {path}: run the stage that writes it.")
    try:
        return Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UnreadableTable(f"{path} is not a manifest ({error}): run its stage again.") from error


def _plain(value: Any) -> Any:
    """A value that JSON has no word for, in words that it has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


# --- progress ---------------------------------------------------------------------------------------------


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Pass an iterable's items on, showing a progress bar on stderr.

    Where stderr is no terminal nothing is drawn; the count goes to the log (level INFO) at the end.

    Args:
        iterable: what to iterate.
        description: what is being done, as a person would say it ("Reading photos").
        total: the number of items; `len(iterable)` where None and known.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if sys.stderr.isatty():
        yield from _bar(iterable, description, total)
        return
    count = 0
    for count, item in enumerate(iterable, start=1):  # noqa: B007
        yield item
    logger.info("%s: %d", description, count)


def _bar(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    """The progress bar of `track` on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(iterable, total=total, description=description)
