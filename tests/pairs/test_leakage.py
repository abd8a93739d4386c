import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geograft.errors import MissingInput
from geograft.pairs.grid import corners
from geograft.pairs.leakage import leakage, write_leakage
from geograft.pairs.plan import PairSettings, make_pairs
from geograft.pairs.publishing.nearness import beside_others, nearest_of_other_kind
from geograft.pairs.publishing.overlaps import Footprints, overlaps
from geograft.raster.grids import to_crs
from geograft.tables import Manifest, read_table, write_manifest, write_table

SMALL = PairSettings(chip_size=32, block_m=96, buffer_m=16, fractions=(0.6, 0.2, 0.2))


@pytest.fixture
def write_folder(tmp_path):
    """A factory of folders of pairs without pixels: chips by corner and split, one photo in each centre."""

    def write(left, top, splits, *, epsg=32632, side=64, scenes="s", split_by="blocks", photo_ids=None, **photo):
        count = len(left)
        chips = pd.DataFrame({
            "chip_id": [f"c{row:04d}" for row in range(count)], "epsg": epsg, "left": np.asarray(left, float),
            "top": np.asarray(top, float), "gsd": 1.0, "size": side, "split": splits, "scene_id": scenes, "photos": 1,
        })  # fmt: skip
        outline = corners(chips)
        ids = photo_ids or [f"p{row:04d}" for row in range(count)]
        pairs = pd.DataFrame({"chip_id": chips["chip_id"], "photo_id": ids, "col": side / 2, "row": side / 2})
        middle = outline.mean(axis=1)
        photos = pd.DataFrame({"photo_id": ids, "user": None, "place": None} | photo)
        photos["taken"] = pd.to_datetime(photo.get("taken", [None] * count), utc=True)
        points = gpd.GeoDataFrame(photos, geometry=gpd.points_from_xy((middle[:, 0] + 180) % 360 - 180, middle[:, 1]),
                                  crs=4326).drop_duplicates("photo_id")  # fmt: skip
        write_table(gpd.GeoDataFrame(chips, geometry=shapely.polygons(outline), crs=4326), tmp_path / "chips.parquet")
        write_table(pairs, tmp_path / "pairs.parquet")
        write_table(points, tmp_path / "photos.parquet")
        write_manifest(tmp_path / "manifest.json", Manifest("pairs", settings={"split": split_by}))
        return tmp_path

    return write


def test_chips_of_different_splits_that_share_ground_are_a_leak(write_folder):
    folder = write_folder([0, 50, 500], [5_000_000] * 3, ["train", "test", "test"])
    found = leakage(folder)
    assert (found.footprints, found.shared_ground) == (1, 1)
    assert found.leaks["footprints"] == 1
    assert not found.none


def test_chips_that_share_an_edge_share_no_ground(write_folder):
    assert leakage(write_folder([0, 64, 64], [5_000_000, 5_000_000, 4_999_936], ["train", "test", "validation"])).none


def test_overlap_within_a_split_is_no_leak(write_folder):
    assert leakage(write_folder([0, 10, 900], [5_000_000] * 3, ["train", "train", "test"])).none


def test_ground_of_two_scenes_shares_no_pixels(write_folder):
    found = leakage(write_folder([0, 10], [5_000_000] * 2, ["train", "test"], scenes=["a", "b"]))
    assert (found.footprints, found.shared_ground, found.scenes) == (1, 0, 0)


@pytest.mark.parametrize("lon", [12.0, -90.0, 102.0, 180.0])
def test_an_overlap_across_the_border_of_two_zones_is_found(write_folder, lon):
    west, east = (int(32600 + ((lon + step + 180) % 360) // 6 + 1) for step in (-0.1, 0.1))
    x, y = (np.array([to_crs(zone).transform(lon, 45.0) for zone in (west, east)])[:, axis] for axis in (0, 1))
    found = leakage(write_folder(x - 32, y + 32, ["train", "test"], epsg=np.array([west, east])))
    assert found.footprints == 1


def test_an_overlap_across_the_equator_is_found(write_folder):
    east, north = to_crs(32632).transform(9.0, 0.0)
    _, south = to_crs(32732).transform(9.0, 0.0)
    assert leakage(write_folder([east] * 2, [north + 32, south + 32], ["train", "test"],
                                epsg=np.array([32632, 32732]))).footprints == 1  # fmt: skip


def test_a_photo_in_chips_of_two_splits_is_a_leak(write_folder):
    found = leakage(write_folder([0, 500, 1000], [5e6] * 3, ["train", "test", "test"], photo_ids=["a", "a", "b"]))
    assert (found.photos, found.nearest_m) == (1, 0.0)
    assert not found.none


def test_a_users_minute_across_splits_is_a_leak_and_another_users_is_not(write_folder):
    times = ["2024-05-01T10:00:05Z", "2024-05-01T10:00:55Z", "2024-05-01T10:00:30Z", None]
    splits = ["train", "test", "validation", "test"]
    found = leakage(write_folder([0, 500, 1000, 1500], [5e6] * 4, splits, user=["u", "u", "v", "u"], taken=times))
    assert found.user_minutes == 1
    assert not found.none


def test_places_and_scenes_that_splits_share_are_counted_and_no_leak_of_blocks(write_folder):
    found = leakage(write_folder([0, 500], [5e6] * 2, ["train", "test"], place=["walk", "walk"]))
    assert (found.places, found.scenes) == (1, 1)
    assert found.none


def test_a_shared_scene_is_a_leak_where_the_split_is_by_scene(write_folder):
    found = leakage(write_folder([0, 500], [5e6] * 2, ["train", "test"], split_by="scene"))
    assert found.leaks["scenes"] == 1
    assert not found.none


def test_the_nearest_photos_of_two_splits_are_measured(write_folder):
    found = leakage(write_folder([0, 500, 620], [5e6] * 3, ["train", "train", "test"]))
    assert found.nearest_m == pytest.approx(120, rel=1e-2)


def test_one_split_has_nothing_to_leak_into(write_folder):
    found = leakage(write_folder([0, 10], [5e6] * 2, ["train", "train"]))
    assert found.none
    assert found.nearest_m == float("inf")


def test_identical_pixels_across_splits_are_a_leak_and_blank_ones_are_not(
    make_photos, make_ground, make_scene, tmp_path
):
    pixels = np.zeros((4, 400, 400), np.uint8)
    pixels[:] = 40
    patch = np.random.default_rng(0).integers(0, 255, (4, 64, 64))
    for column in (0, 200):
        pixels[:, 100:164, column : column + 64] = patch
    scenes = make_ground(400, pixels=pixels)
    photos = make_photos([32, 232, 32, 232], [132, 132, 332, 332], place=["a", "b", "a", "b"])
    settings_ = PairSettings(chip_size=32, split="place", fractions=(0.5, 0.0, 0.5), buffer_m=0)
    make_pairs(photos, scenes, tmp_path / "out", settings=settings_)
    found = leakage(tmp_path / "out")
    assert (found.identical, found.blank) == (1, 1)
    assert not found.none
    assert leakage(tmp_path / "out", pixels=False).none


def test_made_pairs_do_not_leak_and_their_report_is_the_same_twice(scattered, make_ground, tmp_path):
    make_pairs(scattered(300), make_ground(400), tmp_path / "out", settings=SMALL)
    path = write_leakage(tmp_path / "out")
    first = path.read_bytes()
    report = json.loads(first)
    assert report["none"] is True
    assert report["pixels"] is True
    assert 16 < report["nearest_m"] < 100
    assert write_leakage(tmp_path / "out").read_bytes() == first


def test_the_report_of_one_split_is_valid_json(write_folder):
    text = write_leakage(write_folder([0], [5e6], ["train"])).read_text()
    assert json.loads(text, parse_constant=pytest.fail)["nearest_m"] is None


def test_a_folder_without_pairs_is_named(tmp_path):
    with pytest.raises(MissingInput, match="holds no pairs"):
        leakage(tmp_path)


def test_moved_chips_are_found_in_made_pairs(scattered, make_ground, tmp_path):
    make_pairs(scattered(), make_ground(400), tmp_path / "out", settings=PairSettings(chip_size=32, split="none"))
    chips = read_table(tmp_path / "out" / "chips.parquet")
    write_table(
        chips.assign(split=np.where(np.arange(len(chips)) % 2, "train", "test")), tmp_path / "out/chips.parquet"
    )
    found = leakage(tmp_path / "out")
    assert found.footprints > 5
    assert found.photos > 5


squares = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(squares)
def test_overlaps_agree_with_a_double_loop(rows):
    x, y, split, scene = (np.array(values) for values in zip(*rows, strict=True))
    count = len(x)
    ground = Footprints(np.full(count, 32632), x.astype(float), y + 5e6, np.full(count, 48.0),
                        split.astype(np.uint8), scene.astype(np.int32))  # fmt: skip
    expected = [
        scene[one] == scene[other]
        for one in range(count)
        for other in range(one)
        if split[one] != split[other] and abs(x[one] - x[other]) < 48 and abs(y[one] - y[other]) < 48
    ]
    found = overlaps(ground)
    assert (found.count, found.same_scene) == (len(expected), sum(expected))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5), st.integers(0, 3)), min_size=1, max_size=40))
def test_mixed_cells_agree_with_a_double_loop(rows):
    x, y, kind = (np.array(values) for values in zip(*rows, strict=True))
    near = (abs(x[:, None] - x) <= 1) & (abs(y[:, None] - y) <= 1)
    by_kind = np.stack([(near & (kind == each)).any(axis=1) for each in range(4)])
    expected = by_kind.sum(axis=0) > 1
    assert (beside_others(x, y, kind.astype(np.uint8)) == expected).all()


def test_the_nearest_distance_among_many_points_is_exact(monkeypatch):
    monkeypatch.setattr("geograft.pairs.publishing.nearness._FEW", 500)
    monkeypatch.setattr("geograft.pairs.publishing.nearness._SAMPLE", 50)
    rng = np.random.default_rng(3)
    lon, lat = rng.uniform(-180, 180, 4000), rng.uniform(-70, 70, 4000)
    kinds = rng.integers(0, 3, 4000).astype(np.uint8)
    north, east = np.radians(lat), np.radians(lon)
    unit = np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], 1)
    chord = 6_371_008.8 * np.linalg.norm(unit[:, None] - unit[None], axis=-1)
    expected = chord[kinds[:, None] != kinds].min()
    assert nearest_of_other_kind(lon, lat, kinds) == pytest.approx(expected, rel=1e-9)
