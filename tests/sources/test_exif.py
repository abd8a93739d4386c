import io
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from geograft.sources.exif import position_problem, read_exif


def test_position_error_heading_and_time_come_back(make_photo):
    path = make_photo(lat=-33.93359, lon=151.72014, accuracy=8.5, heading=271.5, taken="2024:07:01 10:30:00")
    found = read_exif(path)
    assert found.reason is None
    assert (found.lat, found.lon) == pytest.approx((-33.93359, 151.72014), abs=1e-7)
    assert (found.accuracy_m, found.heading_deg) == (8.5, 271.5)
    assert found.taken == datetime(2024, 7, 1, 10, 30, tzinfo=UTC)
    assert (found.width, found.height) == (64, 48)


def test_a_photo_without_gps_says_so_and_keeps_the_rest(make_photo):
    found = read_exif(make_photo(taken="2024:07:01 10:30:00", tags={0x013B: "Ada\0", 0x8298: " CC0 "}))
    assert found.reason == "no-gps"
    assert (found.lon, found.user, found.licence) == (None, "Ada", "CC0")
    assert found.taken is not None


NORTH = {1: "N", 2: (47.0, 30.0, 0.0), 3: "E", 4: (9.0, 0.0, 0.0)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({1: ""}, "broken-exif"),
        ({1: "X"}, "broken-exif"),
        ({2: (47.0, 75.0, 0.0)}, "broken-exif"),
        ({2: (IFDRational(47, 0), 0.0, 0.0)}, "broken-exif"),
        ({2: (95.0, 0.0, 0.0), 4: (120.0, 0.0, 0.0)}, "out-of-range"),
        ({4: (181.0, 0.0, 0.0)}, "out-of-range"),
        ({2: (151.0, 0.0, 0.0), 4: (33.0, 0.0, 0.0)}, "swapped-lat-lon"),
        ({2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}, "null-island"),
    ],
)
def test_a_position_that_is_none_carries_its_reason(make_photo, change, reason):
    found = read_exif(make_photo(gps=NORTH | change))
    assert (found.reason, found.lon, found.lat) == (reason, None, None)
    assert found.image_problem is None


@pytest.mark.parametrize("gps", [{2: (47.5,), 4: (9.0,)}, {2: (47.0, 30.0), 4: (9.0, 0.0)}, {1: "n", 3: "e\0"}])
def test_odd_but_clear_positions_are_read(make_photo, gps):
    found = read_exif(make_photo(gps=NORTH | gps))
    assert (found.lat, found.lon) == pytest.approx((47.5, 9.0))


@pytest.mark.parametrize("heading", [IFDRational(1, 0), 400.0, 65535.0])
def test_a_broken_heading_is_absent_and_the_position_stays(make_photo, heading):
    found = read_exif(make_photo(gps=NORTH | {17: heading}))
    assert (found.reason, found.heading_deg) == (None, None)


def test_the_time_is_by_offset_then_by_satellite_then_by_the_cameras_clock(make_photo):
    clock, zone = {0x9003: "2024:07:01 10:30:00"}, {0x9011: "+02:00"}
    satellites = NORTH | {7: (9.0, 0.0, 5.0), 29: "2024:07:01"}
    hours = [
        read_exif(make_photo(gps=gps, camera=camera)).taken.hour
        for gps, camera in ((satellites, clock | zone), (satellites, clock), (NORTH, clock))
    ]
    assert hours == [8, 9, 10]


def test_a_date_that_no_calendar_knows_is_absent(make_photo):
    assert read_exif(make_photo(gps=NORTH, taken="0000:00:00 00:00:00")).taken is None


def test_the_field_of_view_follows_the_focal_length_and_the_way_the_camera_was_held(make_photo):
    wide = read_exif(make_photo(camera={0xA405: 28}, size=(60, 40)))
    turned = read_exif(make_photo(camera={0xA405: 28}, size=(60, 40), tags={0x0112: 6}))
    assert wide.fov_deg == pytest.approx(2 * np.degrees(np.arctan(36 / 2 / 28)), abs=0.01)
    assert turned.fov_deg == pytest.approx(2 * np.degrees(np.arctan(24 / 2 / 28)), abs=0.01)
    assert (turned.width, turned.height) == (40, 60)


def test_a_file_that_is_absent_or_no_image_is_named(tmp_path):
    text = tmp_path / "a.jpg"
    text.write_text("<html>")
    assert read_exif(tmp_path / "none.jpg").reason == "missing-file"
    assert read_exif(text).reason == "unreadable-image"


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_photo_cut_short_is_found_without_decoding(make_photo, share):
    path = make_photo(lat=47.0, lon=9.0, size=(200, 150))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert read_exif(path).image_problem == "truncated-image"


def test_the_thumbnails_end_is_not_taken_for_the_photos(tmp_path):
    small, large = io.BytesIO(), io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    Image.fromarray(noise[:20, :20]).save(small, "JPEG")
    exif = b"Exif\0\0" + small.getvalue()
    Image.fromarray(noise).save(large, "JPEG", exif=exif)
    path = tmp_path / "a.jpg"
    path.write_bytes(large.getvalue())
    assert read_exif(path).image_problem is None
    path.write_bytes(large.getvalue()[:-100])
    assert read_exif(path).image_problem == "truncated-image"


def test_bytes_after_the_end_do_no_harm(make_photo):
    path = make_photo(lat=47.0, lon=9.0)
    path.write_bytes(path.read_bytes() + b"\0" * 500)
    assert read_exif(path).reason is None


def test_a_png_cut_short_is_found(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)).save(path)
    whole = read_exif(path)
    path.write_bytes(path.read_bytes()[:-40])
    assert whole.image_problem is None
    assert read_exif(path).image_problem == "truncated-image"


def test_damage_inside_is_found_by_decoding_when_asked(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[2000:2200] = b"\0" * 200
    path.write_bytes(content)
    assert read_exif(path).image_problem is None
    assert read_exif(path, verify=True).image_problem == "unreadable-image"


def test_garbage_in_the_exif_block_is_no_traceback(make_photo):
    path = make_photo(lat=47.0, lon=9.0)
    content = path.read_bytes()
    start = content.index(b"Exif\0\0") + 6
    for seed in range(20):
        noise = np.random.default_rng(seed).bytes(60)
        path.write_bytes(content[: start + 8] + noise + content[start + 68 :])
        found = read_exif(path)
        assert found.reason in {None, "no-gps", "broken-exif", "out-of-range", "swapped-lat-lon", "null-island"}
        assert found.image_problem is None


def test_the_same_bytes_have_the_same_digest(make_photo):
    first, second, other = make_photo("a.jpg", seed=5), make_photo("b.jpg", seed=5), make_photo("c.jpg", seed=6)
    assert read_exif(first).digest == read_exif(second).digest != read_exif(other).digest


@pytest.mark.parametrize(
    ("lon", "lat", "problem"),
    [
        (9, 47, None),
        (0, 51.5, None),
        (float("nan"), 1, "no-gps"),
        (-33, 151, "swapped-lat-lon"),
        (200, 10, "out-of-range"),
        (0, 0, "null-island"),
    ],
)
def test_a_position_is_judged(lon, lat, problem):
    assert position_problem(lon, lat) == problem


@pytest.mark.shared
def test_real_cameras_are_read(shared_data):
    folder = shared_data / "exif"
    found = {path.name: read_exif(path) for path in folder.glob("*.jpg")}
    assert len(found) == 48
    assert all(photo.reason is None for photo in found.values())
    iphone, sony, broken = (
        found[name] for name in ("Apple iPhone 4.jpg", "Sony DSC-HX5V (2).jpg", "Issue 173 (dotnet).jpg")
    )
    assert iphone.heading_deg == pytest.approx(177.558, abs=0.001)
    assert (sony.lat, sony.lon) == pytest.approx((51.778615, 8.365638), abs=1e-6)
    assert sony.taken == datetime(2010, 5, 15, 15, 12, 7, tzinfo=UTC)
    assert (broken.lon < 0, broken.taken) == (True, None)


def test_a_name_that_is_no_path_is_a_missing_file():
    assert read_exif("a\0b.jpg").image_problem == "missing-file"
