"""From a table's cells to photos: columns, codes, rules and addresses as a preset says, then numbers and times."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_plus

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from geograft.sources.presets import Preset, Rule, View, texts
from geograft.sources.reading import columns
from geograft.sources.reading.times import times

FIELDS = (*columns.SYNONYMS, "panorama")
"""The fields of a photo as mapped."""

_HOLE = re.compile(r"\{([^{}\[\]]+)(?:\[(\d*):(\d*)\])?\}")
_SAFE = r"[A-Za-z0-9_.~:/%@+,-]*"
_TEXT = ("photo_id", "file", "user", "licence", "tags", "place", "source")


@dataclass(frozen=True)
class Mapper:
    """What turns the rows of a table into photos.

    Attributes:
        preset: what its columns and cells mean.
        overrides: field to column, before the preset's.
    """

    preset: Preset
    overrides: Mapping[str, str | tuple[str, ...]]

    def needed(self, names: Sequence[str], path: Path, *, strict: bool = True) -> set[str]:
        """The columns of a table that matter.

        Args:
            names: the table's columns.
            path: named in errors.
            strict: refuse a table without the required ones.

        Raises:
            BadSetting: a field is named that photos do not have.
            MissingColumns: a needed column is absent.
        """
        found: set[str] = set()
        for view in self._views():
            given = set(self.preset.defaults) | set(view.values) | ({"file"} if view.uri else set())
            chosen = columns.choose(names, view.columns, path, named=self.overrides, given=given, strict=strict)
            found.update(name for some in chosen.values() for name in some)
            rules = [*self.preset.skip, *self.preset.replace, *view.skip, *self.preset.negative.values()]
            others = [rule.column for rule in rules] + [hole[1] for hole in _HOLE.finditer(view.uri or "")]
            found.update(filter(None, (columns.find(names, name) for name in others)))
        return found

    def photos(self, table: pa.Table, order: str | None = None) -> pd.DataFrame:
        """The photos of a batch of rows, in the rows' order.

        Args:
            table: the rows.
            order: see `times.times`.

        Returns:
            The columns of `FIELDS`, numbers and times parsed, and `reason`: why a row is left out, or "".
        """
        views = [self._photos(table, view, order) for view in self._views()]
        if len(views) == 1:
            return views[0]
        return pd.concat(views).sort_index(kind="stable").reset_index(drop=True)

    def taken(self, table: pa.Table) -> pd.Series:
        """The cells that say when the photos were taken."""
        cells = _Cells(table, self.preset)
        return cells.field(self._chosen(table, self._views()[0]), "taken").to_pandas()

    def _views(self) -> tuple[View, ...]:
        """The photos that a row stands for, with all columns that they need."""
        preset = self.preset
        views = preset.views or (View(""),)
        return tuple(
            replace(view, columns={**preset.columns, **view.columns, **self.overrides}, uri=view.uri or preset.uri)
            for view in views
        )

    def _chosen(self, table: pa.Table, view: View) -> dict[str, tuple[str, ...]]:
        """The columns of a batch by field; JSON has others from batch to batch."""
        return columns.choose(table.column_names, view.columns, Path(), strict=False)

    def _photos(self, table: pa.Table, view: View, order: str | None) -> pd.DataFrame:
        """The photos of one view."""
        cells = _Cells(table, self.preset)
        chosen = self._chosen(table, view)
        fields = {name: cells.field(chosen, name) for name in FIELDS}
        fields["file"] = cells.filled(fields["file"], view.uri)
        fields = dict(cells.replaced(fields, view.values))
        fields["photo_id"] = cells.suffixed(fields["photo_id"], view.suffix)
        photos = self._parsed(fields, order)
        for name, rule in self.preset.negative.items():
            photos[name] = photos[name].mask(cells.where(rule), -photos[name].abs())
        photos["reason"] = cells.reasons((*self.preset.skip, *view.skip))
        return photos

    def _parsed(self, fields: Mapping[str, Any], order: str | None) -> pd.DataFrame:
        """Fields as numbers, times and text."""
        cells = {name: array.to_pandas() for name, array in fields.items()}
        decimal = self.preset.decimal
        found: dict[str, Any] = {name: cells[name].astype("str") for name in _TEXT}
        found["lat"] = columns.coordinates(cells["lat"], "NS", decimal)
        found["lon"] = columns.coordinates(cells["lon"], "EW", decimal)
        found["heading_deg"] = columns.headings(cells["heading_deg"], decimal)
        for name in ("accuracy_m", "fov_deg", "width", "height"):
            values = columns.numbers(cells[name], decimal)
            found[name] = values.where(values >= 0)
        found["taken"] = times(cells["taken"], self.preset.times or order)
        found["panorama"] = cells["panorama"].eq("true").fillna(value=False).astype(bool)
        return pd.DataFrame(found)


class _Cells:
    """The cells of a batch of rows.

    Args:
        table: the rows.
        preset: what the cells mean.
    """

    def __init__(self, table: pa.Table, preset: Preset) -> None:
        self._table, self._preset = table, preset
        self._names = {columns.plain(name): name for name in reversed(table.column_names)}
        self._codes, self._defaults = preset.tables(), texts(preset.defaults)
        self._missing = [str(value) for value in preset.missing]

    def field(self, chosen: Mapping[str, tuple[str, ...]], name: str) -> Any:
        """The cells of a field, as text where a preset says something about them, (N,)."""
        names = chosen.get(name, ())
        plain = name not in self._codes and name not in self._defaults and not self._missing
        if len(names) == 1 and plain and _is_typed(self._table[names[0]].type) and name not in _TEXT:
            return _whole(self._table[names[0]])
        found = pa.nulls(len(self._table), pa.string())
        for column in names:
            found = pc.coalesce(found, self._text(column))
        if name in self._preset.url_encoded:
            found = _each(found, unquote_plus)
        if name in self._codes:
            found = _decoded(found, self._codes[name])
        return pc.fill_null(found, self._defaults[name]) if name in self._defaults else found

    def _text(self, column: str) -> Any:
        """A column as text; what says that nothing is known is missing."""
        found = as_text(self._table[column])
        if self._missing:
            found = pc.if_else(pc.is_in(found, pa.array(self._missing)), None, found)
        return found

    def where(self, rule: Rule) -> Any:
        """The rows that a rule is about, as booleans, (N,)."""
        name = self._names.get(columns.plain(rule.column))
        if name is None:
            return np.zeros(len(self._table), np.bool_)
        found = pc.is_in(pc.utf8_lower(as_text(self._table[name])), pa.array(rule.values))
        return found.to_numpy(zero_copy_only=False)

    def reasons(self, rules: Sequence[Rule]) -> Any:
        """Why rows are left out, by the first rule about them; "" else, (N,)."""
        found = np.full(len(self._table), "", object)
        for rule in rules:
            found[self.where(rule) & (found == "")] = rule.reason
        return found

    def replaced(self, fields: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Fields with the values of a view and of the rules about rows."""
        given = texts(values)
        rules = [(pa.array(self.where(rule)), texts(rule.set)) for rule in self._preset.replace]
        for name, array in fields.items():
            cells = pa.array([given[name]] * len(self._table), pa.string()) if name in given else array
            for rows, new in rules:
                if name in new:
                    cells = pc.if_else(rows, new[name] or None, as_text(cells))
            yield name, cells

    def suffixed(self, ids: Any, suffix: str) -> Any:
        """Ids with a suffix."""
        return pc.binary_join_element_wise(as_text(ids), suffix, "") if suffix else ids

    def filled(self, files: Any, template: str | None) -> Any:
        """Files, and the template's address where there is none; missing where one of its columns is."""
        if template is None or files.null_count == 0:
            return files
        parts: list[Any] = []
        end = 0
        for hole in _HOLE.finditer(template):
            parts += [template[end : hole.start()], self._part(hole)]
            end = hole.end()
        address = pc.binary_join_element_wise(*parts, template[end:], "")
        return pc.coalesce(files, address if isinstance(address, pa.Array) else pa.nulls(len(files), pa.string()))

    def _part(self, hole: re.Match[str]) -> Any:
        """The cells of a template's column, or a part of each, fit for an address."""
        name = self._names.get(columns.plain(hole[1]))
        if name is None:
            return pa.nulls(len(self._table), pa.string())
        cells = self._text(name)
        if hole[2] is not None:
            stop = int(hole[3]) if hole[3] else None
            cells = pc.utf8_slice_codeunits(cells, int(hole[2] or 0), stop)
        unsafe = pc.invert(pc.match_substring_regex(cells, f"^{_SAFE}$"))
        return _each(cells, lambda cell: quote(cell, safe="/:@,+~")) if pc.any(unsafe).as_py() else cells


# --- Arrow arrays -----------------------------------------------------------------------------------------


def _whole(column: Any) -> Any:
    """A column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _is_typed(kind: Any) -> bool:
    """Whether cells are numbers or times already."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind))


def as_text(column: Any) -> Any:
    """Cells as text without padding, missing where nothing is left or the type has no text, (N,)."""
    cells = _whole(column)
    kind = cells.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        cells = pc.binary_join(cells, ",") if pa.types.is_string(kind.value_type) else pa.nulls(len(cells))
    elif pa.types.is_floating(kind) and pc.all(pc.equal(pc.floor(cells), cells)).as_py():
        cells = pc.cast(cells, pa.int64(), safe=False)
    try:
        cells = pc.utf8_trim_whitespace(pc.cast(cells, pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.nulls(len(cells), pa.string())
    return pc.if_else(pc.equal(cells, ""), None, cells)


def _each(cells: Any, change: Any) -> Any:
    """Text cells changed one by one, each spelling once."""
    encoded = pc.dictionary_encode(cells)
    changed = pa.array([change(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return pc.take(changed, encoded.indices)


def _decoded(cells: Any, table: Mapping[str, str]) -> Any:
    """What a site's codes stand for; missing for other codes."""
    codes = pc.replace_substring_regex(cells, r"\.0+$", "")
    return pc.take(pa.array(table.values(), pa.string()), pc.index_in(codes, pa.array(table.keys(), pa.string())))
