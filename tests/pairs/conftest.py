"""Factories of photo and scene tables: small ground at a known place, written as the sources write them."""

import shutil

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from affine import Affine
from PIL import Image

from geograft.geoparquet import geo_metadata, point_column, square_column
from geograft.models.teacher import Teacher
from geograft.pairs.grid import corners, to_crs
from geograft.pairs.materialise import materialise
from geograft.pairs.planning.photo_rows import COLUMNS, SCHEMA
from geograft.pairs.planning.plan_files import CHIPS, PAIRS
from geograft.sources.scenes import read_scenes
from geograft.tables import Manifest, write_manifest, write_table

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


SHOT = pd.Timestamp("2024-06-01T12:00", tz="UTC")


def write_groups(path, schema, groups):
    """A table with one row group a list of rows."""
    with pq.ParquetWriter(path, schema) as writer:
        for rows in groups:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


@pytest.fixture
def make_plan(tmp_path):
    """A factory of plans: chips by offsets right and down of the ground's corner, two photos each."""

    def make(scenes, chips, *, name="out", size=32, gsd=1.0, shard=8, digest="0123456789abcdef", uris=None, **settings):
        """Write a plan.

        Args:
            scenes: a scene table.
            chips: dicts: right, down (metres), or epsg, left, top; stacks, as (gap_days, [scene ids]); maybe
                chip_id, split, photos (ids).
        """
        out = tmp_path / name
        (out / "plan").mkdir(parents=True)
        table = gpd.read_parquet(scenes).sort_values("scene_id")
        write_table(table, out / "plan" / "scenes.parquet")
        rows = [plan_row(number, chip, size, gsd, table) for number, chip in enumerate(chips)]
        pairs = [plan_pairs(row, chip, number) for number, (row, chip) in enumerate(zip(rows, chips, strict=True))]
        cuts = range(0, len(rows), shard)
        write_groups(
            out / "plan" / "chips.parquet",
            CHIPS.with_metadata(geo_metadata("Polygon")),
            [rows[start : start + shard] for start in cuts],
        )
        write_groups(
            out / "plan" / "pairs.parquet",
            PAIRS,
            [[pair for some in pairs[start : start + shard] for pair in some] for start in cuts],
        )
        ids = sorted({pair["photo_id"] for some in pairs for pair in some})
        about = dict.fromkeys(COLUMNS) | {"accuracy_m": 8.0, "taken": SHOT, "user": "u", "licence": "CC BY 4.0"}
        about["geometry"] = point_column(np.array([9.0]), np.array([45.0]))[0].as_py()
        addresses = [f"/nowhere/{photo}.jpg" for photo in ids] if uris is None else uris[: len(ids)]
        listed = [about | {"photo_id": one, "uri": uri} for one, uri in zip(ids, addresses, strict=True)]
        pq.write_table(pa.Table.from_pylist(listed, schema=SCHEMA), out / "plan" / "photos.parquet")
        extra = {"plan": digest, "sensor": table["sensor"].iloc[0], "gsd": gsd, "chips_dropped": {"split-buffer": 3}}
        options = {"chip_size": size, "gsd": gsd, "max_cloud": 0.01, "encoding": "lossless"} | settings
        counts = {"done": len(ids), "skipped": {"no-scene": 2}, "failed": {}}
        manifest = Manifest("pairs plan", {"scenes": [str(scenes)]}, options, counts, extra=extra)
        write_manifest(out / "plan" / "manifest.json", manifest)
        return out

    return make


def plan_row(number, chip, size, gsd, scenes):
    """A row of the plan's chips."""
    left, top = chip.get("left", LEFT + chip.get("right", 0)), chip.get("top", TOP - chip.get("down", 0))
    row = {"epsg": chip.get("epsg", EPSG), "left": float(left), "top": float(top), "gsd": float(gsd), "size": size}
    stacks = chip.get("stacks") or [(0.0, [scenes["scene_id"].iloc[0]])]
    corner = corners(pd.DataFrame([row]))
    return {
        "chip_id": chip.get("chip_id", f"chip-{number:04d}"),
        **row,
        "split": chip.get("split", ("train", "train", "validation", "test")[number % 4]),
        "photos": len(chip.get("photos", "ab")),
        "stacks": [{"gap_days": gap, "scenes": names} for gap, names in stacks],
        "geometry": square_column(corner)[0].as_py(),
    }


def plan_pairs(row, chip, number):
    """The rows of the plan's pairs of a chip: its own photo and one that it shares with the next."""
    ids = chip.get("photos", [f"p{number:05d}", f"p{number + 1:05d}"])
    return [
        {
            "chip_id": row["chip_id"],
            "photo_id": photo,
            "col": 3.5 + place,
            "row": 4.25,
            "accuracy_m": 8.0,
            "heading_deg": None if place else 90.0,
            "taken": SHOT + pd.to_timedelta(number, "h"),
        }
        for place, photo in enumerate(ids)
    ]


@pytest.fixture
def grid_plan(make_ground, make_plan):
    """A factory of plans of chips side by side on one scene of 200 m."""

    def make(count=30, *, name="out", ground=200, **more):
        scenes = make_ground(ground, name=f"{name}-scenes")
        across = (ground - 32) // 28 + 1
        chips = [{"right": 28 * (row % across), "down": 28 * (row // across)} for row in range(count)]
        return make_plan(scenes, chips, name=name, **more)

    return make


@pytest.fixture(scope="session")
def kept_once(tmp_path_factory):
    """A folder that lasts for all tests."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def many_chips(make_ground, make_plan, kept_once, tmp_path):
    """Pairs of 60 chips of 32 m in four shards, thrown over 400 m; made once, and copied for each test."""
    if not (kept_once / "many").is_dir():
        places = np.random.default_rng(0).integers(0, 368, (60, 2)).tolist()
        plan = make_plan(make_ground(400), [{"right": x, "down": y} for x, y in places], name="pairs", shard=16)
        materialise(plan, workers=1)
        shutil.copytree(tmp_path, kept_once / "many")
    else:
        shutil.copytree(kept_once / "many", tmp_path, dirs_exist_ok=True)
    return tmp_path / "pairs"


@pytest.fixture
def narrow(many_chips):
    """The same, with four chips a row group of the shards."""
    for path in (many_chips / "shards").glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table, path, row_group_size=4)
    return many_chips
