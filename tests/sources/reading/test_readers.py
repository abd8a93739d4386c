import json
import tracemalloc

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geograft.errors import BadCoordinates, BadSetting, EmptyTable, MissingInput, UnreadableTable
from geograft.sources.reading import delimited
from geograft.sources.reading.delimited import Layout
from geograft.sources.reading.readers import find_tables, format_of, open_table


def write(tmp_path, text, name="photos.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path, layout=None, wanted=None):
    """All rows of a table as text, and how many were broken."""
    table = open_table(path, layout or Layout())
    batches = list(table.read(set(wanted or table.names)))
    rows = pd.concat([batch.table.to_pandas() for batch in batches], ignore_index=True)
    return rows, sum(batch.broken for batch in batches)


# --- separated cells --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_separators_are_found(tmp_path, mark):
    rows, broken = read(write(tmp_path, f"file{mark}lat{mark}lon\nKüste.jpg{mark}1{mark}2\n"))
    assert (rows.to_numpy().tolist(), broken) == ([["Küste.jpg", "1", "2"]], 0)


def test_only_the_columns_that_are_wanted_are_read(tmp_path):
    rows, _ = read(write(tmp_path, "a,b,c\n1,2,3\n"), wanted=["c", "a"])
    assert rows.columns.tolist() == ["a", "c"]


def test_cells_of_the_usual_kinds_hold_nothing(tmp_path):
    rows, _ = read(write(tmp_path, 'a,b\n,NA\n"",\\N\nnull,x\n'))
    assert rows.notna().sum().sum() == 1


def test_repeated_column_names_are_told_apart(tmp_path):
    rows, _ = read(write(tmp_path, "a,a\n1,2\n"))
    assert rows.columns.tolist() == ["a", "a.2"]


def test_rows_of_too_many_or_too_few_cells_are_counted_and_the_others_stay(tmp_path):
    rows, broken = read(write(tmp_path, "a,b\n1,2\n1,2,3\n1\n\n3,4\n"))
    assert (rows.a.tolist(), broken) == (["1", "3"], 2)


def test_cells_may_hold_separators_line_ends_and_quotes(tmp_path):
    rows, broken = read(write(tmp_path, 'a,b\n"x,y","two\nlines"\n"say ""hi""",5" pipe\n'))
    assert rows.to_numpy().tolist() == [["x,y", "two\nlines"], ['say "hi"', '5" pipe']]
    assert broken == 0


def test_a_stray_quote_spoils_its_own_row_only(tmp_path):
    good = "".join(f"{n},ok\n" for n in range(2000))
    rows, broken = read(write(tmp_path, f'a,b\n0,"open\n{good}0,"again\n{good}'))
    assert len(rows) + broken == 4002
    assert broken <= 2
    assert (rows.b == "ok").sum() >= 4000


def test_quotes_within_cells_are_inches_and_no_quotes(tmp_path):
    rows, broken = read(write(tmp_path, 'a,b\n1,5" pipe\n2,6" pipe\n3,"two\nlines"\n4,7" pipe\n'))
    assert (rows.b.tolist(), broken) == (['5" pipe', '6" pipe', "two\nlines", '7" pipe'], 0)


def test_a_line_of_fifty_megabytes_is_one_broken_row_and_needs_little_memory(tmp_path):
    path = tmp_path / "long.csv"
    with path.open("wb") as file:
        file.write(b"a,b\n1,2\n3,")
        for _ in range(50):
            file.write(b"x" * 2**20)
        file.write(b"\n5,6\n")
    tracemalloc.start()
    rows, broken = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (rows.a.tolist(), broken) == (["1", "5"], 1)
    assert peak < 45 * 2**20


def test_bare_carriage_returns_and_odd_line_ends_spoil_their_row_only(tmp_path):
    rows, broken = read(write(tmp_path, 'a,b\r\n1,x\r\n2,"y\r\n3,\r4\r\n5,z\u2028z\r\n'))
    assert {"1", "5"} <= set(rows.a)
    assert len(rows) + broken <= 5


def test_a_table_without_a_header_is_read_by_the_names_that_are_given(tmp_path):
    layout = Layout(separator="\t", quotes=False, header=("id", "say"))
    rows, broken = read(write(tmp_path, '1\t"a\n2\tb\n3\n', "t.tsv"), layout)
    assert (rows.say.tolist(), broken) == (['"a', "b"], 1)


@pytest.mark.parametrize("quotes", [True, False])
def test_a_block_that_arrow_refuses_is_read_line_by_line_to_the_same_rows(tmp_path, monkeypatch, quotes):
    path = write(tmp_path, 'a,b\n"x, y",1\n2,3\n4\nnull,5\n' if quotes else "a,b\n1,2\n3\nnull,4\n")
    fast = read(path, Layout(quotes=quotes))

    def refuse(*_):
        raise pa.ArrowInvalid("out of sync")

    monkeypatch.setattr(delimited.arrow_csv, "read_csv", refuse)
    slow = read(path, Layout(quotes=quotes))
    assert fast[0].fillna("-").to_numpy().tolist() == slow[0].fillna("-").to_numpy().tolist()
    assert fast[1] == slow[1] == 1


def test_an_empty_file_is_named_and_a_header_alone_has_no_rows(tmp_path):
    with pytest.raises(EmptyTable, match="is empty"):
        read(write(tmp_path, ""))
    assert len(read(write(tmp_path, "file,lat,lon\n"))[0]) == 0


# --- records ----------------------------------------------------------------------------------------------


def test_lines_of_records_have_dotted_names_and_broken_ones_are_counted(tmp_path):
    lines = [{"id": 1, "geometry": {"type": "Point", "coordinates": [9.1, 47.2]}}, {"id": 2, "tags": ["a", "b"]}]
    text = "\n".join([*map(json.dumps, lines), "{broken", "7", '{"id": true}'])
    rows, broken = read(write(tmp_path, text, "r.jsonl"))
    assert (rows.id.tolist(), broken) == (["1", "2", "true"], 2)
    assert rows["geometry.coordinates.1"].tolist()[0] == "47.2"
    assert rows.tags.tolist()[1] == "a,b"


def test_half_characters_and_endless_nesting_are_no_traceback(tmp_path):
    rows, broken = read(write(tmp_path, '{"id": "a\\ud800"}\n' + "[" * 100_000 + "\n", "r.jsonl"))
    assert (rows.id.tolist(), broken) == (["a?"], 1)


def test_feature_sequences_are_read_line_by_line(tmp_path):
    feature = {"type": "Feature", "properties": {"id": "a"}, "geometry": {"type": "Point", "coordinates": [9, 47]}}
    rows, broken = read(write(tmp_path, f"\x1e{json.dumps(feature)}\n\x1e{{\n", "r.geojsonl"))
    assert rows[["id", "geometry.coordinates.0"]].to_numpy().tolist() == [["a", "9"]]
    assert broken == 1


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"photos": {"photo": [{"id": "a"}]}}, "photos.photo"),
        ({"query": {"pages": {"17": {"id": "a"}}}}, "query.pages"),
        ([{"id": "a"}], None),
        ([{"id": "a"}], "photos.photo"),
        ({"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"id": "a"}}]}, None),
    ],
)
def test_a_document_holds_its_records_where_it_is_said(tmp_path, document, where):
    rows, _ = read(write(tmp_path, json.dumps(document), "d.json"), Layout(records=where))
    assert rows.id.tolist() == ["a"]


def test_a_document_without_records_or_cut_short_is_named(tmp_path):
    with pytest.raises(UnreadableTable, match=r"records: photos\.photo"):
        read(write(tmp_path, '{"stat": "fail"}', "d.json"), Layout(records="photos.photo"))
    with pytest.raises(UnreadableTable, match="no whole JSON document"):
        read(write(tmp_path, '[{"id": 1}', "d.json"))


# --- geometries -------------------------------------------------------------------------------------------


def points(crs="EPSG:4326"):
    frame = {"file": ["a.jpg", "b.jpg", "c.jpg"]}
    return gpd.GeoDataFrame(frame, geometry=gpd.points_from_xy([9.1, 9.2, None], [47.1, 47.2, None]), crs=4326).to_crs(
        crs
    )


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:2056", "OGC:CRS84"])
@pytest.mark.parametrize("name", ["p.parquet", "p.geojson", "p.gpkg"])
def test_points_come_out_in_degrees_whatever_their_reference_system(tmp_path, crs, name):
    path = tmp_path / name
    if name.endswith(".parquet"):
        points(crs).to_parquet(path)
    else:
        points(crs if name.endswith("gpkg") else "EPSG:4326").to_file(path)
    rows, _ = read(path)
    assert rows["geometry.coordinates.0"].round(6).tolist()[:2] == [9.1, 9.2]
    assert rows["geometry.coordinates.1"].round(6).tolist()[:2] == [47.1, 47.2]
    assert rows["geometry.coordinates.0"].isna().tolist() == [False, False, True]
    assert rows.file.tolist() == ["a.jpg", "b.jpg", "c.jpg"]


def test_native_points_are_read_too(tmp_path):
    points().to_parquet(tmp_path / "p.parquet", geometry_encoding="geoarrow")
    assert read(tmp_path / "p.parquet")[0]["geometry.coordinates.1"].round(6).tolist()[:2] == [47.1, 47.2]


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("name", ["p.parquet", "p.gpkg"])
def test_points_without_a_reference_system_are_refused(tmp_path, name):
    bare = points().set_crs(None, allow_override=True)
    if name.endswith(".parquet"):
        bare.to_parquet(tmp_path / name)
    else:
        bare.to_file(tmp_path / name)
    with pytest.raises(BadCoordinates, match="coordinate reference system"):
        read(tmp_path / name)


def test_what_is_no_point_has_no_position(tmp_path):
    points("EPSG:3857").buffer(9).to_frame("geometry").assign(file="a").to_parquet(tmp_path / "p.parquet")
    assert read(tmp_path / "p.parquet")[0]["geometry.coordinates.0"].isna().all()


def test_structs_have_dotted_names(tmp_path):
    table = pa.table({"id": [1], "location": [{"lat": 47.0, "at": {"lon": 9.0}}]})
    pq.write_table(table, tmp_path / "s.parquet")
    rows, _ = read(tmp_path / "s.parquet", wanted=["id", "location.lat", "location.at.lon"])
    assert rows.iloc[0].to_dict() == {"id": 1, "location.lat": 47.0, "location.at.lon": 9.0}


@pytest.mark.parametrize("keep", [0.5, 0.99, 4])
def test_a_parquet_file_cut_short_is_named(tmp_path, keep):
    path = tmp_path / "p.parquet"
    points().to_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)] if keep < 1 else content[:keep])
    with pytest.raises(UnreadableTable, match="cut short or damaged"):
        read(path)


def test_a_parquet_file_damaged_inside_is_named(tmp_path):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"file": [f"{n}.jpg" for n in range(10_000)]}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36
    path.write_bytes(content)
    with pytest.raises(UnreadableTable, match="cut short or damaged"):
        read(path)


def test_a_broken_geojson_is_named(tmp_path):
    with pytest.raises(UnreadableTable, match="cut short or damaged"):
        read(write(tmp_path, '{"type": "FeatureCollection", "features": [', "p.geojson"))


# --- finding tables ---------------------------------------------------------------------------------------


def test_a_folder_or_a_pattern_names_its_tables_and_not_what_runs_left(tmp_path):
    for name in ("b.csv", "a.csv.gz", "c.parquet", "c.manifest.json", ".d.part.parquet", "notes.md", "out.parquet"):
        write(tmp_path, "x", name)
    found = find_tables(tmp_path, leave_out=[tmp_path / "out.parquet"])
    assert [path.name for path in found] == ["a.csv.gz", "b.csv", "c.parquet"]
    assert [path.name for path in find_tables(str(tmp_path / "*.csv"))] == ["b.csv"]
    with pytest.raises(MissingInput):
        find_tables(tmp_path / "none*")


def test_formats_go_by_the_suffix_and_others_are_named(tmp_path):
    assert (format_of(tmp_path / "a.CSV.GZ"), format_of(tmp_path / "a.parquet.gz")) == ("delimited", None)
    with pytest.raises(BadSetting, match=r"\.csv"):
        open_table(write(tmp_path, "x", "a.xlsx"), Layout())
