import io

import numpy as np
import pytest
from PIL import Image
from pyproj import Geod

from geograft.errors import BadSetting
from geograft.sources.exif import read_exif
from geograft.world.camera import Scenery, render_photos
from geograft.world.photo_files import (
    CSV_COLUMNS,
    FREE_LICENCES,
    Dirt,
    draw_room,
    export_table,
    jpeg,
    upload,
    write_photos,
)
from geograft.world.photographers import choose_poses
from geograft.world.terrain import make_land

DIRTY = Dirt(indoor=0.1, far=0.1, no_exif=0.1, broken_exif=0.15, duplicates=0.1, unreadable=0.05)


@pytest.fixture(scope="module")
def taken():
    """A land, and 400 blank photos taken of it."""
    land = make_land(7, 512)
    shots = choose_poses(Scenery.of(land), 400, seed=0)
    return land, shots, np.full((400, 64, 64, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def dirty(taken):
    land, shots, rgb = taken
    return upload(land, shots, rgb, dirt=DIRTY, seed=1)


def metres_off(table):
    return Geod(ellps="WGS84").inv(table["true_lon"], table["true_lat"], table["lon"], table["lat"])[2]


def test_geotags_are_8_m_off_and_one_in_ten_beyond_30(taken):
    land, shots, rgb = taken
    errors = np.concatenate(
        [metres_off(upload(land, shots, rgb, dirt=Dirt.none(), seed=seed).table) for seed in range(8)]
    )
    assert 7 < np.median(errors) < 9
    assert 0.07 < (errors > 30).mean() < 0.13
    assert errors.max() < 200


def test_stated_accuracy_follows_the_error(taken):
    land, shots, rgb = taken
    table = upload(land, shots, rgb, dirt=Dirt.none(), seed=3).table
    assert np.corrcoef(np.log(table["error_m"] + 1), np.log(table["accuracy_m"]))[0, 1] > 0.6


def test_dirt_comes_at_its_rates(dirty):
    counts = dirty.table["dirt"].value_counts()
    assert counts["indoor"] == counts["far"] == counts["no-exif"] == counts["duplicate"] == 40
    assert counts["unreadable"] == 20
    assert counts[["truncated-exif", "zero-position", "impossible-position"]].tolist() == [20, 20, 20]


def test_far_geotags_are_kilometres_off(dirty):
    far = metres_off(dirty.table[dirty.table["dirt"] == "far"])
    assert far.min() > 1_900
    assert far.max() < 20_300


def test_a_clean_upload_has_no_dirt(taken):
    land, shots, rgb = taken
    table = upload(land, shots, rgb, dirt=Dirt.none(), seed=1).table
    assert (table["dirt"] == "").all()
    assert set(table["licence"]) <= set(FREE_LICENCES)
    assert table["has_heading"].all()


def test_exif_tells_position_direction_time_and_accuracy(dirty, tmp_path):
    row = next(r for r in dirty.table.itertuples() if not r.dirt and r.has_heading and r.has_accuracy)
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(dirty.rgb[0], row))
    exif = read_exif(path)
    assert exif.reason is None
    assert exif.lon == pytest.approx(row.lon, abs=1e-6)
    assert exif.lat == pytest.approx(row.lat, abs=1e-6)
    assert exif.heading_deg == pytest.approx(row.heading_deg, abs=0.01)
    assert exif.accuracy_m == pytest.approx(row.accuracy_m, abs=0.06)
    assert exif.fov_deg == pytest.approx(row.fov_deg, abs=2.5)
    assert f"{exif.taken:%Y-%m-%d %H:%M:%S}" == str(row.taken)
    assert exif.licence == row.licence


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no-exif", {"no-gps"}),
        ("truncated-exif", {"no-gps", "broken-exif"}),
        ("zero-position", {"null-island"}),
        ("impossible-position", {"out-of-range"}),
        ("unreadable", {"truncated-image", "unreadable-image"}),
        ("indoor", {None}),
        ("far", {None}),
        ("duplicate", {None}),
    ],
)
def test_each_kind_of_dirt_is_what_a_reader_meets(dirty, tmp_path, kind, reason):
    rows = [r for r in dirty.table.itertuples() if r.dirt == kind]
    assert rows
    for number, row in enumerate(rows[:4]):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(jpeg(dirty.rgb[row.Index], row))
        assert read_exif(path, verify=True).reason in reason


def test_duplicates_are_the_same_bytes_under_another_id(dirty):
    table = dirty.table.set_index("photo_id", drop=False)
    copies = [r for r in table.itertuples() if r.copy_of]
    assert len(copies) == 40
    index = {name: number for number, name in enumerate(table["photo_id"])}
    for copy in copies[:5]:
        original = next(r for r in table.itertuples() if r.photo_id == copy.copy_of)
        assert jpeg(dirty.rgb[index[copy.photo_id]], copy) == jpeg(dirty.rgb[index[original.photo_id]], original)


def test_the_export_holds_nothing_of_the_truth(dirty):
    export = export_table(dirty.table)
    assert tuple(export.columns) == CSV_COLUMNS
    assert export["id"].is_unique
    unknown = dirty.table["dirt"] == "truncated-exif"
    assert export.loc[unknown, "lat"].isna().all()
    assert export.loc[~unknown, "lat"].notna().all()
    assert "true" not in " ".join(export.columns)


def test_files_carry_the_ids_of_the_table(taken, tmp_path):
    land, shots, rgb = taken
    files = upload(land, shots, rgb, dirt=Dirt(), seed=1)
    write_photos(files, tmp_path)
    names = {path.stem for path in (tmp_path / "photos").iterdir()}
    assert names == set(files.table["photo_id"])
    assert all(name.startswith("w7-") and len(name) == 9 for name in names)


def test_rooms_look_like_no_place_outdoors(taken):
    land, shots, _ = taken
    rng = np.random.default_rng(0)
    rooms = np.stack([draw_room(64, rng) for _ in range(20)])
    assert rooms.shape == (20, 64, 64, 3)
    assert rooms.std(axis=(1, 2, 3)).min() > 10
    outdoors = render_photos(land, shots.poses[:20]).rgb
    assert abs(rooms[..., 2].mean() - outdoors[..., 2].mean()) > 1


def test_pictures_survive_jpeg(taken):
    land, shots, _ = taken
    photos = render_photos(land, shots.poses[:4])
    table = upload(land, shots, np.zeros((400, 64, 64, 3), np.uint8), dirt=Dirt.none(), seed=0).table
    row = next(table.itertuples())
    again = np.asarray(Image.open(io.BytesIO(jpeg(photos.rgb[0], row))))
    assert np.abs(again.astype(int) - photos.rgb[0]).mean() < 12


@pytest.mark.parametrize("wrong", [{"indoor": -0.1}, {"far": 1.2}, {"indoor": 0.6, "far": 0.6}])
def test_rates_that_are_no_shares_are_refused(wrong):
    with pytest.raises(BadSetting):
        Dirt(**wrong)
