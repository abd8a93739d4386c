import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geograft.errors import DiskFull, UnreadableTable
from geograft.pairs.planning import photo_rows
from geograft.pairs.planning.photo_rows import COLUMNS, SCHEMA, Dealt, pick_rows


def copy_rows(sources, rows, path, keep=None):
    """Write some rows of tables in an order; the buckets lie beside the file."""
    with Dealt(sources, rows, path.with_name("buckets")) as dealt:
        dealt.write(path, keep)


@pytest.fixture
def sources(tmp_path):
    """Three photo tables: of the usual columns, of another CRS and few columns, of odd types and more columns."""
    paths = [tmp_path / f"{name}.parquet" for name in ("usual", "metric", "odd")]
    lon, lat = np.arange(7) + 0.5, np.arange(7) / 10
    first = pd.DataFrame({name: None for name in COLUMNS if name not in {"geometry", "taken"}}, index=range(7))
    first = first.assign(photo_id=[f"a{row}" for row in range(7)], user="ann", accuracy_m=np.float32(8), width=640)
    first["taken"] = pd.Timestamp("2024-06-01", tz="UTC")
    gpd.GeoDataFrame(first, geometry=gpd.points_from_xy(lon, lat), crs=4326).to_parquet(paths[0])
    second = pd.DataFrame({"photo_id": [f"b{row}" for row in range(5)], "uri": "b.jpg"})
    shapes = gpd.GeoSeries(gpd.points_from_xy(9 + lon[:5] / 10, 45 + lat[:5]), crs=4326).to_crs(32632)
    gpd.GeoDataFrame(second, geometry=shapes).to_parquet(paths[1])
    third = pd.DataFrame({"photo_id": [30, 31, 32], "accuracy_m": ["5", "near", None], "width": [1.0, np.nan, 3.0]})
    third = third.assign(
        taken=["2024-06-01", "then", None], tags=[["a"], ["b"], None], user=pd.Categorical(list("xyx"))
    )
    third["vector"] = [[1.0, 2.0]] * 3
    gpd.GeoDataFrame(third, geometry=gpd.points_from_xy(lon[:3], lat[:3]), crs="OGC:CRS84").to_parquet(paths[2])
    return paths


IDS = [f"a{row}" for row in range(7)] + [f"b{row}" for row in range(5)] + ["30", "31", "32"]


@pytest.mark.parametrize("bucket", [1, 2, 4, 1000])
def test_rows_come_out_in_the_order_asked_for(sources, tmp_path, monkeypatch, bucket):
    monkeypatch.setattr(photo_rows, "BUCKET", bucket)
    rows = np.random.default_rng(bucket).permutation(15)[:11]
    copy_rows(sources, rows, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["photo_id"].to_pylist() == [IDS[row] for row in rows]
    assert table.schema.equals(SCHEMA, check_metadata=False)
    assert {path.name for path in tmp_path.iterdir()} == {
        "usual.parquet",
        "metric.parquet",
        "odd.parquet",
        "out.parquet",
    }


def test_rows_keep_what_they_hold_and_geopandas_reads_them(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(photo_rows, "BUCKET", 4)
    copy_rows(sources, np.array([8, 13, 0, 12, 14]), tmp_path / "out.parquet")
    found = gpd.read_parquet(tmp_path / "out.parquet").set_index("photo_id")
    assert found.crs.to_epsg() == 4326
    assert list(found.geometry["b1"].coords) == [pytest.approx((9.15, 45.1))]
    assert list(found.geometry["a0"].coords) == [(0.5, 0.0)]
    assert found.loc["a0", ["user", "accuracy_m", "width"]].tolist() == ["ann", 8, 640]
    assert found["user"].dropna().to_dict() == {"a0": "ann", "30": "x", "31": "y", "32": "x"}
    assert found["uri"].dropna().to_dict() == {"b1": "b.jpg"}
    day = pd.Timestamp("2024-06-01", tz="UTC")
    assert found["taken"].dropna().to_dict() == {"a0": day, "30": day}
    assert found["accuracy_m"].dropna().to_dict() == {"a0": 8, "30": 5}
    assert found["width"].dropna().to_dict() == {"a0": 640, "30": 1, "32": 3}
    assert found["tags"].isna().all()


def test_numbers_that_are_none_in_parquet_are_missing(tmp_path):
    gpd.GeoDataFrame({"photo_id": ["a"]}, geometry=gpd.points_from_xy([1], [2]), crs=4326).to_parquet(
        tmp_path / "t.parquet"
    )
    table = pq.read_table(tmp_path / "t.parquet")
    table = table.append_column("width", pa.array([np.nan])).append_column("height", pa.array([2.5]))
    pq.write_table(table, tmp_path / "t.parquet")
    copy_rows([tmp_path / "t.parquet"], np.array([0]), tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet", columns=["width", "height"]).to_pylist() == [
        {"width": None, "height": 2}
    ]


def test_the_same_rows_give_the_same_bytes_however_they_are_divided_into_tables(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(photo_rows, "BUCKET", 3)
    copy_rows(sources[:1], np.array([5, 2, 6, 0]), tmp_path / "one.parquet")
    frame = gpd.read_parquet(sources[0])
    frame.iloc[4:].to_parquet(tmp_path / "x.parquet")
    frame.iloc[:4].to_parquet(tmp_path / "y.parquet")
    copy_rows([tmp_path / "x.parquet", tmp_path / "y.parquet"], np.array([1, 5, 2, 3]), tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_no_rows_give_an_empty_table(sources, tmp_path):
    copy_rows(sources, np.empty(0, np.int64), tmp_path / "out.parquet")
    assert gpd.read_parquet(tmp_path / "out.parquet").empty


def test_a_run_that_fails_leaves_nothing_behind(sources, tmp_path, monkeypatch):
    (tmp_path / "new").mkdir()
    monkeypatch.setattr(photo_rows, "_sorted", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DiskFull):
        copy_rows(sources, np.arange(15), tmp_path / "new" / "out.parquet")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_disk_that_fills_up_while_rows_are_dealt_is_named(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(photo_rows, "_deal", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DiskFull):
        copy_rows(sources, np.arange(15), tmp_path / "out.parquet")


def test_what_a_killed_run_left_is_not_in_the_way(sources, tmp_path):
    (tmp_path / "buckets").mkdir()
    (tmp_path / "buckets" / "9.arrow").write_text("left")
    copy_rows(sources, np.arange(15), tmp_path / "out.parquet")
    assert not (tmp_path / "buckets").exists()


def test_rows_that_are_not_wanted_in_the_end_are_left_out(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(photo_rows, "BUCKET", 4)
    rows = np.array([8, 13, 0, 12, 14, 3])
    keep = np.array([True, False, True, True, False, True])
    copy_rows(sources, rows, tmp_path / "some.parquet", keep)
    copy_rows(sources, rows[keep], tmp_path / "same.parquet")
    some, same = (gpd.read_parquet(tmp_path / f"{name}.parquet") for name in ("some", "same"))
    assert some.equals(same)


def test_a_damaged_table_is_named(sources, tmp_path):
    content = bytearray(sources[0].read_bytes())
    content[4:1500] = bytes(1496)
    sources[0].write_bytes(content)
    with pytest.raises(UnreadableTable, match=r"usual\.parquet is damaged"):
        copy_rows(sources, np.arange(15), tmp_path / "out.parquet")


def test_picked_rows_come_with_their_places_and_only_the_columns_asked_for(sources, monkeypatch):
    monkeypatch.setattr(photo_rows, "BUCKET", 2)
    rows = np.array([14, 3, 0, 8])
    found = {}
    for table, place in pick_rows(sources, rows, ("uri", "photo_id")):
        assert table.column_names == ["uri", "photo_id"]
        found |= dict(zip(place.tolist(), table["photo_id"].to_pylist(), strict=True))
    assert found == {0: "32", 1: "a3", 2: "a0", 3: "b1"}
