import numpy as np
import pandas as pd
import pytest

from geograft.errors import BadSetting, MissingColumns
from geograft.sources.reading.columns import REQUIRED, SYNONYMS, choose, coordinates, find, headings, numbers


@pytest.mark.parametrize("field", SYNONYMS)
def test_every_synonym_is_accepted_whatever_its_case_and_spaces(tmp_path, field):
    for name in SYNONYMS[field]:
        written = name.replace("_", " ").title()
        others = [each for each in REQUIRED if each != field]
        assert choose([written, *others], {}, tmp_path)[field] == (written,)


def test_missing_columns_are_named_with_what_there_is_and_what_is_accepted(tmp_path):
    with pytest.raises(MissingColumns, match=r"lon \(lon, lng, long.*it has file, breite, lat"):
        choose(["file", "breite", "lat"], {}, tmp_path)


def test_a_mapping_says_which_column_is_which(tmp_path):
    names = ["bild", "lat", "lon", "accuracy"]
    found = choose(names, {"file": "bild", "accuracy_m": ""}, tmp_path)
    assert (found["file"], found["accuracy_m"]) == (("bild",), ())
    with pytest.raises(MissingColumns, match="foto"):
        choose(names, {"file": "foto"}, tmp_path)


def test_several_columns_are_kept_in_order_and_absent_ones_left_out(tmp_path):
    names = ["small", "large", "lat", "lon"]
    assert choose(names, {"file": ("huge", "Large", "small")}, tmp_path)["file"] == ("large", "small")
    with pytest.raises(MissingColumns, match=r"file \(huge, tiny\)"):
        choose(names, {"file": ("huge", "tiny")}, tmp_path)


def test_a_point_geometry_goes_before_columns_of_positions(tmp_path):
    names = ["file", "lat", "lon", "geometry.coordinates.0", "geometry.coordinates.1"]
    found = choose(names, {}, tmp_path)
    assert (found["lon"], found["lat"]) == (("geometry.coordinates.0",), ("geometry.coordinates.1",))
    assert choose(names, {"lat": "lat", "lon": "lon"}, tmp_path)["lat"] == ("lat",)


def test_a_mapping_of_a_field_that_photos_do_not_have_is_refused(tmp_path):
    with pytest.raises(BadSetting, match="latitute"):
        choose(["file", "lat", "lon"], {"latitute": "lat"}, tmp_path)


def test_a_column_is_found_whatever_its_marks():
    assert find(["POINT_ID", "GPS LAT"], "gps_lat") == "GPS LAT"
    assert find(["a"], "b") is None


def equal(found, expected):
    return np.allclose(np.asarray(found, float), np.asarray(expected, float), equal_nan=True)


def test_numbers_come_with_points_or_commas():
    found = numbers(pd.Series(["-33.5", "151,25", "1e2", "north", None, "inf", "", " 7 "]))
    assert equal(found, [-33.5, 151.25, 100, np.nan, np.nan, np.nan, np.nan, 7])
    assert equal(numbers(pd.Series(["1.234,5", "12"]), ","), [1234.5, 12])
    assert equal(numbers(pd.Series([1, 2], dtype="int64")), [1, 2])


@pytest.mark.parametrize(
    ("cell", "degrees"),
    [
        ("48.8584", 48.8584),
        ("48,8584", 48.8584),
        ("48.8584° N", 48.8584),
        ("48.8584 S", -48.8584),
        ("N48 51 30", 48.858333),
        ("48°51'30.2\"S", -48.858389),
        ("48° 51.5' N", 48.858333),
        ("48º51′30″N", 48.858333),
        ("-33.5°", -33.5),
        ("-33 30 0", -33.5),
        ("48.8584° E", np.nan),
        ("48 61 00 N", np.nan),
        ("N48 S", np.nan),
        ("north", np.nan),
        ("48.85, 2.29", np.nan),
        ("", np.nan),
        (None, np.nan),
    ],
)
def test_latitudes_come_in_the_ways_that_people_write_them(cell, degrees):
    assert equal(coordinates(pd.Series([cell, "1.5"], dtype="str"), "NS"), [degrees, 1.5])


def test_longitudes_take_east_and_west_only():
    assert equal(coordinates(pd.Series(["W 2° 17' 40\"", "2.2945 N", "9E"]), "EW"), [-2.294444, np.nan, 9])


@pytest.mark.parametrize(
    ("cell", "degrees"),
    [
        ("NW", 315),
        ("north", 0),
        ("west-northwest", 292.5),
        ("South-Easterly", 135),
        ("315°", 315),
        ("45 deg T", 45),
        ("12,5", 12.5),
        ("360", 0),
        ("unknown", np.nan),
        ("-1", np.nan),
        ("400", np.nan),
        ("northern lights", np.nan),
        (None, np.nan),
    ],
)
def test_headings_come_as_degrees_or_winds_and_else_are_missing(cell, degrees):
    assert equal(headings(pd.Series([cell, "90"], dtype="str")), [degrees, 90])
