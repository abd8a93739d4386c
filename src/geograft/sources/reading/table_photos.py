"""The photos of tables: each table checked before the first is read, then all of them in batches."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from geograft.errors import BadCoordinates, EmptyTable, MissingColumns
from geograft.sources.reading.local import position_reasons, with_files
from geograft.sources.reading.mapping import Mapper
from geograft.sources.reading.readers import OpenTable, open_table
from geograft.sources.reading.times import DAY_FIRST, MONTH_FIRST, date_order, slashed

_SLICE = 1000
"""Rows of a table whose photos are opened before the next ones are looked at."""


class TablePhotos:
    """The photos of one or several tables.

    Args:
        paths: the tables.
        mapper: what their columns and cells mean.
        encoding: of text tables; UTF-8 where None.
        order: how dates with slashes are meant (see `times.times`); found by each table where None.
        opened: their local files will be opened, so batches are small.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        mapper: Mapper,
        *,
        encoding: str | None = None,
        order: str | None = None,
        opened: bool = False,
    ) -> None:
        self._paths, self._mapper, self._order, self._opened = paths, mapper, order, opened
        self._layout = mapper.preset.layout(encoding)
        self.broken = 0
        self.notes: set[str] = set()

    def check(self) -> int | None:
        """Look at all tables before hours go into the first; gives about how many batches there are, if known.

        Raises:
            MissingColumns: a table lacks a needed column; of JSON, whose records may leave out what they do not
                have, all tables lack it.
            GeograftError: a table cannot be opened (see `readers.open_table`).
        """
        lacking: list[MissingColumns] = []
        total = 0
        for path in self._paths:
            table = open_table(path, self._layout)
            total += table.batches or 1
            try:
                self._mapper.needed(table.names, path)
            except MissingColumns as error:
                if not table.loose:
                    raise
                lacking.append(error)
        if len(lacking) == len(self._paths):
            raise lacking[0]
        return None if self._opened else total

    def batches(self) -> Iterator[pd.DataFrame]:
        """The photos in order: see `mapping.Mapper.photos` and `local.with_files`.

        Raises:
            EmptyTable: no table has a row.
            UnreadableTable: a table is damaged.
            BadCoordinates: most latitudes and longitudes of a table are swapped.
        """
        rows = 0
        for path in self._paths:
            for photos in self._of(open_table(path, self._layout)):
                rows += len(photos)
                yield from self._sliced(with_files(photos, path.absolute().parent))
        if not rows and not self.broken:
            raise EmptyTable(f"{self._paths[0]} has a header and no rows: export the table again.")

    def _of(self, table: OpenTable) -> Iterator[pd.DataFrame]:
        """The photos of one table."""
        wanted = self._mapper.needed(table.names, table.path, strict=not table.loose)
        order, first = self._order, True
        for batch in table.read(wanted):
            self.broken += batch.broken
            if not len(batch.table):
                continue
            if first:
                order = order or self._found_order(table, wanted, self._mapper.taken(batch.table))
            photos = self._mapper.photos(batch.table, order)
            if first:
                refuse_swapped(photos, table.path)
            first = False
            yield photos

    def _found_order(self, table: OpenTable, wanted: set[str], taken: pd.Series) -> str | None:
        """Whether dates with slashes say the day first: all of the column is looked at where there are any."""
        if self._mapper.preset.times in {DAY_FIRST, MONTH_FIRST} or slashed(taken).dropna(how="all").empty:
            return None
        order = date_order(self._mapper.taken(batch.table) for batch in table.read(wanted))
        if order is None:
            self.notes.add(f"dates such as 03/04/2019 are missing: say `times: {DAY_FIRST}` or `times: {MONTH_FIRST}`")
        return order

    def _sliced(self, photos: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """Photos as they come, or a few at a time where their files are opened, so that progress shows."""
        remote = photos["uri"].str.contains("://", regex=False).fillna(value=True).all()
        step = _SLICE if self._opened and not remote else max(len(photos), 1)
        return (photos.iloc[start : start + step] for start in range(0, len(photos), step))


def refuse_swapped(photos: pd.DataFrame, path: Path) -> None:
    """Refuse a table of which most rows make sense only with latitude and longitude exchanged.

    Raises:
        BadCoordinates: it is one.
    """
    placed = photos[["lon", "lat"]].dropna()
    swapped = int((position_reasons(placed["lon"], placed["lat"]) == "swapped-lat-lon").sum())
    if swapped > len(placed) / 2:
        raise BadCoordinates(
            f"{path}: {swapped} of {len(placed)} latitudes are beyond 90 degrees; latitude and longitude look "
            "swapped. Write `columns: {lat: <column>, lon: <column>}` into a YAML file and pass it with --config."
        )
