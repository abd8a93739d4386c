import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from geograft.errors import (
    EmptyTable,
    MissingColumns,
    UnreadableTable,
)
from geograft.raster import chip_geobox, cloud_share, footprint, read, write_cog
from geograft.sources.imagery.stac import is_stac
from geograft.sources.scenes import SceneSettings, read_scenes, scene_of
from geograft.tables import read_manifest, read_table

KEYS = {"red": "B04", "green": "B03", "blue": "B02", "nir": "B08", "swir": "B11"}
GRID = {10: chip_geobox(32632, 5e5, 5e6, gsd=10, size=120), 20: chip_geobox(32632, 5e5, 5e6, gsd=20, size=60)}
AREA = shapely.geometry.mapping(footprint(GRID[10]))


def item(name="s2a", *, folder=None, baseline="05.00", value=2000, properties=None, drop=(), facts=None, **changes):
    """A Sentinel-2-like item beside its files, which are written where a folder is given."""
    assets = {}
    for k, (band, key) in enumerate(KEYS.items()):
        gsd = 20 if band == "swir" else 10
        assets[key] = {"href": f"./{name}_{key}.tif", "roles": ["data"], **(facts or {})}
        if folder is not None:
            pixels = np.full((1, *GRID[gsd].shape), value + 100 * k, np.uint16)
            write_cog(folder / f"{name}_{key}.tif", pixels, GRID[gsd], nodata=0)
    if folder is not None:
        classes = np.full(GRID[20].shape, 4, np.uint8)
        classes[:15] = 9
        write_cog(folder / f"{name}_scl.tif", classes, GRID[20], nodata=0)
        assets["SCL"] = {"href": f"./{name}_scl.tif", "roles": ["data"]}
    about = {"datetime": "2024-07-01T10:30:00Z", "eo:cloud_cover": 12.5}
    about |= {"s2:processing_baseline": baseline} if baseline else {}
    found = {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "sentinel-2-l2a",
        "geometry": AREA, "bbox": list(footprint(GRID[10]).bounds), "links": [],
        "properties": {**about, **(properties or {})},
        "assets": {key: asset for key, asset in assets.items() if key not in drop},
    }  # fmt: skip
    return {**found, **changes}


def write_item(folder, name="s2a", **options):
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(item(name, folder=folder, **options)))
    return path


def catalogue(folder, *names, kind="Catalog"):
    """A catalogue of one collection that links to the items of a folder."""
    links = [{"rel": "item", "href": f"./{name}.json"} for name in names]
    (folder / "collection.json").write_text(json.dumps({"type": "Collection", "id": "c", "links": links}))
    links = [{"rel": "root", "href": "./catalog.json"}, {"rel": "child", "href": "./collection.json"}]
    (folder / "catalog.json").write_text(json.dumps({"type": kind, "id": "r", "links": links}))
    return folder / "catalog.json"


def table_of(source, tmp_path, sensor="sentinel-2-l2a", **settings):
    summary = read_scenes(source, tmp_path / "out.parquet", sensor=sensor, settings=SceneSettings(**settings))
    return summary, read_table(summary.out)


# --- items of files ---------------------------------------------------------------------------------------


def test_an_item_becomes_a_scene_of_several_files(tmp_path):
    _, table = table_of(write_item(tmp_path), tmp_path)
    row = table.iloc[0]
    assert (row.scene_id, row.kind, row.sensor) == ("sentinel-2-l2a/s2a", "assets", "sentinel-2-l2a")
    assert (row.epsg, row.gsd, row.width, row.height) == (32632, 10.0, 120, 120)
    assert row.taken == datetime(2024, 7, 1, 10, 30, tzinfo=UTC)
    assert row.cloud_share == 0.125
    assert json.loads(row.assets) == {band: str(tmp_path / f"s2a_{key}.tif") for band, key in KEYS.items()}
    assert row.mask_uri == str(tmp_path / "s2a_scl.tif")
    assert row.geometry.equals_exact(footprint(GRID[10]), 1e-9)
    scene = scene_of(row)
    assert read(scene, GRID[10]).pixels[:, 50, 50].tolist() == [2000, 2100, 2200, 2300, 2400]
    assert cloud_share(scene, GRID[10]) == 0.25
    assert scene.taken == row.taken
    assert scene_of(row) is scene


def test_a_catalogue_is_walked_to_its_items_and_what_is_broken_is_counted(tmp_path):
    for name in ("a", "b"):
        write_item(tmp_path, name)
    write_item(tmp_path, "bare", drop=("B04", "B08"))
    write_item(tmp_path, "nowhere", geometry=None, bbox=None)
    write_item(tmp_path, "undated", properties={"datetime": None, "start_datetime": "2024-05-01T00:00:00Z"})
    write_item(tmp_path, "timeless", properties={"datetime": None})
    (tmp_path / "torn.json").write_text('{"type": "Feature", "id":')
    source = catalogue(tmp_path, "a", "b", "bare", "nowhere", "undated", "timeless", "torn", "absent", "a")
    summary, table = table_of(source, tmp_path)
    assert summary.skipped == {"no-asset": 1, "no-georeference": 1}
    assert summary.failed == {"unreadable-item": 2}
    assert table.scene_id.tolist() == [f"sentinel-2-l2a/{name}" for name in ("a", "b", "undated", "timeless")]
    assert table.taken.isna().tolist() == [False, False, False, True]
    assert table.taken[2] == datetime(2024, 5, 1, tzinfo=UTC)
    assert read_manifest(summary.out).counts == {"done": 4, "skipped": summary.skipped, "failed": summary.failed}


def test_a_collection_and_a_list_of_features_are_sources_too(tmp_path):
    write_item(tmp_path, "a")
    catalogue(tmp_path, "a")
    assert table_of(tmp_path / "collection.json", tmp_path)[0].scenes == 1
    features = [item("a"), item("a")]
    (tmp_path / "found.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    summary, _ = table_of(tmp_path / "found.geojson", tmp_path)
    assert (summary.scenes, summary.skipped) == (1, {"duplicate-id": 1})


def test_a_catalogue_that_links_to_itself_ends(tmp_path):
    write_item(tmp_path, "a")
    links = [{"rel": "child", "href": "./catalog.json"}, {"rel": "item", "href": "./a.json"}]
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "r", "links": links}))
    assert table_of(tmp_path / "catalog.json", tmp_path)[0].scenes == 1


def test_missing_files_and_files_of_another_type_are_counted(tmp_path):
    write_item(tmp_path, "a")
    write_item(tmp_path, "gone")
    (tmp_path / "gone_B08.tif").unlink()
    write_item(tmp_path, "wrong")
    write_cog(tmp_path / "wrong_B08.tif", np.ones((1, 120, 120), np.float32), GRID[10])
    summary, _ = table_of(catalogue(tmp_path, "a", "gone", "wrong"), tmp_path)
    assert (summary.scenes, summary.skipped) == (1, {"missing-file": 1, "sensor-mismatch": 1})


# --- what items state -------------------------------------------------------------------------------------

REMOTE = {
    "proj:epsg": 32632, "proj:shape": [120, 120], "proj:transform": [10.0, 0, 500000.0, 0, -10.0, 5000000.0],
}  # fmt: skip


def far(name="s2a", **options):
    """An item whose files lie on a server that nobody asks, since the item states their grid."""
    made = item(name, **options)
    for asset in made["assets"].values():
        asset["href"] = f"https://example.org/{asset['href'].removeprefix('./')}"
    return made


def row_of_item(made, tmp_path, sensor="sentinel-2-l2a"):
    (tmp_path / "item.json").write_text(json.dumps(made))
    return table_of(tmp_path / "item.json", tmp_path, sensor)[1].iloc[0]


def test_a_remote_item_that_states_its_grid_is_not_opened(tmp_path):
    row = row_of_item(far(properties=REMOTE), tmp_path)
    assert (row.epsg, row.gsd, row.width, row.height, row["shift"]) == (32632, 10.0, 120, 120, 0)
    assert json.loads(row.assets)["red"] == "https://example.org/s2a_B04.tif"


@pytest.mark.parametrize(
    ("baseline", "properties", "facts", "shift"),
    [
        ("05.00", {}, {}, 0),
        ("04.00", {}, {}, 0),
        ("02.14", {}, {}, 1000),
        ("05.00", {"earthsearch:boa_offset_applied": True}, {}, 1000),
        ("05.00", {"earthsearch:boa_offset_applied": False}, {}, 0),
        ("05.00", {"earthsearch:boa_offset_applied": True}, {"raster:bands": [{"scale": 1e-4, "offset": -0.1}]}, 1000),
        ("02.14", {}, {"raster:bands": [{"scale": 1e-4, "offset": -0.1}]}, 1000),
        (None, {}, {"raster:bands": [{"data_type": "uint16", "scale": 1e-4, "offset": -0.1}]}, 0),
        (None, {}, {"raster:bands": [{"scale": 1e-4, "offset": 0}]}, 1000),
        (None, {}, {"bands": [{"raster:scale": 1e-4, "raster:offset": -0.1}]}, 0),
        (None, {}, {"raster:offset": 0.0, "raster:scale": 1e-4}, 1000),
        (None, {"processing:version": "05.09"}, {}, 0),
    ],
)
def test_scenes_of_any_baseline_are_moved_onto_the_sensors_offset(tmp_path, baseline, properties, facts, shift):
    row = row_of_item(far(baseline=baseline, properties={**REMOTE, **properties}, facts=facts), tmp_path)
    assert row["shift"] == shift


def test_old_and_new_baselines_give_the_same_reflectance(tmp_path):
    write_item(tmp_path, "old", baseline="02.14", value=1500)
    write_item(tmp_path, "new", baseline="05.00", value=2500)
    _, table = table_of(catalogue(tmp_path, "old", "new"), tmp_path)
    old, new = (read(scene_of(row), GRID[10]) for _, row in table.iterrows())
    assert np.array_equal(old.pixels, new.pixels)
    physical = scene_of(table.iloc[0]).sensor.physical(old.pixels)
    assert physical[0, 60, 60] == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": None}, "which offset"),
        ({"facts": {"raster:bands": [{"data_type": "uint8"}]}}, "is uint8"),
        ({"facts": {"raster:bands": [{"scale": 0.001}]}}, "scale 0.001"),
        ({"drop": ("B04",)}, "no asset for red"),
        ({"geometry": {"type": "Polygon", "coordinates": "none"}}, "broken"),
    ],
)
def test_items_that_contradict_their_sensor_say_how(tmp_path, options, message):
    with pytest.raises(EmptyTable, match=message):
        row_of_item(far(**{"properties": REMOTE, **options}), tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"assets": [1, 2]}, "no-asset"),
        ({"assets": {"B04": "a.tif"}}, "no-asset"),
        ({"links": "none"}, "missing-file"),
        ({"properties": [3]}, "unreadable-scene"),
        ({"bbox": [1], "geometry": None}, "unreadable-scene"),
    ],
)
def test_an_item_that_breaks_the_standard_costs_itself_alone(tmp_path, changes, reason):
    write_item(tmp_path, "good")
    (tmp_path / "bad.json").write_text(json.dumps({**item("bad"), **changes}))
    summary, table = table_of(catalogue(tmp_path, "bad", "good"), tmp_path)
    assert (table.scene_id.tolist(), summary.skipped) == (["sentinel-2-l2a/good"], {reason: 1})


def test_common_names_stand_for_keys(tmp_path):
    made = far(properties=REMOTE)
    names = {"B04": "red", "B03": "green", "B02": "blue", "B08": "nir", "B11": "swir16"}
    made["assets"] = {
        f"x{key}": {**asset, "eo:bands": [{"name": key, "common_name": names[key]}]}
        for key, asset in made["assets"].items()
    }
    assert json.loads(row_of_item(made, tmp_path).assets)["swir"] == "https://example.org/s2a_B11.tif"


def test_an_item_of_one_file_of_all_bands_is_a_scene_of_a_file(tmp_path, make_scene):
    path = make_scene("image.tif", sensor="naip", descriptions=None, photometric="MINISBLACK", tags={})
    stated = [{"name": name, "common_name": name} for name in ("red", "green", "blue", "nir")]
    made = item("naip", assets={"image": {"href": "image.tif", "eo:bands": stated}}, collection="naip")
    row = row_of_item(made, tmp_path, "naip")
    assert (row.kind, row.uri, row.scene_id) == ("file", str(path), "naip/naip")
    assert pd.isna(row.assets)
    assert scene_of(row).bands == (1, 2, 3, 4)
    made["assets"]["image"]["eo:bands"] = stated[::-1]
    with pytest.raises(EmptyTable, match="nir, blue, green, red by its STAC item"):
        row_of_item(made, tmp_path, "naip")


def test_items_across_the_antimeridian_are_cut_there(tmp_path):
    ring = [[179, -17], [-179, -17], [-179, -16], [179, -16], [179, -17]]
    made = far(properties=REMOTE, geometry={"type": "Polygon", "coordinates": [ring]})
    row = row_of_item(made, tmp_path)
    assert row.geometry.geom_type == "MultiPolygon"
    assert row.geometry.intersects(shapely.Point(179.5, -16.5))
    assert row.geometry.intersects(shapely.Point(-179.5, -16.5))
    assert not row.geometry.intersects(shapely.Point(0, -16.5))
    boxed = row_of_item(far(properties=REMOTE, geometry=None, bbox=[179, -17, -179, -16]), tmp_path)
    assert boxed.geometry.equals(row.geometry)


def test_settings_leave_scenes_out_and_count_them(tmp_path):
    for name, cloud, day in (("a", 5, "2024-07-01"), ("b", 80, "2024-07-02"), ("c", 5, "2023-01-01")):
        write_item(tmp_path, name, properties={"eo:cloud_cover": cloud, "datetime": f"{day}T10:00:00Z"})
    source = catalogue(tmp_path, "a", "b", "c")
    summary, table = table_of(source, tmp_path, max_cloud=0.3, datetime="2024-07-01/2024-07-31")
    assert table.scene_id.tolist() == ["sentinel-2-l2a/a"]
    assert summary.skipped == {"cloudy": 1, "outside-datetime": 1}
    with pytest.raises(EmptyTable, match="3 outside-bounds"):
        table_of(source, tmp_path, bounds=(100.0, 0.0, 101.0, 1.0))


def test_the_cloud_share_is_that_of_the_mask_where_the_item_states_none(tmp_path):
    assert table_of(write_item(tmp_path, properties={"eo:cloud_cover": None}), tmp_path)[1].cloud_share[0] == 0.25


# --- stac-geoparquet --------------------------------------------------------------------------------------


def test_a_parquet_of_items_is_read_as_its_items_are(tmp_path):
    rows = []
    for name, cloud in (("a", 1.0), ("b", None)):
        made = item(name, folder=tmp_path)
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), made["bbox"], strict=True))
        about = {"id": name, "collection": made["collection"], "bbox": box, "assets": made["assets"], "links": []}
        properties = {"datetime": datetime(2024, 7, 1, 10, 30, tzinfo=UTC), "eo:cloud_cover": cloud}
        rows.append({**about, **properties, "s2:processing_baseline": "05.00", "geometry": footprint(GRID[10]).wkb})
    rows[1]["assets"]["extra"] = {"href": "https://example.org/x.tif", "roles": ["thumbnail"]}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "items.parquet")
    summary, table = table_of(tmp_path / "items.parquet", tmp_path)
    assert (summary.scenes, summary.skipped) == (2, {})
    assert table.scene_id.tolist() == ["sentinel-2-l2a/a", "sentinel-2-l2a/b"]
    assert table.cloud_share.tolist() == [0.01, 0.25]
    assert table.taken[0] == datetime(2024, 7, 1, 10, 30, tzinfo=UTC)
    assert read(scene_of(table.iloc[1]), GRID[10]).valid.all()


def test_a_parquet_of_something_else_or_a_torn_one_is_named(tmp_path):
    pd.DataFrame({"photo_id": ["a"]}).to_parquet(tmp_path / "photos.parquet")
    with pytest.raises(MissingColumns, match="no table of STAC items"):
        table_of(tmp_path / "photos.parquet", tmp_path)
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "photos.parquet").read_bytes()[:-20])
    with pytest.raises(UnreadableTable, match="damaged"):
        table_of(tmp_path / "torn.parquet", tmp_path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a.json", True),
        ("items.parquet", True),
        ("https://example.org/stac/v1", True),
        ("https://example.org/a.tif", False),
        ("https://example.org/{z}/{x}/{y}.png", False),
        ("a.tif", False),
    ],
)
def test_a_source_says_by_its_name_whether_it_is_stac(source, expected):
    assert is_stac(source) == expected
