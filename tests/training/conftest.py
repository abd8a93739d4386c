"""A tiny simulated region as files, its pairs for both sensors, and a tiny teacher: made once, by the real stages."""

import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
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


@pytest.fixture(scope="session")
def coarse_pairs(region, pairs):
    """Pairs of the same photos with scenes of 10 m, whose chips of 8 px are 80 m wide."""
    folder = pairs.parent / "coarse"
    read_scenes(region / "scenes", folder / "scenes.parquet", sensor="world-10m")
    settings = PairSettings(chip_size=8, fractions=(0.6, 0.4, 0.0), block_m=80, buffer_m=0)
    make_pairs(pairs.parent / "photos.parquet", folder / "scenes.parquet", folder / "pairs", settings=settings)
    return folder / "pairs"


@pytest.fixture(scope="session")
def tagged_pairs(pairs, tmp_path_factory):
    """The pairs with words beside two of three photos, of which some are the same."""
    folder = tmp_path_factory.mktemp("tagged") / "pairs"
    shutil.copytree(pairs, folder)
    for path in (folder / "photos.parquet", folder / "plan" / "photos.parquet"):
        if path.is_file():
            table = pd.read_parquet(path)
            words = ["a field, a road", None, "a house"]
            pq.write_table(pa.table(table.assign(tags=[words[row % 3] for row in range(len(table))])), path)
    return folder
