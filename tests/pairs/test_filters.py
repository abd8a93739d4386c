import pandas as pd
import pytest

from geograft.pairs.filters import FREE_LICENCES, keep_usable, licence_name, minutes


def table(**columns):
    count = max(len(values) for values in columns.values())
    base = {
        "photo_id": [f"p{row}" for row in range(count)],
        "lon": [10.0 + row for row in range(count)],
        "lat": 48.0,
        "accuracy_m": None,
        "taken": None,
        "user": None,
        "licence": None,
    }
    return pd.DataFrame(base | columns)


def kept(photos, *, licences=FREE_LICENCES, max_accuracy_m=None):
    photos, counts = keep_usable(photos, licences=licences, max_accuracy_m=max_accuracy_m)
    return photos["photo_id"].tolist(), counts


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CC BY-SA 3.0", "cc-by-sa"),
        ("CC-BY-4.0", "cc-by"),
        ("CC BY 2.0 DE", "cc-by"),
        ("Attribution-ShareAlike License", "cc-by-sa"),
        ("Attribution-NonCommercial-NoDerivs License", "cc-by-nc-nd"),
        ("https://creativecommons.org/licenses/by-sa/3.0/", "cc-by-sa"),
        ("https://creativecommons.org/licenses/by-nc/2.0/deed.en", "cc-by-nc"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "public-domain"),
        ("CC0 1.0 Universal", "cc0"),
        ("Public Domain Mark", "public-domain"),
        ("PDM", "public-domain"),
        ("United States Government Work", "us-gov"),
        ("No known copyright restrictions", "no-known-copyright"),
        ("Creative Commons Attribution Share Alike 4.0 International", "cc-by-sa"),
    ],
)
def test_one_licence_has_one_name(text, name):
    assert licence_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "All Rights Reserved",
        "CC BY-NC 2.0",
        "CC BY-ND 4.0",
        "CC BY-NC-SA 3.0",
        "proprietary",
        "© someone",
        "?",
        "by agency",
    ],
)
def test_what_is_not_free_is_not_among_the_free(text):
    assert licence_name(text) not in FREE_LICENCES


def test_photos_of_other_licences_are_refused_and_unstated_ones_kept():
    photos = table(licence=["CC BY 4.0", "All rights reserved", None, " ", "CC BY-NC 2.0"])
    assert kept(photos) == (["p0", "p2", "p3"], {"licence-not-free": 2})
    assert kept(photos, licences=None) == (["p0", "p1", "p2", "p3", "p4"], {})
    assert kept(photos, licences=("CC BY-NC 4.0",)) == (["p2", "p3", "p4"], {"licence-not-free": 2})


def test_inaccurate_geotags_are_refused_and_unstated_ones_kept():
    assert kept(table(accuracy_m=[5.0, 31.0, None]), max_accuracy_m=30) == (["p0", "p2"], {"inaccurate-geotag": 1})


def test_photos_of_one_user_place_and_minute_are_duplicates():
    photos = table(
        user=["a", "a", "b", "a", "a"],
        lon=[10.0, 10.0, 10.0, 10.0, 10.001],
        taken=[
            "2024-06-01T12:00:05Z",
            "2024-06-01T12:00:55Z",
            "2024-06-01T12:00:05Z",
            "2024-06-01T12:01:05Z",
            "2024-06-01T12:00:05Z",
        ],
    )
    assert kept(photos) == (["p0", "p2", "p3", "p4"], {"duplicate": 1})


def test_photos_without_a_time_are_never_duplicates():
    assert kept(table(user=["a", "a"], lon=[10.0, 10.0])) == (["p0", "p1"], {})


def test_a_doubled_id_is_kept_once():
    assert kept(table(photo_id=["a", "a", "b"])) == (["a", "b"], {"duplicate-id": 1})


def test_positions_that_no_grid_holds_are_refused():
    photos = table(lon=[10.0, 200.0, float("nan"), 0.0], lat=[85.0, 0.0, 0.0, 10.0])
    assert kept(photos) == (["p3"], {"bad-position": 3})


def test_a_photo_counts_for_the_first_reason_only():
    photos = table(licence=["all rights reserved"], accuracy_m=[500.0])
    assert kept(photos, max_accuracy_m=10) == ([], {"licence-not-free": 1})


def test_times_without_a_zone_are_utc():
    photos = table(taken=["2024-06-01 12:00:31", None, "2024-06-01T14:00:31+02:00"])
    found = minutes(photos)
    assert found[0] == found[2] == pd.Timestamp("2024-06-01T12:00", tz="UTC")
    assert found.isna().tolist() == [False, True, False]
