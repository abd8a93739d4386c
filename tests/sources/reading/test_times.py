import pandas as pd
import pytest

from geograft.sources.reading.times import DAY_FIRST, MONTH_FIRST, date_order, times

HALF_PAST_EIGHT = pd.Timestamp("2024-07-01 08:30", tz="UTC")


@pytest.mark.parametrize(
    "cell",
    [
        "2024-07-01T10:30:00+02:00",
        "2024-07-01T08:30:00Z",
        "2024-07-01 08:30:00",
        "2024-07-01 10:30:00 +0200",
        "2024-07-01 08:30:00 UTC",
        "2024:07:01 08:30:00",
        "2024:07:01 10:30:00+02:00",
        "1719822600",
        "1719822600.0",
        "1719822600000",
        "1719822600000000",
        "20240701083000",
        "Mon, 01 Jul 2024 10:30:00 +0200",
        "01/07/2024 08:30",
        "1.7.24 8:30",
    ],
)
def test_times_come_in_the_forms_that_sites_write(cell):
    found = times(pd.Series([cell, "yesterday", None], dtype="str"), DAY_FIRST)
    assert found[0] == HALF_PAST_EIGHT
    assert found[1:].isna().all()


def test_a_day_is_its_midnight_and_a_day_that_no_calendar_knows_is_missing():
    found = times(pd.Series(["20240701", "2024-07-01", "2010-05-00", "0000:00:00 00:00:00"]))
    assert (found[:2] == pd.Timestamp("2024-07-01", tz="UTC")).all()
    assert found[2:].isna().all()


def test_columns_of_times_and_numbers_need_no_text():
    naive = pd.Series([pd.Timestamp("2024-07-01 08:30")])
    aware = pd.Series([pd.Timestamp("2024-07-01 10:30", tz="Europe/Zurich")])
    counted = pd.Series([1719822600000])
    assert all(times(cells)[0] == HALF_PAST_EIGHT for cells in (naive, aware, counted))


def test_offsets_may_differ_from_row_to_row():
    found = times(pd.Series(["2024-07-01T10:30:00+02:00", "2024-07-01T03:30:00-05:00", "2024-07-01T08:30:00"]))
    assert (found == HALF_PAST_EIGHT).all()


def test_a_form_is_tried_first_and_the_rest_as_usual():
    found = times(pd.Series(["01-Jul-2024 08h30", "2024-07-01 08:30"]), "%d-%b-%Y %Hh%M")
    assert (found == HALF_PAST_EIGHT).all()


def test_dates_with_slashes_are_missing_while_their_order_is_unknown():
    cells = pd.Series(["03/04/2019", "2024-07-01 08:30"])
    assert times(cells).isna().tolist() == [True, False]
    assert times(cells, DAY_FIRST)[0].month == 4
    assert times(cells, MONTH_FIRST)[0].month == 3


@pytest.mark.parametrize(
    ("columns", "order"),
    [
        ([["03/04/2019"], ["31/12/2019 14:05"]], DAY_FIRST),
        ([["03/04/2019", "12/31/2019"]], MONTH_FIRST),
        ([["03/04/2019"]], None),
        ([["31/12/2019"], ["12/31/2019"]], None),
        ([["2019-12-31", None]], None),
    ],
)
def test_the_whole_column_tells_whether_the_day_comes_first(columns, order):
    assert date_order(pd.Series(cells, dtype="str") for cells in columns) == order
