import http.server
import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geograft.errors import BadSetting, MissingInput, SensorMismatch, UnknownSensor, UnreadableScene
from geograft.raster import open_scene, read, remote, tiles, utm_geobox
from geograft.raster.tiles import TileSource, find_tiles, is_tiles, list_tiles, read_tiles, tile_square, tiles_geobox

ZOOM, X, Y = 15, 30145, 19663


def gradient(x, y):
    """A picture whose red grows eastward and green southward over neighbouring tiles, blue by tile."""
    across = np.arange(256, dtype=float) / 256
    red, green = np.meshgrid((x - X + across) * 60 + 20, (y - Y + across) * 60 + 20)
    return np.stack([red, green, np.full_like(red, 40 * (x - X) + 20 * (y - Y))], -1).astype(np.uint8)


@pytest.fixture
def tile_folder(tmp_path):
    for x in range(X, X + 3):
        for y in range(Y, Y + 2):
            path = tmp_path / "tiles" / str(ZOOM) / str(x) / f"{y}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(gradient(x, y)).save(path)
    return tmp_path / "tiles"


@pytest.mark.parametrize("name", ["", "/15", "/15/{x}/{y}.png", "/{z}/{x}/{y}.png"])
def test_a_folder_and_its_templates_name_the_same_tiles(tile_folder, name):
    source = find_tiles(f"{tile_folder}{name}")
    assert is_tiles(f"{tile_folder}{name}")
    assert (source.zoom, source.size, source.remote) == (ZOOM, 256, False)
    assert list_tiles(source) == tuple((x, y) for x in range(X, X + 3) for y in range(Y, Y + 2))
    assert tiles_geobox(source).shape == (512, 768)


def test_the_grid_of_tile_zero_is_the_whole_world():
    box = TileSource("t/0/{x}/{y}.png", 0).geobox(0, 0)
    assert np.allclose(box.boundingbox, [-tiles.EDGE, -tiles.EDGE, tiles.EDGE, tiles.EDGE])


def test_a_grid_over_a_seam_is_read_without_resampling(tile_folder):
    source = find_tiles(tile_folder)
    pixels, valid = read_tiles(source, tiles_geobox(source)[200:300, 230:290])
    whole = np.hstack([gradient(X, Y), gradient(X + 1, Y)])
    below = np.hstack([gradient(X, Y + 1), gradient(X + 1, Y + 1)])
    expected = np.vstack([whole, below])[200:300, 230:290]
    assert valid.all()
    assert np.array_equal(pixels.transpose(1, 2, 0), expected)


def test_a_metric_grid_reads_the_colours_of_its_places(tile_folder):
    scene = open_scene(tile_folder, sensor="map-tiles")
    lon, lat = scene.geobox.geographic_extent.centroid.coords[0]
    box = utm_geobox(lon, lat, gsd=4.0, size=64)
    found = read(scene, box)
    assert found.valid.all()
    for row, col in ((10, 12), (50, 30)):
        place = box[row : row + 1, col : col + 1].footprint("EPSG:3857").centroid.coords[0]
        column, line = ~scene.geobox.affine @ place
        assert found.pixels[0, row, col] == pytest.approx(20 + 60 * column / 256, abs=1.5)
        assert found.pixels[1, row, col] == pytest.approx(20 + 60 * line / 256, abs=1.5)


def test_pixels_of_missing_tiles_are_invalid(tile_folder):
    source = find_tiles(tile_folder)
    (tile_folder / str(ZOOM) / str(X + 1) / f"{Y}.png").unlink()
    pixels, valid = read_tiles(source, tiles_geobox(source)[0:256, 128:640])
    assert valid[:, :128].all()
    assert not valid[:, 128:384].any()
    assert valid[:, 384:].all()
    assert (pixels[:, ~valid] == 0).all()


def test_a_damaged_tile_is_left_out_with_a_note(tile_folder, caplog):
    (tile_folder / str(ZOOM) / str(X) / f"{Y}.png").write_bytes(b"<html>sorry</html>")
    source = TileSource(str(tile_folder / str(ZOOM) / "{x}" / "{y}.png"), ZOOM)
    _, valid = read_tiles(source, source.geobox(X, Y))
    assert not valid.any()
    assert "cannot be decoded" in caplog.text


def test_neighbouring_reads_decode_a_tile_once(tile_folder):
    source = find_tiles(tile_folder)
    tiles._tile.cache_clear()
    box = tiles_geobox(source)
    for left in (10, 20, 30):
        read_tiles(source, box[20:60, left : left + 40])
    assert tiles._tile.cache_info().misses == 1


def test_the_outline_of_a_tile_is_its_grid_in_degrees():
    source = TileSource("t/15/{x}/{y}.png", ZOOM)
    expected = source.geobox(X, Y).geographic_extent.boundingbox
    assert np.allclose(tile_square(source, X, Y).bounds, expected, atol=1e-9)


def test_a_grid_of_too_many_tiles_is_refused():
    with pytest.raises(BadSetting, match="lower zoom"):
        read_tiles(TileSource("t/15/{x}/{y}.png", ZOOM), utm_geobox(151, -33, gsd=100, size=2000))


def test_wrong_sources_are_named(tmp_path, tile_folder):
    with pytest.raises(MissingInput):
        find_tiles(tmp_path / "nothing" / "15" / "{x}" / "{y}.png")
    with pytest.raises(BadSetting, match="http"):
        find_tiles("ftp://host/{z}/{x}/{y}.png", 3)
    with pytest.raises(BadSetting, match="zoom"):
        find_tiles("https://host/{z}/{x}/{y}.png")
    with pytest.raises(UnknownSensor, match="--sensor"):
        open_scene(tile_folder)
    with pytest.raises(SensorMismatch):
        open_scene(tile_folder, sensor="naip")


class _Handler(http.server.BaseHTTPRequestHandler):
    """Tiles of one x; 404 for the next, 503 beyond."""

    asked: list[str]

    def do_GET(self):
        type(self).asked.append(self.path)
        x = int(self.path.split("/")[2])
        self.send_response(200 if x == X else 404 if x < X + 5 else 503)
        self.end_headers()
        if x == X:
            buffer = io.BytesIO()
            Image.fromarray(gradient(X, int(Path(self.path).stem))).save(buffer, "PNG")
            self.wfile.write(buffer.getvalue())

    def log_message(self, *args):
        """Stay quiet."""


@pytest.fixture
def tile_server(monkeypatch):
    monkeypatch.setattr(remote, "DELAY_S", 0.01)
    handler = type("Handler", (_Handler,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{{z}}/{{x}}/{{y}}.png", handler.asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_gives_the_tiles_it_has_and_is_asked_once_for_each(tile_server):
    template, asked = tile_server
    scene = open_scene(template, sensor="map-tiles", zoom=ZOOM)
    box = scene.tiles.geobox(X, Y, 2, 1)[100:130, 200:300]
    first, second = read(scene, box), read(scene, box)
    assert first.valid[:, :56].all()
    assert not first.valid[:, 56:].any()
    assert np.array_equal(first.pixels[:, :, :56].transpose(1, 2, 0), gradient(X, Y)[100:130, 200:])
    assert np.array_equal(first.pixels, second.pixels)
    assert sorted(asked) == [f"/{ZOOM}/{X}/{Y}.png", f"/{ZOOM}/{X + 1}/{Y}.png"]


def test_a_failing_server_is_named_not_taken_for_a_missing_tile(tile_server):
    scene = open_scene(tile_server[0], sensor="map-tiles", zoom=ZOOM)
    with pytest.raises(UnreadableScene, match="503"):
        read(scene, scene.tiles.geobox(X + 9, Y)[10:20, 10:20])


def test_a_silent_address_is_named():
    scene = open_scene("http://127.0.0.1:9/{z}/{x}/{y}.png", sensor="map-tiles", zoom=ZOOM)
    with pytest.raises(UnreadableScene, match="does not answer"):
        read(scene, scene.tiles.geobox(X, Y)[10:20, 10:20])


@pytest.mark.shared
def test_the_real_map_tiles_cover_a_photo_of_the_walks(shared_data):
    scene = open_scene(shared_data / "walks" / "tiles", sensor="map-tiles")
    found = read(scene, utm_geobox(151.72014, -32.93359, gsd=4.0, size=128))
    assert scene.gsd == pytest.approx(4.0, abs=0.05)
    assert found.valid.all()
    assert found.pixels.std() > 10
