import time

import numpy as np
import pytest
import rasterio

from geograft.errors import MissingInput, UnreachableScene, UnreadableScene
from geograft.raster import chip_geobox, cloud_share, open_assets, open_scene, read, remote, write_cog
from geograft.sensors import get_sensor

BANDS = ("red", "green", "blue", "nir")


def chip(left, top, *, gsd=1, size=224):
    """A chip whose corner lies so many pixels east and south of the scene's."""
    return chip_geobox(32632, 500_000 + left * gsd, 5_000_000 - top * gsd, gsd=gsd, size=size)


def shift(geobox, pixels):
    return chip_geobox(32632, geobox.affine.c + pixels, geobox.affine.f, gsd=1, size=geobox.shape[0])


def write(path, *, size=1024, gsd=1, sensor="world-1m", seed=0):
    spec = get_sensor(sensor)
    low, high = (1, 250) if spec.dtype == "uint8" else (1000, 4000)
    pixels = np.random.default_rng(seed).integers(low, high, (len(spec.bands), size, size)).astype(spec.dtype)
    tags = {"GEOGRAFT_SENSOR": sensor}
    grid = chip_geobox(32632, 5e5, 5e6, gsd=gsd, size=size)
    write_cog(path, pixels, grid, band_names=spec.bands, tags=tags, nodata=spec.nodata)
    return pixels


def test_a_chip_of_a_cog_takes_at_most_four_requests_and_its_neighbour_at_most_one_more(tmp_path, file_server):
    pixels = write(tmp_path / "a.tif", size=2048)
    scene = open_scene(f"{file_server.url}/a.tif")
    assert len(file_server.asked) <= 2  # the size, and the header in one range
    found = read(scene, chip(300, 300))
    assert np.array_equal(found.pixels, pixels[:, 300:524, 300:524])
    assert len(file_server.asked) <= 4
    before = len(file_server.asked)
    assert np.array_equal(read(scene, chip(520, 300)).pixels, pixels[:, 300:524, 520:744])
    assert len(file_server.asked) - before <= 1
    warped = read(scene, shift(chip(400, 310), 0.5))
    assert warped.valid.all()
    assert len(file_server.asked) - before <= 1
    assert {path for _, path, _ in file_server.asked} == {"/a.tif"}


def test_no_side_file_is_looked_for_on_a_server(tmp_path, file_server):
    write(tmp_path / "a.tif")
    write(tmp_path / "a_clouds.tif", sensor="rgb")
    scene = open_scene(f"{file_server.url}/a.tif")
    assert cloud_share(scene, chip(0, 0)) == 0
    assert {path for _, path, _ in file_server.asked} == {"/a.tif"}


def test_bands_in_several_remote_files_are_opened_once_each(tmp_path, file_server):
    for k, band in enumerate(BANDS):
        pixels = np.full((1, 512, 512), 10 * k + 5, np.uint8)
        write_cog(tmp_path / f"{band}.tif", pixels, chip_geobox(32632, 5e5, 5e6, gsd=1, size=512))
    files = {band: f"{file_server.url}/{band}.tif" for band in BANDS}
    scene = open_assets(f"{file_server.url}/item.json", files, "naip")
    for left in (0, 200):
        assert read(scene, chip(left, 10)).pixels[:, 3, 3].tolist() == [5, 15, 25, 35]
    heads = [path for method, path, _ in file_server.asked if method == "HEAD"]
    assert sorted(heads) == sorted(f"/{band}.tif" for band in BANDS)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_for_a_moment_is_asked_again(tmp_path, file_server, status):
    pixels = write(tmp_path / f"busy{status}.tif")
    file_server.failing = [status, status]
    scene = open_scene(f"{file_server.url}/busy{status}.tif")
    file_server.failing = [status]
    assert np.array_equal(read(scene, chip(30, 30)).pixels, pixels[:, 30:254, 30:254])


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, r"refuses .*\(403\).*signer"),
        (401, r"refuses .*\(401\).*signer"),
        (404, r"nothing at .*\(404\)"),
        (429, "answered 429 .* try again later"),
        (503, "answered 503 .* try again later"),
        (500, "answered 500 .* try again later"),
    ],
)
def test_a_refusal_is_said_in_words_at_opening_and_while_reading(tmp_path, file_server, status, said):
    write(tmp_path / f"{status}.tif")
    scene = open_scene(f"{file_server.url}/{status}.tif")
    file_server.refuse = lambda _: status
    for box in (chip(500, 500), shift(chip(600, 600), 0.5)):
        with pytest.raises(UnreadableScene, match=said) as caught:
            read(scene, box)
        assert isinstance(caught.value, UnreachableScene) == (status in remote.BUSY)
    with pytest.raises(UnreadableScene, match=said):
        open_scene(f"{file_server.url}/other-{status}.tif", sensor="naip")
    asked = len([path for _, path, _ in file_server.asked if path == f"/other-{status}.tif"])
    assert asked == (4 if status in remote.BUSY else 1)


def test_a_server_that_is_too_slow_is_named_in_bounded_time(tmp_path, file_server, monkeypatch):
    write(tmp_path / "slow.tif")
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "1")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.2)
    file_server.delay = 3
    with pytest.raises(UnreachableScene, match=r"too slowly|does not answer"):
        open_scene(f"{file_server.url}/slow.tif", sensor="naip")
    file_server.delay = 0


def test_a_silent_address_is_named_and_a_page_is_no_raster(tmp_path, file_server):
    with pytest.raises(UnreadableScene, match="does not answer"):
        open_scene("http://127.0.0.1:9/a.tif", sensor="naip")
    (tmp_path / "page.tif").write_text("<html>please log in</html>")
    with pytest.raises(UnreadableScene, match="cannot be read as a raster"):
        open_scene(f"{file_server.url}/page.tif", sensor="naip")


def test_the_options_are_those_of_the_user_where_he_sets_them(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "7")
    with rasterio.Env(VSI_CACHE="FALSE"), remote.environment("https://example.org/a.tif"):
        active = rasterio.env.getenv()
    assert "GDAL_HTTP_TIMEOUT" not in active
    assert active["VSI_CACHE"] == "FALSE"
    assert active["GDAL_DISABLE_READDIR_ON_OPEN"] == "EMPTY_DIR"


def test_local_files_keep_their_side_files():
    with remote.environment("/data/a.tif"):
        assert not rasterio.env.hasenv() or "GDAL_DISABLE_READDIR_ON_OPEN" not in rasterio.env.getenv()


def test_bytes_are_fetched_politely(tmp_path, file_server, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    (tmp_path / "a.bin").write_bytes(b"abc")
    file_server.failing = [503, 429]
    assert remote.fetch(f"{file_server.url}/a.bin") == b"abc"
    assert [wait for wait in waits if wait] == [remote.DELAY_S, 2 * remote.DELAY_S]
    assert remote.fetch(f"{file_server.url}/none.bin") is None
    with pytest.raises(MissingInput):
        remote.get(f"{file_server.url}/none.bin")
    file_server.failing = [503] * 4
    with pytest.raises(UnreadableScene, match="503"):
        remote.fetch(f"{file_server.url}/a.bin")


@pytest.mark.parametrize(
    ("stated", "attempt", "seconds"),
    [("3", 0, 3), (None, 2, 4 * remote.DELAY_S), ("soon", 0, remote.DELAY_S), ("9999", 0, remote.LONGEST_WAIT_S)],
)
def test_a_server_says_how_long_to_wait_within_reason(stated, attempt, seconds):
    assert remote._wait(stated, attempt) == seconds
    assert remote._wait("Wed, 21 Oct 2015 07:28:00 GMT", 0) == 0
