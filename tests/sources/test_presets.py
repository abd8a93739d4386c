import json

import pandas as pd
import pytest

from geograft.errors import BadSetting, MissingColumns, MissingInput
from geograft.sources.filters import FilterSettings
from geograft.sources.photos import PhotoSettings, read_photos
from geograft.sources.presets import describe, load_preset, names
from geograft.tables import read_manifest, read_table


@pytest.fixture
def read(tmp_path):
    """Reads one table by a preset; gives the photos by id, and what was skipped."""

    def read(preset, content, name="t.csv", **settings):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        summary = read_photos(path, tmp_path / "out.parquet", settings=PhotoSettings(preset=preset, **settings))
        return read_table(summary.out).set_index("photo_id"), summary.skipped

    return read


def place(photo):
    return (round(photo.geometry.x, 6), round(photo.geometry.y, 6))


# --- the presets that come with the package ---------------------------------------------------------------


def test_every_preset_says_what_it_reads_and_under_which_licence():
    found = describe()
    assert [each["name"] for each in found] == names()
    assert {"flickr", "geograph", "inaturalist", "lucas", "mapillary", "openyfcc", "wikimedia-commons", "yfcc100m"} == {
        *names()
    }
    assert all(each["description"] and each["licence"] and each["link"].startswith("https://") for each in found)


FLICKR = {
    "id": "71", "owner": "12@N01", "latitude": "48.8584", "longitude": 2.2945, "accuracy": "16", "license": "5",
    "datetaken": "2019-12-31 14:05:00", "datetakenunknown": "0", "tags": "tower paris", "media": "photo",
    "url_l": "https://live.staticflickr.com/1/71_l.jpg", "width_l": 1024, "height_l": "768",
}  # fmt: skip


def test_flickr_records_have_metres_and_licences_instead_of_numbers(read):
    others = [
        FLICKR | {"id": "72", "media": "video"},
        FLICKR | {"id": "73", "license": "0"},
        FLICKR | {"id": "74", "owner": "b", "accuracy": 11, "license": 9, "datetakenunknown": 1},
        {
            name: value
            for name, value in (FLICKR | {"id": "75", "url_z": "https://x.org/75_z.jpg"}).items()
            if name != "url_l"
        }
        | {"datetaken": "2020-01-01 00:00:00", "accuracy": 0},
    ]
    photos, skipped = read("flickr", {"photos": {"page": 1, "photo": [FLICKR, *others]}, "stat": "ok"}, "p.json")
    assert skipped == {"licence-not-free": 1, "not-a-photo": 1}
    first = photos.loc["71"]
    assert place(first) == (2.2945, 48.8584)
    assert (first.accuracy_m, first.licence, first.user) == (24, "CC BY-SA 2.0", "12@N01")
    assert (first.width, first.height, first.source) == (1024, 768, "flickr")
    assert first.taken == pd.Timestamp("2019-12-31 14:05", tz="UTC")
    assert (photos.loc["74"].accuracy_m, photos.loc["74"].licence) == (760, "CC0 1.0")
    assert pd.isna(photos.loc["74"].taken)
    assert photos.loc["75"].uri == "https://x.org/75_z.jpg"
    assert pd.isna(photos.loc["75"].accuracy_m)


YFCC = [
    "0", "6185218911", "4e2f7a26", "39019111%40N00", "guckxzs", "2012-02-16 09:56:37.0", "1331840483", "Canon+IXY",
    "Sea+%22view", "", "canon,key+west", "", "-81.804885", "24.550558", "12", "https://flickr.com/p/1",
    "http://farm8.staticflickr.com/7205/1.jpg", "Attribution License", "http://creativecommons.org/licenses/by/2.0/",
    "7205", "8", "8b2", "9c1", "jpg", "0",
]  # fmt: skip


def test_yfcc100m_is_read_without_a_header_and_its_videos_are_skipped(read):
    video = [*YFCC[:1], "2", *YFCC[2:24], "1"]
    unplaced = [*YFCC[:1], "3", *YFCC[2:12], "", "", "", *YFCC[15:]]
    text = "\n".join("\t".join(row) for row in (YFCC, video, unplaced, YFCC[:20]))
    photos, skipped = read("yfcc100m", text, "yfcc100m_dataset-0")
    photo = photos.loc["6185218911"]
    assert skipped == {"broken-row": 1, "no-gps": 1, "not-a-photo": 1}
    assert (place(photo), photo.accuracy_m) == ((-81.804885, 24.550558), 380)
    assert (photo.user, photo.tags, photo.licence) == ("39019111@N00", "canon,key west", "Attribution License")
    assert photo.taken == pd.Timestamp("2012-02-16 09:56:37", tz="UTC")


def test_openyfcc_has_the_same_by_name(read):
    row = {
        "photoid": 1,
        "uid": "a%40N00",
        "datetaken": "2006-05-31 21:07:00.0",
        "longitude": 106.917,
        "latitude": 47.919,
    }
    row |= {"accuracy": 12.0, "downloadurl": "http://x.org/1.jpg", "licensename": "Attribution License", "marker": 0}
    photos, skipped = read("openyfcc", f"{json.dumps(row)}\n{json.dumps(row | {'photoid': 2, 'marker': 1})}", "m.jsonl")
    assert (photos.loc["1"].user, photos.loc["1"].accuracy_m) == ("a@N00", 380)
    assert skipped == {"not-a-photo": 1}


MAPILLARY = {
    "id": "98", "computed_geometry": {"type": "Point", "coordinates": [3.722, 51.055]},
    "geometry": {"type": "Point", "coordinates": [3.7, 51.0]}, "compass_angle": 10, "computed_compass_angle": 12.5,
    "captured_at": 1719822600000, "is_pano": False, "sequence": "s1", "creator": {"username": "ada", "id": "7"},
    "thumb_2048_url": "https://x.org/98.jpg", "width": 4000, "height": 3000,
}  # fmt: skip


def test_mapillary_records_go_by_their_computed_position_where_there_is_one(read):
    plain = {name: value for name, value in MAPILLARY.items() if not name.startswith("computed")}
    records = [
        MAPILLARY,
        plain | {"id": "99", "captured_at": 1719822700000},
        MAPILLARY | {"id": "pano", "is_pano": True},
    ]
    photos, skipped = read("mapillary", {"data": records}, "m.json", filters=FilterSettings(panoramas=False))
    assert skipped == {"panorama": 1}
    assert (place(photos.loc["98"]), photos.loc["98"].heading_deg) == ((3.722, 51.055), 12.5)
    assert (place(photos.loc["99"]), photos.loc["99"].heading_deg) == ((3.7, 51.0), 10)
    assert photos.loc["98"].taken == pd.Timestamp("2024-07-01 08:30", tz="UTC")
    assert photos.loc["98"][["place", "user", "licence"]].tolist() == ["s1", "ada", "CC BY-SA 4.0"]


def test_inaturalist_exports_lose_obscured_positions_and_photos_without_a_licence(read):
    text = (
        "id,observed_on,time_observed_at,user_login,license,image_url,positional_accuracy,coordinates_obscured,"
        "latitude,longitude\n"
        "1,2022-05-07,2022-05-07 10:02:53 UTC,darwin,CC-BY,https://x.org/1/medium.jpg,8,false,51.31,0.05\n"
        "2,2022-05-07,,darwin,CC-BY,https://x.org/2/medium.jpg,28000,true,51.32,0.05\n"
        "3,2022-05-07,,darwin,,https://x.org/3/medium.jpg,8,false,51.33,0.05\n"
        "4,2022-05-08,,darwin,CC0,https://x.org/4/medium.jpg,,false,51.34,0.05\n"
    )
    photos, skipped = read("inaturalist", text)
    assert skipped == {"licence-not-free": 1, "obscured-position": 1}
    assert photos.index.tolist() == ["1", "4"]
    assert photos.loc["1"].taken == pd.Timestamp("2022-05-07 10:02:53", tz="UTC")
    assert photos.loc["4"].taken == pd.Timestamp("2022-05-08", tz="UTC")


def test_inaturalists_open_data_gets_addresses_from_its_parts(read):
    text = (
        "photo_id\textension\tlicense\tobserver_id\tlatitude\tlongitude\tpositional_accuracy\tobserved_on\n"
        "4047\tjpg\tCC-BY\t1\t36.641\t-121.93\t\\N\t2009-06-14\n"
    )
    photos, _ = read("inaturalist", text, "joined.tsv")
    assert photos.loc["4047"].uri == "https://inaturalist-open-data.s3.amazonaws.com/photos/4047/medium.jpg"
    assert pd.isna(photos.loc["4047"].accuracy_m)


def test_a_lucas_point_becomes_four_photos_that_look_north_east_south_and_west(read):
    text = (
        "POINT_ID,NUTS0,SURVEY_DATE,GPS_PREC,GPS_LAT,GPS_EW,GPS_LONG,OBS_TYPE,PHOTO_NORTH,PHOTO_EAST,PHOTO_SOUTH,"
        "PHOTO_WEST,YEAR\n"
        "26381956,PT,21/09/18,5,38.7101,2,9.1402,1,1,1,2,1,2018\n"
        "38863060,BE,13/09/18,8888,88.888888,8,88.888888,7,8,8,8,8,2018\n"
    )
    photos, skipped = read("lucas", text)
    assert photos.index.tolist() == ["26381956-N", "26381956-E", "26381956-W"]
    assert photos.heading_deg.tolist() == [0, 90, 270]
    assert place(photos.iloc[0]) == (-9.1402, 38.7101)
    assert photos.uri.iloc[0] == "https://gisco-services.ec.europa.eu/lucas/photos/2018/PT/263/819/26381956N.jpg"
    assert (photos.taken == pd.Timestamp("2018-09-21", tz="UTC")).all()
    assert skipped == {"no-photo": 1, "not-visited": 4}


def test_wikimedia_commons_answers_are_read_page_by_page(read):
    about = {"LicenseShortName": {"value": "CC BY-SA 4.0"}, "DateTimeOriginal": {"value": "2015-03-04 12:00:00"}}
    info = {
        "url": "https://upload.wikimedia.org/a.jpg",
        "user": "Ada",
        "width": 800,
        "height": 600,
        "extmetadata": about,
    }
    page = {"pageid": 17, "title": "File:A.jpg", "imageinfo": [info], "coordinates": [{"lat": 47.37, "lon": 8.54}]}
    film = page | {"pageid": 18, "imageinfo": [info | {"mediatype": "VIDEO"}]}
    photos, skipped = read("wikimedia-commons", {"query": {"pages": {"17": page, "18": film}}}, "c.json")
    assert (place(photos.loc["17"]), photos.loc["17"].user, photos.loc["17"].width) == ((8.54, 47.37), "Ada", 800)
    assert skipped == {"not-a-photo": 1}
    text = "page_id,page_title,gt_lat,gt_lon\n5,Zürich_See.jpg,47.36,8.55\n"
    photos, _ = read("wikimedia-commons", text)
    assert photos.loc["5"].uri == "https://commons.wikimedia.org/wiki/Special:FilePath/Z%C3%BCrich_See.jpg"


def test_geograph_tables_give_accuracy_by_the_digits_of_the_grid_reference(read):
    text = (
        "gridimage_id\tuser_id\timagetaken\twgs84_lat\twgs84_long\tview_direction\tnatgrlen\tmoderation_status\n"
        "7\t3\t2010-05-01\t51.5101\t-0.1203\t315\t8\tgeograph\n"
        "8\t3\t2010-05-00\t51.5201\t-0.1203\t-1\t4\taccepted\n"
        "9\t3\t2010-05-00\t51.5301\t-0.1203\t-1\t4\trejected\n"
    )
    photos, skipped = read("geograph", text, "g.tsv")
    assert skipped == {"not-moderated": 1}
    assert photos.accuracy_m.tolist() == [10, 1000]
    assert photos.heading_deg.fillna(-9).tolist() == [315, -9]
    assert photos.taken.isna().tolist() == [False, True]
    assert set(photos.licence) == {"CC BY-SA 2.0"}


# --- presets of one's own ---------------------------------------------------------------------------------


@pytest.fixture
def write_preset(tmp_path):
    """A factory of preset files."""

    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


OWN = "a;b;c;d\nx.jpg;1.047,5;9,2;03/04/2019\n"


def test_a_preset_of_ones_own_is_a_path(read, write_preset):
    preset = write_preset(
        'decimal: ","\ntimes: month-first\nuri: "https://x.org/{a}"\n'
        "columns: {photo_id: a, lat: b, lon: c, taken: d}\ncodes: {lat: {'1.047,5': '47,5'}}\n"
    )
    photos, _ = read(preset, OWN)
    photo = photos.loc["x.jpg"]
    assert (place(photo), photo.taken.month, photo.source) == ((9.2, 47.5), 3, "mine")
    assert photo.uri == "https://x.org/x.jpg"


def test_columns_of_the_settings_go_before_the_presets(read):
    record = FLICKR | {"url_o": "https://x.org/o.jpg"}
    photos, _ = read("flickr", [record], "p.json", columns={"file": ("url_none", "url_o"), "tags": ""}, source="mine")
    assert (photos.uri.iloc[0], photos.source.iloc[0]) == ("https://x.org/o.jpg", "mine")
    assert photos.tags.isna().all()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("colums: {lat: a}", "colums"),
        ("columns: {latitute: a}", "latitute"),
        ("codes: {heading: {N: 0}}", "heading"),
        ("skip: [{column: a, equals: [1]}]", "reason"),
        ("skip: [{column: a, equal: [1], reason: b}]", "equal"),
        ("views: [{suffix: -N, heading: 0}]", "heading"),
        ("decimal: ';'", "decimal"),
        ("format: excel", "format"),
        ("separator: '::'", "separator"),
        ("negative: {heading_deg: {column: a, equals: [W]}}", "heading_deg"),
        ("- a", "mapping"),
    ],
)
def test_what_means_nothing_in_a_preset_is_refused_by_name(write_preset, text, wrong):
    with pytest.raises(BadSetting, match=wrong):
        load_preset(write_preset(text))


def test_an_unknown_preset_is_named_with_those_that_there_are(tmp_path):
    with pytest.raises(BadSetting, match="flickr, geograph"):
        load_preset("flicker")
    with pytest.raises(MissingInput):
        load_preset(str(tmp_path / "none.yaml"))


def test_a_table_that_lacks_what_a_preset_needs_is_named(read):
    with pytest.raises(MissingColumns, match=r"lat \(latitude, location\.latitude\)"):
        read("flickr", "id,url_l\n1,https://x.org/1.jpg\n")


def test_the_manifest_says_which_preset_was_used(tmp_path, read):
    read("flickr", [FLICKR], "p.json")
    assert read_manifest(tmp_path / "out.parquet").settings["preset"] == "flickr"
