"""The tables of fetching: which addresses a photo table names, what came of each, which photos are here."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geograft.sources.fetching.download import Refusal, host_of
from geograft.sources.judging.hashes import text_hashes
from geograft.tables import atomic, read_table

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:")
_ROWS = 2**17
_SKIPPED = frozenset({"local"})
_FROM_JOURNAL = [
    "key",
    "status",
    "reason",
    "http_status",
    "bytes",
    "content_hash",
    "attempts",
    "size",
    "width",
    "height",
]


@dataclass(frozen=True)
class Addresses:
    """What a photo table asks for; an address that several photos share is fetched once.

    Attributes:
        table: a row an address, in the order of the photos: key (names its file), photo_id (the first photo's), uri,
            host ("" where it is not asked), reason (why it is not asked, "" where it is).
        owner: the row of each photo's address, -1 where it has none, (N,).
    """

    table: pd.DataFrame
    owner: NDArray[np.int64]


def read_addresses(photos: Path) -> Addresses:
    """The addresses of a photo table.

    Raises:
        MissingInput: there is no such table.
        MissingColumns: it has no photo_id or uri.
        UnreadableTable: it is damaged.
    """
    rows = read_table(photos, ["photo_id", "uri"])
    owner, uris = pd.factorize(rows["uri"])
    first = np.full(len(uris), -1)
    first[owner[::-1][owner[::-1] >= 0]] = np.flatnonzero(owner >= 0)[::-1]
    table = pd.DataFrame({"photo_id": rows["photo_id"].to_numpy()[first], "uri": uris}).astype("string")
    hashes = text_hashes(table["photo_id"] + "\n" + table["uri"])
    table["key"] = [f"{value:016x}" for value in hashes.tolist()]
    table["host"], table["reason"] = zip(*map(_judged, uris), strict=True) if len(uris) else ([], [])
    return Addresses(table.astype("string"), np.asarray(owner, np.int64))


def _judged(uri: str) -> tuple[str, str]:
    """The host to ask, or why none is asked."""
    if not _SCHEME.match(uri):
        return "", "local"
    try:
        return host_of(uri), ""
    except Refusal as refusal:
        return "", refusal.reason


def photo_path(out: Path, key: str) -> Path:
    """Where the photo of a key lies."""
    return out / "photos" / key[:2] / f"{key}.jpg"


def files_here(out: Path) -> dict[str, int]:
    """The sizes in bytes of the photos that are here, by key; what a killed run was writing is removed."""
    here = {}
    for entry in _files(out / "photos"):
        if entry.name.startswith("."):
            Path(entry.path).unlink()
        else:
            here[entry.name.removesuffix(".jpg")] = entry.stat().st_size
    return here


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The files one folder down."""
    for below in sorted(folder.iterdir()) if folder.is_dir() else ():
        with os.scandir(below) as entries:
            yield from entries


def status_table(addresses: Addresses, outcomes: pd.DataFrame) -> pd.DataFrame:
    """What came of each address, in their order.

    Args:
        addresses: all of them.
        outcomes: of those that were asked, in any order (see `Journal.outcomes`).

    Returns:
        photo_id, uri, status (`done`, `skipped`, `failed`), reason (why not done), http_status, bytes, content_hash,
        attempts, and the file's key, size, width and height. An address without outcome was left for another run:
        its host was not asked any more (`host-stopped`).
    """
    table = addresses.table.rename(columns={"reason": "unasked"})[["photo_id", "uri", "key", "unasked"]]
    status = table.merge(outcomes, on="key", how="left", validate="many_to_one")
    unasked = status["unasked"] != ""
    status.loc[unasked, "reason"] = status["unasked"][unasked]
    status.loc[unasked, "status"] = np.where(status["unasked"][unasked].isin(_SKIPPED), "skipped", "failed")
    left = status["status"].isna()
    status.loc[left, "status"], status.loc[left, "reason"] = "failed", "host-stopped"
    status["attempts"] = status["attempts"].fillna(0)
    return status.drop(columns="unasked")


def write_photos(photos: Path, out: Path, addresses: Addresses, status: pd.DataFrame) -> int:
    """Write the rows whose photo is here, with local paths and sizes; how many they are.

    Args:
        photos: the photo table that was fetched.
        out: the folder; its `photos.parquet` is written, in batches.
        addresses: of the table.
        status: see `status_table`.
    """
    rows, start = 0, 0
    with (
        pq.ParquetFile(photos) as source,
        atomic(out / "photos.parquet") as temporary,
        pq.ParquetWriter(temporary, source.schema_arrow, compression="zstd") as writer,
    ):
        for batch in source.iter_batches(_ROWS):
            owner = addresses.owner[start : start + len(batch)]
            start += len(batch)
            kept = _with_files(pa.Table.from_batches([batch]), status, owner, out)
            writer.write_table(kept)
            rows += len(kept)
    return rows


def _with_files(table: pa.Table, status: pd.DataFrame, owner: NDArray[np.int64], out: Path) -> pa.Table:
    """The rows of a table whose photo is here, with local paths and sizes."""
    mine = status.reindex(owner)
    fetched = (mine["status"] == "done").fillna(value=False).to_numpy(bool)
    local = (mine["reason"] == "local").fillna(value=False).to_numpy(bool)
    paths = [str(photo_path(out, key)) if here else None for key, here in zip(mine["key"], fetched, strict=True)]
    table = _replaced(table, "uri", pa.array(paths, pa.string()), fetched)
    for name in ("width", "height"):
        table = _replaced(table, name, pa.array(mine[name], pa.int64(), from_pandas=True), fetched)
    return table.filter(pa.array(fetched | local))


def _replaced(table: pa.Table, name: str, values: Any, where: NDArray[np.bool_]) -> pa.Table:
    """A table with a column's values replaced in some rows; as it is where it has no such column."""
    at = table.schema.get_field_index(name)
    if at < 0:
        return table
    field = table.schema.field(at)
    column = pc.if_else(pa.array(where), values.cast(field.type), table.column(at))
    return table.set_column(at, field, column)
