"""When a photo was taken, in whatever way a site writes it."""

import re
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

DAY_FIRST, MONTH_FIRST = "day-first", "month-first"
_UTC = "datetime64[us, UTC]"
_SLASHED = r"^(\d{1,2})[/.](\d{1,2})[/.](\d{2,4})(?:[ ,T]+(\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d+)?)?)?$"
_EPOCHS = ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0), (float("inf"), 1e-3))
"""Below which a count since 1970 is seconds, milliseconds, microseconds, nanoseconds; and its microseconds."""


def times(cells: pd.Series, order: str | None = None) -> pd.Series:
    """UTC times of cells; NaT where one is no time.

    Known are ISO 8601 with and without an offset, EXIF's `2020:06:01 10:30:00`, seconds to nanoseconds since 1970,
    `20191231`, RFC 2822, and `31/12/2019 14:05` where the order is known. What states no zone is taken as UTC.

    Args:
        cells: text, numbers or times.
        order: `day-first` or `month-first` for dates with slashes or points, or a form of `strptime` for all cells
            that it fits; dates with slashes are missing where None.
    """
    quick = _quickly(cells)
    if quick is not None:
        return quick
    written = cells.astype("string").str.strip()
    found = pd.Series(pd.NaT, index=cells.index, dtype=_UTC)
    if order is not None and order not in {DAY_FIRST, MONTH_FIRST}:
        found = _form(written, order)
    for parse in (_epochs, _iso, lambda left: _slashed(left, order), _letters):
        left = written[found.isna() & written.notna()]
        if left.empty:
            break
        found = found.fillna(parse(left).reindex(cells.index))
    return found


def date_order(columns: Iterable[pd.Series]) -> str | None:
    """Whether a column's dates with slashes say the day or the month first; None where that stays unclear.

    It is clear where one of the two numbers is beyond 12 in some rows and the other one in none.

    Args:
        columns: the column, batch by batch.
    """
    firsts = seconds = False
    for cells in columns:
        parts = slashed(cells)
        firsts |= bool((parts[0].astype("float64") > 12).any())
        seconds |= bool((parts[1].astype("float64") > 12).any())
    return None if firsts == seconds else DAY_FIRST if firsts else MONTH_FIRST


def slashed(cells: pd.Series) -> pd.DataFrame:
    """The six numbers of each date with slashes or points (as text, missing for other cells), (N, 6)."""
    if not (pd.api.types.is_string_dtype(cells.dtype) or cells.dtype == object):
        return pd.DataFrame(index=cells.index[:0], columns=range(6), dtype="string")
    written = cells.astype("string")
    return written[written.str.contains(r"^\s*\d{1,2}[/.]\d", na=False)].str.strip().str.extract(_SLASHED)


def _quickly(cells: pd.Series) -> pd.Series | None:
    """Times of a column that is of times already, or all of whose cells are plain ISO; None of other columns."""
    if isinstance(cells.dtype, pd.DatetimeTZDtype):
        return cells.dt.tz_convert("UTC").astype(_UTC)
    if pd.api.types.is_datetime64_any_dtype(cells.dtype):
        return cells.dt.tz_localize("UTC").astype(_UTC)
    array = pa.array(cells, from_pandas=True)
    if pa.types.is_null(array.type):
        return pd.Series(pd.NaT, index=cells.index, dtype=_UTC)
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return None
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            whole = pd.Series(pc.cast(array, kind).to_pandas().to_numpy(), index=cells.index)
        except pa.ArrowInvalid:
            continue
        return pd.to_datetime(whole, utc=True).astype(_UTC)
    return None


def _iso(written: pd.Series) -> pd.Series:
    """Times of ISO's and EXIF's forms, with `UTC`, `Z` or an offset behind them, and of `20191231` with a clock."""
    text = written.str.replace(r"^(\d{4})[:/](\d\d)[:/](\d\d)", r"\1-\2-\3", regex=True)
    text = text.str.replace(r"^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$", r"\1-\2-\3T\4:\5:\6", regex=True)
    text = text.str.replace(r"\s*(?:UTC|GMT|Z)$", "+00:00", regex=True)
    text = text.str.replace(r"\s+([+-]\d\d):?(\d\d)?$", r"\1:\2", regex=True).str.replace(r":$", ":00", regex=True)
    return pd.to_datetime(text, errors="coerce", utc=True, format="ISO8601").astype(_UTC)


def _epochs(written: pd.Series) -> pd.Series:
    """Times of counts since 1970; what has eight or fourteen digits is a date."""
    counted = written.where(written.str.fullmatch(r"-?(?:\d{9,13}|\d{15,19})(?:\.\d*)?(?:[eE]\+?\d+)?", na=False))
    values = pd.to_numeric(counted.astype(object), errors="coerce").astype("float64")
    scale = pd.Series(_EPOCHS[-1][1], index=written.index)
    for limit, size in reversed(_EPOCHS):
        scale = scale.mask(values.abs() < limit, size)
    return pd.to_datetime((values * scale).round(), unit="us", errors="coerce", utc=True).astype(_UTC)


def _slashed(written: pd.Series, order: str | None) -> pd.Series:
    """Times of dates with slashes or points, of which the order is known."""
    missing = pd.Series(pd.NaT, index=written.index, dtype=_UTC)
    if order not in {DAY_FIRST, MONTH_FIRST}:
        return missing
    parts = slashed(written).dropna(subset=[0])
    if parts.empty:
        return missing
    day, month = (parts[0], parts[1]) if order == DAY_FIRST else (parts[1], parts[0])
    year = parts[2].where(parts[2].str.len() == 4, _century(parts[2]) + parts[2])
    clock = parts[3].fillna("00").str.zfill(2) + ":" + parts[4].fillna("00") + ":" + parts[5].fillna("00")
    text = year + "-" + month.str.zfill(2) + "-" + day.str.zfill(2) + " " + clock
    return pd.to_datetime(text, errors="coerce", utc=True, format="ISO8601").astype(_UTC).reindex(written.index)


def _century(years: pd.Series) -> pd.Series:
    """The first two digits of years that are written with two: 1970 to 2069, as `strptime` takes them."""
    return pd.Series("20", index=years.index).mask(years.astype("float64") >= 70, "19")


def _letters(written: pd.Series) -> pd.Series:
    """Times of RFC 2822, such as `Tue, 31 Dec 2019 14:05:00 +0200`."""
    found = {cell: _rfc_2822(cell) for cell in written.unique()}
    return pd.to_datetime(written.map(found).astype(object), errors="coerce", utc=True).astype(_UTC)


def _rfc_2822(cell: str) -> pd.Timestamp | None:
    """One such time, or None."""
    if not re.match(r"(?:[A-Za-z]{3},\s*)?\d{1,2} [A-Za-z]{3} \d{4} ", cell):
        return None
    try:
        found = parsedate_to_datetime(cell)
    except (ValueError, IndexError, TypeError):
        return None
    return pd.Timestamp(found if found.tzinfo else found.replace(tzinfo=UTC))


def _form(written: pd.Series, form: str) -> pd.Series:
    """Times of one form of `strptime`."""
    return pd.to_datetime(written, errors="coerce", utc=True, format=form).astype(_UTC)
