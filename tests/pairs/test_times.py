import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from geograft.pairs.times import DAY, NEVER, days_between, microseconds, time_column

NOON = int(dt.datetime(2024, 6, 1, 12, tzinfo=dt.UTC).timestamp() * 1e6)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "+02:00"])
def test_timestamps_of_any_unit_and_zone_are_microseconds(unit, zone):
    moment = pd.Timestamp(NOON, unit="us").tz_localize("UTC" if zone else None)
    column = pa.array([moment, None], pa.timestamp(unit, zone))
    assert microseconds(column).tolist() == [NOON, NEVER]
    assert microseconds(pa.chunked_array([column, column])).tolist() == [NOON, NEVER] * 2


def test_text_is_read_as_iso_8601_and_junk_is_unknown():
    text = ["2024-06-01T12:00:00Z", "2024-06-01 12:00", "2024-06-01T14:00:00+02:00", "last summer", "", None]
    assert microseconds(pa.array(text)).tolist() == [NOON] * 3 + [NEVER] * 3
    assert microseconds(pd.Series(text)).tolist() == [NOON] * 3 + [NEVER] * 3


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([dt.date(2024, 6, 1), None]), [NOON - DAY // 2, NEVER]),
        (pa.array(["2024-06-01T12:00", "x"]).dictionary_encode(), [NOON, NEVER]),
        (pa.nulls(2), [NEVER, NEVER]),
        (pa.array([1717243200, None]), [NEVER, NEVER]),
        (pa.array([True, False]), [NEVER, NEVER]),
        (pa.array([[1], [2]]), [NEVER, NEVER]),
        (pa.array([], pa.string()), []),
    ],
    ids=["dates", "dictionary", "nulls", "numbers", "booleans", "lists", "none"],
)
def test_a_column_of_any_type_has_times_or_none(column, expected):
    assert microseconds(column).tolist() == expected


def test_a_day_far_from_now_is_kept():
    assert microseconds(pa.array(["1850-01-01", "2300-01-01"])).tolist() == [
        -3786825600 * 10**6,
        10413792000 * 10**6,
    ]


def test_pandas_times_without_a_zone_are_utc():
    naive = pd.Series(pd.to_datetime(["2024-06-01T12:00", None]))
    assert microseconds(naive).tolist() == [NOON, NEVER]


def test_days_lie_between_known_times_only():
    later = np.array([NOON + 3 * DAY // 2, NOON, NEVER, NEVER])
    earlier = np.array([NOON, NOON + DAY, NOON, NEVER])
    days = days_between(later, earlier)
    assert days.dtype == np.float32
    np.testing.assert_array_equal(days, [1.5, -1.0, np.nan, np.nan])


def test_a_column_of_times_reads_back_the_same():
    times = np.array([NOON, NEVER, -1, 0])
    column = time_column(times)
    assert column.type == pa.timestamp("us", "UTC")
    assert column.null_count == 1
    assert microseconds(column).tolist() == times.tolist()
