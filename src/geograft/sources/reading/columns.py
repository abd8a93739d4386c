"""Photo tables of any site: which column means what, and cells turned into numbers, positions and headings."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from geograft.errors import BadSetting, MissingColumns

SYNONYMS: dict[str, tuple[str, ...]] = {
    "photo_id": ("photo_id", "id", "image_id", "key", "gbifid"),
    "file": ("file", "path", "uri", "url", "filename", "file_name", "image", "photo"),
    "lat": ("lat", "latitude", "gps_latitude", "decimal_latitude"),
    "lon": ("lon", "lng", "long", "longitude", "gps_longitude", "decimal_longitude"),
    "accuracy_m": ("accuracy_m", "accuracy", "gps_accuracy", "coordinate_uncertainty_in_meters"),
    "heading_deg": ("heading_deg", "heading", "bearing", "compass_angle", "direction", "gps_img_direction"),
    "fov_deg": ("fov_deg", "fov"),
    "taken": ("taken", "taken_at", "date_taken", "captured_at", "observed_on", "timestamp", "datetime", "date"),
    "user": ("user", "user_id", "owner", "author", "photographer", "creator"),
    "licence": ("licence", "license", "license_name", "rights"),
    "tags": ("tags", "keywords"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
    "place": ("place", "walk", "site", "sequence", "sequence_id", "group"),
    "source": ("source",),
}
"""Field to the column names that mean it, the usual one first; case, spaces and underscores do not count."""

REQUIRED = ("file", "lat", "lon")

GEOMETRY = {"lon": "geometry.coordinates.0", "lat": "geometry.coordinates.1"}
"""The columns that hold the position of a table's point geometry, in degrees; it goes before other columns."""

_WINDS = ("n", "nne", "ne", "ene", "e", "ese", "se", "sse", "s", "ssw", "sw", "wsw", "w", "wnw", "nw", "nnw")
_WORDS = (("north", "n"), ("south", "s"), ("east", "e"), ("west", "w"))
_PARTS = re.compile(r"\d+(?:[.,]\d+)?")
_POSITION = re.compile(r"[\s+\-NSEW\d.,;:°º˚'′’\"″”DEGMINSC]+")


# --- which column means what ------------------------------------------------------------------------------


def plain(name: str) -> str:
    """A column name without case, spaces and marks."""
    return "".join(letter for letter in str(name).lower() if letter.isalnum())


def find(names: Iterable[str], wanted: str) -> str | None:
    """The column of a table that is called so, whatever its case, spaces and marks; None where there is none."""
    key = plain(wanted)
    return next((name for name in names if plain(name) == key), None)


def choose(
    names: Sequence[str],
    overrides: Mapping[str, str | Sequence[str]],
    path: Path,
    *,
    named: Collection[str] = (),
    given: Collection[str] = (),
    strict: bool = True,
) -> dict[str, tuple[str, ...]]:
    """The columns of a table that hold each field of `SYNONYMS`, the one to look at first in front.

    Args:
        names: the table's columns.
        overrides: field to the column that holds it, or to several that are tried in order in each row; an empty
            name means that the table has none.
        path: named in errors.
        named: fields of `overrides` that the user named, so that an absent column is a mistake.
        given: fields that come from elsewhere, so need no column.
        strict: refuse a table without the required fields.

    Raises:
        BadSetting: `overrides` names a field that photo tables do not have.
        MissingColumns: a required field or all columns named in `overrides` for a field are absent.
    """
    if strange := sorted(set(overrides) - set(SYNONYMS)):
        raise BadSetting(f"No field is called {', '.join(strange)}; columns can be named for {', '.join(SYNONYMS)}.")
    known = {plain(name): name for name in reversed(names)}
    chosen = {field: _chosen(field, known, overrides) for field in SYNONYMS}
    wrong = [
        f"{' or '.join(_listed(overrides[field]))} (for {field})"
        for field in named
        if any(_listed(overrides[field])) and not chosen[field] and field not in REQUIRED
    ]
    absent = [
        f"{field} ({', '.join(_listed(overrides.get(field, SYNONYMS[field])))})"
        for field in REQUIRED
        if not chosen[field] and (field not in given or field in named)
    ]
    if strict and (wrong or absent):
        raise MissingColumns(
            f"{path} lacks the column {' and '.join(wrong + absent)}; it has {', '.join(names)}. "
            "Rename a column, or say which one it is by `columns: {lat: <its name>}` in a YAML file with --config."
        )
    return chosen


def _chosen(field: str, known: Mapping[str, str], overrides: Mapping[str, str | Sequence[str]]) -> tuple[str, ...]:
    """The table's columns of a field: those named that exist, else the geometry, else the first synonym."""
    if field in overrides:
        return tuple(dict.fromkeys(known[plain(name)] for name in _listed(overrides[field]) if plain(name) in known))
    usual = (GEOMETRY[field], *SYNONYMS[field]) if field in GEOMETRY else SYNONYMS[field]
    return next(((known[plain(name)],) for name in usual if plain(name) in known), ())


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    """One name or several, as several."""
    return (names,) if isinstance(names, str) else names


# --- cells to numbers -------------------------------------------------------------------------------------


def text(cells: pd.Series) -> pd.Series:
    """Cells as text without padding, missing where nothing is left."""
    trimmed = cells.astype("string").str.strip()
    return trimmed.mask(trimmed == "")


def numbers(cells: pd.Series, decimal: str = ".") -> pd.Series:
    """Finite floats of text, decimal commas too; NaN where a cell is no number.

    Args:
        cells: text or numbers.
        decimal: `,` where points separate thousands (`1.234,5`).
    """
    if pd.api.types.is_numeric_dtype(cells.dtype):
        values = cells.astype("float64")
    elif decimal == "," or (values := _quickly(cells, pa.float64())) is None:
        values = _slow_numbers(cells, decimal)
    return values.where(np.isfinite(values))


def _slow_numbers(cells: pd.Series, decimal: str) -> pd.Series:
    """Floats of text that Arrow does not take for numbers as it stands."""
    written = text(cells)
    if decimal == ",":
        written = written.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    written = written.str.replace(r"^([+-]?\d+),(\d+)$", r"\1.\2", regex=True)
    return pd.to_numeric(written.astype(object), errors="coerce").astype("float64")


def _quickly(cells: pd.Series, kind: pa.DataType) -> pd.Series | None:
    """Cells cast by Arrow, which is many times faster than by pandas; None where one of them is odd."""
    try:
        cast = pc.cast(pa.array(cells, from_pandas=True), kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return None
    return pd.Series(cast.to_numpy(zero_copy_only=False), index=cells.index)


def _where_missing(values: pd.Series, cells: pd.Series, parse: Callable[[str], float]) -> pd.Series:
    """Values with those that are missing parsed from their cells, each spelling once."""
    written = text(cells[values.isna()]).dropna()
    if written.empty:
        return values
    known = {cell: parse(cell) for cell in written.unique()}
    values = values.copy()
    values.loc[written.index] = written.map(known).astype("float64")
    return values


def coordinates(cells: pd.Series, letters: str, decimal: str = ".") -> pd.Series:
    """Degrees of numbers or of text such as `48,8584`, `48.8584° N`, `N48 51 30` or `48°51'30.2"N`; NaN else.

    Args:
        cells: text or numbers.
        letters: the positive and the negative hemisphere, `NS` or `EW`; another letter makes a cell no position.
        decimal: see `numbers`.
    """
    return _where_missing(numbers(cells, decimal), cells, lambda cell: _degrees(cell, letters))


def _degrees(cell: str, letters: str) -> float:
    """Degrees of one cell, NaN where it is no angle."""
    upper = cell.upper()
    hemispheres = re.findall(r"(?<![A-Z])[NSEW](?![A-Z])", upper)
    parts = [float(part.replace(",", ".")) for part in _PARTS.findall(upper)]
    clear = _POSITION.fullmatch(upper) and 1 <= len(parts) <= 3 and all(part < 60 for part in parts[1:])
    clear = clear and all(part.is_integer() for part in parts[:-1])  # else they are two values, not one angle
    if not clear or len(hemispheres) > 1 or not set(hemispheres) <= set(letters):
        return np.nan
    size = math.fsum(part / 60**power for power, part in enumerate(parts))
    negative = upper.startswith(("-", "\N{MINUS SIGN}")) or hemispheres == [letters[1]]
    return -size if negative else size


def headings(cells: pd.Series, decimal: str = ".") -> pd.Series:
    """Degrees clockwise from north, 0 to below 360, of numbers, `315°`, `NW` or `west-northwest`; NaN else.

    What lies beyond 0 to 360 is missing: -1 is how many sites write that they do not know.
    """
    values = _where_missing(numbers(cells, decimal), cells, _wind)
    return (values % 360).where((values >= 0) & (values <= 360))


def _wind(cell: str) -> float:
    """Degrees of one cell in words or with a unit, NaN where it is no direction."""
    lower = cell.lower()
    if found := re.fullmatch(r"(\d+(?:[.,]\d+)?)\s*(?:°|º|deg|degrees?)\s*(?:[tm]|true|magnetic)?", lower):
        return float(found[1].replace(",", "."))
    for word, letter in _WORDS:
        lower = re.sub(word + r"(?:ern|erly)?", letter, lower)
    name = re.sub(r"[\s_./-]+", "", lower)
    return _WINDS.index(name) * 22.5 if name in _WINDS else np.nan
