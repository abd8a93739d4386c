import geopandas as gpd
import pandas as pd
import pytest
import shapely

from geograft.errors import BadSetting, EmptyTable, MissingColumns, MissingInput, UnknownSensor, UnreadableTable
from geograft.pairs.planning.inputs import as_paths, read_scene_tables, unique_ids


@pytest.fixture
def write(tmp_path):
    """A factory of scene tables, one square a row, side by side."""

    def make(name="scenes.parquet", crs=4326, **columns):
        usual = {"scene_id": ["a"], "uri": ["/a.tif"], "sensor": "world-1m", "taken": pd.Timestamp("2024", tz="UTC")}
        table = pd.DataFrame(usual | columns)
        shapes = [shapely.box(row, 40, row + 1, 41) for row in range(len(table))]
        gpd.GeoDataFrame(table, geometry=gpd.GeoSeries(shapes, crs=4326).to_crs(crs)).to_parquet(tmp_path / name)
        return tmp_path / name

    return make


def test_one_path_or_several_are_a_list(tmp_path):
    assert as_paths(str(tmp_path)) == as_paths(tmp_path) == as_paths([tmp_path]) == [tmp_path]
    assert as_paths([]) == []


def test_scenes_of_several_tables_and_any_crs_come_sorted_in_degrees(write):
    one = write("one.parquet", scene_id=["c", "b"], uri=["/c.tif", "/b.tif"])
    two = write("two.parquet", crs=32632, scene_id=["a"])
    sensor, scenes = read_scene_tables([one, two], None)
    assert sensor.name == "world-1m"
    assert scenes["scene_id"].tolist() == ["a", "b", "c"]
    assert scenes.crs.to_epsg() == 4326
    assert scenes.total_bounds == pytest.approx([0, 40, 2, 41], abs=1e-6)


def test_a_sensor_must_be_known_present_and_chosen(write):
    with pytest.raises(UnknownSensor):
        read_scene_tables([write(sensor="sputnik")], None)
    with pytest.raises(UnknownSensor):
        read_scene_tables([write()], "sputnik")
    with pytest.raises(BadSetting, match="No scene is of the sensor naip"):
        read_scene_tables([write()], "naip")
    two = write(scene_id=["a", "b"], uri=["/a.tif", "/b.tif"], sensor=["world-1m", "naip"])
    with pytest.raises(BadSetting, match="several sensors"):
        read_scene_tables([two], None)
    sensor, scenes = read_scene_tables([two], "naip")
    assert sensor.name == "naip"
    assert scenes["scene_id"].tolist() == ["b"]


@pytest.mark.parametrize("chosen", [None, "world-1m"])
def test_scenes_of_no_sensor_are_left_out(write, chosen):
    table = write(scene_id=["a", "b"], uri=["/a.tif", "/b.tif"], sensor=["world-1m", None])
    assert read_scene_tables([table], chosen)[1]["scene_id"].tolist() == ["a"]
    with pytest.raises(BadSetting):
        read_scene_tables([write(sensor=None)], chosen)


def test_each_scene_counts_once_and_the_same_row_of_it_stays(write):
    later = pd.Timestamp("2025", tz="UTC")
    one = write("one.parquet", taken=[later], cloud_share=0.1)
    two = write("two.parquet", cloud_share=0.2)
    for tables in ([one, two], [two, one], [one, one, two]):
        scenes = read_scene_tables(tables, None)[1]
        assert scenes[["uri", "cloud_share"]].to_numpy().tolist() == [["/a.tif", 0.2]]


def test_scenes_of_two_regions_that_share_an_id_stay_apart(write):
    table = gpd.read_parquet(write(scene_id="same", uri=["/x/1.tif", "/y/1.tif"]))
    table = pd.concat([table, table.iloc[:1]], ignore_index=True)
    ids = unique_ids(table)["scene_id"].tolist()
    assert len(ids) == len(set(ids)) == 2
    assert ids == sorted(ids) == unique_ids(table.iloc[::-1])["scene_id"].tolist()
    assert all(name.startswith("same@") for name in ids)
    moved = table.assign(uri=table["uri"].str.replace("/y/", "/z/"))
    assert unique_ids(moved)["scene_id"].tolist() == ids


def test_tiles_of_one_address_read_for_two_regions_are_two_scenes(write):
    table = gpd.read_parquet(write(scene_id="tiles", uri=["/{z}/{x}/{y}.png"] * 2))
    found = unique_ids(pd.concat([table, table], ignore_index=True))
    assert sorted(found.geometry.bounds["minx"]) == [0, 1]
    assert found["scene_id"].is_unique


def test_scenes_that_share_id_and_footprint_get_a_number(write):
    table = gpd.read_parquet(write(scene_id="same", uri=["/1.tif", "/2.tif", "/3.tif"]))
    table = unique_ids(table.set_geometry([shapely.box(0, 40, 1, 41)] * 3, crs=4326))
    first = table["scene_id"].iloc[0]
    assert table["scene_id"].tolist() == [first, f"{first}.1", f"{first}.2"]


def test_ids_that_differ_are_left_as_they_are(write):
    table = gpd.read_parquet(write(scene_id=["same", "same", "own"], uri=["/1.tif", "/2.tif", "/3.tif"]))
    assert [name.partition("@")[0] for name in unique_ids(table)["scene_id"]] == ["own", "same", "same"]
    assert "own" in unique_ids(table)["scene_id"].tolist()


def test_tables_that_are_none_are_named(write, tmp_path):
    with pytest.raises(EmptyTable, match="No table was named"):
        read_scene_tables([], None)
    with pytest.raises(MissingInput, match=r"none\.parquet"):
        read_scene_tables([tmp_path / "none.parquet"], None)
    path = write()
    gpd.read_parquet(path).drop(columns=["uri", "taken"]).to_parquet(tmp_path / "poor.parquet")
    with pytest.raises(MissingColumns, match="no column uri, taken"):
        read_scene_tables([tmp_path / "poor.parquet"], None)
    gpd.read_parquet(path).iloc[:0].to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(EmptyTable, match="no rows"):
        read_scene_tables([tmp_path / "empty.parquet"], None)
    assert len(read_scene_tables([tmp_path / "empty.parquet", path], None)[1]) == 1
    pd.DataFrame(gpd.read_parquet(path)).assign(geometry="POLYGON").to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(UnreadableTable, match="no GeoParquet"):
        read_scene_tables([tmp_path / "plain.parquet"], None)
    gpd.read_parquet(path).set_geometry([None], crs=4326).to_parquet(tmp_path / "nowhere.parquet")
    with pytest.raises(UnreadableTable, match="without a footprint"):
        read_scene_tables([tmp_path / "nowhere.parquet"], None)
