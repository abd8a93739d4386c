from collections import Counter

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

from geograft.errors import EmptyTable, MissingColumns, MissingInput, UnreadableTable
from geograft.hashing import hash_ids
from geograft.pairs.planning import intake, photo_rows
from geograft.pairs.planning.intake import read_photos
from geograft.pairs.times import NEVER

DAY = pd.Timestamp("2024-06-01T12:00", tz="UTC")


@pytest.fixture
def write(tmp_path):
    """A factory of photo tables at positions in degrees."""

    def make(lon, lat, name="photos.parquet", crs=4326, **columns):
        count = len(lon)
        usual = {"photo_id": [f"p{row}" for row in range(count)], "accuracy_m": 8.0, "heading_deg": 90.0, "taken": DAY}
        usual |= {"user": "ann", "licence": "CC0", "uri": [f"/nowhere/{row}.jpg" for row in range(count)]}
        shapes = gpd.GeoSeries(gpd.points_from_xy(lon, lat), crs=4326).to_crs(crs)
        gpd.GeoDataFrame(pd.DataFrame(usual | columns, index=range(count)), geometry=shapes).to_parquet(tmp_path / name)
        return tmp_path / name

    return make


def read(*paths, seed=0):
    skipped = Counter()
    return read_photos(paths, seed=seed, skipped=skipped), +skipped


def listed(photos):
    """The photos as rows that compare, in order; the row's number in the tables left out."""
    places = [photos.places[code] if code >= 0 else None for code in photos.place]
    columns = (photos.ids.to_pylist(), photos.lon.tolist(), photos.lat.tolist(), photos.taken.tolist())
    rest = (photos.accuracy.tolist(), photos.heading.tolist(), photos.user.tolist(), places)
    return list(zip(*columns, *rest, strict=True))


def test_photos_come_in_an_order_that_hangs_on_id_and_seed_only(write):
    lon, lat = np.random.default_rng(0).uniform(-80, 80, (2, 40))
    path = write(lon, lat)
    photos, skipped = read(path)
    assert not skipped
    assert (np.diff(hash_ids(photos.ids, "visit 0").astype(object)) > 0).all()
    assert photos.row.tolist() != sorted(photos.row.tolist())
    assert photos.ids.to_pylist() == [f"p{row}" for row in photos.row]
    assert photos.lon.tolist() == lon[photos.row].tolist()
    assert photos.lat.tolist() == lat[photos.row].tolist()
    assert read(path, seed=1)[0].ids != photos.ids
    frame = gpd.read_parquet(path)
    frame.iloc[25:].sample(frac=1, random_state=1).to_parquet(path.with_name("x.parquet"))
    frame.iloc[:25].to_parquet(path.with_name("y.parquet"))
    assert listed(read(path.with_name("x.parquet"), path.with_name("y.parquet"))[0]) == listed(photos)


def test_small_batches_give_the_same(write, monkeypatch):
    path = write(np.arange(10), np.arange(10), place=["a", None, "b", "b", None, "c", "a", "d", "b", "c"])
    whole = listed(read(path)[0])
    monkeypatch.setattr(intake, "_BATCH", 3)
    photos, _ = read(path)
    assert listed(photos) == whole
    assert photos.places == ("a", "b", "c", "d")


@pytest.mark.parametrize("crs", [32632, 3857, "OGC:CRS84", 4258])
def test_positions_of_any_crs_come_in_degrees(write, crs):
    photos, _ = read(write([9.25, 10.5], [45.0, 50.0], crs=crs))
    order = np.argsort(photos.lon)
    assert photos.lon[order] == pytest.approx([9.25, 10.5], abs=1e-5)
    assert photos.lat[order] == pytest.approx([45.0, 50.0], abs=1e-5)


def test_numbers_and_times_as_text_are_read_and_junk_is_unknown(write):
    path = write(
        [1, 2, 3],
        [1, 2, 3],
        accuracy_m=["5.5", "near", None],
        heading_deg=[90, 180, 270],
        taken=["2024-06-01T12:00Z", "then", None],
        user=[7, 8, 7],
    )
    photos = read(path)[0]
    photos = photos.take(np.argsort(photos.lon))
    assert photos.taken.tolist() == [int(DAY.timestamp() * 1e6), NEVER, NEVER]
    np.testing.assert_array_equal(photos.accuracy, np.float32([5.5, np.nan, np.nan]))
    assert photos.heading.tolist() == [90, 180, 270]
    assert photos.user[0] == photos.user[2] != photos.user[1]


def test_unknown_users_are_no_user(write):
    photos = read(write([1, 2, 3], [1, 2, 3], user=[None, "ann", ""]))[0]
    users = dict(zip(photos.ids.to_pylist(), photos.user.tolist(), strict=True))
    assert users["p0"] == 0
    assert len(set(users.values())) == 3


def test_columns_without_any_value_are_unknown(write):
    photos = read(write([1, 2], [1, 2], accuracy_m=None, heading_deg=None, taken=None, user=None, place=None))[0]
    assert np.isnan([photos.accuracy, photos.heading]).all()
    assert set(photos.taken) == {NEVER}
    assert set(photos.user) == {0}
    assert set(photos.place) == {-1}
    assert photos.places == ()


def test_rows_without_id_or_with_a_position_off_the_grid_are_counted(write):
    lon, lat = [1, 2, 181, 4, 5, 6, 180], [1, 85, 3, -84.001, 84, 6, -84]
    photos, skipped = read(write(lon, lat, photo_id=["a", "b", "c", "d", "e", None, "g"]))
    assert sorted(photos.ids.to_pylist()) == ["a", "e", "g"]
    assert skipped == {"no-id": 1, "bad-position": 3}


def test_missing_and_empty_geometries_are_bad_positions(write):
    path = write([1, 2, 3], [1, 2, 3])
    gpd.read_parquet(path).set_geometry([None, shapely.Point(), shapely.Point(3, 3)], crs=4326).to_parquet(path)
    photos, skipped = read(path)
    assert photos.ids.to_pylist() == ["p2"]
    assert skipped == {"bad-position": 2}


def test_places_of_several_tables_have_one_number_each(write):
    one = write([1, 2, 3], [1, 2, 3], "one.parquet", place=pd.Categorical(["walk", "alley", None]))
    two = write([4, 5], [4, 5], "two.parquet", photo_id=["q0", "q1"], place=["bay", "walk"])
    none = write([6], [6], "none.parquet", photo_id=["r0"])
    photos, _ = read(one, two, none)
    assert photos.places == ("alley", "bay", "walk")
    found = {row[0]: row[-1] for row in listed(photos)}
    assert found == {"p0": "walk", "p1": "alley", "p2": None, "q0": "bay", "q1": "walk", "r0": None}


# --- the same id twice ------------------------------------------------------------------------------------


def in_any_order(write, frame):
    """What is read of a table's rows in some orders, in one table and in two."""
    seen = []
    for seed in range(6):
        mixed = frame.sample(frac=1, random_state=seed)
        path = write([0], [0])
        halves = [path.with_name(f"{seed}-{part}.parquet") for part in range(2)]
        cut = seed % 3 * len(mixed) // 3
        for half, rows in zip(halves, (mixed.iloc[:cut], mixed.iloc[cut:]), strict=True):
            rows.to_parquet(half)
        photos, skipped = read(*halves)
        rows = [str(row) for row in pd.concat([mixed.iloc[:cut], mixed.iloc[cut:]])["tags"].iloc[photos.row]]
        seen.append((listed(photos), rows, skipped))
    return seen


@pytest.mark.parametrize("column", ["lon", "uri", "taken", "accuracy_m", "heading_deg", "user", "place", "tags"])
def test_of_rows_of_one_id_the_same_stays_whatever_the_order(write, column):
    count = 12
    other = {
        "uri": [f"/{row}.jpg" for row in range(count)],
        "taken": [DAY + pd.Timedelta(days=row) for row in range(count)],
        "accuracy_m": np.arange(count) + 0.5,
        "heading_deg": np.arange(count) * 1.0,
        "user": [f"u{row}" for row in range(count)],
        "place": [f"w{row}" for row in range(count)],
        "tags": [f"t{row}" for row in range(count)],
    }
    usual = {"uri": "/a.jpg", "place": "w", "tags": "t"}
    lon = np.arange(count) * 0.1 if column == "lon" else np.ones(count)
    varied = {} if column == "lon" else {column: other[column]}
    ids = ["one"] * 4 + ["two"] * 5 + ["three", "four", "four"]
    frame = gpd.read_parquet(write(lon, np.ones(count), **(usual | {"photo_id": ids} | varied)))
    seen = in_any_order(write, frame)
    assert all(each == seen[0] for each in seen)
    assert sorted(row[0] for row in seen[0][0]) == ["four", "one", "three", "two"]
    assert seen[0][2] == {"duplicate-id": 8}


def test_a_table_given_twice_counts_once(write):
    path = write([1, 2, 3], [1, 2, 3])
    once, twice = read(path)[0], read(path, path)
    assert listed(twice[0]) == listed(once)
    assert twice[1] == {"duplicate-id": 3}


def test_a_bad_row_does_not_hide_a_good_one_of_the_same_id(write):
    photos, skipped = read(write([1, 2, 999], [1, 2, 1], photo_id=["a", "b", "b"]))
    assert sorted(photos.ids.to_pylist()) == ["a", "b"]
    assert skipped == {"bad-position": 1}


def test_ids_whose_hashes_collide_stay_apart_in_an_order_of_their_own(write, monkeypatch):
    frame = gpd.read_parquet(write(np.arange(9), np.arange(9), photo_id=[*"abcdefgh", "a"], tags=[*"ABCDEFGH", "A2"]))
    real = hash_ids
    monkeypatch.setattr(
        intake, "hash_ids", lambda ids, salt: real(ids, salt) if salt == "user" else np.full(len(ids), 7, np.uint64)
    )
    monkeypatch.setattr(photo_rows, "BUCKET", 4)
    seen = in_any_order(write, frame)
    assert all(each == seen[0] for each in seen)
    assert [row[0] for row in seen[0][0]] == list("abcdefgh")
    assert seen[0][2] == {"duplicate-id": 1}


# --- tables that are none ---------------------------------------------------------------------------------


def test_a_table_that_is_absent_or_cut_off_is_named(write, tmp_path):
    with pytest.raises(MissingInput, match=r"none\.parquet"):
        read(tmp_path / "none.parquet")
    path = write([1, 2], [1, 2])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnreadableTable, match=r"photos\.parquet is not a whole Parquet file"):
        read(path)


@pytest.mark.parametrize("end", [1200, 3000])
def test_a_table_damaged_inside_is_named(write, end):
    path = write(np.arange(200) / 10, np.arange(200) / 10, photo_id=[f"p{row // 2}" for row in range(200)])
    content = bytearray(path.read_bytes())
    content[4:end] = bytes(end - 4)
    path.write_bytes(content)
    with pytest.raises(UnreadableTable, match=r"photos\.parquet is damaged"):
        read(path)


def test_damage_in_a_column_that_only_doubled_ids_are_compared_by_is_named(write):
    path = write(np.arange(9), np.arange(9), photo_id=["a"] * 9, tags=[f"some words {row}" for row in range(9)])
    chunk = pq.read_metadata(path).row_group(0)
    place = next(chunk.column(i) for i in range(chunk.num_columns) if chunk.column(i).path_in_schema == "tags")
    start = place.dictionary_page_offset or place.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + place.total_compressed_size] = b"\xff" * place.total_compressed_size
    path.write_bytes(content)
    with pytest.raises(UnreadableTable, match=r"photos\.parquet is damaged"):
        read(path)


def test_a_table_without_a_crs_or_with_other_shapes_is_refused(write):
    path = write([1, 2], [1, 2])
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(UnreadableTable, match="no GeoParquet"):
        read(path)
    path = write([1, 2], [1, 2])
    frame = gpd.read_parquet(path)
    frame.set_geometry([shapely.box(0, 0, 1, 1)] * 2, crs=4326).to_parquet(path)
    with pytest.raises(UnreadableTable, match="must be a point"):
        read(path)


@pytest.mark.parametrize("column", ["photo_id", "taken", "licence", "uri"])
def test_a_table_that_lacks_a_column_is_named(write, column):
    path = write([1], [1])
    gpd.read_parquet(path).drop(columns=column).to_parquet(path)
    with pytest.raises(MissingColumns, match=f"no column {column}"):
        read(path)


def test_tables_without_a_photo_are_refused(write):
    with pytest.raises(EmptyTable, match="No table was named"):
        read()
    path = write([1], [1])
    gpd.read_parquet(path).iloc[:0].to_parquet(path.with_name("empty.parquet"))
    with pytest.raises(EmptyTable, match="no rows"):
        read(path.with_name("empty.parquet"))
    assert len(read(path.with_name("empty.parquet"), path)[0]) == 1
    with pytest.raises(EmptyTable, match="No photo"):
        read(write([1], [89]))


def test_photos_are_taken_by_number_or_mask(write):
    photos, _ = read(write(np.arange(6), np.arange(6), place=list("abcabc")))
    rows = np.array([4, 0, 2])
    taken = photos.take(rows)
    assert listed(taken) == [listed(photos)[row] for row in rows]
    mask = np.isin(np.arange(6), rows)
    assert listed(photos.take(mask)) == [listed(photos)[row] for row in sorted(rows)]
    assert len(photos.take(np.zeros(6, bool))) == 0
