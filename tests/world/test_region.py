import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import rasterio

from geograft.errors import BadSetting, OutputExists
from geograft.raster import open_scene
from geograft.sources.photos import read_photos
from geograft.tables import read_table
from geograft.world import region
from geograft.world.classes import BY_ID
from geograft.world.region import SUMMER, WORLD_1, RegionSettings, make_region

SMALL = RegionSettings(size=400, photos=120, dates=(SUMMER,))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "region"
    return make_region(folder, seed=7, settings=SMALL)


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in {".jpg", ".csv", ".jsonl", ".tif"}
    }


def test_a_region_holds_what_real_data_would_and_the_truth_apart(made):
    names = {str(path.relative_to(made.folder)) for path in made.folder.rglob("*")}
    assert {
        "region.json", "manifest.json", "photos.csv", "photos/w7-000000.jpg", "scenes/world-1m_2022-06-24.tif",
        "scenes/world-10m_2022-06-24.tif", "scenes/world-10m_2022-09-19.tif", "scenes/world-10m_2022-09-19_clouds.tif",
        "truth/classes.tif", "truth/objects.parquet", "truth/photos.parquet", "truth/captions.jsonl",
    } <= names  # fmt: skip
    assert made.photos == 120


def test_scenes_open_with_their_sensor_date_and_grid(made):
    for name, gsd in (("world-1m", 1), ("world-10m", 10)):
        scene = open_scene(made.folder / "scenes" / f"{name}_2022-06-24.tif")
        assert scene.sensor.name == name
        assert scene.geobox.crs.epsg == made.epsg
        assert scene.geobox.shape == (400 // gsd, 400 // gsd)
        assert f"{scene.taken:%Y-%m-%d}" == "2022-06-24"


def test_both_sensors_and_the_truth_cover_the_same_ground(made):
    bounds = []
    for name in ("scenes/world-1m_2022-06-24.tif", "scenes/world-10m_2022-06-24.tif", "truth/classes.tif"):
        with rasterio.open(made.folder / name) as file:
            bounds.append(tuple(file.bounds))
    assert bounds[0] == bounds[1] == bounds[2]


def test_the_truth_raster_names_and_colours_its_classes(made):
    with rasterio.open(made.folder / "truth" / "classes.tif") as file:
        cover, colours = file.read(1), file.colormap(1)
    present = np.unique(cover)
    assert len(present) == made.classes
    assert all(colours[c][:3] == BY_ID[c].colour for c in present.tolist())


def test_photos_read_back_lie_where_they_were_taken(made, tmp_path):
    read_photos(made.folder / "photos.csv", tmp_path / "photos.parquet")
    photos = read_table(tmp_path / "photos.parquet").set_index("photo_id")
    truth = read_table(made.folder / "truth" / "photos.parquet").set_index("photo_id")
    clean = truth.index[truth["dirt"] == ""].intersection(photos.index)
    assert len(clean) > 80
    stated, true = (t.loc[clean].geometry.to_crs(made.epsg) for t in (photos, truth))
    assert 4 < stated.distance(true).median() < 14


def test_truth_says_what_every_photo_shows(made):
    truth = read_table(made.folder / "truth" / "photos.parquet")
    seen = np.stack(truth["seen"].to_numpy())
    indoor = (truth["dirt"] == "indoor").to_numpy()
    assert indoor.any()
    assert (seen[indoor] == 0).all()
    np.testing.assert_allclose(seen[~indoor].sum(axis=1), 1, atol=1e-4)


def test_every_photo_has_captions(made):
    lines = [json.loads(line) for line in (made.folder / "truth" / "captions.jsonl").read_text().splitlines()]
    assert [line["photo_id"] for line in lines] == pd.read_csv(made.folder / "photos.csv")["id"].tolist()
    assert all(len(line["captions"]) >= 3 for line in lines)


def test_the_same_seed_gives_the_same_bytes(made, tmp_path):
    again = make_region(tmp_path / "again", seed=7, settings=SMALL)
    assert digests(again.folder) == digests(made.folder)


def test_another_seed_lies_elsewhere(made, tmp_path):
    other = make_region(tmp_path / "other", seed=8, settings=RegionSettings(size=300, photos=10, sensors=()))
    first, second = (pd.read_csv(f / "photos.csv") for f in (made.folder, other.folder))
    assert not set(first["id"]) & set(second["id"])
    assert (
        np.hypot(first["lat"].median() - second["lat"].median(), first["lon"].median() - second["lon"].median()) > 0.3
    )


def test_a_finished_region_is_kept(made, monkeypatch):
    monkeypatch.setattr(region, "make_land", lambda *_: pytest.fail("the land was made again"))
    again = make_region(made.folder, seed=7, settings=SMALL)
    assert again.seconds == 0
    assert (again.photos, again.scenes, again.dirt) == (made.photos, made.scenes, made.dirt)


def test_a_region_of_other_settings_is_not_overwritten(made):
    with pytest.raises(OutputExists, match="another folder"):
        make_region(made.folder, seed=7, settings=RegionSettings(size=400, photos=121, dates=(SUMMER,)))
    with pytest.raises(OutputExists):
        make_region(made.folder, seed=8, settings=SMALL)


def test_a_killed_run_is_made_again_cleanly(made, tmp_path, monkeypatch):
    folder = tmp_path / "region"
    with monkeypatch.context() as patch:
        patch.setattr(region, "_write_truth", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_region(folder, seed=7, settings=SMALL)
    assert not (folder / "region.json").exists()
    (folder / "photos" / "w7-999999.jpg").write_bytes(b"left by the killed run")
    (folder / "notes.txt").write_text("mine")
    assert digests(make_region(folder, seed=7, settings=SMALL).folder) == digests(made.folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_region_of_photos_only_has_no_scenes(tmp_path):
    made = make_region(tmp_path / "r", seed=9, settings=RegionSettings(size=300, photos=16, sensors=()))
    assert made.scenes == []
    assert not (made.folder / "scenes").exists()
    assert len(list((made.folder / "photos").iterdir())) == 16


def test_a_region_without_photos_can_be_made(tmp_path):
    made = make_region(tmp_path / "r", seed=9, settings=RegionSettings(size=300, photos=0, sensors=("world-10m",)))
    assert made.photos == 0
    assert len(made.scenes) == 3


def test_world_1_uses_no_seed_twice():
    seeds = [seed for group in WORLD_1.values() for seed in group]
    assert len(seeds) == len(set(seeds)) == 16
    assert set(WORLD_1) == {"teacher", "train", "validation", "test"}


@pytest.mark.parametrize(
    "wrong", [{"size": 100}, {"size": 1005}, {"photos": -1}, {"sensors": ("landsat",)}, {"dates": (SUMMER, SUMMER)}]
)
def test_settings_that_cannot_be_met_are_refused(wrong):
    with pytest.raises(BadSetting):
        RegionSettings(**wrong)


def test_nobody_s_own_files_are_removed(tmp_path):
    (tmp_path / "photos").mkdir()
    mine = tmp_path / "photos" / "holiday.jpg"
    mine.write_text("mine")
    with pytest.raises(OutputExists, match=r"holiday\.jpg"):
        make_region(tmp_path, seed=7, settings=RegionSettings(size=260, photos=0, sensors=()))
    assert mine.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
