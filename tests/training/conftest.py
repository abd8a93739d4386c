"""A tiny simulated region as files, its pairs for both sensors, and a tiny teacher: made once, by the real stages."""

import pytest
import torch

from geograft.pairs.plan import PairSettings, make_pairs
from geograft.sources.photos import read_photos
from geograft.sources.scenes import read_scenes
from geograft.training.teacher import TeacherSettings, train_teacher
from geograft.world.region import RegionSettings, make_region

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def region(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "region"
    make_region(folder, seed=1, settings=RegionSettings(size=400, photos=120))
    return folder


@pytest.fixture(scope="session")
def tiny_teacher(region, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "tiny"
    shape = TeacherSettings(width=32, depth=1, heads=2, text_width=32, text_depth=1, dim=16, epochs=1, batch=32)
    return train_teacher([region], folder, settings=shape)


@pytest.fixture(scope="session")
def pairs(region, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    read_photos(region / "photos.csv", folder / "photos.parquet")
    read_scenes(region / "scenes", folder / "scenes.parquet", sensor="world-1m")
    settings = PairSettings(fractions=(0.7, 0.3, 0.0), block_m=64, buffer_m=0)
    make_pairs(folder / "photos.parquet", folder / "scenes.parquet", folder / "pairs", settings=settings)
    return folder / "pairs"
