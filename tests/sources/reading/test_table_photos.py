import json

import geopandas as gpd
import pandas as pd
import pyarrow.parquet as pq
import pytest

from geograft.errors import EmptyTable, MissingColumns
from geograft.sources.filters import FilterSettings
from geograft.sources.photos import PhotoSettings, read_photos
from geograft.sources.reading import lines
from geograft.tables import read_manifest, read_table


def rows_of(count, **values):
    """Rows of photos on other machines, a thousandth of a degree from one to the next."""
    return [
        {"id": f"r{n}", "file": f"https://example.org/{n}.jpg", "lat": 47.0123 + n / 1000, "lon": 9.0234} | values
        for n in range(count)
    ]


def read(path, out, **settings):
    summary = read_photos(path, out, settings=PhotoSettings(**settings))
    return read_table(summary.out), summary


@pytest.mark.parametrize("name", ["t.csv.gz", "t.tsv", "t.parquet", "t.geojson", "t.gpkg", "t.jsonl", "t.json"])
def test_every_format_gives_the_same_photos(tmp_path, name):
    frame = pd.DataFrame(rows_of(5, accuracy=7, heading="NW", taken="2024-07-01T10:30:00+02:00", user="ada"))
    path = tmp_path / name
    points = gpd.GeoDataFrame(frame.drop(columns=["lat", "lon"]), geometry=gpd.points_from_xy(frame.lon, frame.lat))
    if "csv" in name or "tsv" in name:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    elif name.endswith(("geojson", "gpkg")):
        points.set_crs(4326).to_file(path)
    elif name.endswith("parquet"):
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=name.endswith("jsonl"))
    table, summary = read(path, tmp_path / "out.parquet")
    assert (summary.photos, summary.skipped, summary.failed) == (5, {}, {})
    assert table.photo_id.tolist() == [f"r{n}" for n in range(5)]
    assert table.geometry.y.round(6).tolist() == [47.0123, 47.0133, 47.0143, 47.0153, 47.0163]
    assert table[["accuracy_m", "heading_deg", "user"]].drop_duplicates().to_numpy().tolist() == [[7, 315, "ada"]]
    assert (table.taken == pd.Timestamp("2024-07-01 08:30", tz="UTC")).all()
    assert set(table.source) == {"t"}


def test_several_tables_of_several_reference_systems_become_one(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    for n, crs in enumerate(["EPSG:4326", "EPSG:3857", "EPSG:2056"]):
        points = gpd.points_from_xy([9.0123], [47.0234 + n], crs=4326)
        frame = {"id": [f"p{n}"], "url": [f"https://example.org/{n}.jpg"]}
        gpd.GeoDataFrame(frame, geometry=points).to_crs(crs).to_parquet(folder / f"{n}.parquet")
    for source in (folder, folder / "*.parquet", str(folder / "[0-2].parquet")):
        table, _ = read(source, folder / "out.parquet")
        assert table.photo_id.tolist() == ["p0", "p1", "p2"]
        assert table.geometry.y.round(6).tolist() == [47.0234, 48.0234, 49.0234]
        assert set(table.source) == {"tables"}


def test_the_file_says_where_its_photos_lie(tmp_path):
    pd.DataFrame(rows_of(3)).to_csv(tmp_path / "t.csv", index=False)
    _, summary = read(tmp_path / "t.csv", tmp_path / "out.parquet")
    about = json.loads(pq.read_metadata(summary.out).metadata[b"geo"])["columns"]["geometry"]
    assert about["bbox"] == pytest.approx([9.0234, 47.0123, 9.0234, 47.0143])
    assert gpd.read_parquet(summary.out).crs.to_epsg() == 4326
    assert pq.read_metadata(summary.out).row_group(0).column(0).compression == "ZSTD"


def test_a_table_in_many_batches_is_the_same_as_in_one(tmp_path, monkeypatch):
    rows = pd.DataFrame([*rows_of(500, user="ada"), *rows_of(20)])
    rows.loc[7, "lat"] = None
    rows.to_csv(tmp_path / "t.csv", index=False)
    _, whole = read(tmp_path / "t.csv", tmp_path / "a.parquet")
    monkeypatch.setattr(lines, "CHUNK", 1000)
    _, parts = read(tmp_path / "t.csv", tmp_path / "b.parquet")
    assert whole.skipped == parts.skipped == {"duplicate-id": 19, "no-gps": 1}
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_caps_are_drawn_over_all_photos_and_counted(tmp_path):
    pd.DataFrame([*rows_of(50, user="ada"), *rows_of(3, user="bob", id="x")]).assign(
        id=[f"i{n}" for n in range(53)]
    ).to_csv(tmp_path / "t.csv", index=False)
    table, summary = read(tmp_path / "t.csv", tmp_path / "o.parquet", filters=FilterSettings(max_per_user=10))
    assert (summary.photos, summary.skipped) == (13, {"user-cap": 40})
    assert table.user.value_counts().to_dict() == {"ada": 10, "bob": 3}
    assert table.photo_id.tolist() == sorted(table.photo_id, key=lambda name: int(name[1:]))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    about = json.loads(pq.read_metadata(summary.out).metadata[b"geo"])["columns"]["geometry"]
    assert about["bbox"] == list(table.total_bounds)


def test_a_row_that_is_broken_is_counted_and_explained(tmp_path):
    text = pd.DataFrame(rows_of(3)).to_csv(index=False) + "a,b\nc\0,d,1,2\n"
    (tmp_path / "t.csv").write_bytes(text.encode() + b"x" * 2**21 + b"\n")
    _, summary = read(tmp_path / "t.csv", tmp_path / "o.parquet")
    assert (summary.photos, summary.skipped) == (3, {"broken-row": 3})
    assert "more or fewer cells" in summary.note
    assert read_manifest(summary.out).extra["notes"] == [summary.note]


def test_cells_in_the_ways_that_people_write_them_are_understood(tmp_path):
    rows = rows_of(2)
    rows[0] |= {"lat": "48,8584", "lon": "2.2945° E", "heading": "west-northwest", "taken": "31/12/2019 14:05"}
    rows[1] |= {"lat": "N48 51 30", "lon": "W 2 17 40", "heading": "unknown", "taken": "01/02/2019 00:00"}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    table, summary = read(tmp_path / "t.csv", tmp_path / "o.parquet")
    assert table.geometry.y.round(4).tolist() == [48.8584, 48.8583]
    assert table.geometry.x.round(4).tolist() == [2.2945, -2.2944]
    assert table.heading_deg.fillna(-1).tolist() == [292.5, -1]
    assert table.taken.dt.strftime("%d %m %H:%M").tolist() == ["31 12 14:05", "01 02 00:00"]
    assert summary.note is None


def test_dates_of_an_unclear_order_are_missing_until_it_is_told(tmp_path):
    pd.DataFrame(rows_of(2, taken="03/04/2019")).to_csv(tmp_path / "t.csv", index=False)
    table, summary = read(tmp_path / "t.csv", tmp_path / "o.parquet")
    assert table.taken.isna().all()
    assert "times: day-first" in summary.note
    table, _ = read(tmp_path / "t.csv", tmp_path / "o.parquet", times="day-first")
    assert set(table.taken.dt.month) == {4}


def test_doubled_ids_of_different_content_are_counted(tmp_path):
    rows = rows_of(2, id="same")
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    table, summary = read(tmp_path / "t.csv", tmp_path / "o.parquet")
    assert summary.skipped == {"duplicate-id": 1}
    assert table.uri.tolist() == ["https://example.org/0.jpg"]


def test_ids_come_from_files_where_there_are_none(tmp_path):
    files = ["a/1.x.jpg", str(tmp_path / "b.jpg"), "https://h.org/3.jpg"]
    rows = [row | {"file": file} for row, file in zip(rows_of(3), files, strict=True)]
    pd.DataFrame(rows).drop(columns="id").to_csv(tmp_path / "t.csv", index=False)
    table, _ = read(tmp_path / "t.csv", tmp_path / "o.parquet", read_exif=False)
    assert table.photo_id.tolist() == [f"{tmp_path.name}/a/1.x", f"{tmp_path.name}/b", "https://h.org/3.jpg"]
    assert table.uri.tolist() == [str(tmp_path / "a" / "1.x.jpg"), str(tmp_path / "b.jpg"), "https://h.org/3.jpg"]


def test_ids_and_sizes_of_number_columns_are_whole(tmp_path):
    frame = pd.DataFrame(rows_of(2)).assign(id=[7.0, 8.0], width=[640.0, None])
    frame.to_parquet(tmp_path / "t.parquet")
    table, _ = read(tmp_path / "t.parquet", tmp_path / "o.parquet")
    assert table.photo_id.tolist() == ["7", "8"]
    assert table.width.fillna(0).tolist() == [640, 0]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_table_without_rows_is_named(tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        pd.DataFrame(rows_of(1)).iloc[:0].to_parquet(path)
    else:
        path.write_text("file,lat,lon\n" if name.endswith("csv") else "\n")
    with pytest.raises((EmptyTable, MissingColumns)):
        read(path, tmp_path / "o.parquet")


def test_a_folder_of_nothing_is_named(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(EmptyTable, match="holds none"):
        read(tmp_path / "none", tmp_path / "o.parquet")


def test_records_may_leave_out_what_they_do_not_have(tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    placed, bare = rows_of(1)[0], {"id": "b", "file": "https://example.org/b.jpg"}
    for name, page in (("1", [bare]), ("2", [bare | {"id": "c"}, placed]), ("3", [])):
        (folder / f"{name}.json").write_text(json.dumps(page))
    table, summary = read(folder, tmp_path / "o.parquet")
    assert (table.photo_id.tolist(), summary.skipped) == (["r0"], {"no-gps": 2})
    with pytest.raises(MissingColumns, match="lat"):
        read(folder / "1.json", tmp_path / "o.parquet")


def test_one_empty_table_among_others_does_no_harm_and_a_bad_one_is_told_before_any_is_read(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "a.csv").write_text("id,file,lat,lon\n")
    pd.DataFrame(rows_of(2)).to_csv(folder / "b.csv", index=False)
    assert read(folder, tmp_path / "o.parquet")[1].photos == 2
    (folder / "c.csv").write_text("id,file\n")
    with pytest.raises(MissingColumns, match=r"c\.csv"):
        read(folder, tmp_path / "o.parquet")
