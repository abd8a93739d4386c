import json

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from geograft.errors import UnreadableTable
from geograft.geoparquet import coordinates, geo_metadata, geometry_crs, point_column, square_column

LON, LAT = np.array([9.0, -179.5, 0.0]), np.array([45.0, -17.25, 83.9])
SQUARES = np.array([[[0, 1], [1, 1], [1, 0], [0, 0]], [[179.9, 1], [180.1, 1], [180.1, 0], [179.9, 0]]], float)


def write(path, column, **about):
    schema = pa.schema([("geometry", column.type)], metadata=geo_metadata(**about))
    pq.write_table(pa.table([column], schema=schema), path)
    return path


def of_shapes(shapes, **options):
    """Shapes as the WKB that other tools may write."""
    return pa.array([None if shape is None else shapely.to_wkb(shape, **options) for shape in shapes], pa.binary())


def test_points_read_in_geopandas_and_back(tmp_path):
    column = point_column(LON, LAT)
    found = gpd.read_parquet(write(tmp_path / "points.parquet", column, kind="Point"))
    assert found.crs.to_epsg() == 4326
    assert found.geometry.x.tolist() == LON.tolist()
    assert found.geometry.y.tolist() == LAT.tolist()
    assert [values.tolist() for values in coordinates(column)] == [LON.tolist(), LAT.tolist()]


def test_squares_read_in_geopandas(tmp_path):
    path = write(tmp_path / "squares.parquet", square_column(SQUARES), kind="Polygon", bounds=(0, 0, 180.1, 1))
    found = gpd.read_parquet(path)
    assert found.geometry.geom_equals(gpd.GeoSeries(shapely.polygons(SQUARES), crs=4326)).all()
    assert found.geometry.is_valid.all()
    about = json.loads(pq.read_schema(path).metadata[b"geo"])["columns"]["geometry"]
    assert about["bbox"] == [0, 0, 180.1, 1]
    assert about["geometry_types"] == ["Polygon"]


def test_no_points_and_no_squares_are_columns_too(tmp_path):
    assert len(square_column(np.empty((0, 4, 2)))) == 0
    found = gpd.read_parquet(write(tmp_path / "none.parquet", point_column(LON[:0], LAT[:0]), kind="Point"))
    assert found.empty
    assert [len(values) for values in coordinates(pa.array([], pa.binary()), "EPSG:32632")] == [0, 0]


def test_points_that_geopandas_wrote_are_read(tmp_path):
    gpd.GeoDataFrame(geometry=gpd.points_from_xy(LON, LAT), crs=4326).to_parquet(tmp_path / "points.parquet")
    table = pq.read_table(tmp_path / "points.parquet")
    assert geometry_crs(table.schema, "points.parquet") is None
    lon, lat = coordinates(table["geometry"].combine_chunks())
    assert (lon.tolist(), lat.tolist()) == (LON.tolist(), LAT.tolist())


@pytest.mark.parametrize("epsg", [32632, 3857, 4258, 3035])
def test_points_of_any_crs_come_in_degrees(tmp_path, epsg):
    frame = gpd.GeoDataFrame(geometry=gpd.points_from_xy([9.0, 10.5], [45.0, 50.25]), crs=4326).to_crs(epsg)
    frame.to_parquet(tmp_path / "points.parquet")
    table = pq.read_table(tmp_path / "points.parquet")
    lon, lat = coordinates(table["geometry"].combine_chunks(), geometry_crs(table.schema, "points.parquet"))
    assert lon == pytest.approx([9.0, 10.5], abs=1e-5)
    assert lat == pytest.approx([45.0, 50.25], abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"byte_order": 0}, {"byte_order": 1}, {"include_srid": True}, {"byte_order": 0, "include_srid": True}],
    ids=["big-endian", "little-endian", "ewkb", "big-endian-ewkb"],
)
def test_points_in_any_form_of_wkb_are_read(options):
    shapes = shapely.set_srid(shapely.points(LON, LAT), 4326)
    lon, lat = coordinates(of_shapes(shapes, **options))
    assert (lon.tolist(), lat.tolist()) == (LON.tolist(), LAT.tolist())


@pytest.mark.parametrize("flavor", ["iso", "extended"])
def test_the_height_of_points_is_left_out(flavor):
    shapes = shapely.points(LON, LAT, 100.0)
    lon, lat = coordinates(of_shapes(shapes, flavor=flavor))
    assert (lon.tolist(), lat.tolist()) == (LON.tolist(), LAT.tolist())


def test_missing_and_empty_points_have_no_position():
    column = of_shapes([shapely.Point(9, 45), None, shapely.Point(), shapely.Point(1, 2, 3)])
    for crs, expected in ((None, [9.0, np.nan, np.nan, 1.0]), ("EPSG:4326", [9.0, np.nan, np.nan, 1.0])):
        np.testing.assert_allclose(coordinates(column, crs)[0], expected)


def test_points_beyond_a_projection_have_no_position():
    lon, lat = coordinates(point_column(np.array([500_000.0, np.inf]), np.array([5e6, 0.0])), "EPSG:32632")
    assert np.isfinite([lon[0], lat[0]]).all()
    assert np.isnan([lon[1], lat[1]]).all()


def test_a_slice_of_a_column_is_read_from_its_start():
    lon, _ = coordinates(point_column(LON, LAT)[1:])
    assert lon.tolist() == LON[1:].tolist()


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (of_shapes([shapely.box(0, 0, 1, 1)]), "must be a point"),
        (of_shapes([shapely.MultiPoint([(0, 0)])]), "must be a point"),
        (of_shapes([shapely.Point(0, 0), shapely.LineString([(0, 0), (1, 1)])]), "must be a point"),
        (pa.array([b"POINT (9 45)"]), "no WKB"),
        (pa.array(["POINT (9 45)"]), "no WKB"),
    ],
    ids=["square", "multipoint", "line", "bytes", "text"],
)
def test_what_is_no_point_is_refused(column, said):
    with pytest.raises(UnreadableTable, match=said):
        coordinates(column)


@pytest.mark.parametrize(
    "geo",
    [
        None,
        "{",
        "[]",
        "{}",
        '{"columns": {"shape": {"encoding": "WKB"}}}',
        '{"columns": {"geometry": {"encoding": "point"}}}',
        '{"columns": {"geometry": {"encoding": "WKB", "crs": null}}}',
    ],
    ids=["none", "broken", "list", "empty", "other-column", "other-encoding", "no-crs"],
)
def test_a_table_that_says_no_crs_is_refused(geo):
    schema = pa.schema([("geometry", pa.binary())], metadata={"geo": geo} if geo else None)
    with pytest.raises(UnreadableTable, match=r"t\.parquet is no GeoParquet with a CRS"):
        geometry_crs(schema, "t.parquet")


def test_a_crs_that_is_not_said_at_all_is_degrees():
    geo = json.dumps({"columns": {"geometry": {"encoding": "WKB"}}})
    assert geometry_crs(pa.schema([("geometry", pa.binary())], metadata={"geo": geo}), "t.parquet") is None
