"""CSV and TSV of any size: each block by Arrow, and line by line where a block is broken."""

import csv
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

from geograft.sources.reading.lines import blocks

MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "<NA>", "\\N")
"""Cells that hold nothing."""

_SEPARATORS = (",", ";", "\t", "|")
_LINES_OF_A_CELL = 100
"""A quoted cell of more lines was opened by a stray quote and closed by another one, rows on."""

csv.field_size_limit(2**24)


@dataclass(frozen=True)
class Layout:
    """How a table is laid out, where its name and its first line do not say.

    Attributes:
        format: one of the values of `readers.FORMATS`; by the suffix where None.
        separator: between cells; the one that the first line uses most where None.
        quotes: cells may stand in double quotes.
        header: the names of the columns of a table whose first line is a row already.
        records: where a JSON document holds its list of records, such as `photos.photo`.
        encoding: of text; UTF-8 where None.
    """

    format: str | None = None
    separator: str | None = None
    quotes: bool = True
    header: tuple[str, ...] | None = None
    records: str | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class Delimited:
    """A table of separated cells.

    Attributes:
        path: the file.
        encoding: of the file; UTF-8 where None.
        names: its columns; none where the file is empty.
        separator: between cells.
        quotes: cells may stand in double quotes.
        has_header: the first line holds the names.
    """

    path: Path
    encoding: str | None
    names: tuple[str, ...]
    separator: str
    quotes: bool
    has_header: bool

    def batches(self, wanted: Collection[str]) -> Iterator[tuple[pa.Table, int]]:
        """The rows, of the wanted columns, as text, and how many lines were left out as broken, block by block."""
        first = self.has_header
        for block in blocks(self.path, self.encoding, quotes=self.quotes):
            data = block.data
            if first and data:
                data, first = data.partition(b"\n")[2], False
            columns = [name for name in self.names if name in wanted]
            table, broken = self._parse(data, columns)
            yield table, broken + block.broken

    def _parse(self, data: bytes, columns: list[str]) -> tuple[pa.Table, int]:
        """The rows of a block, and how many are broken."""
        if not data.strip():
            return pa.table({name: pa.array([], pa.string()) for name in columns}), 0
        if self.quotes and data.count(b'"') % 2:  # one is never closed
            return self._parse_lines(data, columns)
        broken: list[str] = []

        def leave_out(row: Any) -> str:
            broken.append(row.text)
            return "skip"

        try:
            table = arrow_csv.read_csv(pa.BufferReader(data), *self._options(data, columns, leave_out))
        except pa.ArrowInvalid:
            return self._parse_lines(data, columns)
        swallowed = data.count(b"\n") - len(table) - len(broken)
        if self.quotes and (swallowed > _LINES_OF_A_CELL or any("\n" in text for text in broken)):
            return self._parse_lines(data, columns)
        return table, len(broken)

    def _options(self, data: bytes, columns: list[str], leave_out: Any) -> tuple[Any, Any, Any]:
        """What Arrow is to do with a block."""
        return (
            arrow_csv.ReadOptions(column_names=list(self.names), block_size=len(data) + 1),
            arrow_csv.ParseOptions(
                delimiter=self.separator,
                quote_char='"' if self.quotes else False,
                newlines_in_values=self.quotes and b'"' in data,
                invalid_row_handler=leave_out,
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(self.names, pa.string()),
                include_columns=columns,
                null_values=list(MISSING),
                strings_can_be_null=True,
                check_utf8=False,
            ),
        )

    def _parse_lines(self, data: bytes, columns: list[str]) -> tuple[pa.Table, int]:
        """The same, line by line: a line that is no row does not spoil the next."""
        lines = [line.rstrip("\r") for line in data.decode().split("\n")]
        rows, broken, place = [], 0, 0
        while place < len(lines):
            cells, used = self._cells(lines, place)
            place += used
            if cells is None:
                broken += bool(lines[place - used].strip())
            else:
                rows.append(cells)
        at = [self.names.index(name) for name in columns]
        named = {
            name: [None if row[index] in MISSING else row[index] for row in rows]
            for name, index in zip(columns, at, strict=True)
        }
        return pa.table({name: pa.array(cells, pa.string()) for name, cells in named.items()}), broken

    def _cells(self, lines: list[str], place: int) -> tuple[list[str] | None, int]:
        """The cells of the row that begins in a line, and how many lines it takes; None where it is no row."""
        alone, record = self._row(lines[place]), lines[place]
        if not self.quotes or record.count('"') % 2 == 0:
            return alone, 1
        for used, line in enumerate(lines[place + 1 : place + _LINES_OF_A_CELL], start=2):
            record += "\n" + line
            if record.count('"') % 2 == 0:
                together = self._row(record)
                return (alone, 1) if together is None else (together, used)
        return alone, 1

    def _row(self, record: str) -> list[str] | None:
        """The cells of one record; None where they are not as many as the columns."""
        cells = _split(record, self.separator) if self.quotes else record.split(self.separator)
        return cells if len(cells) == len(self.names) else None


def open_delimited(path: Path, layout: Layout) -> Delimited:
    """Open a table of separated cells: find its separator and its columns.

    Raises:
        UnreadableTable: see `lines.blocks`.
    """
    head = next((block.data for block in blocks(path, layout.encoding, quotes=False) if block.data), b"")
    first = head.partition(b"\n")[0].decode().rstrip("\r")
    separator = layout.separator or max(_SEPARATORS, key=first.count)
    cells = _split(first, separator)
    names = layout.header if layout.header is not None and first else tuple(_distinct(cells))
    return Delimited(path, layout.encoding, names, separator, layout.quotes, layout.header is None)


def _split(record: str, separator: str) -> list[str]:
    """The cells of a record that may hold quotes; none where it is no record."""
    try:
        return next(csv.reader([record], delimiter=separator), [])
    except csv.Error:  # such as of a line end without a quote before it
        return []


def _distinct(names: list[str]) -> Iterator[str]:
    """Column names, each once: a repeated one gets a number."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}.{seen[name]}"
