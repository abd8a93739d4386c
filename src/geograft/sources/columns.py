"""Photo tables of any site: which column means what, and cells turned into numbers and times."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from geograft.errors import BadSetting, EmptyTable, MissingColumns, MissingInput, UnreadableTable

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
}
"""Field to the column names that mean it, the usual one first; case, spaces and underscores do not count."""

REQUIRED = ("file", "lat", "lon")


def read_csv(path: Path, encoding: str | None = None) -> pd.DataFrame:
    """A CSV file (comma, semicolon or tab) with every cell as text; empty cells are missing.

    Args:
        path: the file.
        encoding: as Python names it; UTF-8, with or without a byte order mark, where None.

    Raises:
        MissingInput: there is no such file.
        UnreadableTable: it is in another encoding or its rows are broken.
        EmptyTable: it has no rows.
    """
    if not path.is_file():
        raise MissingInput(f"There is no file {path}: check the path.")
    try:
        table = pd.read_csv(path, dtype=str, sep=_separator(path, encoding), encoding=encoding or "utf-8-sig")
    except (UnicodeError, LookupError) as error:
        raise UnreadableTable(f"{path} is not in {encoding or 'UTF-8'} ({error}): {_encoding_advice(path)}.") from error
    except pd.errors.EmptyDataError as error:
        raise EmptyTable(f"{path} is empty: export the table again.") from error
    except (pd.errors.ParserError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UnreadableTable(f"{path} cannot be read as CSV ({reason}): export the table again.") from error
    if table.empty:
        raise EmptyTable(f"{path} has a header and no rows: export the table again.")
    return table


def _encoding_advice(path: Path) -> str:
    """What to do about a table that is not text in the expected encoding, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is in UTF-16; write `encoding: utf-16` into a YAML file and pass it with --config"
    if b"\0" in head:
        return "it is no text; give a CSV file, or a folder of photos"
    return "write its encoding, such as `encoding: latin-1`, into a YAML file and pass it with --config"


def _separator(path: Path, encoding: str | None) -> str:
    """The separator that the header line uses most."""
    with path.open(encoding=encoding or "utf-8-sig", newline="") as file:
        header = file.readline()
    return max((",", ";", "\t"), key=header.count)


def rename(table: pd.DataFrame, overrides: Mapping[str, str], path: Path) -> pd.DataFrame:
    """A table with the columns of `SYNONYMS`, absent ones missing in every row.

    Args:
        table: as read.
        overrides: field to the column that holds it; an empty name means that the table has none.
        path: named in errors.

    Raises:
        BadSetting: `overrides` names a field that photo tables do not have.
        MissingColumns: a required field or a column named in `overrides` is absent.
    """
    if strange := sorted(set(overrides) - set(SYNONYMS)):
        raise BadSetting(f"No field is called {', '.join(strange)}; columns can be named for {', '.join(SYNONYMS)}.")
    plain = {_plain(name): name for name in reversed(list(table.columns))}
    chosen = {field: _choose(field, plain, overrides) for field in SYNONYMS}
    wrong = [f"{name} (for {field})" for field, name in overrides.items() if name and _plain(name) not in plain]
    absent = [f"{field} ({', '.join(SYNONYMS[field])})" for field in REQUIRED if chosen[field] is None]
    if wrong or absent:
        raise MissingColumns(
            f"{path} lacks the column {' and '.join(wrong + absent)}; it has {', '.join(table.columns)}. "
            "Rename a column, or say which one it is by `columns: {lat: <its name>}` in a YAML file with --config."
        )
    missing = pd.Series(pd.NA, index=table.index, dtype="string")
    columns = {field: missing if name is None else table[name] for field, name in chosen.items()}
    return pd.DataFrame({field: column.astype("string").str.strip() for field, column in columns.items()})


def _choose(field: str, plain: Mapping[str, str], overrides: Mapping[str, str]) -> str | None:
    """The table's column of a field, or None."""
    if field in overrides:
        return plain.get(_plain(overrides[field]))
    return next((plain[_plain(name)] for name in SYNONYMS[field] if _plain(name) in plain), None)


def _plain(name: str) -> str:
    """A column name without case, spaces and marks."""
    return "".join(letter for letter in str(name).lower() if letter.isalnum())


def numbers(cells: pd.Series) -> pd.Series:
    """Finite floats of text, decimal commas too; NaN where a cell is no number."""
    text = cells.astype("string").str.replace(r"^([+-]?\d+),(\d+)$", r"\1.\2", regex=True)
    values = pd.to_numeric(text, errors="coerce").astype("float64")
    return values.where(np.isfinite(values))


def times(cells: pd.Series) -> pd.Series:
    """UTC times of text: ISO, EXIF's `2020:06:01 10:30:00`, seconds or milliseconds since 1970; NaT else."""
    text = cells.astype("string").str.replace(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", regex=True)
    found = pd.to_datetime(text, errors="coerce", utc=True, format="ISO8601").astype("datetime64[us, UTC]")
    epoch = pd.to_numeric(text.where(text.str.fullmatch(r"\d{9,13}", na=False)), errors="coerce").astype("float64")
    seconds = epoch.where(epoch < 1e11, epoch / 1000)
    counted = pd.to_datetime(seconds, unit="s", errors="coerce", utc=True).astype("datetime64[us, UTC]")
    return found.where(counted.isna(), counted)
