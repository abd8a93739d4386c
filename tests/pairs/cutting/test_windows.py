import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geograft.errors import UnreadableScene
from geograft.pairs.cutting import windows as reading
from geograft.pairs.cutting.windows import Reader, offset, windows
from geograft.raster import Scene, chip_geobox, open_scene, read
from geograft.sensors import get_sensor

LEFT, TOP, EPSG = 500_000, 5_000_000, 32632


def box(right, down, size=32, epsg=EPSG, gsd=1.0):
    return chip_geobox(epsg, LEFT + right, TOP - down, gsd=gsd, size=size)


@pytest.fixture
def scene(make_scene):
    """A scene of 1200 m, so that windows of several blocks fit."""
    return open_scene(make_scene("big.tif", size=1200, nodata=0, tiled=True, blockxsize=256, blockysize=256))


def test_grids_have_pixels_in_common_only_at_whole_steps():
    here = box(0, 0)
    assert offset(here, box(7, 40)) == (40, 7)
    assert offset(here, box(-7, -40)) == (-40, -7)
    assert offset(here, box(0.5, 0)) is None
    assert offset(here, box(0, 0, gsd=2.0)) is None
    assert offset(here, box(0, 0, epsg=32633)) is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(-20, 1200), st.integers(-20, 500)), min_size=1, max_size=20))
def test_a_chip_out_of_a_window_is_that_which_is_read_alone(scene, places):
    boxes = [box(right, down, 64) for right, down in sorted(places)]
    reader = Reader()
    for window, rows in windows([scene] * len(boxes), boxes):
        reader.window = window
        for row in rows:
            found, alone = reader.read(scene, boxes[row]), read(scene, boxes[row])
            assert (found.pixels == alone.pixels).all()
            assert (found.valid == alone.valid).all()
            assert found.geobox == boxes[row]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), max_size=40), st.integers(1, 3))
def test_every_chip_is_in_one_run_and_no_window_wastes_many_blocks(places, kinds):
    boxes = [box(right, down, 224) for right, down in places]
    grid = chip_geobox(EPSG, LEFT, TOP, gsd=1.0, size=6000)
    scenes = [Scene(f"{row % kinds}.tif", grid, get_sensor("world-1m")) for row in range(kinds)]
    found = list(windows([scenes[row % kinds] for row in range(len(boxes))], boxes))
    assert [row for _, rows in found for row in rows] == list(range(len(boxes)))
    for window, rows in found:
        assert (window is None) == (len(rows) == 1)
        if window is None:
            continue
        blocks = {
            (row, column)
            for right, down in (places[row] for row in rows)
            for row in range(down // 256, (down + 223) // 256 + 1)
            for column in range(right // 256, (right + 223) // 256 + 1)
        }
        tall, wide = (max(each) - min(each) + 1 for each in zip(*blocks, strict=True))
        assert tall * wide <= reading.WASTE * len(blocks)
        assert max(tall, wide) <= reading.WIDEST
        assert len({row % kinds for row in rows}) == 1


def test_neighbours_share_a_window_and_chips_off_the_pixels_do_not(scene):
    near = [box(0, 0, 200), box(100, 20, 200), box(150, 50, 200)]
    ((window, rows),) = windows([scene] * 3, near)
    assert rows == [0, 1, 2]
    assert window.boxes == near
    assert [rows for _, rows in windows([scene] * 2, [near[0], box(100.5, 20, 200)])] == [[0], [1]]
    assert [rows for _, rows in windows([scene, None], near[:2])] == [[0], [1]]


def test_neighbours_cost_one_read(scene, monkeypatch):
    boxes = [box(0, 0, 200), box(100, 20, 200), box(150, 50, 200)]
    seen = []
    monkeypatch.setattr(reading, "read", lambda scene, grid: seen.append(grid) or read(scene, grid))
    reader = Reader()
    ((reader.window, _),) = windows([scene] * 3, boxes)
    for each in boxes:
        reader.read(scene, each)
    assert [tuple(grid.shape) for grid in seen] == [(250, 350)]


def test_a_damaged_block_spoils_only_the_chips_on_it(make_scene):
    path = make_scene("damaged.tif", size=768, tiled=True, blockxsize=256, blockysize=256, compress="deflate", nodata=0)
    with rasterio.open(path) as file:
        start = int(file.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[start : start + 100] = bytes(100)
    path.write_bytes(content)
    scene = open_scene(path)
    boxes = [box(right, down, 200) for down in range(0, 560, 100) for right in range(0, 560, 50)]

    def outcome(reader, each):
        try:
            return reader.read(scene, each).pixels.tobytes()
        except UnreadableScene:
            return None

    alone = [outcome(Reader(), each) for each in boxes]
    together, reader = [], Reader()
    for window, rows in windows([scene] * len(boxes), boxes):
        reader.window = window
        together += [outcome(reader, boxes[row]) for row in rows]
    assert together == alone
    assert None in alone
    assert any(alone)


def test_clouds_are_looked_for_only_where_a_scene_has_a_mask(make_scene, monkeypatch):
    clear = open_scene(make_scene("clear.tif"))
    hazy = open_scene(make_scene("hazy.tif"))
    make_scene(
        "hazy_clouds.tif", pixels=np.ones((1, 64, 64)), descriptions=None, transform=Affine(1, 0, LEFT, 0, -1, TOP)
    )
    reader = Reader()
    assert reader.cloud_share(hazy, box(0, 0)) == 1.0
    monkeypatch.setattr(reading, "cloud_share", None)
    assert reader.cloud_share(clear, box(0, 0)) == 0.0
