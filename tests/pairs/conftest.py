"""Factories of photo and scene tables: small ground at a known place, written as the sources write them."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from affine import Affine
from PIL import Image

from geograft.models.teacher import Teacher
from geograft.pairs.grid import to_crs
from geograft.sources.scenes import read_scenes

LEFT, TOP, EPSG = 500_000, 5_000_000, 32632


def degrees(east, north, epsg=EPSG):
    """lon, lat of metric points."""
    return to_crs(epsg).transform(np.asarray(east, float), np.asarray(north, float), direction="INVERSE")


@pytest.fixture
def make_photos(tmp_path):
    """A factory of photo tables: offsets in metres right and down of the ground's corner, and any column."""

    def make(right, down, *, name="photos.parquet", ids=None, epsg=EPSG, corner=(LEFT, TOP), shuffle=None, **columns):
        lon, lat = degrees(corner[0] + np.asarray(right, float), corner[1] - np.asarray(down, float), epsg)
        count = len(lon)
        table = {
            "photo_id": ids if ids is not None else [f"p{row:05d}" for row in range(count)],
            "accuracy_m": 8.0,
            "heading_deg": 90.0,
            "fov_deg": 60.0,
            "taken": pd.Timestamp("2024-06-01T12:00", tz="UTC") + pd.to_timedelta(np.arange(count) * 7, "min"),
            "user": [f"u{row % 5}" for row in range(count)],
            "licence": "CC BY 4.0",
            "uri": [f"/nowhere/{row}.jpg" for row in range(count)],
            "place": None,
        }
        frame = gpd.GeoDataFrame(table | columns, geometry=gpd.points_from_xy(lon, lat), crs=4326)
        if shuffle is not None:
            frame = frame.sample(frac=1, random_state=shuffle)
        frame.to_parquet(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def make_ground(make_scene, tmp_path):
    """A factory of a scene table over one scene of `size` m at 1 m, or over scenes of several dates."""

    def make(
        size=400, *, name="scenes", dates=("2024-06-01",), sensor="world-1m", corner=(LEFT, TOP), crs=EPSG, **more
    ):
        for number, date in enumerate(dates):
            make_scene(
                f"{name}/{sensor}_{date}.tif",
                size=size,
                sensor=sensor,
                seed=number,
                crs=f"EPSG:{crs}",
                transform=Affine(1, 0, corner[0], 0, -1, corner[1]),
                **more,
            )
        read_scenes(tmp_path / name, tmp_path / f"{name}.parquet", sensor=sensor)
        return tmp_path / f"{name}.parquet"

    return make


@pytest.fixture
def scattered(make_photos):
    """A factory of photos thrown over the ground at random."""

    def make(count=150, size=400, seed=0, **more):
        right, down = np.random.default_rng(seed).uniform(0, size, (2, count))
        return make_photos(right, down, **more)

    return make


class ColourTeacher(Teacher):
    """Embeds photos by their mean colour; its texts are grey indoors and green outdoors."""

    name = "colour"
    fingerprint = "c0105"
    dim = 3

    def __init__(self):
        self.seen = 0

    def encode_photos(self, images):
        self.seen += len(images)
        means = np.array([np.asarray(image, float).mean(axis=(0, 1)) + 1 for image in images])
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)

    def encode_text(self, texts):
        grey = np.ones(3) / np.sqrt(3)
        words = ("indoors", "inside", "interior", "furniture")
        rows = [grey if any(word in text for word in words) else (0, 1, 0) for text in texts]
        return np.array(rows, np.float32)


@pytest.fixture
def teacher():
    """A teacher that needs no weights."""
    return ColourTeacher()


@pytest.fixture
def make_pictures(tmp_path):
    """A factory of small photo files of one colour each; gives their paths."""

    def make(colours):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        paths = [tmp_path / "pictures" / f"{row:04d}.png" for row in range(len(colours))]
        for path, colour in zip(paths, colours, strict=True):
            Image.new("RGB", (16, 12), colour).save(path)
        return [str(path) for path in paths]

    return make
