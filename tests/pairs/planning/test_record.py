import dataclasses

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely

from geograft.errors import OutputExists
from geograft.pairs.grid import Grid
from geograft.pairs.planning.intake import Photos
from geograft.pairs.planning.record import (
    Planned,
    above_zero,
    is_planned,
    plan_digest,
    plan_folder,
    read_summary,
    write_record,
)
from geograft.pairs.settings import PairSettings, Tally
from geograft.tables import read_manifest

DIGEST = "0123456789abcdef"


def photos_of(**other):
    """Three photos, some columns of them others."""
    usual = {
        "ids": ["a", "b", "c"],
        "lon": np.array([1.0, 2.0, 3.0]),
        "lat": np.array([4.0, 5.0, 6.0]),
        "taken": np.array([7, 8, 9]),
        "accuracy": np.float32([1, np.nan, 3]),
        "heading": np.float32([10, 20, np.nan]),
        "user": np.array([1, 0, 1], np.uint64),
        "place": np.int32([0, -1, 1]),
        "row": np.arange(3),
        "places": ("x", "y"),
    } | other
    return Photos(**(usual | {"ids": pa.array(usual["ids"], pa.large_string())}))


def scenes_of(**other):
    """A scene table of two rows, some columns of it others."""
    usual = {
        "scene_id": ["s", "t"],
        "uri": ["/s.tif", "/t.tif"],
        "taken": pd.to_datetime(["2024-01-01", None], utc=True),
        "cloud_share": [0.5, np.nan],
        "mask_uri": [None, "/t-mask.tif"],
    } | other
    shapes = usual.pop("geometry", [shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)])
    return gpd.GeoDataFrame(usual, geometry=shapes, crs=4326)


def test_the_same_tables_and_settings_have_the_same_digest():
    one = plan_digest(photos_of(), scenes_of(), PairSettings())
    assert one == plan_digest(photos_of(), scenes_of(), PairSettings())
    assert len(one) == 16
    assert int(one, 16) >= 0
    cut = photos_of(ids=["zero", "a", "b", "c"])
    cut = dataclasses.replace(cut, ids=cut.ids[1:])
    assert plan_digest(cut, scenes_of(), PairSettings()) == one, "however Arrow holds the ids"
    moved = photos_of(row=np.array([5, 3, 4]))
    assert plan_digest(moved, scenes_of(), PairSettings()) == one, "whatever the order of the tables' rows"


@pytest.mark.parametrize(
    "other",
    [
        {"ids": ["a", "b", "d"]},
        {"ids": ["a", "bc", ""]},
        {"lon": np.array([1.0, 2.0, 3.5])},
        {"lat": np.array([4.0, 5.0, 6.5])},
        {"taken": np.array([7, 8, 10])},
        {"accuracy": np.float32([1, 2, 3])},
        {"heading": np.float32([10, 20, 30])},
        {"user": np.array([1, 2, 1], np.uint64)},
        {"place": np.int32([0, -1, 0])},
        {"places": ("x", "z")},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_photos_have_another_digest(other):
    settings = PairSettings()
    assert plan_digest(photos_of(**other), scenes_of(), settings) != plan_digest(photos_of(), scenes_of(), settings)


@pytest.mark.parametrize(
    "other",
    [
        {"scene_id": ["s", "u"]},
        {"uri": ["/s.tif", "/u.tif"]},
        {"taken": pd.to_datetime(["2024-01-01", "2024-01-02"], utc=True)},
        {"cloud_share": [0.5, 0.0]},
        {"mask_uri": [None, "/other.tif"]},
        {"geometry": [shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1.5)]},
        {"assets": [None, '{"red": "r.tif"}']},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_scenes_have_another_digest(other):
    settings = PairSettings()
    assert plan_digest(photos_of(), scenes_of(**other), settings) != plan_digest(photos_of(), scenes_of(), settings)


OTHER_SETTINGS = {
    "chip_size": 65, "gsd": 2.0, "max_photos": 26, "seed": 1, "max_overlap": 0.5, "time_bin_days": 3.0,
    "max_gap_days": 3.0, "density_cap": 3, "density_km": 50.0, "split": "scene", "fractions": (0.7, 0.2, 0.1),
    "block_m": 100.0, "buffer_m": 1.0, "max_cloud": 0.5, "sensor": "naip", "indoor_teacher": "mini",
    "indoor_margin": 0.1, "encoding": "jpeg", "shard_mb": 1,
}  # fmt: skip


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(PairSettings)])
def test_other_settings_have_another_digest(field):
    other = PairSettings(**{field: OTHER_SETTINGS[field]})
    assert plan_digest(photos_of(), scenes_of(), other) != plan_digest(photos_of(), scenes_of(), PairSettings())


# --- claims -----------------------------------------------------------------------------------------------


def test_a_new_folder_is_claimed_for_one_plan(tmp_path):
    out = tmp_path / "out"
    assert not is_planned(out, DIGEST)
    assert not is_planned(out, DIGEST), "a run that was killed goes on"
    with pytest.raises(OutputExists, match="other tables or settings"):
        is_planned(out, "f" * 16)
    (plan_folder(out) / "manifest.json").write_text("{}")
    assert is_planned(out, DIGEST)
    with pytest.raises(OutputExists):
        is_planned(out, "f" * 16)


@pytest.mark.parametrize("name", ["manifest.json", "shards"])
def test_a_folder_that_holds_something_else_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(OutputExists, match="in use"):
        is_planned(tmp_path, DIGEST)
    assert not plan_folder(tmp_path).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"0123456789abcdef"'])
def test_a_claim_that_cannot_be_read_is_nobody_s(tmp_path, text):
    plan_folder(tmp_path).mkdir()
    (plan_folder(tmp_path) / "claim.json").write_text(text)
    with pytest.raises(OutputExists):
        is_planned(tmp_path, DIGEST)


def test_the_record_reads_back_as_the_summary(tmp_path):
    counts = {"chips": 3, "pairs": 7, "photos": 5, "shards": 2, "scenes": 4}
    splits, zones = {"train": 3, "validation": 0, "test": 0}, {"32632": {"photos": 9, "chips": 3}}
    made = Planned(DIGEST, "world-1m", Grid(64, 1.0), {"photos": [tmp_path / "p.parquet"]}, counts, splits, zones)
    tally = Tally()
    tally.photos.update({"no-scene": 4, "bad-position": 0})
    tally.chips.update({"split-buffer": 1})
    tally.about["indoor"] = {"margin": 0.5}
    write_record(plan_folder(tmp_path), made, PairSettings(seed=3), tally)
    summary = read_summary(tmp_path, plan_folder(tmp_path))
    assert (summary.chips, summary.pairs, summary.photos, summary.sensor) == (3, 7, 5, "world-1m")
    assert summary.splits == splits
    assert summary.skipped == {"no-scene": 4}
    assert summary.chips_dropped == {"split-buffer": 1}
    found = read_manifest(plan_folder(tmp_path))
    assert found.stage == "pairs plan"
    assert found.settings["seed"] == 3
    assert found.inputs == {"photos": [str(tmp_path / "p.parquet")]}
    assert {"plan": DIGEST, "shards": 2, "zones": zones, "indoor": {"margin": 0.5}}.items() <= found.extra.items()
    assert found.extra["split"]["block_m"] == 512


def test_counts_above_zero_come_in_alphabetical_order():
    assert list(above_zero({"b": 1, "c": 0, "a": 2}).items()) == [("a", 2), ("b", 1)]
