import numpy as np
import pandas as pd
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geograft.errors import BadSetting, MissingInput
from geograft.raster import write_cog
from geograft.world.classes import BY_NAME
from geograft.world.labels import chip_label, truth_for_chips

FOREST, RIVER, RAILWAY = (BY_NAME[name].id for name in ("forest", "river", "railway"))


def chip_of(**shares):
    """A chip of 10 × 10 px with given numbers of pixels of each class, filled up with class 0."""
    flat = np.zeros(100, np.uint8)
    start = 0
    for name, count in shares.items():
        flat[start : start + count] = BY_NAME[name].id
        start += count
    return flat.reshape(1, 10, 10)


def test_a_class_must_fill_its_share():
    assert chip_label(chip_of(forest=50)).tolist() == [FOREST]
    assert chip_label(chip_of(forest=49)).tolist() == [0]
    assert chip_label(chip_of(railway=12)).tolist() == [RAILWAY]
    assert chip_label(chip_of(railway=11)).tolist() == [0]


def test_the_class_furthest_beyond_its_share_wins():
    assert chip_label(chip_of(forest=60, river=30)).tolist() == [RIVER]
    assert chip_label(chip_of(forest=75, river=25)).tolist() == [FOREST]


@pytest.fixture
def truth(tmp_path):
    cover = np.zeros((40, 60), np.uint8)
    cover[:20, :30], cover[20:, 30:] = FOREST, RIVER
    geobox = GeoBox(cover.shape, Affine(1, 0, 1000, 0, -1, 5000), "EPSG:32632")
    write_cog(tmp_path / "region" / "truth" / "classes.tif", cover, geobox, nodata=0)
    return tmp_path / "region"


def chips_at(*places, gsd=1, size=20, epsg=32632):
    left, top = zip(*places, strict=True)
    return pd.DataFrame(
        {
            "chip_id": [f"c{n}" for n in range(len(places))],
            "epsg": epsg,
            "left": left,
            "top": top,
            "gsd": gsd,
            "size": size,
        }
    )


def test_chips_get_the_truth_under_them(truth):
    found = truth_for_chips([truth], chips_at((1000, 5000), (1040, 4980), (1010, 4990)))
    assert found.labels.tolist() == [FOREST, RIVER, FOREST]
    assert (found.cover[0] == FOREST).all()
    assert (found.cover[2][:10] == FOREST).all()
    assert (found.cover[2][10:] == 0).all()


def test_beyond_the_edge_there_is_no_class(truth):
    found = truth_for_chips([truth], chips_at((990, 5000), (5000, 5000)))
    assert (found.cover[0][:, :10] == 0).all()
    assert (found.cover[0][:, 10:] == FOREST).all()
    assert not found.cover[1].any()


def test_a_region_of_another_zone_is_not_meant(truth):
    assert not truth_for_chips([truth], chips_at((1000, 5000), epsg=32631)).cover.any()


def test_a_coarse_pixel_shows_its_commonest_class(truth):
    found = truth_for_chips([truth], chips_at((1024, 5000), gsd=10, size=2))
    assert found.cover[0].tolist() == [[FOREST, 0], [FOREST, 0]]


def test_truth_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingInput, match=r"classes\.tif"):
        truth_for_chips([tmp_path], chips_at((0, 0)))


def test_half_metres_are_refused(truth):
    with pytest.raises(BadSetting, match="whole metres"):
        truth_for_chips([truth], chips_at((1000, 5000), gsd=0.5))
