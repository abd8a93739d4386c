import shutil
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest
from PIL import Image

from geograft.errors import (
    BadCoordinates,
    BadSetting,
    EmptyTable,
    MissingColumns,
    MissingInput,
    UnwritableOutput,
)
from geograft.sources.filters import FilterSettings
from geograft.sources.photos import COLUMNS, PhotoSettings, read_photos
from geograft.tables import read_manifest, read_table


@pytest.fixture
def write_csv(tmp_path, make_photo):
    """A factory of a CSV beside its photos; a row without `file` gets a photo of its own."""

    def write(rows, name="photos.csv"):
        for index, row in enumerate(rows):
            if "file" not in row:
                row["file"] = f"p/{index}.jpg"
                make_photo(row["file"], **row.pop("exif", {}))
        path = tmp_path / name
        pd.DataFrame(rows).to_csv(path, index=False)
        return path

    return write


HERE = {"lat": 47.01, "lon": 9.02}


def test_a_folder_becomes_a_table_by_its_exif(tmp_path, make_photo):
    folder = tmp_path / "photos"
    make_photo("b/2.jpg", folder=folder, lat=47.2, lon=9.2, heading=90.0, accuracy=5.0)
    make_photo("1.jpg", folder=folder, lat=47.1, lon=9.1)
    make_photo("3.jpg", folder=folder)
    (folder / "notes.txt").write_text("not a photo")
    (folder / ".1.part.jpg").write_bytes(b"left by a killed run")
    summary = read_photos(folder, tmp_path / "out.parquet")
    table = read_table(summary.out)
    assert (summary.photos, summary.skipped) == (2, {"no-gps": 1})
    assert isinstance(table, gpd.GeoDataFrame)
    assert table.columns.tolist() == [*COLUMNS, "geometry"]
    assert table.crs.to_epsg() == 4326
    assert table.photo_id.tolist() == ["photos/1", "photos/b/2"]
    assert table.uri.tolist() == [str(folder / "1.jpg"), str(folder / "b" / "2.jpg")]
    assert table.heading_deg.tolist()[1] == 90
    assert table.place.isna().tolist() == [True, False]
    assert table.geometry.y.round(6).tolist() == [47.1, 47.2]


def test_a_csv_becomes_a_table_and_exif_fills_what_it_lacks(tmp_path, write_csv):
    row = HERE | {"id": "w-1", "accuracy": 12, "user": "ada", "licence": "CC0", "tags": "lake", "walk": "north"}
    row["exif"] = {"lat": 10.0, "lon": 10.0, "accuracy": 3.0, "heading": 45.0, "taken": "2024:07:01 10:30:00"}
    table = read_table(read_photos(write_csv([row]), tmp_path / "out.parquet").out)
    found = table.iloc[0]
    assert (found.geometry.x, found.geometry.y) == (9.02, 47.01)
    assert (found.photo_id, found.accuracy_m, found.heading_deg) == ("w-1", 12, 45)
    assert (found.user, found.licence, found.tags, found.place) == ("ada", "CC0", "lake", "north")
    assert (found.width, found.height, found.taken.hour) == (64, 48, 10)
    assert found.source == tmp_path.name


def test_a_csv_row_without_position_takes_that_of_its_exif(tmp_path, write_csv):
    rows = [{"lat": None, "lon": None, "exif": {"lat": 47.51, "lon": 9.52}}, HERE | {}, {"lat": None, "lon": 9.0}]
    summary = read_photos(write_csv(rows), tmp_path / "out.parquet")
    assert read_table(summary.out).geometry.x.round(6).tolist() == [9.52, 9.02]
    assert summary.skipped == {"no-gps": 1}


def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path, write_csv, make_photo):
    good = make_photo("good.jpg", seed=1)
    shutil.copy(good, tmp_path / "copy.jpg")
    cut = make_photo("cut.jpg", seed=2, size=(200, 150))
    cut.write_bytes(cut.read_bytes()[:-500])
    (tmp_path / "page.jpg").write_text("<html>")
    rows = [
        HERE | {"id": "a", "file": "good.jpg"},
        HERE | {"id": "b", "file": "copy.jpg"},
        HERE | {"id": "a", "file": "p/none.jpg"},
        HERE | {"id": "c", "file": "cut.jpg"},
        HERE | {"id": "d", "file": "page.jpg"},
        HERE | {"id": "e", "file": None},
        *({"id": f"f{n}", "lat": lat, "lon": lon} for n, (lat, lon) in enumerate([(0, 0), (151, -33), (10, 190)])),
        HERE | {"id": "a"},
        {"id": "g", "lat": "north", "lon": "east"},
        *(HERE | {"id": f"h{n}"} for n in range(2)),
    ]
    summary = read_photos(write_csv(rows), tmp_path / "out.parquet")
    assert read_table(summary.out).photo_id.tolist() == ["a", "h0", "h1"]
    assert summary.skipped == {
        "duplicate-content": 1,
        "duplicate-id": 1,
        "missing-file": 2,
        "no-gps": 1,
        "null-island": 1,
        "out-of-range": 1,
        "swapped-lat-lon": 1,
        "truncated-image": 1,
        "unreadable-image": 1,
    }
    counts = read_manifest(summary.out).counts
    assert counts["done"] + sum(counts["skipped"].values()) == len(rows)


def test_a_table_with_swapped_columns_is_refused(tmp_path, write_csv):
    rows = [{"lat": 151.2, "lon": -33.9} for _ in range(3)] + [HERE | {}]
    with pytest.raises(BadCoordinates, match="3 of 4"):
        read_photos(write_csv(rows), tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_licence_list_keeps_only_those(tmp_path, write_csv):
    rows = [HERE | {"licence": licence} for licence in ("CC0", "all rights reserved", None)]
    settings = PhotoSettings(filters=FilterSettings(licences=("CC0",)))
    summary = read_photos(write_csv(rows), tmp_path / "o.parquet", settings=settings)
    assert (summary.photos, summary.skipped) == (2, {"licence-not-free": 1})


def test_addresses_are_kept_and_not_opened(tmp_path, write_csv):
    rows = [HERE | {"id": n, "file": f"https://example.org/{n}.jpg"} for n in range(2)]
    table = read_table(read_photos(write_csv(rows), tmp_path / "o.parquet").out)
    assert table.uri.tolist() == ["https://example.org/0.jpg", "https://example.org/1.jpg"]


def test_files_are_not_opened_when_not_asked(tmp_path, write_csv):
    path = write_csv([HERE | {"file": "none.jpg", "width": 200, "height": 150}])
    table = read_table(read_photos(path, tmp_path / "o.parquet", settings=PhotoSettings(read_exif=False)).out)
    assert table[["width", "height"]].to_numpy().tolist() == [[200, 150]]


def test_columns_and_place_can_be_named(tmp_path, write_csv):
    path = write_csv([HERE | {"row": "north", "accuracy": 16}])
    settings = PhotoSettings(columns={"accuracy_m": ""}, place="row")
    found = read_table(read_photos(path, tmp_path / "o.parquet", settings=settings).out).iloc[0]
    assert found.place == "north"
    assert pd.isna(found.accuracy_m)


def test_wrong_input_is_named_and_leaves_no_table(tmp_path, write_csv, make_photo):
    out = tmp_path / "out.parquet"
    with pytest.raises(MissingInput):
        read_photos(tmp_path / "none", out)
    with pytest.raises(MissingColumns):
        read_photos(write_csv([{"file": "a.jpg", "lat": 1}]), out)
    make_photo("x.jpg", folder=tmp_path / "folder")
    with pytest.raises(EmptyTable, match="no-gps 1"):
        read_photos(tmp_path / "folder", out)
    assert not out.exists()


def test_the_same_photos_give_the_same_bytes(tmp_path, write_csv):
    path = write_csv([HERE | {"id": n} for n in range(3)])
    first, second = (read_photos(path, tmp_path / name).out for name in ("a.parquet", "b.parquet"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.shared
def test_the_real_walks_are_read_with_their_walk_as_place(tmp_path, shared_data):
    source = pd.read_csv(shared_data / "walks" / "photos.csv").iloc[::60]
    source["path"] = [str(shared_data / "walks" / path) for path in source.path]
    source.to_csv(tmp_path / "some.csv", index=False)
    summary = read_photos(tmp_path / "some.csv", tmp_path / "out.parquet")
    table = read_table(summary.out)
    assert summary.photos == len(source) - sum(summary.skipped.values())
    assert summary.photos >= 100
    assert set(table.place) <= set(source.walk)
    assert table.geometry.y.between(-35, -32).all()


def test_the_csv_itself_is_never_overwritten(write_csv):
    path = write_csv([HERE | {}])
    before = path.read_bytes()
    with pytest.raises(BadSetting, match=r"must end in \.parquet"):
        read_photos(path, path)
    assert path.read_bytes() == before


def read(path, out, **settings):
    summary = read_photos(path, out, settings=PhotoSettings(**settings))
    return read_table(summary.out), summary


def test_a_photo_table_can_be_read_and_filtered_again(tmp_path, write_csv):
    rows = [HERE | {"id": "a", "walk": "north", "accuracy": 3}, HERE | {"id": "b", "accuracy": 90, "user": "ada"}]
    first, _ = read(write_csv(rows), tmp_path / "first.parquet")
    again, _ = read(tmp_path / "first.parquet", tmp_path / "again.parquet")
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
    some, summary = read(
        tmp_path / "first.parquet", tmp_path / "some.parquet", filters=FilterSettings(max_accuracy_m=30)
    )
    assert summary.skipped == {"inaccurate-geotag": 1}
    assert some.photo_id.tolist() == ["a"]
    assert some.uri.tolist() == first.uri.tolist()[:1]
    assert again.dtypes.tolist() == first.dtypes.tolist()


def test_the_table_that_is_read_is_not_overwritten(tmp_path, write_csv):
    read(write_csv([HERE | {}]), tmp_path / "a.parquet")
    with pytest.raises(UnwritableOutput, match="it is the input"):
        read(tmp_path / "a.parquet", tmp_path / "a.parquet")


def test_a_photo_that_may_not_be_read_has_failed(tmp_path, write_csv, monkeypatch):
    path = write_csv([HERE | {"id": "a"}, HERE | {"id": "b"}])
    refused = Path.read_bytes

    def read_bytes(self):
        if self.name == "0.jpg":
            raise PermissionError(13, "no")
        return refused(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    _, summary = read(path, tmp_path / "o.parquet")
    assert (summary.photos, summary.failed) == (1, {"unreadable-file": 1})


def test_heif_photos_are_read_or_counted_with_what_to_install(tmp_path, make_photo, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    folder = tmp_path / "photos"
    plain = make_photo("a.jpg", folder=folder, lat=47.0123, lon=9.0234)
    with Image.open(plain) as image:
        pillow_heif.from_pillow(image).save(folder / "b.heic", exif=image.getexif().tobytes())
    table, summary = read(folder, tmp_path / "o.parquet")
    assert (summary.skipped, table.geometry.x.round(4).tolist()) == ({}, [9.0234, 9.0234])
    monkeypatch.setattr("geograft.sources.exif._reads_heif", lambda: False)
    _, summary = read(folder, tmp_path / "o.parquet")
    assert summary.skipped == {"needs-heif": 1}
    assert "pip install 'geograft[heif]'" in summary.note


@pytest.mark.parametrize("suffix", ["tiff", "png", "webp"])
def test_other_image_formats_tell_their_position_too(tmp_path, make_photo, suffix):
    folder = tmp_path / "photos"
    with Image.open(make_photo("a.jpg", lat=47.0123, lon=9.0234)) as image:
        folder.mkdir()
        image.save(folder / f"a.{suffix}", exif=image.getexif())
    table, _ = read(folder, tmp_path / "o.parquet")
    assert (table.geometry.y.round(4).tolist(), table.width.tolist()) == ([47.0123], [64])


@pytest.mark.shared
def test_the_real_cameras_photos_become_a_table(tmp_path, shared_data):
    _, summary = read(shared_data / "exif", tmp_path / "o.parquet", filters=FilterSettings(licences=None))
    assert summary.photos + sum(summary.skipped.values()) == 48
    assert summary.photos >= 40
