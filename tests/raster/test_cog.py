import xml.etree.ElementTree as ET

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from geograft.errors import BadSetting
from geograft.raster import open_scene, read, write_cog

RNG = np.random.default_rng(0)
BANDS = ("red", "green", "blue", "nir")


def grid(height=300, width=520, gsd=1.0):
    return GeoBox((height, width), Affine(gsd, 0, 500_000, 0, -gsd, 5_000_000), "EPSG:32632")


def test_pixels_names_tags_and_place_come_back(tmp_path):
    pixels = RNG.integers(0, 255, (4, 300, 520), np.uint8)
    tags = {"GEOGRAFT_SENSOR": "world-1m", "TIFFTAG_DATETIME": "2024:07:01 10:30:00"}
    path = write_cog(tmp_path / "scene.tif", pixels, grid(), band_names=BANDS, tags=tags)
    scene = open_scene(path)
    assert scene.sensor.name == "world-1m"
    assert scene.taken.isoformat() == "2024-07-01T10:30:00+00:00"
    assert scene.geobox == grid()
    assert np.array_equal(read(scene, scene.geobox).pixels, pixels)


def test_the_file_is_a_cog_with_small_zstd_blocks_and_overviews(tmp_path):
    path = write_cog(tmp_path / "scene.tif", RNG.integers(0, 255, (4, 300, 520), np.uint8), grid(), band_names=BANDS)
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.compression.name == "zstd"
        assert file.block_shapes == [(256, 256)] * 4
        assert file.overviews(1)
        assert [colour.name for colour in file.colorinterp] == ["red", "green", "blue", "undefined"]


def test_scale_offset_and_nodata_are_stated(tmp_path):
    pixels = RNG.integers(1000, 3000, (5, 64, 64)).astype(np.uint16)
    names = ("blue", "green", "red", "nir", "swir")
    path = write_cog(
        tmp_path / "s.tif", pixels, grid(64, 64, 10.0), nodata=0, band_names=names, scale=0.0001, offset=-0.1
    )
    with rasterio.open(path) as file:
        assert (file.nodata, file.scales[4], file.offsets[4]) == (0, 0.0001, -0.1)
    assert open_scene(path).sensor.name == "world-10m"


def test_classes_carry_colours_and_names_for_qgis(tmp_path):
    classes = RNG.integers(0, 3, (300, 520)).astype(np.uint8)
    path = write_cog(
        tmp_path / "classes.tif",
        classes,
        grid(),
        nodata=0,
        colours={1: (38, 102, 173), 2: (28, 98, 48)},
        categories={1: "lake", 2: "forest & <scrub>"},
    )
    with rasterio.open(path) as file:
        assert file.colormap(1)[2] == (28, 98, 48, 255)
        assert np.array_equal(file.read(1), classes)
        assert set(np.unique(file.read(1, out_shape=(75, 130)))) <= {0, 1, 2}
    names = [node.text or "" for node in ET.parse(f"{path}.aux.xml").iter("Category")]
    assert names == ["", "lake", "forest & <scrub>"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["classes.tif", "classes.tif.aux.xml"]


def test_a_file_written_anew_without_classes_loses_the_old_names(tmp_path):
    path = tmp_path / "a.tif"
    write_cog(path, np.ones((64, 64), np.uint8), grid(64, 64), categories={1: "lake"})
    write_cog(path, np.ones((64, 64), np.uint8), grid(64, 64))
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((4, 64, 63), {}),
        ((4, 64, 64), {"band_names": ("red",)}),
        ((4, 64, 64), {"colours": {1: (0, 0, 0)}}),
    ],
)
def test_what_does_not_fit_together_is_refused_and_leaves_nothing(tmp_path, shape, options):
    with pytest.raises(BadSetting):
        write_cog(tmp_path / "a.tif", np.zeros(shape, np.uint8), grid(64, 64), **options)
    assert list(tmp_path.iterdir()) == []


def test_the_same_array_gives_the_same_bytes(tmp_path):
    pixels = RNG.integers(0, 255, (4, 300, 520), np.uint8)
    first, second = (write_cog(tmp_path / name, pixels, grid(), band_names=BANDS) for name in ("a.tif", "b.tif"))
    assert first.read_bytes() == second.read_bytes()
