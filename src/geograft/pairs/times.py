"""Times of photos and scenes as microseconds since 1970 (UTC), whatever a table writes them as."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.int64]

NEVER = np.iinfo(np.int64).min
"""An unknown time, as numpy's NaT."""

DAY = 86_400_000_000
"""Microseconds."""

UTC = pa.timestamp("us", "UTC")


def _utc(times: pd.Series) -> pd.Series:
    """Times as UTC; what states no zone is taken as UTC, what is no time, such as a number, as NaT."""
    if pd.api.types.is_numeric_dtype(times):
        return pd.Series(pd.NaT, times.index, "datetime64[us, UTC]")
    return pd.to_datetime(times, utc=True, errors="coerce", format="ISO8601")


def microseconds(times: Any) -> Ints:
    """Microseconds since 1970 of an Arrow column or a pandas Series, `NEVER` where unknown, (N,).

    Times without a zone are taken as UTC; text is read as ISO 8601.
    """
    if isinstance(times, (pa.Array, pa.ChunkedArray)):
        if not pa.types.is_timestamp(times.type):
            return microseconds(times.to_pandas())
        aware = times if times.type.tz else pc.assume_timezone(times, "UTC")
        return np.asarray(pc.fill_null(aware.cast(UTC, safe=False).cast(pa.int64()), NEVER))
    found = _utc(times).astype("datetime64[us, UTC]").dt.tz_localize(None).to_numpy("datetime64[us]")
    return np.asarray(found.view(np.int64))


def days_between(later: Ints, earlier: Ints) -> NDArray[np.float32]:
    """Days from one time to another, NaN where either is unknown."""
    known = (later != NEVER) & (earlier != NEVER)
    gap = np.where(known, later, 0) - np.where(known, earlier, 0)
    return np.where(known, gap / DAY, np.nan).astype(np.float32)


def time_column(times: Ints) -> pa.Array:
    """Microseconds as an Arrow column of UTC times, missing where unknown."""
    return pa.array(times, pa.int64(), mask=times == NEVER).cast(UTC)
