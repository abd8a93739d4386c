from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geograft.errors import BadSetting
from geograft.settings import settings_from
from geograft.sources.filters import Filter, FilterSettings, id_hashes
from geograft.sources.judging.cells import neighbourhoods, place_cells
from geograft.sources.judging.hashes import SeenHashes, among


def table(**columns):
    count = max((len(values) for values in columns.values() if isinstance(values, list | np.ndarray)), default=1)
    base = {
        "photo_id": [f"p{row}" for row in range(count)],
        "lon": [10.123 + row for row in range(count)],
        "lat": 48.5,
        "accuracy_m": None,
        "heading_deg": None,
        "fov_deg": None,
        "taken": None,
        "user": None,
        "licence": None,
        "uri": None,
        "width": None,
        "height": None,
        "tags": None,
        "place": None,
        "digest": None,
    }
    photos = pd.DataFrame(base | columns)
    photos["taken"] = pd.to_datetime(photos["taken"], utc=True, format="ISO8601").astype("datetime64[us, UTC]")
    return photos


def judged(photos, **choices):
    return Filter(FilterSettings(**choices)).reasons(photos).tolist()


# --- one photo on its own -------------------------------------------------------------------------------


def test_photos_of_other_licences_are_left_out_and_unstated_ones_kept():
    photos = table(licence=["CC BY 4.0", "All rights reserved", None, " ", "CC BY-NC 2.0"])
    assert judged(photos) == ["", "licence-not-free", "", "", "licence-not-free"]
    assert judged(photos, licences=None) == [""] * 5
    assert judged(photos, licences=("CC BY-NC 4.0",)) == ["licence-not-free"] * 2 + [""] * 3


def test_a_photo_under_several_licences_is_kept_for_the_free_one():
    assert judged(table(licence=["{{self|GFDL|cc-by-sa-3.0}}", "GFDL"])) == ["", "licence-not-free"]


def test_inaccurate_geotags_are_left_out_and_unstated_ones_kept():
    assert judged(table(accuracy_m=[5.0, 31.0, None]), max_accuracy_m=30) == ["", "inaccurate-geotag", ""]


def test_the_first_day_counts_and_the_last_does_not():
    photos = table(taken=["2020-12-31T23:59:59Z", "2021-01-01", "2021-12-31T23:59:59Z", "2022-01-01", None])
    reasons = ["before-since", "", "", "after-until", "no-date"]
    assert judged(photos, since="2021-01-01", until="2022-01-01") == reasons
    assert judged(photos, since=date(2021, 1, 1), until="2022") == reasons
    assert judged(photos) == [""] * 5


def test_a_yaml_date_is_a_date(tmp_path):
    path = tmp_path / "filters.yaml"
    path.write_text("since: 2021-01-01\nuntil: '2022-01-01'\nlicences: null\n")
    found = settings_from(FilterSettings, path)
    assert (found.since, found.until, found.licences) == (date(2021, 1, 1), "2022-01-01", None)


def test_night_photos_are_left_out_only_when_asked_and_only_with_a_time():
    photos = table(
        lon=[-0.1] * 4, lat=51.5, taken=["2024-06-21T12:00Z", "2024-06-21T00:00Z", None, "2024-12-21T17:00Z"]
    )
    assert judged(photos, night=False) == ["", "night", "", "night"]
    assert judged(photos) == [""] * 4


def test_panoramas_are_known_by_shape_view_and_word():
    photos = table(
        width=[2000, 1999, None, 600, 600], height=[1000, 1000, None, 400, 1300], fov_deg=[None, 150, 151, None, None]
    )
    assert judged(photos, panoramas=False) == ["panorama", "", "panorama", "", ""]
    assert judged(photos) == [""] * 5
    photos["panorama"] = [None, True, None, False, None]
    assert judged(photos, panoramas=False) == ["panorama", "panorama", "panorama", "", ""]


def test_nullable_columns_are_read_as_well_as_plain_ones():
    photos = table(
        width=[2000, None], height=[1000, None], accuracy_m=[1.0, None], user=["a", None], licence=["cc0", None]
    )
    photos = photos.astype({"width": "Int32", "height": "Int32", "accuracy_m": "float32", "user": "string"})
    photos = photos.astype({"licence": "string", "digest": "string", "uri": "string", "photo_id": "string"})
    choices = {"panoramas": False, "max_accuracy_m": 10, "max_per_user": 1}
    assert judged(photos, **choices) == ["panorama", ""]


def test_positions_on_a_country_and_on_whole_degrees_are_left_out_unless_wanted():
    photos = table(lon=[2.213749, 2.2160, 77.0, 77.0, -97.0], lat=[46.227638, 46.227638, 21.0, 21.01, 38.0])
    assert judged(photos) == ["country-centroid", "", "rounded-position", "", "country-centroid"]
    assert judged(photos, centroids=True) == [""] * 5


def test_a_photo_counts_for_the_first_reason_only():
    photos = table(licence=["all rights reserved"], accuracy_m=[500.0], lon=[2.0], lat=[46.0])
    assert judged(photos, max_accuracy_m=10) == ["licence-not-free"]


# --- doubles ----------------------------------------------------------------------------------------------


def test_photos_of_one_user_place_and_minute_are_duplicates():
    photos = table(
        user=["a", "a", "b", "a", "a", None, None],
        lon=[10.0] * 4 + [10.001, 10.0, 10.000001],
        taken=[f"2024-06-01T12:00:{second}Z" for second in ("05", "55", "05")]
        + ["2024-06-01T12:01:05Z"]
        + ["2024-06-01T12:00:05Z"] * 3,
    )
    assert judged(photos) == ["", "duplicate", "", "", "", "", "duplicate"]


def test_photos_without_a_time_are_never_duplicates():
    assert judged(table(user=["a", "a"], lon=[10.0, 10.0])) == ["", ""]


def test_photos_without_a_digest_are_never_the_same_file():
    assert judged(table(digest=["x", None, None, "x"])) == ["", "", "", "duplicate-content"]


def test_a_photo_that_was_left_out_is_no_original():
    photos = table(
        photo_id=["a", "a", "b", "c", "b"],
        licence=["all rights reserved", None, None, None, None],
        digest=[None, "x", "x", None, "y"],
    )
    assert judged(photos) == ["licence-not-free", "", "duplicate-content", "", ""]


def naive(photos):
    """One photo after the other, with sets."""
    seen = set()
    for photo in photos.itertuples():
        minute = None if photo.taken is pd.NaT else photo.taken.floor("min")
        place = (round(photo.lon * 1e5), round(photo.lat * 1e5))
        keys = {"duplicate-id": photo.photo_id, "duplicate-content": photo.digest}
        keys["duplicate"] = minute and (photo.user, minute, place)
        mine = [(name, key) for name, key in keys.items() if key is not None]
        reason = next((name for name, key in mine if (name, key) in seen), "")
        if not reason:
            seen.update(mine)
        yield reason


few = st.integers(0, 3)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(few, few, few, few, st.booleans()), min_size=1, max_size=30), st.integers(1, 30))
def test_doubles_are_those_of_a_naive_loop_whatever_the_batches(rows, size):
    ids, digests, users, places, timed = zip(*rows, strict=True)
    photos = table(
        photo_id=[f"p{number}" for number in ids],
        digest=[f"d{number}" if number else None for number in digests],
        user=[f"u{number}" if number else None for number in users],
        lon=[10 + number / 1000 for number in places],
        taken=["2024-06-01T12:00Z" if known else None for known in timed],
    )
    found = Filter(FilterSettings(centroids=True))
    batches = [found.reasons(photos[start : start + size]) for start in range(0, len(photos), size)]
    assert pd.concat(batches).tolist() == list(
        naive(photos.astype({"user": object, "digest": object}).replace(np.nan, None))
    )


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 20), max_size=20), max_size=12))
def test_seen_hashes_are_a_set(batches):
    seen, known = SeenHashes(), set()
    for batch in batches:
        values = np.array(batch, np.uint64)
        assert seen.holds(values).tolist() == [value in known for value in batch]
        seen.add(values)
        known |= set(batch)


def test_near_duplicates_are_left_out_among_neighbours_only(tmp_path):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
    other = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "a.jpg", quality=95)
    picture.resize((320, 240)).save(tmp_path / "b.jpg", quality=60)
    other.save(tmp_path / "c.jpg")
    names = ["a.jpg", "b.jpg", "c.jpg", "b.jpg", "absent.jpg", "absent.jpg"]
    photos = table(lon=[10.0, 10.005, 10.005, 10.5, 10.0, 10.0], uri=[str(tmp_path / name) for name in names])
    assert judged(photos, perceptual=6) == ["", "near-duplicate", "", "", "", ""]
    photos.loc[1, "uri"] = "https://example.org/b.jpg"
    assert judged(photos, perceptual=6) == [""] * 6


# --- caps -------------------------------------------------------------------------------------------------


def drawn(photos, size, **choices):
    found = Filter(FilterSettings(centroids=True, **choices))
    for start in range(0, len(photos), size):
        found.reasons(photos[start : start + size])
    out = among(id_hashes(photos["photo_id"]), found.capped())
    return photos[~out], found.cap_counts()


def test_caps_leave_out_what_is_beyond_them_and_nothing_else():
    rng = np.random.default_rng(0)
    users = rng.choice(["a", "b", "c", None], 400)
    photos = table(lon=10 + rng.integers(0, 20, 400) / 100, user=users)
    kept, counts = drawn(photos, 70, max_per_user=30, max_per_place=9)
    assert kept["user"].value_counts().max() <= 30
    assert kept["lon"].value_counts().max() <= 9
    assert counts["user-cap"] == sum(max(0, (users == user).sum() - 30) for user in "abc")
    assert len(kept) == 400 - sum(counts.values())


def test_photos_without_a_user_are_not_capped_by_user():
    kept, counts = drawn(table(lon=[10.0 + row for row in range(9)], user=[None] * 9), 4, max_per_user=2)
    assert (len(kept), counts) == (9, {})


def test_the_draw_depends_on_the_ids_alone():
    photos = table(lon=[10.0] * 60, user=["a"] * 30 + ["b"] * 30)
    first, _ = drawn(photos, 7, max_per_user=5, max_per_place=8)
    again, _ = drawn(photos.sample(frac=1, random_state=1), 60, max_per_user=5, max_per_place=8)
    assert sorted(first["photo_id"]) == sorted(again["photo_id"])
    assert first["photo_id"].tolist() != photos["photo_id"].tolist()[: len(first)]


def test_without_caps_nothing_is_left_out_later():
    found = Filter(FilterSettings())
    found.reasons(table(lon=[10.1] * 3))
    assert (found.capped().tolist(), found.cap_counts()) == ([], {})


def test_id_hashes_are_the_same_in_every_run():
    assert id_hashes(["walk/1", ""]).tolist() == id_hashes(pd.Series(["walk/1", None], dtype="string")).tolist()
    assert id_hashes(["walk/1"]).tolist() == [1244447261437101598]


# --- places -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.floats(-180, 180), st.floats(-84, 84), st.sampled_from([10.0, 100.0, 1000.0]))
def test_a_cell_is_about_as_wide_as_high_everywhere(lon, lat, side):
    east = np.arange(0, 4 * side, side / 50) / 111_195 / np.cos(np.radians(lat))
    _, widths = np.unique(place_cells(lon + east, np.full_like(east, lat), side), return_counts=True)
    assert 1 <= max(widths) / 50 < 1.15


@settings(deadline=None, max_examples=500)
@given(st.floats(-180, 180), st.floats(-84, 84), st.floats(-0.98, 0.98), st.floats(-0.98, 0.98))
def test_a_neighbourhood_holds_all_within_a_side(lon, lat, east, north):
    beside_lat = lat + north * 1000 / 111_195
    beside_lon = lon + east * 1000 / 111_195 / np.cos(np.radians(lat))
    cells = neighbourhoods([lon], [lat], 1000.0)[0]
    assert place_cells([beside_lon], [beside_lat], 1000.0)[0] in cells


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choice",
    [
        {"max_accuracy_m": 0},
        {"max_per_user": 0},
        {"max_per_place": -1},
        {"place_m": 0},
        {"place_m": float("nan")},
        {"perceptual": 33},
        {"since": "yesterday-ish"},
        {"until": ""},
        {"since": "2022-01-01", "until": "2021-01-01"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(choice):
    with pytest.raises(BadSetting, match=next(iter(choice))):
        FilterSettings(**choice)
