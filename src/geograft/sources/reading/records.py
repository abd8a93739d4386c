"""JSON in: records of a document or of lines, as tables whose nested values have dotted names."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from geograft.errors import UnreadableTable
from geograft.sources.reading.lines import blocks, whole_text

_DEEPEST = 8
_ITEMS = 4
"""Items of a list that get columns of their own (`photos.0.url`); a list of plain values is also one cell."""


@dataclass(frozen=True)
class Lines:
    """A file with one JSON record a line, GeoJSON features too.

    Attributes:
        path: the file.
        encoding: of the file; UTF-8 where None.
    """

    path: Path
    encoding: str | None

    def names(self) -> tuple[str, ...]:
        """The columns of the first block of records."""
        return next((tuple(table.column_names) for table, _ in self.batches() if table.num_rows), ())

    def batches(self) -> Iterator[tuple[pa.Table, int]]:
        """The records as text, and how many lines were no record, block by block."""
        for block in blocks(self.path, self.encoding, quotes=False):
            records, broken = _parsed(block.data)
            yield _table(records), broken + block.broken


def open_lines(path: Path, encoding: str | None) -> Lines:
    """Open a file of JSON lines."""
    return Lines(path, encoding)


def open_document(path: Path, encoding: str | None, where: str | None) -> pa.Table:
    """The records of a JSON document, which is read whole.

    Args:
        path: the file.
        encoding: of the file; UTF-8 where None.
        where: the dotted name of the list (or object) that holds the records; without it the document is a list,
            or a GeoJSON feature collection.

    Raises:
        UnreadableTable: it is no JSON, or holds no records there.
    """
    try:
        document = json.loads(whole_text(path, encoding))
    except (ValueError, RecursionError) as error:
        raise UnreadableTable(f"{path} is no whole JSON document ({error}): get it again.") from error
    found = _at(document, where) if where else document
    if isinstance(found, Mapping):
        found = found.get("features") if "features" in found else list(found.values()) if where else None
    if not isinstance(found, list) or not all(isinstance(record, Mapping) for record in found):
        raise UnreadableTable(
            f"{path} holds no list of records{f' at {where}' if where else ''}: say in a preset where it lies, "
            "such as `records: photos.photo`."
        )
    return _table(map(_record, found))


def _at(document: Any, where: str) -> Any:
    """What a dotted name leads to; a document that is a list already is taken as it is."""
    if isinstance(document, list):
        return document
    for name in where.split("."):
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def _parsed(data: bytes) -> tuple[list[dict[str, str]], int]:
    """The records of some lines, and how many lines are none."""
    records, broken = [], 0
    for line in data.split(b"\n"):
        line = line.strip(b" \t\r\x1e,")  # noqa: PLW2901 - what stands around a record does not count
        if not line or line in {b"[", b"]"}:
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, Mapping):
            records.append(_record(found))
        else:
            broken += 1
    return records, broken


def _record(found: Mapping[str, Any]) -> dict[str, str]:
    """A record's values by their dotted names; a feature's properties stand beside its geometry."""
    if found.get("type") == "Feature":
        found = {**(found.get("properties") or {}), "geometry": found.get("geometry")}
    cells: dict[str, str] = {}
    for name, value in found.items():
        _flatten(_sound(str(name)), value, cells, 0)
    return cells


def _flatten(name: str, value: Any, cells: dict[str, str], depth: int) -> None:
    """Put a value into cells, and what is in it."""
    if isinstance(value, bool):
        cells[name] = "true" if value else "false"
    elif isinstance(value, (str, int, float)):
        cells[name] = _sound(str(value))
    elif isinstance(value, Mapping) and depth < _DEEPEST:
        for key, inner in value.items():
            _flatten(_sound(f"{name}.{key}"), inner, cells, depth + 1)
    elif isinstance(value, list) and depth < _DEEPEST:
        for index, inner in enumerate(value[:_ITEMS]):
            _flatten(f"{name}.{index}", inner, cells, depth + 1)
        if value and all(isinstance(inner, (str, int, float)) for inner in value):
            cells[name] = _sound(",".join(map(str, value)))


def _sound(text: str) -> str:
    """Text without half characters (lone surrogates), which JSON can name and no table can hold."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _table(records: Iterable[dict[str, str]]) -> pa.Table:
    """A table of text with the union of the records' columns."""
    records = list(records)
    names = dict.fromkeys(name for record in records for name in record)
    return pa.table({name: pa.array([record.get(name) or None for record in records], pa.string()) for name in names})
